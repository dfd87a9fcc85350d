// A program against a packet, in the terms of the contract. The addresses of Services are the node's own, so that their
// packets come to INPUT, where IPVS takes them on: for the caller, who routes by the destination it is given, that
// happens at prerouting (and at output for the node's own packets), and the destination is the endpoint afterwards.

import { familyOf, type Ip } from '../../base/ip.ts'
import type { Hook, Packet } from '../../base/packet.ts'
import { findEntry, type SetProtocol } from '../../linux/ipset/ipset.ts'
import {
	evaluateRuleset,
	type IptablesContext,
	type IptablesHit,
	type IptablesOutcome,
} from '../../linux/iptables/evaluate.ts'
import { commentOf, type Ruleset } from '../../linux/iptables/program.ts'
import type { IpvsProtocol, Scheduler } from '../../linux/ipvs/ipvs.ts'
import { defaultOrigin, type Origin } from '../../model/origin.ts'
import type { Evaluated, RuleHit } from '../dataplane.ts'
import { ruleHit } from '../kube-chains.ts'
import { headerOf } from './layout.ts'
import { entryKey, type IpvsProgram, type ServerEntry, serverKey, splitEntry } from './program.ts'

/** All outcomes for one packet at one hook. Throws NotEvaluable where a rule asks for what is not known of the packet. */
export function evaluate(program: IpvsProgram, packet: Packet, hook: Hook): readonly Evaluated[] {
	const family = familyOf(packet.destination)
	const ruleset = program.rulesets[family]
	const context = contextOf(program, family)
	if (hook === 'output') return output(program, ruleset, packet, context)
	const outcomes = evaluateRuleset(ruleset, packet, hook, context).map((o) => evaluated(program, o))
	if (hook !== 'prerouting') return outcomes
	return outcomes.flatMap((o) => {
		const entry = serverOf(program, o.packet)
		if (o.verdict !== 'accept' || (entry === undefined && !program.addresses.has(o.packet.destination))) return [o]
		const input = evaluateRuleset(ruleset, o.packet, 'input', context).map((i) => evaluated(program, i))
		return then([o], () => input).flatMap((i) =>
			i.verdict === 'accept' ? schedule(program, entry, i, 'prerouting') : [i],
		)
	})
}

/** nat OUTPUT, then IPVS, then filter OUTPUT, which sees the endpoint. */
function output(
	program: IpvsProgram,
	ruleset: Ruleset,
	packet: Packet,
	context: IptablesContext,
): readonly Evaluated[] {
	const run = (p: Packet, hook: Hook, tables?: IptablesContext['tables']) =>
		evaluateRuleset(ruleset, p, hook, tables === undefined ? context : { ...context, tables }).map((o) =>
			evaluated(program, o),
		)
	const taken = run(packet, 'output', ['raw', 'mangle', 'nat']).flatMap((o) => {
		if (o.verdict !== 'accept') return [o]
		return schedule(program, serverOf(program, o.packet), o, 'output')
	})
	const sent = then(taken, (p) => run(p, 'output', ['filter', 'security']))
	// An address of the dummy device without such a port: the packet comes in again, and is refused at INPUT.
	return sent.flatMap((o) => (program.addresses.has(o.packet.destination) ? then([o], (p) => run(p, 'input')) : [o]))
}

/** What comes after, for those that got so far. */
function then(before: readonly Evaluated[], next: (packet: Packet) => readonly Evaluated[]): Evaluated[] {
	return before.flatMap((a) =>
		a.verdict !== 'accept'
			? [a]
			: next(a.packet).map((b) => ({ ...b, rules: [...a.rules, ...b.rules], chance: a.chance * b.chance })),
	)
}

function serverOf(program: IpvsProgram, packet: Packet): ServerEntry | undefined {
	const { protocol, destination: ip, destinationPort: port, state } = packet
	if (protocol === 'ICMP' || state !== 'new') return undefined
	return program.servers.get(serverKey({ protocol: protocol as IpvsProtocol, ip, port }))
}

/** IPVS' own choice. Without a destination it answers "port unreachable" itself. */
function schedule(
	program: IpvsProgram,
	entry: ServerEntry | undefined,
	before: Evaluated,
	hook: 'prerouting' | 'output',
): Evaluated[] {
	if (entry === undefined) return [before]
	const { server } = entry
	const open = entry.destinations.filter((d) => d.weight > 0)
	const key = serverKey(server)
	const origin = program.origins.get(key)
	const text = `-A -${{ TCP: 't', UDP: 'u', SCTP: '-sctp-service' }[server.protocol]} ${endpointText(server.ip, server.port)} -s ${server.scheduler}${server.persistence === undefined ? '' : ` -p ${server.persistence}`}`
	const hit = (elements: readonly string[]): RuleHit => ({
		family: familyOf(server.ip) === 4 ? 'ip' : 'ip6',
		table: 'ipvs',
		chain: hook === 'output' ? 'OUTPUT' : 'INPUT',
		text,
		elements,
		because: origin === undefined ? [] : [origin],
	})
	if (open.length === 0) return [{ ...before, verdict: 'reject', rules: [...before.rules, hit([])] }]
	const shares = sharesOf(server.scheduler, open)
	return open.map((d, i) => ({
		verdict: 'accept' as const,
		packet: { ...before.packet, destination: d.ip, destinationPort: d.port },
		rules: [...before.rules, hit([`-r ${endpointText(d.ip, d.port)} -w ${d.weight}`])],
		chance: before.chance * (shares[i] as number),
	}))
}

/**
 * The share of each destination of clients in general: by weight, or alike. Which one a certain connection gets depends
 * on what came before (rr, lc, …) or on the kernel's hash of its client (sh, dh, mh).
 */
function sharesOf(scheduler: Scheduler, destinations: ServerEntry['destinations']): number[] {
	const weighted = !['rr', 'lc', 'dh', 'lblc'].includes(scheduler)
	const weights = destinations.map((d) => (weighted ? d.weight : 1))
	const sum = weights.reduce((a, b) => a + b, 0)
	return weights.map((w) => w / sum)
}

function endpointText(ip: Ip, port: number): string {
	return familyOf(ip) === 6 ? `[${ip}]:${port}` : `${ip}:${port}`
}

function contextOf(program: IpvsProgram, family: 4 | 6): IptablesContext {
	const { localAddresses, addresses, entries } = program
	return {
		localAddresses: [...localAddresses, ...addresses.keys()],
		masqueradeAddress: () => localAddresses.find((ip) => familyOf(ip) === family),
		findMember(name, fields, packet) {
			const header = headerOf(name)
			if (header === undefined) return undefined
			const at = (i: number) => (fields[i] === 'src' ? packet.source : packet.destination)
			const port = fields[1] === 'src' ? packet.sourcePort : packet.destinationPort
			const protocol = packet.protocol.toLowerCase() as SetProtocol
			const set = { type: header.type, entries: entriesOf(entries, name) }
			return findEntry(set, { ip: at(0), protocol, port, ip2: at(2) })
		},
	}
}

function entriesOf(entries: IpvsProgram['entries'], set: string) {
	return {
		has: (entry: string) => entries.has(entryKey(set, entry)),
		*[Symbol.iterator]() {
			for (const key of entries.keys()) {
				const [of, entry] = splitEntry(key)
				if (of === set) yield entry
			}
		},
	}
}

function evaluated(program: IpvsProgram, outcome: IptablesOutcome): Evaluated {
	return { ...outcome, rules: outcome.rules.map((hit) => ruleHit(hit, originsOf(program, hit))) }
}

/** The Service port whose address the looked-up member of a set is; else the rule's comment is the reason. */
function originsOf(program: IpvsProgram, hit: IptablesHit): Origin[] {
	for (const element of hit.elements) {
		const match = /^([^,]+),(tcp|udp|sctp):(\d+)/.exec(element)
		if (match === null) continue
		const [, ip, protocol, port] = match
		const origin = program.origins.get(`${protocol?.toUpperCase()} ${ip} ${port}`)
		if (origin !== undefined) return [origin]
	}
	const text = commentOf(hit.rule)
	return text === undefined ? [] : [defaultOrigin(text)]
}
