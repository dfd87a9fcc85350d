// What a ruleset does to one packet at one hook: all tables of the hook in order of priority, through jumps, gotos and
// returns, marks, translation and rejection. Pure. Where chance decides (statistic), every outcome comes out with its
// probability. Order of tables: netfilter's priorities; the nat table sees the first packet of a connection only.

import { cidrContains, familyOf, type Ip } from '../../base/ip.ts'
import type { Hook, Packet, Protocol } from '../../base/packet.ts'
import { NotEvaluable } from '../nft/expr/machine.ts'
import {
	type AddressType,
	type Chain,
	type ConnectionWord,
	chainKey,
	type Match,
	type Negatable,
	probabilityUnit,
	type Rule,
	type Ruleset,
	type TableName,
} from './program.ts'
import { renderRule } from './render.ts'

export { NotEvaluable } from '../nft/expr/machine.ts'

/** Facts beside the packet that rules may ask for. */
export interface IptablesContext {
	/** Addresses of the node, loopback aside. */
	readonly localAddresses: readonly Ip[]
	/** Address a masquerade takes. */
	readonly masqueradeAddress: (packet: Packet) => Ip | undefined
	/** Only these tables, where something else happens between them; by default all of the hook. */
	readonly tables?: readonly TableName[]
	/** Members of ipsets: the entry that the packet's fields are in, as `ipset list` prints it. */
	readonly findMember?: (set: string, fields: readonly ('src' | 'dst')[], packet: Packet) => string | undefined
}

export interface IptablesHit {
	readonly family: 'ip' | 'ip6'
	readonly table: TableName
	readonly chain: string
	readonly rule: Rule
	/** As iptables-save prints it. */
	readonly text: string
	/** Members of sets that were looked up on the way. */
	readonly elements: readonly string[]
}

export interface IptablesOutcome {
	readonly verdict: 'accept' | 'drop' | 'reject'
	readonly packet: Packet
	/** In order; the last one that decides decided, else it was a chain's policy. */
	readonly rules: readonly IptablesHit[]
	/** The chances of all outcomes sum to 1. */
	readonly chance: number
}

const tablesAt: Readonly<Record<Hook, readonly TableName[]>> = {
	connect: [],
	prerouting: ['raw', 'mangle', 'nat'],
	input: ['mangle', 'filter', 'security', 'nat'],
	forward: ['mangle', 'filter', 'security'],
	output: ['raw', 'mangle', 'nat', 'filter', 'security'],
	postrouting: ['mangle', 'nat'],
}

/** Throws NotEvaluable when a rule that is reached asks for something the packet does not say. */
export function evaluateRuleset(
	ruleset: Ruleset,
	packet: Packet,
	hook: Hook,
	context: IptablesContext,
): IptablesOutcome[] {
	let runs: Run[] = [{ packet, rules: [], chance: 1, translated: false }]
	const outcomes: IptablesOutcome[] = []
	for (const table of tablesAt[hook]) {
		const chain = ruleset.get(chainKey(table, hook.toUpperCase()))
		if (chain === undefined || context.tables?.includes(table) === false) continue
		const next: Run[] = []
		for (const run of runs) {
			if (table === 'nat' && (run.packet.state !== 'new' || run.translated)) {
				next.push(run)
				continue
			}
			for (const end of new Walk(ruleset, table, hook, context).chain(chain, run, 0)) {
				const verdict = end.verdict ?? (chain.policy === 'DROP' ? 'drop' : 'accept')
				if (verdict === 'accept') next.push(end.run)
				else outcomes.push({ verdict, packet: end.run.packet, rules: end.run.rules, chance: end.run.chance })
			}
		}
		runs = next
	}
	for (const { packet: p, rules, chance } of runs) outcomes.push({ verdict: 'accept', packet: p, rules, chance })
	return outcomes
}

/** The state of one of the possible ways so far. */
interface Run {
	readonly packet: Packet
	readonly rules: readonly IptablesHit[]
	readonly chance: number
	readonly translated: boolean
}

/** Where a way ended: with a verdict, or off the end of the chain. */
interface End {
	readonly run: Run
	readonly verdict?: 'accept' | 'drop' | 'reject'
}

class Walk {
	readonly #ruleset: Ruleset
	readonly #table: TableName
	readonly #hook: Hook
	readonly #context: IptablesContext

	constructor(ruleset: Ruleset, table: TableName, hook: Hook, context: IptablesContext) {
		this.#ruleset = ruleset
		this.#table = table
		this.#hook = hook
		this.#context = context
	}

	chain(chain: Chain, start: Run, depth: number): End[] {
		if (depth > 64) throw new NotEvaluable('jumps are nested deeper than any packet can go')
		const ends: End[] = []
		let runs: Run[] = [start]
		for (const rule of chain.rules) {
			const going: Run[] = []
			for (const run of runs) this.#rule(chain, rule, run, depth, going, ends)
			runs = going
			if (runs.length === 0) break
		}
		return [...ends, ...runs.map((run) => ({ run }))]
	}

	#rule(chain: Chain, rule: Rule, run: Run, depth: number, going: Run[], ends: End[]): void {
		const elements: string[] = []
		const chance = this.#chance(chain, rule, run.packet, elements)
		if (chance < 1) going.push({ ...run, chance: run.chance * (1 - chance) })
		if (chance === 0) return
		const version = familyOf(run.packet.destination)
		const text = renderRule(chain.name, rule, { family: version })
		const family = version === 4 ? 'ip' : 'ip6'
		const hit: IptablesHit = { family, table: chain.table, chain: chain.name, rule, text, elements }
		const matched: Run = { ...run, chance: run.chance * chance, rules: [...run.rules, hit] }
		const { target } = rule
		switch (target?.target) {
			case undefined:
				going.push(matched)
				return
			case 'accept':
			case 'drop':
			case 'reject':
				ends.push({ run: matched, verdict: target.target })
				return
			case 'return':
				ends.push({ run: matched })
				return
			case 'jump':
			case 'goto': {
				const to = this.#ruleset.get(chainKey(this.#table, target.chain))
				if (to === undefined) throw new NotEvaluable(`chain "${target.chain}" is not in table ${this.#table}`)
				for (const end of this.chain(to, matched, depth + 1)) {
					// After goto the packet does not come back to this chain.
					if (end.verdict !== undefined || target.target === 'goto') ends.push(end)
					else going.push(end.run)
				}
				return
			}
			case 'mark': {
				const mark = ((matched.packet.mark & ~target.mask) ^ target.value) >>> 0
				going.push({ ...matched, packet: { ...matched.packet, mark } })
				return
			}
			case 'dnat': {
				const destinationPort = target.port ?? matched.packet.destinationPort
				const packet = { ...matched.packet, destination: target.ip, destinationPort }
				ends.push({ run: { ...matched, packet, translated: true }, verdict: 'accept' })
				return
			}
			case 'masquerade': {
				const source = this.#context.masqueradeAddress(matched.packet)
				if (source === undefined) throw new NotEvaluable('which address a masquerade takes is not known')
				const packet = { ...matched.packet, source }
				ends.push({ run: { ...matched, packet, translated: true }, verdict: 'accept' })
				return
			}
			case 'other':
				throw new NotEvaluable(`Cannot evaluate rule "${text}" of table ${this.#table}: its target is not known`)
			default: {
				const never: never = target
				throw new Error(`no such target: ${JSON.stringify(never)}`)
			}
		}
	}

	/** That all of the rule's conditions hold; 0 or 1 unless chance decides. */
	#chance(chain: Chain, rule: Rule, packet: Packet, elements: string[]): number {
		const { source, destination, inInterface, outInterface, protocol } = rule
		const networks = [
			[source, packet.source],
			[destination, packet.destination],
		] as const
		for (const [test, ip] of networks) {
			if (test !== undefined && cidrContains(test.value, ip) === (test.not === true)) return 0
		}
		if (protocol !== undefined && isProtocol(protocol.value, packet.protocol) === (protocol.not === true)) return 0
		if (inInterface !== undefined && !isInterface(inInterface, packet.inInterface)) return 0
		if (outInterface !== undefined && !isInterface(outInterface, packet.outInterface)) return 0
		let chance = 1
		for (const match of rule.matches) {
			if (match.match === 'other') {
				const text = renderRule(chain.name, rule, { family: familyOf(packet.destination) })
				throw new NotEvaluable(`Cannot evaluate rule "${text}" of table ${this.#table}: a match is not known`)
			}
			chance *= this.#match(match, packet, elements)
			if (chance === 0) return 0
		}
		return chance
	}

	#match(match: Exclude<Match, { match: 'other' }>, packet: Packet, elements: string[]): number {
		switch (match.match) {
			case 'comment':
				return 1
			case 'tcp':
			case 'udp':
			case 'sctp': {
				if (!isProtocol(match.match, packet.protocol)) return 0
				for (const [range, port] of [
					[match.sport, packet.sourcePort],
					[match.dport, packet.destinationPort],
				] as const) {
					if (range === undefined) continue
					const inside = port >= range.value.first && port <= range.value.last
					if (inside === (range.not === true)) return 0
				}
				return 1
			}
			case 'mark':
				return yes(((packet.mark & match.mask) >>> 0 === match.value) !== (match.not === true))
			case 'conntrack':
				return yes(this.#hasState(match.states, packet) !== (match.not === true))
			case 'addrtype': {
				for (const [test, ip] of [
					[match.source, packet.source],
					[match.destination, packet.destination],
				] as const) {
					if (test !== undefined && this.#isType(ip, test.value) === (test.not === true)) return 0
				}
				return 1
			}
			case 'statistic': {
				const chance = match.share / probabilityUnit
				return match.not ? 1 - chance : chance
			}
			case 'recent':
				// A client that was never here before: what the kernel remembers of clients is not in the ruleset.
				return yes((match.op === 'set') !== (match.not === true))
			case 'set': {
				const { findMember } = this.#context
				if (findMember === undefined) throw new NotEvaluable(`what ipset "${match.set}" holds is not known`)
				const member = findMember(match.set, match.fields, packet)
				if (member !== undefined) elements.push(member)
				return yes((member !== undefined) !== (match.not === true))
			}
			default: {
				const never: never = match
				throw new Error(`no such match: ${JSON.stringify(never)}`)
			}
		}
	}

	#hasState(states: readonly ConnectionWord[], packet: Packet): boolean {
		const own = packet.state.toUpperCase() as ConnectionWord
		if (states.includes(own)) return true
		// SNAT and DNAT ask what became of the connection earlier, at another hook.
		if (states.includes('DNAT') || states.includes('SNAT')) {
			if (packet.state === 'new' && this.#hook === 'prerouting') return false
			throw new NotEvaluable('whether the connection was translated before is not known')
		}
		return false
	}

	#isType(ip: Ip, type: AddressType): boolean {
		const local =
			this.#context.localAddresses.includes(ip) || ip === '::1' || (familyOf(ip) === 4 && ip.startsWith('127.'))
		if (type === 'LOCAL') return local
		if (type === 'UNICAST') return !local
		throw new NotEvaluable(`whether ${ip} is of type ${type} is not known`)
	}
}

function yes(value: boolean): number {
	return value ? 1 : 0
}

const protocolNumbers: Readonly<Record<Protocol, readonly string[]>> = {
	TCP: ['tcp', '6'],
	UDP: ['udp', '17'],
	SCTP: ['sctp', '132'],
	ICMP: ['icmp', '1', 'ipv6-icmp', 'icmpv6', '58'],
}

function isProtocol(word: string, protocol: Protocol): boolean {
	return word === 'all' || word === '0' || protocolNumbers[protocol].includes(word)
}

/** A name that ends in + stands for all that begin so. */
function isInterface(test: Negatable<string>, name: string | undefined): boolean {
	if (name === undefined) throw new NotEvaluable('the interface of the packet is not known')
	const same = test.value.endsWith('+') ? name.startsWith(test.value.slice(0, -1)) : name === test.value
	return same !== (test.not === true)
}
