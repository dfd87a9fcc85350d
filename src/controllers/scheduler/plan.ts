// Where a pod goes: every node passes the rules or tells the first one it breaks; among those that pass the scores of
// kube-scheduler's default plugins decide, the spreading of one owner's pods above all. Pure.

import type { Node } from '../../kube/objects/core.ts'
import { controllerOf } from '../../kube/objects/meta.ts'
import type { Pod, PodSpec } from '../../kube/objects/pod.ts'
import { discouragements, isCordoned, matchesNode, matchesTerm, untolerated } from './node-rules.ts'
import { type Amounts, type Place, quantities, requestsOf, type World } from './placements.ts'
import { companyPreference, companyRules, spreadPreference, spreadRules } from './topology.ts'

export type Decision =
	| { readonly node: string }
	/** In the words of kube-scheduler's event. */
	| { readonly unschedulable: string }

export function schedule(pod: Pod, world: World): Decision {
	if (world.places.size === 0) return { unschedulable: 'no nodes available to schedule pods' }
	const spec = pod.spec!
	const requests = requestsOf(pod)
	const ports = hostPorts(spec)
	const company = [...spreadRules(pod, world), ...companyRules(pod, world)]
	const fits: Place[] = []
	const reasons = new Map<string, number>()
	for (const place of world.places.values()) {
		const broken = nodeReasons(spec, place, requests, ports)
		if (broken.length === 0) {
			for (const rule of company) {
				const reason = rule(place.node)
				if (reason === undefined) continue
				broken.push(reason)
				break
			}
		}
		if (broken.length === 0) fits.push(place)
		for (const reason of broken) reasons.set(reason, (reasons.get(reason) ?? 0) + 1)
	}
	if (fits.length > 0) return { node: best(pod, fits, world).node.metadata.name }
	const told = [...reasons].map(([reason, count]) => `${count} ${reason}`).sort()
	return { unschedulable: `0/${world.places.size} nodes are available: ${told.join(', ')}.` }
}

/** What the first rule that fails has to say; only a lack of resources can have several reasons. */
function nodeReasons(spec: PodSpec, place: Place, requests: Amounts, ports: readonly HostPort[]): string[] {
	const { node } = place
	if (isCordoned(spec, node)) return ['node(s) were unschedulable']
	const taint = untolerated(spec, node, ['NoSchedule', 'NoExecute'])
	if (taint !== undefined) return [`node(s) had untolerated taint {${taint.key}: ${taint.value ?? ''}}`]
	if (!matchesNode(spec, node)) return ["node(s) didn't match Pod's node affinity/selector"]
	if (ports.length > 0 && portsTaken(place, ports)) {
		return ["node(s) didn't have free ports for the requested pod ports"]
	}
	return lacking(place, requests)
}

interface HostPort {
	readonly ip: string
	readonly protocol: string
	readonly port: number
}

function hostPorts(spec: PodSpec): readonly HostPort[] {
	const ports: HostPort[] = []
	const sidecars = (spec.initContainers ?? []).filter((c) => c.restartPolicy === 'Always')
	for (const { ports: declared = [] } of [...spec.containers, ...sidecars]) {
		for (const { hostPort, hostIP, protocol = 'TCP', containerPort } of declared) {
			const port = hostPort ?? (spec.hostNetwork === true ? containerPort : 0)
			if (port > 0) ports.push({ ip: hostIP === undefined || hostIP === '' ? '0.0.0.0' : hostIP, protocol, port })
		}
	}
	return ports
}

/** One address, or any on either side, the same protocol and port: only one pod can have it. */
function portsTaken(place: Place, wanted: readonly HostPort[]): boolean {
	for (const pod of place.pods.values()) {
		for (const have of hostPorts(pod.spec!)) {
			for (const want of wanted) {
				if (have.port !== want.port || have.protocol !== want.protocol) continue
				if (have.ip === want.ip || have.ip === '0.0.0.0' || want.ip === '0.0.0.0') return true
			}
		}
	}
	return false
}

const allocatables = new WeakMap<Node, Amounts>()

/** A node that does not say what it has is taken to have enough. */
function lacking(place: Place, requests: Amounts): string[] {
	let allocatable = allocatables.get(place.node)
	if (allocatable === undefined) {
		allocatable = quantities(place.node.status?.allocatable ?? place.node.status?.capacity)
		allocatables.set(place.node, allocatable)
	}
	const reasons: string[] = []
	for (const [resource, amount] of requests) {
		const has = allocatable.get(resource)
		if (amount === 0n) continue
		const standard =
			resource === 'cpu' || resource === 'memory' || resource === 'pods' || resource === 'ephemeral-storage'
		if (has === undefined && standard) continue
		if ((place.requested.get(resource) ?? 0n) + amount <= (has ?? 0n)) continue
		reasons.push(resource === 'pods' ? 'Too many pods' : `Insufficient ${resource}`)
	}
	return reasons
}

/** Weights of kube-scheduler's default profile; each score is 0 to 100 over the nodes that fit. */
function best(pod: Pod, fits: readonly Place[], world: World): Place {
	if (fits.length === 1) return fits[0]!
	const spec = pod.spec!
	const total = new Array<number>(fits.length).fill(0)
	const add = (weight: number, score: (place: Place) => number): void => {
		const scores = fits.map(score)
		const low = Math.min(...scores)
		const high = Math.max(...scores)
		if (high === low) return
		scores.forEach((s, i) => {
			total[i] = total[i]! + (weight * 100 * (s - low)) / (high - low)
		})
	}
	add(3, (place) => -discouragements(spec, place.node))
	const preferred = spec.affinity?.nodeAffinity?.preferredDuringSchedulingIgnoredDuringExecution ?? []
	if (preferred.length > 0) {
		add(2, ({ node }) => preferred.reduce((sum, p) => sum + (matchesTerm(p.preference, node) ? p.weight : 0), 0))
	}
	const company = companyPreference(pod, world)
	if (company !== undefined) add(2, ({ node }) => company(node))
	const spread = spreadPreference(pod, world)
	const owner = controllerOf(pod)?.uid
	if (spread !== undefined) add(2, ({ node }) => -spread(node))
	else if (owner !== undefined) {
		const zones = ownedByZone(fits, owner)
		add(2, (place) => -(place.owned.get(owner) ?? 0))
		if (zones !== undefined) add(2, ({ node }) => -(zones.get(node.metadata.labels![zoneLabel]!) ?? 0))
	}
	add(1, (place) => -place.pods.size)

	let at = 0
	for (let i = 1; i < fits.length; i++) {
		const better = total[i]! - total[at]!
		if (better > 1e-9 || (better > -1e-9 && before(fits[i]!, fits[at]!))) at = i
	}
	return fits[at]!
}

const zoneLabel = 'topology.kubernetes.io/zone'

/** Undefined unless the nodes lie in several zones. */
function ownedByZone(places: readonly Place[], owner: string): ReadonlyMap<string, number> | undefined {
	const zones = new Map<string, number>()
	for (const { node, owned } of places) {
		const zone = node.metadata.labels?.[zoneLabel]
		if (zone === undefined) return undefined
		zones.set(zone, (zones.get(zone) ?? 0) + (owned.get(owner) ?? 0))
	}
	return zones.size > 1 ? zones : undefined
}

/** Equal scores: the emptier node, then the first by name, so that the same cluster is always filled the same way. */
function before(a: Place, b: Place): boolean {
	if (a.pods.size !== b.pods.size) return a.pods.size < b.pods.size
	const [x, y] = [a.node.metadata.name, b.node.metadata.name]
	return x.length === y.length ? x < y : x.length < y.length
}
