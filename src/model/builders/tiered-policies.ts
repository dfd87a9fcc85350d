// Policies of the tiers before and behind NetworkPolicy, of all three kinds, as one type. A rule that cannot be read
// fails closed, as the API says: an Accept then matches nothing, a Deny or Pass denies everything.

import { type Cidr, tryParseCidr } from '../../base/ip.ts'
import type { Protocol } from '../../base/packet.ts'
import { emptyTable, type Table } from '../../base/table.ts'
import type {
	AdminNetworkPolicy,
	AdminNetworkPolicyPort,
	AdminNetworkPolicyRule,
	BaselineAdminNetworkPolicy,
	ClusterNetworkPolicy,
	ClusterNetworkPolicyProtocol,
	ClusterNetworkPolicyRule,
	TierPeer,
	TierSubject,
} from '../../kube/objects/network-policy-api.ts'
import type { PolicyPort, TieredPeer, TieredPolicy, TieredRule } from '../network.ts'
import type { Origin } from '../origin.ts'
import { nothing } from '../selector.ts'
import { share } from '../share.ts'
import { type ClusterState, originOf } from '../state.ts'
import { type BuildInput, changedKeys } from './input.ts'
import { readSelector } from './policies.ts'

/** A BaselineAdminNetworkPolicy has no priority; it stands behind all that do (0–1000). */
const lastPriority = 1001
/** The only name a BaselineAdminNetworkPolicy may have. */
export const baselineName = 'default'

type TierObject = ClusterNetworkPolicy | AdminNetworkPolicy | BaselineAdminNetworkPolicy

const tables = {
	ClusterNetworkPolicy: 'clusterNetworkPolicies',
	AdminNetworkPolicy: 'adminNetworkPolicies',
	BaselineAdminNetworkPolicy: 'baselineAdminNetworkPolicies',
} as const

export function buildTieredPolicies(input: BuildInput): Table<string, TieredPolicy> {
	const before = input.last?.parts.tieredPolicies ?? emptyTable<string, TieredPolicy>()
	return before.mutate((draft) => {
		for (const kind of Object.keys(tables) as (keyof typeof tables)[]) {
			for (const name of changedKeys(input, kind, tables[kind])) {
				const object: TierObject | undefined = input.state[tables[kind]].get(name)
				const policy = object === undefined ? undefined : readTiered(input.state, kind, object)
				const key = `${kind} ${name}`
				if (policy === undefined) draft.delete(key)
				else draft.set(key, share(draft.get(key), policy))
			}
		}
	})
}

/** Undefined: a baseline of another name than the one there may be, which no API server takes. */
function readTiered(state: ClusterState, kind: TieredPolicy['kind'], object: TierObject): TieredPolicy | undefined {
	const key = object.metadata.name
	if (kind === 'BaselineAdminNetworkPolicy' && key !== baselineName) return undefined
	const at = (field?: string) => originOf(state, kind, key, field)
	const spec: ClusterNetworkPolicy['spec'] & AdminNetworkPolicy['spec'] = object.spec ?? {}
	const unreadable: Origin[] = []
	const subject = readSubject(spec.subject)
	if (subject === undefined) unreadable.push(at('spec.subject'))
	let tier: TieredPolicy['tier'] = kind === 'BaselineAdminNetworkPolicy' ? 'Baseline' : 'Admin'
	if (kind === 'ClusterNetworkPolicy') {
		if (spec.tier === 'Admin' || spec.tier === 'Baseline') tier = spec.tier
		else unreadable.push(at('spec.tier'))
	}
	let priority = lastPriority
	if (kind !== 'BaselineAdminNetworkPolicy') {
		if (typeof spec.priority === 'number') priority = spec.priority
		else unreadable.push(at('spec.priority'))
	}
	const rules = (direction: 'ingress' | 'egress') =>
		(spec[direction] ?? []).map((rule, i) =>
			readRule(kind, direction, rule, (field) => at(`spec.${direction}[${i}]${field}`)),
		)
	return {
		kind,
		key,
		tier,
		priority,
		subject: subject ?? { namespaces: nothing },
		ingress: rules('ingress'),
		egress: rules('egress'),
		...(unreadable.length === 0 ? {} : { unreadable }),
		origin: at(),
	}
}

/** Undefined: nothing we know is set. */
function readSubject(subject: TierSubject | undefined): TieredPolicy['subject'] | undefined {
	if (subject?.pods !== undefined) {
		const { namespaceSelector, podSelector } = subject.pods
		return { namespaces: readSelector(namespaceSelector), pods: readSelector(podSelector) }
	}
	return subject?.namespaces === undefined ? undefined : { namespaces: readSelector(subject.namespaces) }
}

type At = (field: string) => Origin
type AnyRule = ClusterNetworkPolicyRule & AdminNetworkPolicyRule

function readRule(kind: TieredPolicy['kind'], direction: 'ingress' | 'egress', rule: AnyRule, at: At): TieredRule {
	const unreadable: Origin[] = []
	const named = rule.name === undefined ? {} : { name: rule.name }
	const action = readAction(kind, rule.action)
	if (action === undefined) unreadable.push(at('.action'))
	const side = direction === 'ingress' ? 'from' : 'to'
	const peers: TieredPeer[] = []
	for (const [i, peer] of (rule[side] ?? []).entries()) {
		const read = readPeer(peer, direction, action, (field) => at(`.${side}[${i}]${field}`))
		if (read === undefined) unreadable.push(at(`.${side}[${i}]`))
		else peers.push(...read)
	}
	if ((rule[side] ?? []).length === 0) unreadable.push(at(`.${side}`))
	const ports: PolicyPort[] = []
	const [list, field, read] =
		kind === 'ClusterNetworkPolicy'
			? ([rule.protocols ?? [], 'protocols', readProtocol] as const)
			: ([rule.ports ?? [], 'ports', readPort] as const)
	for (const [i, entry] of list.entries()) {
		const origin = at(`.${field}[${i}]`)
		const found = read(entry, origin)
		if (found === undefined) unreadable.push(origin)
		else ports.push(...found)
	}
	const origin = at('')
	if (unreadable.length === 0 && action !== undefined) return { action, ...named, peers, ports, origin }
	return action === 'Accept'
		? { action, ...named, peers: [], ports: [], unreadable, origin }
		: { action: 'Deny', ...named, peers: everybody(origin), ports: [], unreadable, origin }
}

function everybody(origin: Origin): readonly TieredPeer[] {
	return ['0.0.0.0/0', '::/0'].map((cidr) => ({ kind: 'block', cidr: cidr as Cidr, except: [], origin }))
}

function readAction(kind: TieredPolicy['kind'], action: string | undefined): TieredRule['action'] | undefined {
	// v1alpha1 says Allow where v1alpha2 says Accept; a baseline has no tier behind it to pass to.
	if (kind === 'ClusterNetworkPolicy')
		return action === 'Accept' || action === 'Deny' || action === 'Pass' ? action : undefined
	if (action === 'Allow') return 'Accept'
	if (action === 'Deny' || (action === 'Pass' && kind === 'AdminNetworkPolicy')) return action
	return undefined
}

/** Undefined: it is none of the peers of its direction, or one that cannot be read. */
function readPeer(
	peer: TierPeer,
	direction: 'ingress' | 'egress',
	action: TieredRule['action'] | undefined,
	at: At,
): readonly TieredPeer[] | undefined {
	const origin = at('')
	if (Object.values(peer).filter((value) => value !== undefined).length !== 1) return undefined
	if (peer.namespaces !== undefined) return [{ kind: 'pods', namespaces: readSelector(peer.namespaces), origin }]
	if (peer.pods !== undefined) {
		const { namespaceSelector, podSelector } = peer.pods
		return [{ kind: 'pods', namespaces: readSelector(namespaceSelector), pods: readSelector(podSelector), origin }]
	}
	if (direction === 'ingress') return undefined
	if (peer.networks !== undefined) {
		const cidrs = peer.networks.map((text) => tryParseCidr(text, { mask: true }))
		if (cidrs.length === 0 || cidrs.includes(undefined)) return undefined
		return (cidrs as Cidr[]).map((cidr, i) => ({ kind: 'block', cidr, except: [], origin: at(`.networks[${i}]`) }))
	}
	if (peer.nodes !== undefined) return [{ kind: 'nodes', nodes: readSelector(peer.nodes), origin }]
	// A name may only be accepted: who may not be reached by name could be by another.
	if (peer.domainNames !== undefined && peer.domainNames.length > 0 && action === 'Accept')
		return [{ kind: 'domains', names: peer.domainNames, origin }]
	return undefined
}

const protocols: readonly Protocol[] = ['TCP', 'UDP', 'SCTP']

/** A named port has the protocol of the container port of that name: any. */
function named(port: string, origin: Origin): readonly PolicyPort[] {
	return protocols.map((protocol) => ({ protocol, port, origin }))
}

function readProtocol(entry: ClusterNetworkPolicyProtocol, origin: Origin): readonly PolicyPort[] | undefined {
	const set = Object.entries(entry).filter(([, value]) => value !== undefined)
	if (set.length !== 1) return undefined
	if (entry.destinationNamedPort !== undefined) return named(entry.destinationNamedPort, origin)
	const [name, match] = set[0] as [string, ClusterNetworkPolicyProtocol['tcp']]
	const protocol = protocols.find((p) => p.toLowerCase() === name)
	const port = match?.destinationPort
	if (protocol === undefined || port === undefined || Object.keys(match ?? {}).length !== 1) return undefined
	if (port.number !== undefined && port.range === undefined) return [{ protocol, port: port.number, origin }]
	if (port.range === undefined || port.number !== undefined) return undefined
	return [{ protocol, port: port.range.start, endPort: port.range.end, origin }]
}

function readPort(entry: AdminNetworkPolicyPort, origin: Origin): readonly PolicyPort[] | undefined {
	if (Object.values(entry).filter((value) => value !== undefined).length !== 1) return undefined
	if (entry.namedPort !== undefined) return named(entry.namedPort, origin)
	const numbers = entry.portNumber ?? entry.portRange
	const protocol = protocols.find((p) => p === (numbers?.protocol ?? 'TCP'))
	if (numbers === undefined || protocol === undefined) return undefined
	return 'port' in numbers
		? [{ protocol, port: numbers.port, origin }]
		: [{ protocol, port: numbers.start, endPort: numbers.end, origin }]
}
