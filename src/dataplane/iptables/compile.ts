// Model to program, incrementally: only Services that changed since the last call are compiled, all other chains are
// shared with the last result. The lists that all Services share are put together anew when one of them changed its
// part. The result depends on the model alone, not on what was compiled before.

import { familyOf, type IpFamily } from '../../base/ip.ts'
import { emptyTable, type Table, tableOf } from '../../base/table.ts'
import { type Chain, chainKey, type Rule, type Ruleset } from '../../linux/iptables/program.ts'
import { changedServices, isProxied, nodePortIps, ownsFrontend, sameNode } from '../../model/frontends.ts'
import type { NetworkModel, Node, NodeName, Service } from '../../model/network.ts'
import type { ObjectKey, Origin } from '../../model/origin.ts'
import { type Contribution, contribute, type List, noRules, type Vantage } from './contribute.ts'
import { chains, namesOf } from './names.ts'
import { emptyProgram, families, type IptablesProgram } from './program.ts'
import { fixedChains, noService, type Shape, toClusterIps, toNodePorts } from './skeleton.ts'

interface FamilyState {
	readonly contributions: Table<ObjectKey, Contribution>
	readonly shape: string
	readonly ruleset: Ruleset
}

export interface Compiled {
	readonly model: Pick<NetworkModel, 'config' | 'services' | 'addresses' | 'frontends'>
	readonly node: Node | undefined
	/** Sorted: in this order Services are in the lists they share. */
	readonly order: readonly ObjectKey[]
	readonly families: Readonly<Record<IpFamily, FamilyState>>
	readonly program: IptablesProgram
}

export interface CompileOptions {
	/** Whether iptables knows `MASQUERADE --random-fully`. */
	readonly randomFully: boolean
	/** Nothing but what kube-proxy writes. */
	readonly exact: boolean
}

const nothing: FamilyState = { contributions: emptyTable(), shape: '', ruleset: emptyTable() }

export function compileProgram(
	model: NetworkModel,
	name: NodeName,
	previous: Compiled | undefined,
	options: CompileOptions,
): Compiled {
	const node = model.nodes.get(name)
	const { config, services, addresses, frontends } = model
	const keep =
		previous !== undefined && previous.model.config === config && sameNode(previous.node, node) ? previous : undefined
	const touched = changedServices(keep?.model, model)
	if (keep !== undefined && touched.size === 0) return { ...keep, model: { config, services, addresses, frontends } }

	const order = reorder(keep, services, touched)
	const states = { 4: keep?.families[4] ?? nothing, 6: keep?.families[6] ?? nothing }
	const vantage: Vantage = {
		node: name,
		...(node?.zone === undefined ? {} : { zone: node.zone }),
		nodeIps: families.flatMap((f) => node?.addresses.find((ip) => familyOf(ip) === f) ?? []),
		podCidrs: config.podCidrs,
		serviceCidrs: config.serviceCidrs,
		exact: options.exact,
	}
	const after = { 4: states[4], 6: states[6] }
	for (const family of families) {
		const shape: Shape = {
			family,
			podCidrs: config.podCidrs.filter((cidr) => familyOf(cidr) === family),
			nodePortIps: node === undefined ? [] : nodePortIps(model, node).filter((ip) => familyOf(ip) === family),
			serviceCidrs: config.serviceCidrs.filter((cidr) => familyOf(cidr) === family),
			...options,
		}
		const wanted = [...config.podCidrs, ...config.serviceCidrs].some((cidr) => familyOf(cidr) === family)
		after[family] = compileFamily(states[family], model, touched, order, vantage, shape, wanted)
	}
	const origins = (keep?.program.origins ?? emptyProgram.origins).mutate((draft) => {
		for (const [key, { before, now }] of touched) {
			for (const title of titlesOf(key, before)) draft.delete(title[0])
			for (const [title, origin] of titlesOf(key, now)) draft.set(title, origin)
		}
	})
	const same = keep !== undefined && families.every((f) => after[f].ruleset === states[f].ruleset)
	const program: IptablesProgram =
		same && origins === keep.program.origins
			? keep.program
			: {
					rulesets: { 4: after[4].ruleset, 6: after[6].ruleset },
					localAddresses: node?.addresses ?? [],
					origins,
				}
	return { model: { config, services, addresses, frontends }, node, order, families: after, program }
}

type Touched = ReturnType<typeof changedServices>

function reorder(
	keep: Compiled | undefined,
	services: NetworkModel['services'],
	touched: Touched,
): readonly ObjectKey[] {
	if (keep === undefined) return [...services.keys()].sort()
	const gone = new Set<ObjectKey>()
	const come: ObjectKey[] = []
	for (const [key, { before, now }] of touched) {
		if (now === undefined) gone.add(key)
		else if (before === undefined) come.push(key)
	}
	if (gone.size === 0 && come.length === 0) return keep.order
	const order = gone.size === 0 ? [...keep.order] : keep.order.filter((key) => !gone.has(key))
	// Few come: each to its place. Many: sorted anew.
	if (come.length > 32) return [...order, ...come].sort()
	for (const key of come) order.splice(placeOf(order, key), 0, key)
	return order
}

function placeOf(order: readonly string[], key: string): number {
	let low = 0
	let high = order.length
	while (low < high) {
		const middle = (low + high) >> 1
		if ((order[middle] as string) < key) low = middle + 1
		else high = middle
	}
	return low
}

/** Where each list is, and in which order the chains are written. */
const lists: readonly (readonly [List, table: 'filter' | 'nat', chain: string])[] = [
	['unserved', 'filter', chains.services],
	['externalUnserved', 'filter', chains.externalServices],
	['healthPorts', 'filter', chains.nodePorts],
	['firewall', 'filter', chains.firewall],
	['services', 'nat', chains.services],
	['nodePorts', 'nat', chains.nodePorts],
	['clusterIps', 'filter', chains.clusterIps],
	['strayIps', 'filter', chains.unserved],
]
/** Without kube-proxy's gaps filled these two are not there. */
const ours: readonly List[] = ['clusterIps', 'strayIps']

function compileFamily(
	old: FamilyState,
	model: NetworkModel,
	touched: Touched,
	order: readonly ObjectKey[],
	vantage: Vantage,
	shape: Shape,
	wanted: boolean,
): FamilyState {
	const changed: [Contribution, Contribution][] = []
	const contributions = old.contributions.mutate((draft) => {
		for (const [key, { now: service }] of touched) {
			const before = draft.get(key) ?? noRules
			const now =
				service === undefined || !isProxied(service)
					? noRules
					: contribute(service, shape.family, vantage, (f) => ownsFrontend(model, service, f))
			if (isEmpty(now)) draft.delete(key)
			else draft.set(key, now)
			if (!isEmpty(before) || !isEmpty(now)) changed.push([before, now])
		}
	})
	if (!wanted && contributions.size === 0) return { contributions, shape: '', ruleset: emptyTable() }
	const text = JSON.stringify(shape)
	const anew = old.shape !== text
	if (!anew && changed.length === 0) return old
	const ruleset = (anew ? tableOf(fixedChains(shape).map(keyed)) : old.ruleset).mutate((draft) => {
		const before = new Map<string, Chain>()
		for (const [a] of changed) for (const chain of a.chains) before.set(chainKey(chain.table, chain.name), chain)
		for (const [, b] of changed) {
			for (const chain of b.chains) {
				const [key] = keyed(chain)
				const same = before.get(key)
				before.delete(key)
				// The same rules again: the chain that is there stays, so that nobody need compare it.
				if (anew || same === undefined || !sameText(same, chain)) draft.set(key, chain)
			}
		}
		for (const key of before.keys()) draft.delete(key)
		for (const [list, table, name] of lists) {
			if (shape.exact && ours.includes(list)) continue
			if (!anew && changed.every(([a, b]) => JSON.stringify(a[list]) === JSON.stringify(b[list]))) continue
			const rules: Rule[] = []
			for (const key of order) {
				const part = contributions.get(key)?.[list]
				if (part !== undefined) for (const rule of part) rules.push(rule)
			}
			if (list === 'services') rules.push(...toNodePorts(shape))
			else if (list === 'strayIps') rules.push(...toClusterIps(shape))
			else if (list === 'clusterIps') rules.push(noService)
			draft.set(chainKey(table, name), { table, name, rules })
		}
	})
	return { contributions, shape: text, ruleset }
}

function keyed(chain: Chain): readonly [string, Chain] {
	return [chainKey(chain.table, chain.name), chain]
}

function sameText(a: Chain, b: Chain): boolean {
	return a === b || JSON.stringify(a.rules) === JSON.stringify(b.rules)
}

function isEmpty(c: Contribution): boolean {
	return lists.every(([list]) => c[list].length === 0) && c.chains.length === 0
}

/** What comments call the Service's ports. */
function titlesOf(key: ObjectKey, service: Service | undefined): [string, Origin][] {
	if (service === undefined) return []
	const ports = service.ports.map((port): [string, Origin] => [
		namesOf(key, port.name, port.protocol).title,
		port.origin,
	])
	return [[key, service.fields?.clusterIP ?? service.origin], ...ports]
}
