// The pods that a policy and its peers are about, found once for a run.

import { indexPods, type PodIndex } from '../../model/findings/pod-index.ts'
import type { LabelSelector, Pod, Policy, PolicyPeer } from '../../model/network.ts'
import { selectorMatches } from '../../model/selector.ts'
import type { LintInput } from './check.ts'

const indexes = new WeakMap<object, PodIndex>()
const everything: LabelSelector = { matchLabels: {}, matchExpressions: [] }

export function podsOf(input: LintInput): PodIndex {
	let index = indexes.get(input.model)
	if (index === undefined) indexes.set(input.model, (index = indexPods(input.model.pods.values())))
	return index
}

export function subjectsOf(input: LintInput, policy: Policy): readonly Pod[] {
	return podsOf(input).select(policy.namespace, policy.subject)
}

/** By input, then by peer: several checks ask for the same. */
const found = new WeakMap<object, WeakMap<PolicyPeer, readonly Pod[]>>()

export function podsOfPeer(input: LintInput, policy: Policy, peer: PolicyPeer): readonly Pod[] {
	if (peer.kind === 'block') return []
	let known = found.get(input.model)
	if (known === undefined) found.set(input.model, (known = new WeakMap()))
	let pods = known.get(peer)
	if (pods === undefined) known.set(peer, (pods = select(input, policy, peer)))
	return pods
}

function select(input: LintInput, policy: Policy, peer: Extract<PolicyPeer, { kind: 'pods' }>): readonly Pod[] {
	const index = podsOf(input)
	const pods = peer.pods ?? everything
	if (peer.namespaces === undefined) return index.select(policy.namespace, pods)
	const { namespaces } = peer
	return [...input.model.namespaces.values()]
		.filter((namespace) => selectorMatches(namespaces, namespace.labels))
		.flatMap((namespace) => index.select(namespace.name, pods))
}
