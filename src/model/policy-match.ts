// Whether one rule of a policy means one connection, and if not, the first requirement that failed: what it wants and
// what is there. Shared by NetworkPolicy and the tiers around it.

import { cidrContains } from '../base/ip.ts'
import { namespaceNameLabel } from './labels.ts'
import type {
	ContainerPort,
	LabelSelector,
	Namespace,
	NetworkModel,
	Pod,
	PolicyPort,
	PolicyRule,
	TieredPeer,
	TieredPolicy,
	TieredRule,
} from './network.ts'
import type { Origin } from './origin.ts'
import type { Peer, Question } from './policy.ts'
import type { PolicyProfile } from './policy-profile.ts'
import { meantAt, nameMatches } from './resolved-names.ts'
import { isNothing, mismatchOf, selectorMatches } from './selector.ts'

export interface Mismatch {
	readonly part: 'peer' | 'port'
	readonly origin: Origin
	/** `podSelector wants app=web, has app=api`. */
	readonly text: string
	/** The requirement as data; undefined where there is none to name (a rule that matches nobody). */
	readonly requirement?: Requirement
}

/** One field of the API and what the connection has in its place. */
export interface Requirement {
	/** From the rule on, as the API writes it: `from[0].namespaceSelector.matchLabels.team`, `ports`. */
	readonly field: string
	/** `team=web`, `10.0.0.0/8`, `TCP/80`. */
	readonly wanted: string
	/** `team=Web`, `no label team`, `192.0.2.1`, `TCP/8080`. */
	readonly actual: string
	/** Who has `actual`. */
	readonly of: 'pod' | 'namespace' | 'node' | 'address' | 'connection'
	/** Key of the pod, name of the namespace or node, or the address. */
	readonly name: string
}

export type MatchModel = Pick<NetworkModel, 'namespaces'> & Partial<Pick<NetworkModel, 'nodes' | 'resolvedNames'>>

/** Who asks: a policy of one namespace, or one of the tiers, which has none. */
export interface MatchContext {
	readonly model: MatchModel
	readonly profile: PolicyProfile
	/** The namespace that a peer without one means. */
	readonly namespace?: string
	/** In an empty list of peers: anybody (NetworkPolicy) or nobody (the tiers). */
	readonly noPeers: 'anybody' | 'nobody'
}

/** Undefined: the rule is meant. */
export function ruleMismatch(
	context: MatchContext,
	rule: PolicyRule | TieredRule,
	question: Question,
): Mismatch | undefined {
	return peerMismatch(context, rule, question) ?? portMismatch(rule, question)
}

/** Whether a policy of the tiers is about the pod, whatever its direction. */
export function tierSelects(policy: TieredPolicy, model: MatchModel, pod: Pod): boolean {
	const { namespaces, pods } = policy.subject
	if (pods !== undefined && !selectorMatches(pods, pod.labels)) return false
	return !isNothing(namespaces) && selectorMatches(namespaces, labelsOf(model.namespaces.get(pod.namespace), pod))
}

type Miss = Pick<Mismatch, 'text' | 'requirement'> & {
	/** 0 not even the kind, 1 the kind only, 2 all but the last requirement. */
	readonly near: number
}

function peerMismatch(context: MatchContext, rule: PolicyRule | TieredRule, question: Question): Mismatch | undefined {
	const peers: readonly TieredPeer[] = rule.peers
	// Closed for everybody, in whatever way a profile reads addresses.
	if ('unreadable' in rule && rule.action !== 'Accept') return undefined
	if (peers.length === 0) {
		if (context.noPeers === 'anybody') return undefined
		return { part: 'peer', origin: rule.origin, text: 'the rule cannot be read: it fails closed and accepts nothing' }
	}
	let nearest: { readonly miss: Miss; readonly origin: Origin } | undefined
	for (const peer of peers) {
		const miss = matchPeer(context, peer, question.peer)
		if (miss === undefined) return undefined
		// Of several peers the one that got furthest explains best.
		if (nearest === undefined || miss.near > nearest.miss.near) nearest = { miss, origin: peer.origin }
	}
	const { text, requirement } = nearest!.miss
	const field = fieldFromRule(rule.origin, nearest!.origin)
	return {
		part: 'peer',
		origin: nearest!.origin,
		text,
		...(requirement === undefined
			? {}
			: { requirement: { ...requirement, field: [field, requirement.field].filter((f) => f !== '').join('.') } }),
	}
}

/** `from[0]` where the rule is `spec.ingress[1]` and the peer `spec.ingress[1].from[0]`. */
function fieldFromRule(rule: Origin, part: Origin): string {
	const [whole, field] = [rule, part].map((o) => ('default' in o ? '' : (o.field ?? '')))
	return field!.startsWith(`${whole}.`) ? field!.slice(whole!.length + 1) : field!
}

/** Undefined: it matches. Fields of requirements start at the peer. */
function matchPeer(context: MatchContext, peer: TieredPeer, other: Peer): Miss | undefined {
	switch (peer.kind) {
		case 'block':
			return matchBlock(context, peer, other)
		case 'pods':
			return matchPods(context, peer, other)
		case 'nodes': {
			const node = other.node === undefined ? undefined : context.model.nodes?.get(other.node)
			if (node === undefined) return miss(0, `selects nodes, and ${other.ip} is not the address of a node`)
			const failed = mismatchOf(peer.nodes, node.labels)
			if (failed === undefined) return undefined
			const { field, wanted, actual } = failed
			const requirement: Requirement = { field: `nodes.${field}`, wanted, actual, of: 'node', name: node.name }
			return miss(2, `nodes ${failed.text} (node "${node.name}")`, requirement)
		}
		case 'domains':
			return matchDomains(context, peer, other)
		default: {
			const never: never = peer
			throw new Error(`No such peer: ${JSON.stringify(never)}`)
		}
	}
}

function matchDomains({ model }: MatchContext, { names }: DomainsPeer, { ip, pod, node }: Peer): Miss | undefined {
	const known = model.resolvedNames
	if (meantAt(known, names, ip).length > 0) return undefined
	const wanted = names.join(', ')
	// Names are for what lies outside: of a pod or node nobody would ask for another.
	if (pod !== undefined || node !== undefined) return miss(0, `domainNames ${wanted}: none has ${ip}`)
	const requirement: Requirement = { field: 'domainNames', wanted, actual: ip, of: 'address', name: ip }
	const meant = [...(known?.keys() ?? [])].filter((name) => names.some((entry) => nameMatches(entry, name))).sort()
	if (meant.length === 0) {
		const text = `domainNames ${wanted}: the cluster's DNS server has answered with no address of such a name`
		return miss(0, text, requirement)
	}
	const shown = meant.slice(0, 3).map((name) => `${name} has ${known!.get(name)!.slice(0, 3).join(', ')}`)
	const text = `domainNames ${wanted}: ${shown.join('; ')}${meant.length > 3 ? '; …' : ''}, not ${ip}`
	return miss(0, text, requirement)
}

type DomainsPeer = Extract<TieredPeer, { kind: 'domains' }>

/** The names by which a rule that is meant means the address; empty where it does so otherwise. */
export function namesMeant(context: MatchContext, rule: TieredRule, { peer: { ip } }: Question): readonly string[] {
	const names = rule.peers.flatMap((peer) =>
		peer.kind === 'domains' ? meantAt(context.model.resolvedNames, peer.names, ip) : [],
	)
	return [...new Set(names)].sort()
}

function miss(near: number, text: string, requirement?: Requirement): Miss {
	return { near, text, ...(requirement === undefined ? {} : { requirement }) }
}

function matchBlock(
	{ profile }: MatchContext,
	peer: Extract<TieredPeer, { kind: 'block' }>,
	other: Peer,
): Miss | undefined {
	const requirement = (wanted: string, field: string): Requirement => ({
		field,
		wanted,
		actual: other.ip,
		of: 'address',
		name: other.ip,
	})
	const field = isNetworks(peer.origin) ? '' : 'ipBlock'
	if (!cidrContains(peer.cidr, other.ip))
		return miss(0, `ipBlock ${peer.cidr} does not contain ${other.ip}`, requirement(peer.cidr, field))
	const except = peer.except.find((cidr) => cidrContains(cidr, other.ip))
	if (except !== undefined)
		return miss(2, `ipBlock ${peer.cidr} excepts ${except}`, requirement(`${peer.cidr} except ${except}`, field))
	if (!profile.blocksMatchPods && other.pod !== undefined && !other.pod.hostNetwork)
		return miss(2, `ipBlock ${peer.cidr} does not mean pods (${profile.name})`)
	if (!profile.blocksMatchNodes && (other.node !== undefined || other.pod?.hostNetwork === true))
		return miss(2, `ipBlock ${peer.cidr} does not mean nodes (${profile.name})`)
	return undefined
}

function isNetworks(origin: Origin): boolean {
	return !('default' in origin) && origin.field?.includes('.networks[') === true
}

function matchPods(
	{ model, namespace }: MatchContext,
	peer: Extract<TieredPeer, { kind: 'pods' }>,
	other: Peer,
): Miss | undefined {
	if (isNothing(peer.pods)) return miss(0, 'the peer cannot be read and matches nothing')
	const pod = other.pod
	if (pod === undefined || pod.hostNetwork)
		return miss(0, `selects pods, and ${other.ip} is not the address of a pod`, {
			field: '',
			wanted: 'a pod',
			actual: other.ip,
			of: 'address',
			name: other.ip,
		})
	const podFails = peer.pods === undefined ? undefined : mismatchOf(peer.pods, pod.labels)
	// v1 writes the selectors in the peer; the tiers under `pods`, or one of namespaces alone as `namespaces`.
	const [namespaceField, podField] =
		namespace !== undefined
			? ['namespaceSelector', 'podSelector']
			: peer.pods === undefined
				? ['namespaces', '']
				: ['pods.namespaceSelector', 'pods.podSelector']
	if (peer.namespaces === undefined) {
		if (pod.namespace !== namespace) {
			const text = `podSelector alone means pods of namespace "${namespace}", the pod is in "${pod.namespace}"`
			return miss(peer.pods !== undefined && podFails === undefined ? 2 : 1, text, {
				field: 'podSelector',
				wanted: `namespace ${namespace}`,
				actual: `namespace ${pod.namespace}`,
				of: 'pod',
				name: pod.key,
			})
		}
	} else {
		const failed = mismatchOf(peer.namespaces, labelsOf(model.namespaces.get(pod.namespace), pod))
		if (failed !== undefined) {
			const text = `${lastOf(namespaceField!)} ${failed.text} (namespace "${pod.namespace}")`
			return miss(podFails === undefined ? 2 : 1, text, requires(namespaceField!, failed, 'namespace', pod.namespace))
		}
	}
	if (podFails === undefined) return undefined
	return miss(2, `podSelector ${podFails.text}`, requires(podField!, podFails, 'pod', pod.key))
}

function requires(
	selector: string,
	{ field, wanted, actual }: { readonly field: string; readonly wanted: string; readonly actual: string },
	of: Requirement['of'],
	name: string,
): Requirement {
	return { field: `${selector}.${field}`, wanted, actual, of, name }
}

function lastOf(field: string): string {
	return field.slice(field.lastIndexOf('.') + 1)
}

/** A namespace that no object describes has the label that the API server gives every one. */
export function labelsOf(
	namespace: Namespace | undefined,
	pod: Pick<Pod, 'namespace'>,
): Readonly<Record<string, string>> {
	return namespace?.labels ?? { [namespaceNameLabel]: pod.namespace }
}

function portMismatch(rule: PolicyRule | TieredRule, question: Question): Mismatch | undefined {
	if (rule.ports.length === 0) return undefined
	const destination = question.direction === 'ingress' ? question.pod : question.peer.pod
	if (rule.ports.some((port) => matchPort(port, question, destination))) return undefined
	const packet = question.protocol === 'ICMP' ? 'ICMP' : `${question.protocol}/${question.port}`
	const wanted = [...new Set(rule.ports.map((port) => portText(port, destination)))].join(', ')
	const origin = rule.ports[0]!.origin
	const field = fieldFromRule(rule.origin, origin).replace(/\[.*/, '')
	return {
		part: 'port',
		origin,
		text: `ports allow ${wanted}, the packet has ${packet}`,
		requirement: { field, wanted, actual: packet, of: 'connection', name: packet },
	}
}

function matchPort(port: PolicyPort, question: Question, destination: Pod | undefined): boolean {
	if (port.protocol !== question.protocol) return false
	if (port.port === undefined) return true
	if (typeof port.port === 'string') return namedPorts(destination, port).some((p) => p.port === question.port)
	return question.port >= port.port && question.port <= (port.endPort ?? port.port)
}

/** A name is looked up on the pod that receives the connection, whichever side the policy stands on. */
function namedPorts(pod: Pod | undefined, port: PolicyPort): readonly ContainerPort[] {
	return pod?.ports.filter((p) => p.name === port.port && p.protocol === port.protocol) ?? []
}

function portText(port: PolicyPort, destination: Pod | undefined): string {
	if (port.port === undefined) return `${port.protocol} (all)`
	if (typeof port.port === 'number') {
		return `${port.protocol}/${port.port}${port.endPort === undefined ? '' : `-${port.endPort}`}`
	}
	const found = namedPorts(destination, port).map((p) => p.port)
	return `${port.protocol}/${port.port} (${found.length === 0 ? 'which the destination does not declare' : found.join(', ')})`
}

/** Whether the selector asks for exactly one label more or other than there is, and which. */
export function onlyLabelMissing(
	selector: LabelSelector | undefined,
	labels: Readonly<Record<string, string>>,
): { readonly label: string; readonly value: string } | undefined {
	if (selector === undefined || isNothing(selector)) return undefined
	const missing = Object.entries(selector.matchLabels).filter(
		([key, value]) => !Object.hasOwn(labels, key) || labels[key] !== value,
	)
	const [only] = missing
	return only === undefined || missing.length > 1 ? undefined : { label: only[0], value: only[1] }
}
