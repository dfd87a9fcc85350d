// Policies of the tiers before and behind NetworkPolicy that do not mean what was meant.

import { cidrAddress, cidrContains, cidrLength, familyOf } from '../../base/ip.ts'
import { baselineName } from '../builders/tiered-policies.ts'
import type { Finding } from '../finding.ts'
import type { LabelSelector, Pod, PolicyPort, TieredPeer, TieredPolicy, TieredRule } from '../network.ts'
import { type Direction, inOrder, selecting } from '../policy.ts'
import { tierSelects } from '../policy-match.ts'
import { nameMatches } from '../resolved-names.ts'
import { isNothing } from '../selector.ts'
import { originOf } from '../state.ts'
import type { CheckInput } from './check.ts'

const everything: LabelSelector = { matchLabels: {}, matchExpressions: [] }
const directions: readonly Direction[] = ['ingress', 'egress']

export function* checkTiers(input: CheckInput): Iterable<Finding> {
	yield* checkNamespacesOfPolicies(input)
	yield* checkBaselines(input)
	const policies = inOrder(input.model.tieredPolicies.values())
	if (policies.length === 0) return
	const all = input.pods.selectAnywhere(everything).filter((pod) => !pod.hostNetwork)
	const subjects = new Map(
		policies.map((policy) => [policy, all.filter((pod) => tierSelects(policy, input.model, pod))]),
	)
	yield* checkTies(policies, subjects)
	for (const policy of policies) {
		const pods = subjects.get(policy)!
		if (pods.length === 0) yield selectsNothing(input, policy)
		yield* checkReadable(policy)
		for (const direction of directions) {
			yield* checkReached(policy, direction)
			yield* checkPass(input, policy, direction, pods, policies)
			yield* checkDomains(input, policy, direction)
		}
	}
}

function nameOf({ kind, key }: TieredPolicy): string {
	return `${kind} "${key}"`
}

/** PW0061: the API leaves open which of two policies of one priority comes first. Told once for each pair. */
function* checkTies(
	policies: readonly TieredPolicy[],
	subjects: ReadonlyMap<TieredPolicy, readonly Pod[]>,
): Iterable<Finding> {
	for (const [i, a] of policies.entries()) {
		for (const b of policies.slice(i + 1)) {
			if (a.tier !== b.tier || a.priority !== b.priority) continue
			const direction = directions.find((d) => actionsDiffer(a[d], b[d]))
			if (direction === undefined) continue
			const others = new Set(subjects.get(b))
			const both = subjects.get(a)!.find((pod) => others.has(pod))
			if (both === undefined) continue
			yield {
				code: 'PW0061',
				severity: 'warning',
				text: `${nameOf(a)} and ${nameOf(b)} of the ${a.tier} tier have the same priority ${a.priority}, and both have ${direction} rules for pod "${both.key}": which comes first is open (here, the first by name)`,
				because: [a.origin, b.origin],
			}
		}
	}
}

/** Policies that only ever do the same may come in any order. */
function actionsDiffer(a: readonly TieredRule[], b: readonly TieredRule[]): boolean {
	return a.length > 0 && b.length > 0 && new Set([...a, ...b].map((r) => r.action)).size > 1
}

/** PW0062: a rule after one that means all it means. */
function* checkReached(policy: TieredPolicy, direction: Direction): Iterable<Finding> {
	for (const [i, rule] of policy[direction].entries()) {
		if (rule.peers.length === 0) continue
		const before = policy[direction].slice(0, i).find((earlier) => covers(earlier, rule))
		if (before === undefined) continue
		yield {
			code: 'PW0062',
			severity: 'warning',
			text: `${nameOf(policy)} has ${direction} rule ${i} (${rule.action}) that is never reached: a rule before it (${before.action}) means all that it means`,
			because: [rule.origin, before.origin],
		}
	}
}

function covers(earlier: TieredRule, later: TieredRule): boolean {
	const ports =
		earlier.ports.length === 0 ||
		(later.ports.length > 0 && later.ports.every((port) => earlier.ports.some((p) => coversPort(p, port))))
	// Every address of both families: whoever it is.
	const anybody = ['0.0.0.0/0', '::/0'].every((cidr) =>
		earlier.peers.some((p) => p.kind === 'block' && p.cidr === cidr),
	)
	return ports && (anybody || later.peers.every((peer) => earlier.peers.some((p) => coversPeer(p, peer))))
}

function coversPort(wide: PolicyPort, port: PolicyPort): boolean {
	if (wide.protocol !== port.protocol) return false
	if (wide.port === undefined) return true
	if (typeof wide.port === 'string' || typeof port.port === 'string') return wide.port === port.port
	if (port.port === undefined) return false
	return port.port >= wide.port && (port.endPort ?? port.port) <= (wide.endPort ?? wide.port)
}

function coversPeer(wide: TieredPeer, peer: TieredPeer): boolean {
	if (wide.kind === 'block' && peer.kind === 'block') {
		if (wide.except.length > 0 || familyOf(wide.cidr) !== familyOf(peer.cidr)) return false
		return cidrLength(wide.cidr) <= cidrLength(peer.cidr) && cidrContains(wide.cidr, cidrAddress(peer.cidr))
	}
	if (wide.kind === 'pods' && peer.kind === 'pods') {
		const everywhere = isEverything(wide.namespaces) || same(wide.namespaces, peer.namespaces)
		return everywhere && (isEverything(wide.pods) || same(wide.pods, peer.pods))
	}
	if (wide.kind === 'nodes' && peer.kind === 'nodes') return isEverything(wide.nodes) || same(wide.nodes, peer.nodes)
	return wide.kind === 'domains' && peer.kind === 'domains' && peer.names.every((name) => wide.names.includes(name))
}

function isEverything(selector: LabelSelector | undefined): boolean {
	if (selector === undefined) return true
	return Object.keys(selector.matchLabels).length === 0 && selector.matchExpressions.length === 0
}

function same(a: LabelSelector | undefined, b: LabelSelector | undefined): boolean {
	return JSON.stringify(a) === JSON.stringify(b)
}

/** PW0063: whom a Pass leaves to nobody, it accepts. */
function* checkPass(
	{ model }: CheckInput,
	policy: TieredPolicy,
	direction: Direction,
	subjects: readonly Pod[],
	policies: readonly TieredPolicy[],
): Iterable<Finding> {
	const index = policy[direction].findIndex((rule) => rule.action === 'Pass')
	if (index < 0 || subjects.length === 0) return
	const behind = policies.filter((p) => p.tier === 'Baseline' && p[direction].length > 0)
	const open = subjects.find((pod) => {
		if (policy.tier === 'Baseline') return true
		if (selecting(model.policies.values(), pod, direction).length > 0) return false
		return !behind.some((p) => tierSelects(p, model, pod))
	})
	if (open === undefined) return
	const why =
		policy.tier === 'Baseline'
			? 'nothing comes after the Baseline tier'
			: `no NetworkPolicy selects pod "${open.key}" for ${direction}, and no policy of the Baseline tier does`
	yield {
		code: 'PW0063',
		severity: 'info',
		text: `${nameOf(policy)} passes in ${direction} rule ${index}, to nobody: ${why}, so what passes is allowed`,
		because: [policy[direction][index]!.origin],
	}
}

/** PW0064 */
function* checkBaselines({ state }: CheckInput): Iterable<Finding> {
	for (const [name] of state.baselineAdminNetworkPolicies) {
		if (name === baselineName) continue
		yield {
			code: 'PW0064',
			severity: 'error',
			text: `BaselineAdminNetworkPolicy "${name}" has no effect: there may be one, and its name is "${baselineName}"`,
			because: [originOf(state, 'BaselineAdminNetworkPolicy', name)],
		}
	}
}

/** PW0065 */
function* checkReadable(policy: TieredPolicy): Iterable<Finding> {
	if (policy.unreadable !== undefined) {
		const text = isNothing(policy.subject.namespaces)
			? 'it selects nobody'
			: 'it is read as one of the Admin tier, with the last priority where it has none'
		yield {
			code: 'PW0065',
			severity: 'error',
			text: `${nameOf(policy)} has a field that cannot be read: ${text}`,
			because: policy.unreadable,
		}
	}
	for (const direction of directions) {
		for (const [i, rule] of policy[direction].entries()) {
			if (rule.unreadable === undefined) continue
			const how = rule.action === 'Accept' ? 'accepts nothing' : 'denies everything'
			yield {
				code: 'PW0065',
				severity: 'error',
				text: `${nameOf(policy)} has ${direction} rule ${i} with a field that cannot be read: the rule fails closed and ${how}`,
				because: rule.unreadable,
			}
		}
	}
}

/** PW0066 */
function selectsNothing({ state }: CheckInput, policy: TieredPolicy): Finding {
	return {
		code: 'PW0066',
		severity: 'warning',
		text: `${nameOf(policy)} selects no pod (pods on the network of their node are not subjects)`,
		because: [originOf(state, policy.kind, policy.key, 'spec.subject')],
	}
}

/** PW0067 */
function* checkNamespacesOfPolicies({ model, state }: CheckInput): Iterable<Finding> {
	// Manifests without a single Namespace leave them to whoever applies them.
	if (model.namespaces.size === 0) return
	for (const policy of model.policies.values()) {
		if (model.namespaces.has(policy.namespace)) continue
		yield {
			code: 'PW0067',
			severity: 'error',
			text: `NetworkPolicy "${policy.key}" is in namespace "${policy.namespace}", which does not exist`,
			because: [originOf(state, 'NetworkPolicy', policy.key, 'metadata.namespace')],
		}
	}
}

/** PW0068 */
function* checkDomains({ model }: CheckInput, policy: TieredPolicy, direction: Direction): Iterable<Finding> {
	for (const rule of policy[direction]) {
		for (const peer of rule.peers) {
			if (peer.kind !== 'domains') continue
			const answered = [...(model.resolvedNames?.keys() ?? [])]
			if (answered.some((name) => peer.names.some((entry) => nameMatches(entry, name)))) continue
			yield {
				code: 'PW0068',
				severity: 'info',
				text: `${nameOf(policy)} accepts by name (${peer.names.join(', ')}), and the cluster's DNS server has answered nobody with an address of one: until then the rule matches nothing`,
				because: [peer.origin],
			}
		}
	}
}
