// Peers that name somebody else than was meant.

import { cidrAddress, cidrContains, cidrLength } from '../../base/ip.ts'
import type { Finding } from '../../model/finding.ts'
import { nearNames } from '../../model/findings/nearest.ts'
import type { LabelSelector, Policy, PolicyPeer, PolicyRule } from '../../model/network.ts'
import { isNothing, selectorMatches, selectorText } from '../../model/selector.ts'
import type { LintInput } from './check.ts'
import { findingOrder } from './order.ts'
import { podsOf, podsOfPeer } from './select.ts'

export function* checkPeers(input: LintInput): Iterable<Finding> {
	for (const policy of findingOrder(input.model.policies.values())) {
		for (const rule of [...(policy.ingress ?? []), ...(policy.egress ?? [])]) {
			yield* checkEither(input, policy, rule)
			for (const peer of rule.peers) {
				yield* checkNamespaces(input, policy, peer)
				yield* checkOwnNamespace(input, policy, rule, peer)
				yield* checkPodAddresses(input, policy, peer)
			}
		}
	}
}

/** PW0045: no namespace has the labels. */
function* checkNamespaces({ model }: LintInput, policy: Policy, peer: PolicyPeer): Iterable<Finding> {
	if (peer.kind !== 'pods' || peer.namespaces === undefined) return
	const { namespaces } = peer
	if ([...model.namespaces.values()].some((n) => selectorMatches(namespaces, n.labels))) return
	yield {
		code: 'PW0045',
		severity: 'warning',
		text: `NetworkPolicy "${policy.key}" selects namespaces with ${selectorText(namespaces)}, and none has these labels${namespaceHint(model.namespaces.values(), namespaces)}`,
		because: [peer.origin],
	}
}

/** The value that a namespace has instead, or the name that every namespace carries as a label. */
function namespaceHint(
	all: Iterable<{ readonly name: string; readonly labels: Readonly<Record<string, string>> }>,
	selector: LabelSelector,
): string {
	const namespaces = [...all].sort((a, b) => (a.name < b.name ? -1 : 1))
	for (const [key, value] of Object.entries(selector.matchLabels)) {
		const values = namespaces.flatMap((n) =>
			n.labels[key] === undefined ? [] : [{ name: n.name, value: n.labels[key] }],
		)
		const near = nearNames(
			value,
			values.map((v) => v.value),
		)[0]
		const owner = values.find((v) => v.value === near)
		if (owner !== undefined && near !== undefined) return `: "${owner.name}" has ${key}=${near}`
		if (namespaces.some((n) => n.name === value))
			return `: namespace "${value}" is selected by kubernetes.io/metadata.name=${value}`
		if (values.length === 0) return `: no namespace has a label ${key}`
	}
	return ''
}

/** PW0046: `podSelector` alone means the policy's own namespace. */
function* checkOwnNamespace(input: LintInput, policy: Policy, rule: PolicyRule, peer: PolicyPeer): Iterable<Finding> {
	if (
		peer.kind !== 'pods' ||
		peer.namespaces !== undefined ||
		peer.pods === undefined ||
		isNothing(peer.pods) ||
		isEmpty(peer.pods)
	)
		return
	if (podsOfPeer(input, policy, peer).length > 0 || isHalf(input, policy, rule, peer)) return
	const elsewhere = podsOf(input).selectAnywhere(peer.pods)
	const first = elsewhere[0]
	if (first === undefined) return
	const places = [...new Set(elsewhere.map((pod) => pod.namespace))].sort()
	yield {
		code: 'PW0046',
		severity: 'warning',
		text: `NetworkPolicy "${policy.key}" names pods with ${selectorText(peer.pods)} without a namespace, which means "${policy.namespace}", where there are none; they are in ${places.map((p) => `"${p}"`).join(', ')}: add namespaceSelector with kubernetes.io/metadata.name=${places[0]} to the same list item`,
		because: [peer.origin],
	}
}

/** PW0047: two list items are "or", one item with both selectors is "and". */
function* checkEither(input: LintInput, policy: Policy, rule: PolicyRule): Iterable<Finding> {
	for (const peer of rule.peers) {
		if (peer.kind !== 'pods' || !isHalf(input, policy, rule, peer)) continue
		const whole = otherHalf(input, policy, rule, peer)!
		yield {
			code: 'PW0047',
			severity: 'warning',
			text: `NetworkPolicy "${policy.key}" allows all pods of namespaces with ${selectorText(whole.namespaces!)}, or pods with ${selectorText(peer.pods!)} of "${policy.namespace}", where there are none; for these pods of those namespaces write both selectors in one list item`,
			because: [peer.origin, whole.origin],
		}
	}
}

type PodsPeer = Extract<PolicyPeer, { kind: 'pods' }>

/** The item beside it that selects whole namespaces, where these pods are. */
function otherHalf(input: LintInput, policy: Policy, rule: PolicyRule, peer: PolicyPeer): PodsPeer | undefined {
	if (peer.kind !== 'pods' || peer.namespaces !== undefined || peer.pods === undefined || isEmpty(peer.pods))
		return undefined
	const { pods } = peer
	return rule.peers.find(
		(other): other is PodsPeer =>
			other.kind === 'pods' &&
			other.namespaces !== undefined &&
			other.pods === undefined &&
			!isEmpty(other.namespaces) &&
			podsOfPeer(input, policy, { ...other, pods }).length > 0,
	)
}

function isHalf(input: LintInput, policy: Policy, rule: PolicyRule, peer: PolicyPeer): boolean {
	return podsOfPeer(input, policy, peer).length === 0 && otherHalf(input, policy, rule, peer) !== undefined
}

function isEmpty(selector: LabelSelector): boolean {
	return Object.keys(selector.matchLabels).length === 0 && selector.matchExpressions.length === 0
}

/** PW0048: pods get other addresses when they are made anew. */
function* checkPodAddresses({ model }: LintInput, policy: Policy, peer: PolicyPeer): Iterable<Finding> {
	if (peer.kind !== 'block') return
	const network = model.config.podCidrs.find(
		(cidr) => cidrLength(cidr) < cidrLength(peer.cidr) && cidrContains(cidr, cidrAddress(peer.cidr)),
	)
	if (network === undefined) return
	const pods = [...model.pods.values()].filter(
		(pod) => !pod.hostNetwork && pod.ips.some((ip) => cidrContains(peer.cidr, ip)),
	).length
	yield {
		code: 'PW0048',
		severity: 'warning',
		text: `NetworkPolicy "${policy.key}" names ${peer.cidr}, a part of the pod network ${network} (${pods} pods now): which pods have these addresses changes; select them by labels`,
		because: [peer.origin],
	}
}
