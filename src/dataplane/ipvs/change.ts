// What turns one program into another, and the order it is done in: what rules and servers need comes before them, what
// they needed goes after them.

import type { Ip } from '../../base/ip.ts'
import { diffTables } from '../../base/table.ts'
import { diffRulesets, type IptablesChange } from '../../linux/iptables/change.ts'
import type { Destination, VirtualServer } from '../../linux/ipvs/ipvs.ts'
import { leavingChains, signOfIptables } from '../kube-chains.ts'
import { isOwnChain } from './layout.ts'
import { emptyProgram, families, type IpvsProgram, type ServerEntry, splitEntry } from './program.ts'

export type IpvsChange =
	| { readonly op: 'create-set' | 'destroy-set'; readonly set: string }
	| { readonly op: 'add-entry' | 'delete-entry'; readonly set: string; readonly entry: string }
	| { readonly op: 'create-device' | 'delete-device' }
	| { readonly op: 'add-address' | 'delete-address'; readonly ip: Ip }
	| { readonly op: 'add-server' | 'set-server' | 'delete-server'; readonly server: VirtualServer }
	| {
			/** set: another weight. */
			readonly op: 'add-destination' | 'set-destination' | 'delete-destination'
			readonly server: VirtualServer
			readonly destination: Destination
	  }
	| { readonly op: 'rules'; readonly change: IptablesChange }

const order: readonly IpvsChange['op'][] = [
	'create-set',
	'add-entry',
	'create-device',
	'add-server',
	'set-server',
	'add-destination',
	'set-destination',
	'add-address',
	'rules',
	'delete-destination',
	'delete-address',
	'delete-server',
	'delete-device',
	'delete-entry',
	'destroy-set',
]

export function diffPrograms(have: IpvsProgram | undefined, want: IpvsProgram): IpvsChange[] {
	const before = have ?? emptyProgram
	const changes: IpvsChange[] = []
	const had = new Set(before.sets)
	const wanted = new Set(want.sets)
	for (const set of want.sets) if (!had.has(set)) changes.push({ op: 'create-set', set })
	for (const set of before.sets) if (!wanted.has(set)) changes.push({ op: 'destroy-set', set })
	diffTables(before.entries, want.entries, (key, a, b) => {
		if (a !== undefined && b !== undefined) return
		const [set, entry] = splitEntry(key)
		if (a === undefined) changes.push({ op: 'add-entry', set, entry })
		// A set takes its entries with it.
		else if (wanted.has(set)) changes.push({ op: 'delete-entry', set, entry })
	})
	if (before.device !== want.device) changes.push({ op: want.device ? 'create-device' : 'delete-device' })
	diffTables(before.addresses, want.addresses, (ip, a, b) => {
		if (a === undefined) changes.push({ op: 'add-address', ip: ip as Ip })
		else if (b === undefined && want.device) changes.push({ op: 'delete-address', ip: ip as Ip })
	})
	diffTables(before.servers, want.servers, (_, a, b) => changes.push(...diffServers(a, b)))
	for (const family of families) {
		const [rules, wantedRules] = [before.rulesets[family], want.rulesets[family]]
		const owns = wantedRules.size === 0 ? leavingChains(rules, isOwnChain, signOfIptables) : isOwnChain
		for (const change of diffRulesets(rules, wantedRules, family, owns)) {
			changes.push({ op: 'rules', change })
		}
	}
	return changes.sort((a, b) => order.indexOf(a.op) - order.indexOf(b.op))
}

function diffServers(before: ServerEntry | undefined, after: ServerEntry | undefined): IpvsChange[] {
	if (after === undefined) return before === undefined ? [] : [{ op: 'delete-server', server: before.server }]
	const { server } = after
	const changes: IpvsChange[] = []
	if (before === undefined) changes.push({ op: 'add-server', server })
	else if (!sameServer(before.server, server)) changes.push({ op: 'set-server', server })
	const old = new Map((before?.destinations ?? []).map((d) => [`${d.ip} ${d.port}`, d]))
	for (const destination of after.destinations) {
		const key = `${destination.ip} ${destination.port}`
		const was = old.get(key)
		old.delete(key)
		if (was === undefined) changes.push({ op: 'add-destination', server, destination })
		else if (!sameDestination(was, destination)) changes.push({ op: 'set-destination', server, destination })
	}
	for (const destination of old.values()) changes.push(...leave(server, destination))
	return changes
}

/**
 * A destination of TCP that leaves gets no new connections and stays until those it has are over, as kube-proxy does it:
 * without their destination the kernel would end them. What read says of its connections decides when it goes.
 */
function leave(server: VirtualServer, destination: Destination): IpvsChange[] {
	const { weight, active = 0, inactive = 0 } = destination
	const gone: IpvsChange = { op: 'delete-destination', server, destination }
	// Templates of session affinity would bring new connections to it.
	if (server.protocol !== 'TCP' || server.persistence !== undefined) return [gone]
	if (weight > 0) return [{ op: 'set-destination', server, destination: { ...destination, weight: 0 } }]
	return active + inactive === 0 ? [gone] : []
}

function sameServer(a: VirtualServer, b: VirtualServer): boolean {
	return (
		a.scheduler === b.scheduler &&
		a.persistence === b.persistence &&
		a.hashPort === b.hashPort &&
		a.fallback === b.fallback
	)
}

function sameDestination(a: Destination, b: Destination): boolean {
	return a.weight === b.weight && a.forwarding === b.forwarding && a.upper === b.upper && a.lower === b.lower
}
