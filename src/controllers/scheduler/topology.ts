// Pods that want to be with, or away from, other pods: affinity, anti-affinity and topology spread constraints.
// A topology is the nodes with one value of a label; without the label a node is in none.

import type { Node } from '../../kube/objects/core.ts'
import type { LabelSelector, Labels } from '../../kube/objects/meta.ts'
import type { Pod, PodAffinityTerm, TopologySpreadConstraint } from '../../kube/objects/pod.ts'
import { matches, type Selector, selectorOf } from '../../kube/selector.ts'
import { matchesNode, untolerated } from './node-rules.ts'
import type { World } from './placements.ts'

/** Which pods a term of `owner` means. */
interface Group {
	readonly selector: Selector | undefined
	inNamespace(name: string): boolean
}

function groupOf(term: PodAffinityTerm, owner: Pod, world: World): Group {
	const namespaces = term.namespaces ?? []
	const selected = term.namespaceSelector === undefined ? undefined : selectorOf(term.namespaceSelector)
	const own = namespaces.length === 0 && selected === undefined ? owner.metadata.namespace : undefined
	return {
		selector: withLabelKeys(term.labelSelector, owner.metadata.labels, term.matchLabelKeys, term.mismatchLabelKeys),
		inNamespace: (name) =>
			name === own ||
			namespaces.includes(name) ||
			(selected !== undefined && matches(selected, world.labelsOfNamespace(name) ?? {})),
	}
}

/** A selector narrowed to pods that have the same (or other) values of some labels as the pod itself (KEP-3633). */
function withLabelKeys(
	selector: LabelSelector | undefined,
	labels: Labels | undefined,
	same: readonly string[] = [],
	other: readonly string[] = [],
): Selector | undefined {
	if (selector === undefined) return undefined
	const of = (keys: readonly string[], operator: 'In' | 'NotIn') =>
		keys.flatMap((key) => (labels?.[key] === undefined ? [] : [{ key, operator, values: [labels[key]] }]))
	return [...selectorOf(selector), ...of(same, 'In'), ...of(other, 'NotIn')]
}

function inGroup(group: Group, pod: Pod): boolean {
	return (
		group.selector !== undefined &&
		group.inNamespace(pod.metadata.namespace ?? '') &&
		matches(group.selector, pod.metadata.labels)
	)
}

const topologyOf = (node: Node | undefined, key: string): string | undefined => node?.metadata.labels?.[key]

/** The topologies of `key` that hold a pod for which `wanted` holds. */
function topologiesWith(world: World, key: string, wanted: (pod: Pod) => boolean): ReadonlySet<string> {
	const found = new Set<string>()
	for (const { node, pods } of world.places.values()) {
		const topology = topologyOf(node, key)
		if (topology === undefined || found.has(topology)) continue
		for (const pod of pods.values()) {
			if (pod.metadata.deletionTimestamp === undefined && wanted(pod)) {
				found.add(topology)
				break
			}
		}
	}
	return found
}

/** What of one pod's wishes for company a node does not meet. */
export type CompanyRule = (node: Node) => string | undefined

/** The rules of required affinity and anti-affinity, the pod's own and those of the pods already placed. */
export function companyRules(pod: Pod, world: World): readonly CompanyRule[] {
	const rules: CompanyRule[] = []
	const repelled = repellingTopologies(pod, world)
	if (repelled.length > 0) {
		rules.push((node) =>
			repelled.some(({ key, topology }) => topologyOf(node, key) === topology)
				? "node(s) didn't satisfy existing pods anti-affinity rules"
				: undefined,
		)
	}
	const affinity = pod.spec?.affinity?.podAffinity?.requiredDuringSchedulingIgnoredDuringExecution ?? []
	if (affinity.length > 0) rules.push(affinityRule(pod, affinity, world))
	for (const term of pod.spec?.affinity?.podAntiAffinity?.requiredDuringSchedulingIgnoredDuringExecution ?? []) {
		const group = groupOf(term, pod, world)
		const taken = topologiesWith(world, term.topologyKey, (other) => inGroup(group, other))
		rules.push((node) => {
			const topology = topologyOf(node, term.topologyKey)
			return topology !== undefined && taken.has(topology) ? "node(s) didn't match pod anti-affinity rules" : undefined
		})
	}
	return rules
}

/** All terms at once; where nobody matches yet, the first of a group that wants to be together may go anywhere. */
function affinityRule(pod: Pod, terms: readonly PodAffinityTerm[], world: World): CompanyRule {
	const groups = terms.map((term) => groupOf(term, pod, world))
	const inAll = (other: Pod): boolean => groups.every((group) => inGroup(group, other))
	const wanted = terms.map(({ topologyKey }) => ({ key: topologyKey, in: topologiesWith(world, topologyKey, inAll) }))
	const first = wanted.every((w) => w.in.size === 0) && inAll(pod)
	return (node) => {
		for (const { key, in: topologies } of wanted) {
			const topology = topologyOf(node, key)
			if (topology === undefined || !(first || topologies.has(topology))) {
				return "node(s) didn't match pod affinity rules"
			}
		}
		return undefined
	}
}

function repellingTopologies(pod: Pod, world: World): { readonly key: string; readonly topology: string }[] {
	const found: { key: string; topology: string }[] = []
	for (const { pod: other, node } of world.repelling.values()) {
		for (const term of other.spec!.affinity!.podAntiAffinity!.requiredDuringSchedulingIgnoredDuringExecution!) {
			const topology = topologyOf(world.places.get(node)?.node, term.topologyKey)
			if (topology !== undefined && inGroup(groupOf(term, other, world), pod)) {
				found.push({ key: term.topologyKey, topology })
			}
		}
	}
	return found
}

/** The weights of preferred affinity minus those of preferred anti-affinity, for a node; undefined when there is no preference. */
export function companyPreference(pod: Pod, world: World): ((node: Node) => number) | undefined {
	const terms = [
		...(pod.spec?.affinity?.podAffinity?.preferredDuringSchedulingIgnoredDuringExecution ?? []).map(
			(t) => [t, 1] as const,
		),
		...(pod.spec?.affinity?.podAntiAffinity?.preferredDuringSchedulingIgnoredDuringExecution ?? []).map(
			(t) => [t, -1] as const,
		),
	]
	if (terms.length === 0) return undefined
	const rules = terms.map(([{ weight, podAffinityTerm: term }, sign]) => {
		const group = groupOf(term, pod, world)
		const counts = countByTopology(world, term.topologyKey, (other) => inGroup(group, other))
		return { key: term.topologyKey, counts, weight: weight * sign }
	})
	return (node) => {
		let score = 0
		for (const { key, counts, weight } of rules) score += weight * (counts.get(topologyOf(node, key) ?? '') ?? 0)
		return score
	}
}

function countByTopology(
	world: World,
	key: string,
	wanted: (pod: Pod) => boolean,
	eligible: (node: Node) => boolean = () => true,
): Map<string, number> {
	const counts = new Map<string, number>()
	for (const { node, pods } of world.places.values()) {
		const topology = topologyOf(node, key)
		if (topology === undefined || !eligible(node)) continue
		let count = counts.get(topology) ?? 0
		for (const pod of pods.values()) if (pod.metadata.deletionTimestamp === undefined && wanted(pod)) count++
		counts.set(topology, count)
	}
	return counts
}

interface Spread {
	readonly constraint: TopologySpreadConstraint
	readonly counts: ReadonlyMap<string, number>
	/** 1 when the pod itself would count. */
	readonly self: number
}

function spreadOf(pod: Pod, world: World, when: TopologySpreadConstraint['whenUnsatisfiable']): readonly Spread[] {
	const constraints = (pod.spec?.topologySpreadConstraints ?? []).filter((c) => c.whenUnsatisfiable === when)
	const hasAllKeys = (node: Node): boolean => constraints.every((c) => topologyOf(node, c.topologyKey) !== undefined)
	return constraints.map((constraint) => {
		const selector = withLabelKeys(constraint.labelSelector, pod.metadata.labels, constraint.matchLabelKeys) ?? []
		const none = constraint.labelSelector === undefined
		const counts = (other: Pod): boolean =>
			!none && other.metadata.namespace === pod.metadata.namespace && matches(selector, other.metadata.labels)
		const eligible = (node: Node): boolean =>
			hasAllKeys(node) &&
			(constraint.nodeAffinityPolicy === 'Ignore' || matchesNode(pod.spec!, node)) &&
			(constraint.nodeTaintsPolicy !== 'Honor' ||
				untolerated(pod.spec!, node, ['NoSchedule', 'NoExecute']) === undefined)
		return {
			constraint,
			counts: countByTopology(world, constraint.topologyKey, counts, eligible),
			self: counts(pod) ? 1 : 0,
		}
	})
}

/** The rules of the spread constraints that must hold. */
export function spreadRules(pod: Pod, world: World): readonly CompanyRule[] {
	return spreadOf(pod, world, 'DoNotSchedule').map(({ constraint, counts, self }) => {
		const { topologyKey, maxSkew, minDomains = 1 } = constraint
		const least = counts.size < minDomains ? 0 : Math.min(...counts.values(), Number.MAX_SAFE_INTEGER)
		return (node) => {
			const topology = topologyOf(node, topologyKey)
			if (topology === undefined) {
				return "node(s) didn't match pod topology spread constraints (missing required label)"
			}
			const skew = (counts.get(topology) ?? 0) + self - (counts.size === 0 ? 0 : least)
			return skew > maxSkew ? "node(s) didn't match pod topology spread constraints" : undefined
		}
	})
}

/** How crowded a node's topologies are, by the spread constraints that had better hold; undefined when there are none. */
export function spreadPreference(pod: Pod, world: World): ((node: Node) => number) | undefined {
	const spreads = spreadOf(pod, world, 'ScheduleAnyway')
	if (spreads.length === 0) return undefined
	return (node) => {
		let crowd = 0
		for (const { constraint, counts } of spreads) {
			crowd += counts.get(topologyOf(node, constraint.topologyKey) ?? '') ?? 0
		}
		return crowd
	}
}
