// What no policy is about.

import type { Finding } from '../../model/finding.ts'
import { originOf } from '../../model/state.ts'
import type { Party } from '../parties.ts'
import type { LintInput } from './check.ts'
import { findingOrder } from './order.ts'
import { subjectsOf } from './select.ts'

/** Namespaces of the cluster itself: their policies come with whoever made the cluster. */
const systemNamespaces: ReadonlySet<string> = new Set(['kube-system', 'kube-public', 'kube-node-lease'])

export function* checkNamespaces(input: LintInput): Iterable<Finding> {
	const { state, reach } = input
	const namespaces = new Map<string, Party[]>()
	for (const party of input.parties) {
		if (systemNamespaces.has(party.namespace) || party.hostNetwork) continue
		namespaces.set(party.namespace, [...(namespaces.get(party.namespace) ?? []), party])
	}
	for (const [namespace, parties] of [...namespaces].sort(([a], [b]) => (a < b ? -1 : 1))) {
		const open = parties.filter((party) =>
			party.members.some((m) => m.kind === 'pods' && !reach.isSubject('ingress', m.class)),
		)
		if (open.length === 0) continue
		const names = open.slice(0, 5).map((p) => p.name.slice(namespace.length + 1))
		const list = `${names.join(', ')}${open.length > names.length ? ` and ${open.length - names.length} more` : ''}`
		if (open.length === parties.length) {
			yield {
				code: 'PW0049',
				severity: 'warning',
				text: `Namespace "${namespace}" has no policy that selects a pod for ingress: everybody reaches ${parties.length === 1 ? 'its one workload' : `all of its ${parties.length} workloads`}; begin with a policy that selects all pods and allows nothing`,
				because: [originOf(state, 'Namespace', namespace), ...open.slice(0, 5).map((p) => p.origin)],
			}
		} else {
			yield {
				code: 'PW0049',
				severity: 'info',
				text: `In namespace "${namespace}" no policy selects ${list} for ingress: everybody reaches ${open.length === 1 ? 'it' : 'them'}`,
				because: open.slice(0, 5).map((p) => p.origin),
			}
		}
	}
	yield* checkHostNetwork(input)
}

/** PW0051 */
function* checkHostNetwork(input: LintInput): Iterable<Finding> {
	for (const policy of findingOrder(input.model.policies.values())) {
		const pods = subjectsOf(input, policy)
		if (pods.length === 0 || !pods.every((pod) => pod.hostNetwork)) continue
		yield {
			code: 'PW0051',
			severity: 'warning',
			text: `NetworkPolicy "${policy.key}" selects only pods with hostNetwork ("${pods[0]!.key}"), which no policy is applied to: it has no effect`,
			because: [originOf(input.state, 'NetworkPolicy', policy.key, 'spec.podSelector'), pods[0]!.origin],
		}
	}
}
