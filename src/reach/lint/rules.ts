// Rules that cannot do what they say: shadowed ones, ports that nobody has, directions that policyTypes leaves out.

import type { Finding } from '../../model/finding.ts'
import type { Policy, PolicyRule } from '../../model/network.ts'
import type { Direction } from '../../model/policy.ts'
import { selectorMatches } from '../../model/selector.ts'
import { originOf } from '../../model/state.ts'
import type { LintInput } from './check.ts'
import { ruleCovers, selectorCovers } from './cover.ts'
import { findingOrder } from './order.ts'
import { podsOfPeer, subjectsOf } from './select.ts'

const directions = ['ingress', 'egress'] as const

export function* checkRules(input: LintInput): Iterable<Finding> {
	yield* checkShadows(input)
	for (const policy of findingOrder(input.model.policies.values())) {
		yield* checkTypes(input, policy)
		for (const direction of directions)
			for (const rule of policy[direction] ?? []) {
				yield* checkNames(input, policy, rule, direction)
				yield* checkServicePorts(input, policy, rule, direction)
				yield* checkSupport(policy, rule, direction)
			}
	}
}

interface Placed {
	readonly policy: Policy
	readonly rule: PolicyRule
}

/** PW0041: of two rules that allow the same the later is told. Judged by what they say, not by the pods there are. */
function* checkShadows({ model }: LintInput): Iterable<Finding> {
	const namespaces = new Map<string, Policy[]>()
	for (const policy of findingOrder(model.policies.values()))
		namespaces.set(policy.namespace, [...(namespaces.get(policy.namespace) ?? []), policy])
	for (const [namespace, policies] of namespaces) {
		for (const direction of directions) {
			const rules: Placed[] = policies.flatMap((policy) => (policy[direction] ?? []).map((rule) => ({ policy, rule })))
			for (const [i, { policy, rule }] of rules.entries()) {
				const by = rules.findIndex((other, j) => {
					if (j === i) return false
					const covers = (a: Placed, b: Placed) =>
						(a.policy === b.policy || selectorCovers(a.policy.subject, b.policy.subject)) &&
						ruleCovers(a.rule, b.rule, namespace)
					return covers(other, { policy, rule }) && (j < i || !covers({ policy, rule }, other))
				})
				if (by < 0) continue
				const other = rules[by]!
				yield {
					code: 'PW0041',
					severity: 'info',
					text: `Rule ${fieldOf(rule)} of NetworkPolicy "${policy.key}" has no effect: ${other.policy === policy ? `rule ${fieldOf(other.rule)}` : `"${other.policy.key}" ${fieldOf(other.rule)}`} allows all of it already; remove it`,
					because: [rule.origin, other.rule.origin],
				}
			}
		}
	}
}

function fieldOf(rule: PolicyRule): string {
	return 'default' in rule.origin ? '' : (rule.origin.field ?? '').replace(/^spec\./, '')
}

/** PW0042: policyTypes decides; rules of a direction that is not in it are ignored. */
function* checkTypes({ state }: LintInput, policy: Policy): Iterable<Finding> {
	const spec = state.networkPolicies.get(policy.key)?.spec
	for (const direction of directions) {
		if ((spec?.[direction]?.length ?? 0) === 0 || policy[direction] !== undefined) continue
		const type = direction === 'ingress' ? 'Ingress' : 'Egress'
		yield {
			code: 'PW0042',
			severity: 'error',
			text: `NetworkPolicy "${policy.key}" has ${direction} rules, but policyTypes is [${spec?.policyTypes?.join(', ') ?? ''}]: they are ignored; add ${type}`,
			because: [
				originOf(state, 'NetworkPolicy', policy.key, `spec.${direction}`),
				originOf(state, 'NetworkPolicy', policy.key, 'spec.policyTypes'),
			],
		}
	}
}

/** PW0043: a name is looked up on the pod that receives; addresses outside have none. */
function* checkNames(input: LintInput, policy: Policy, rule: PolicyRule, direction: Direction): Iterable<Finding> {
	const targets =
		direction === 'ingress'
			? subjectsOf(input, policy)
			: rule.peers.length === 0
				? undefined
				: rule.peers.flatMap((p) => podsOfPeer(input, policy, p))
	for (const port of rule.ports) {
		if (typeof port.port !== 'string') continue
		const onlyBlocks = direction === 'egress' && rule.peers.length > 0 && rule.peers.every((p) => p.kind === 'block')
		if (onlyBlocks) {
			yield {
				code: 'PW0043',
				severity: 'error',
				text: `NetworkPolicy "${policy.key}" allows the port "${port.port}" of addresses outside, which have no names for ports: it allows nothing; write the number`,
				because: [port.origin],
			}
			continue
		}
		const pods = targets ?? [...input.model.pods.values()]
		if (
			pods.length === 0 ||
			pods.some((pod) => pod.ports.some((p) => p.name === port.port && p.protocol === port.protocol))
		)
			continue
		const other = pods.find((pod) => pod.ports.some((p) => p.name === port.port))
		const names = [...new Set(pods.flatMap((pod) => pod.ports.flatMap((p) => p.name ?? [])))].sort().slice(0, 5)
		const hint =
			other !== undefined
				? `: "${other.key}" has it for ${other.ports.find((p) => p.name === port.port)!.protocol}, the rule says ${port.protocol}`
				: names.length === 0
					? ': they name no port; write the number'
					: `: they name ${names.join(', ')}`
		yield {
			code: 'PW0043',
			severity: 'error',
			text: `NetworkPolicy "${policy.key}" allows the port "${port.port}", which no pod it is about declares${hint}`,
			because: [port.origin],
		}
	}
}

/** PW0044: as PW0017, of pods that declare no port: then the Service alone says what they listen on. */
function* checkServicePorts(
	input: LintInput,
	policy: Policy,
	rule: PolicyRule,
	direction: Direction,
): Iterable<Finding> {
	const targets =
		direction === 'ingress' ? subjectsOf(input, policy) : rule.peers.flatMap((p) => podsOfPeer(input, policy, p))
	if (targets.length === 0 || targets.some((pod) => pod.ports.length > 0)) return
	for (const port of rule.ports) {
		if (typeof port.port !== 'number' || port.endPort !== undefined) continue
		for (const service of findingOrder(input.model.services.values())) {
			const { selector } = service
			if (selector === undefined) continue
			const behind = service.ports.find(
				(p) =>
					p.protocol === port.protocol &&
					p.port === port.port &&
					typeof p.targetPort === 'number' &&
					p.targetPort !== p.port,
			)
			if (behind === undefined || service.ports.some((p) => p.targetPort === port.port)) continue
			const chosen = { matchLabels: selector, matchExpressions: [] }
			if (!targets.some((pod) => pod.namespace === service.namespace && selectorMatches(chosen, pod.labels))) continue
			if (rule.ports.some((p) => p.port === behind.targetPort)) continue
			yield {
				code: 'PW0044',
				severity: 'error',
				text: `NetworkPolicy "${policy.key}" allows port ${port.port}, which is the port of Service "${service.key}"; its pods listen on ${behind.targetPort}, and policies see the port of the pod: write ${behind.targetPort}`,
				because: [port.origin, behind.origin],
			}
			break
		}
	}
}

/** PW0050: parts of the API that a network plugin may lack; nothing then says that they are not enforced. */
function* checkSupport(policy: Policy, rule: PolicyRule, direction: Direction): Iterable<Finding> {
	for (const port of rule.ports) {
		const what =
			port.endPort !== undefined
				? `endPort ${port.endPort}: a network plugin without support for ranges allows port ${port.port} alone`
				: port.protocol === 'SCTP'
					? 'SCTP: not every network plugin enforces it, and some must be told to (Cilium: sctp.enabled)'
					: direction === 'egress' && typeof port.port === 'string'
						? `the port "${port.port}" by name in an egress rule: not every network plugin looks names up on the destination; the number is understood by all`
						: undefined
		if (what === undefined) continue
		yield {
			code: 'PW0050',
			severity: 'info',
			text: `NetworkPolicy "${policy.key}" uses ${what}`,
			because: [port.origin],
		}
	}
}
