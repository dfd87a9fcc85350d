// Policies that allow what is needed and nothing else: one for each workload, both directions.

import type { Cidr } from '../base/ip.ts'
import { subtractPorts, unitePorts } from '../base/ports.ts'
import type { LabelSelector } from '../kube/objects/meta.ts'
import type { NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort } from '../kube/objects/networking.ts'
import { namespaceNameLabel, rolloutLabels } from '../model/labels.ts'
import { type ClusterState, isStateKind, stateKinds } from '../model/state.ts'
import { type Connections, connectionsOf, connectionsText, noConnections } from './connections.ts'
import type { Reach } from './engine.ts'
import { endId, type Need, type NeedEnd } from './needs.ts'
import { allowedBetween, type Party } from './parties.ts'

export interface Generated {
	readonly policy: NetworkPolicy
	readonly party: Party
	/** The needs behind each rule: of `spec.ingress[i]`, of `spec.egress[i]`. */
	readonly ingress: readonly (readonly Need[])[]
	readonly egress: readonly (readonly Need[])[]
}

export interface GenerateInput {
	readonly state: ClusterState
	readonly parties: readonly Party[]
	readonly needs: readonly Need[]
	/** Whose policies are written. */
	readonly wanted: (party: Party) => boolean
	/** The namespace of whatever serves Ingress objects. Undefined: any. */
	readonly ingressNamespace?: string
}

export function generatePolicies(input: GenerateInput): readonly Generated[] {
	const parties = input.parties.filter((party) => !party.hostNetwork && party.members.length > 0 && input.wanted(party))
	const names = policyNames(parties)
	return parties.map((party) => {
		const is = (end: NeedEnd) => end.kind === 'workload' && end.party.name === party.name
		const ingress = rulesOf(
			input,
			party,
			input.needs.filter((n) => is(n.to)),
			'from',
		)
		const egress = rulesOf(
			input,
			party,
			input.needs.filter((n) => is(n.from)),
			'to',
		)
		return {
			policy: {
				apiVersion: 'networking.k8s.io/v1',
				kind: 'NetworkPolicy',
				metadata: { name: names.get(party.name)!, namespace: party.namespace },
				spec: {
					podSelector: selectorOf(input, party),
					policyTypes: ['Ingress', 'Egress'],
					ingress: ingress.map(({ peers, ports }) => ({ from: peers, ports })),
					egress: egress.map(({ peers, ports }) => ({ to: peers, ports })),
				},
			},
			party,
			ingress: ingress.map((r) => r.needs),
			egress: egress.map((r) => r.needs),
		}
	})
}

/** The workload's name; with its kind where two of a namespace share it. */
function policyNames(parties: readonly Party[]): ReadonlyMap<string, string> {
	const count = new Map<string, number>()
	for (const { key } of parties) count.set(key, (count.get(key) ?? 0) + 1)
	return new Map(
		parties.map(({ name, key, kind }) => {
			const plain = key.slice(key.indexOf('/') + 1)
			return [name, (count.get(key) ?? 0) > 1 ? `${plain}-${kind.toLowerCase()}` : plain]
		}),
	)
}

interface Rule {
	readonly peers: readonly NetworkPolicyPeer[]
	readonly ports: readonly NetworkPolicyPort[]
	readonly needs: readonly Need[]
}

/** Ends with the same ports in one rule. */
function rulesOf(input: GenerateInput, own: Party, needs: readonly Need[], side: 'from' | 'to'): readonly Rule[] {
	const ends = new Map<string, { end: NeedEnd; needs: Need[] }>()
	for (const need of needs) {
		const end = side === 'from' ? need.from : need.to
		const id = endId(end)
		const entry = ends.get(id)
		if (entry === undefined) ends.set(id, { end, needs: [need] })
		else entry.needs.push(need)
	}
	const rules = new Map<string, { peers: NetworkPolicyPeer[]; ports: NetworkPolicyPort[]; needs: Need[] }>()
	for (const { end, needs } of ends.values()) {
		const ports = [
			...new Map(needs.map((n) => [`${n.protocol} ${n.port}`, { protocol: n.protocol, port: n.port }])).values(),
		].sort((a, b) => (a.protocol < b.protocol ? -1 : a.protocol > b.protocol ? 1 : a.port - b.port))
		const id = JSON.stringify(ports)
		const rule = rules.get(id)
		const peers = peersOf(input, own, end)
		if (rule === undefined) rules.set(id, { peers: [...peers], ports, needs })
		else {
			for (const peer of peers)
				if (!rule.peers.some((p) => JSON.stringify(p) === JSON.stringify(peer))) rule.peers.push(peer)
			rule.needs.push(...needs)
		}
	}
	return [...rules.values()]
}

function peersOf(input: GenerateInput, own: Party, end: NeedEnd): readonly NetworkPolicyPeer[] {
	const inNamespace = (name: string): LabelSelector => ({ matchLabels: { [namespaceNameLabel]: name } })
	switch (end.kind) {
		case 'outside':
			return end.cidrs.map((cidr) => ({ ipBlock: { cidr } }))
		case 'ingress-controller':
			return [{ namespaceSelector: input.ingressNamespace === undefined ? {} : inNamespace(input.ingressNamespace) }]
		case 'workload': {
			if (end.party.hostNetwork) return hostAddresses(end.party).map((cidr) => ({ ipBlock: { cidr } }))
			const podSelector = selectorOf(input, end.party)
			return [
				end.party.namespace === own.namespace
					? { podSelector }
					: { namespaceSelector: inNamespace(end.party.namespace), podSelector },
			]
		}
		default: {
			const never: never = end
			throw new Error(`No such end: ${JSON.stringify(never)}`)
		}
	}
}

function hostAddresses(party: Party): readonly Cidr[] {
	return party.members.flatMap((m) => (m.kind === 'host' ? [`${m.ip}/${m.ip.includes(':') ? 128 : 32}` as Cidr] : []))
}

/** The workload's own selector; all labels of its pods where that selects pods of others too. */
function selectorOf({ state, parties }: GenerateInput, party: Party): LabelSelector {
	const labels = Object.fromEntries(
		Object.entries(party.sample.labels)
			.filter(([key]) => !rolloutLabels.has(key))
			.sort(([a], [b]) => (a < b ? -1 : 1)),
	)
	const object = isStateKind(party.kind)
		? (state[stateKinds[party.kind].table].get(party.key) as { spec?: { selector?: LabelSelector } } | undefined)
		: undefined
	const own = party.kind === 'Job' ? undefined : object?.spec?.selector?.matchLabels
	const plain =
		own !== undefined && (object?.spec?.selector?.matchExpressions?.length ?? 0) === 0 && Object.keys(own).length > 0
	if (!plain) return { matchLabels: labels }
	const others = parties.some(
		(other) =>
			other.name !== party.name &&
			other.namespace === party.namespace &&
			Object.entries(own).every(([k, v]) => other.sample.labels[k] === v),
	)
	return { matchLabels: others ? labels : Object.fromEntries(Object.entries(own).sort(([a], [b]) => (a < b ? -1 : 1))) }
}

export interface Mismatch {
	readonly from: string
	readonly to: string
	readonly needed: Connections
	readonly allowed: Connections
}

/** What the policies allow between workloads that have one, laid against what was needed. Empty: exactly that. */
export function compareWithNeeds(
	reach: Reach,
	parties: readonly Party[],
	generated: readonly Generated[],
	needs: readonly Need[],
): readonly Mismatch[] {
	const policed = new Set(generated.map((g) => g.party.name))
	const wanted = new Map<string, Connections>()
	for (const { from, to, protocol, port } of needs) {
		if (from.kind !== 'workload' || to.kind !== 'workload') continue
		const id = `${from.party.name}\n${to.party.name}`
		wanted.set(id, unitePorts(wanted.get(id) ?? noConnections, connectionsOf(protocol, port)))
	}
	// Whoever is needed from outside is open to all, also to workloads with addresses within these networks.
	const open = new Map<string, Connections>()
	for (const { from, to, protocol, port } of needs) {
		if (from.kind === 'workload' || to.kind !== 'workload') continue
		open.set(to.party.name, unitePorts(open.get(to.party.name) ?? noConnections, connectionsOf(protocol, port)))
	}
	const wrong: Mismatch[] = []
	for (const from of parties) {
		for (const to of parties) {
			if (from.hostNetwork || to.hostNetwork || (!policed.has(from.name) && !policed.has(to.name))) continue
			const allowed = allowedBetween(reach, from.members, to.members)
			if (allowed === undefined) continue
			const needed = wanted.get(`${from.name}\n${to.name}`) ?? noConnections
			const lacking = subtractPorts(needed, reach.pool.setOf(allowed.every))
			const bound = policed.has(from.name) ? needed : unitePorts(needed, open.get(to.name) ?? noConnections)
			const more =
				policed.has(to.name) || policed.has(from.name)
					? subtractPorts(reach.pool.setOf(allowed.some), bound)
					: noConnections
			if (lacking.length > 0 || more.length > 0)
				wrong.push({ from: from.name, to: to.name, needed, allowed: reach.pool.setOf(allowed.some) })
		}
	}
	return wrong
}

export function mismatchText({ from, to, needed, allowed }: Mismatch): string {
	return `${from} → ${to}: needed ${connectionsText(needed)}, allowed ${connectionsText(allowed)}`
}

/** `# web calls api (env API_ADDR)`, one for each need, in front of the policy. */
export function commentOf({ party, ingress, egress }: Generated): readonly string[] {
	const lines = [`# ${party.name}`]
	const say = (needs: readonly (readonly Need[])[], side: 'from' | 'to') => {
		for (const need of needs.flat()) {
			const origin = need.because[0]
			const place =
				origin !== undefined && 'source' in origin && origin.source !== undefined
					? ` ${origin.source.file}:${origin.source.line}`
					: ''
			lines.push(
				`#   ${side} ${endId(side === 'from' ? need.from : need.to)} ${need.protocol} ${need.port}: ${need.why}${place}`,
			)
		}
	}
	say(ingress, 'from')
	say(egress, 'to')
	if (ingress.length === 0) lines.push('#   from nobody (probes of the kubelet always pass)')
	return lines
}
