// What a program does to one packet at one hook: all base chains of the hook in order of priority, through jumps, gotos
// and returns, maps and verdict maps, translation and rejection. Pure. Where chance decides (numgen), every outcome
// comes out with its probability. Order of chains and the special case of nat: netfilter's nf_hook and nf_nat_inet_fn.

import { familyOf } from '../../base/ip.ts'
import type { Hook, Packet } from '../../base/packet.ts'
import { keyLength, printFields, writeFields } from './datatype.ts'
import { bounds } from './elements.ts'
import { type Expression, evaluateExpression } from './expr/expression.ts'
import { type Decision, type EvaluationContext, type Machine, NotEvaluable } from './expr/machine.ts'
import { printElement, printRule } from './print.ts'
import type { NftChain, NftElement, NftProgram, NftRule, NftSet, NftTable } from './program.ts'

export { type EvaluationContext, NotEvaluable } from './expr/machine.ts'

/** A rule that matched. */
export interface NftHit {
	readonly family: string
	readonly table: string
	readonly chain: string
	readonly handle?: number
	/** As nft prints it, without its comment. */
	readonly text: string
	readonly comment?: string
	/** Elements that were looked up on the way, as nft prints them. */
	readonly elements: readonly string[]
	/** The same elements, to read comments from. */
	readonly found: readonly { readonly set: NftSet; readonly key: string; readonly element: NftElement }[]
}

export interface NftOutcome {
	readonly verdict: 'accept' | 'drop' | 'reject'
	readonly packet: Packet
	/** In order; the last one that decides decided, else it was a chain's policy. */
	readonly rules: readonly NftHit[]
	/** The chances of all outcomes sum to 1. */
	readonly chance: number
}

/** Where the kernel runs nat chains, whatever priority they declare among themselves. */
const natPriority: Readonly<Partial<Record<Hook, number>>> = {
	prerouting: -100,
	output: -100,
	input: 100,
	postrouting: 100,
}

/** Throws NotEvaluable when a rule that is reached asks for something the packet does not say. */
export function evaluateProgram(
	program: NftProgram,
	packet: Packet,
	hook: Hook,
	context: EvaluationContext = {},
): NftOutcome[] {
	const family = familyOf(packet.destination) === 4 ? 'ip' : 'ip6'
	const chains = chainsAt(program, hook, family)
	// Each run follows one script of choices; the scripts are walked like a counter until none is left.
	const outcomes: NftOutcome[] = []
	let script: Choice[] = []
	for (;;) {
		const run = new Run(packet, hook, family, context, script)
		const verdict = run.all(chains)
		script = run.choices
		const chance = script.reduce((p, c) => p * (c.weights[c.taken] ?? 0), 1)
		outcomes.push({ verdict, packet: run.packet, rules: run.hits, chance })
		while (script.length > 0 && (script.at(-1)?.taken ?? 0) + 1 >= (script.at(-1)?.weights.length ?? 1)) script.pop()
		const last = script.at(-1)
		if (last === undefined) return outcomes
		last.taken++
	}
}

/** A point where chance decides: which of the weighted branches this run takes. */
interface Choice {
	taken: number
	readonly weights: readonly number[]
}

interface Place {
	readonly table: NftTable
	readonly chain: NftChain
}

function chainsAt(program: NftProgram, hook: Hook, family: 'ip' | 'ip6'): Place[] {
	const places: (Place & { readonly at: number; readonly own: number; readonly order: number })[] = []
	for (const [, table] of program.tables) {
		if (table.family !== family && table.family !== 'inet') continue
		for (const [, chain] of table.chains) {
			const { base } = chain
			if (base?.hook !== hook) continue
			const at = base.type === 'nat' ? (natPriority[hook] ?? base.priority) : base.priority
			places.push({ table, chain, at, own: base.priority, order: chain.handle ?? 0 })
		}
	}
	return places.sort((a, b) => a.at - b.at || a.own - b.own || a.order - b.order)
}

/** One run through the chains with the choices of one script. */
class Run implements Machine {
	readonly registers = Buffer.alloc(64)
	packet: Packet
	translated = false
	readonly hook: Hook
	readonly family: 'ip' | 'ip6'
	readonly context: EvaluationContext
	readonly choices: Choice[]
	readonly hits: NftHit[] = []
	#next = 0
	#table: NftTable | undefined
	/** The expression after the one being evaluated. */
	#following: Expression | undefined
	#found: { set: NftSet; key: string; element: NftElement }[] = []

	constructor(packet: Packet, hook: Hook, family: 'ip' | 'ip6', context: EvaluationContext, script: Choice[]) {
		this.packet = packet
		this.hook = hook
		this.family = family
		this.context = context
		this.choices = script
	}

	all(places: readonly Place[]): NftOutcome['verdict'] {
		for (const { table, chain } of places) {
			if (chain.base?.type === 'nat') {
				// Only the first packet of a connection asks the nat chains, and only until one has translated it.
				if (this.packet.state !== 'new' || this.translated) continue
			}
			this.#table = table
			const verdict = this.#base(table, chain)
			if (verdict !== 'accept') return verdict
		}
		return 'accept'
	}

	#base(table: NftTable, chain: NftChain): NftOutcome['verdict'] {
		const decision = this.#chain(table, chain, 0)
		if (decision === undefined) return chain.base?.policy ?? 'accept'
		switch (decision.verdict) {
			case 'accept':
			case 'drop':
			case 'reject':
				return decision.verdict
			case 'queue':
				throw new NotEvaluable('the packet goes to a program in user space')
			default:
				return chain.base?.policy ?? 'accept'
		}
	}

	/** undefined: fell off the end, or returned. */
	#chain(table: NftTable, chain: NftChain, depth: number): Decision | undefined {
		if (depth > 16) throw new NotEvaluable('jumps are nested deeper than the kernel allows')
		for (const rule of chain.rules) {
			const decision = this.#rule(table, chain, rule)
			if (decision === undefined) continue
			switch (decision.verdict) {
				case 'continue':
				case 'break':
					continue
				case 'return':
					return undefined
				case 'jump':
				case 'goto': {
					const target = table.chains.get(decision.chain ?? '')
					if (target === undefined) throw new NotEvaluable(`chain "${decision.chain}" is not in the program`)
					const inner = this.#chain(table, target, depth + 1)
					// After goto the packet does not come back to this chain.
					if (inner !== undefined || decision.verdict === 'goto') return inner
					continue
				}
				default:
					return decision
			}
		}
		return undefined
	}

	#rule(table: NftTable, chain: NftChain, rule: NftRule): Decision | undefined {
		this.#found = []
		let decision: Decision | undefined
		try {
			for (const [i, e] of rule.expressions.entries()) {
				this.#following = rule.expressions[i + 1]
				const step = evaluateExpression(e, this)
				if (step === 'break') return undefined
				if (step !== undefined) {
					decision = step
					break
				}
			}
		} catch (e) {
			if (!(e instanceof NotEvaluable)) throw e
			const text = printRule(table.family, rule, (name) => table.sets.get(name))
			throw new NotEvaluable(
				`Cannot evaluate rule "${text}" in chain "${chain.name}" of table "${table.family} ${table.name}": ${e.message}`,
			)
		}
		this.hits.push(hitOf(table, chain, rule, this.#found))
		return decision
	}

	findSet(name: string): NftSet {
		const set = this.#table?.sets.get(name)
		if (set === undefined) throw new NotEvaluable(`set "${name}" is not in the program`)
		return set
	}

	findElement(set: NftSet, key: Buffer): { key: string; element: NftElement } | undefined {
		if (set.flags.includes('interval')) return findInterval(set, key)
		const text = printFields(set.key, key)
		const element = set.elements.get(text)
		return element === undefined ? undefined : { key: text, element }
	}

	note(set: NftSet, key: string, element: NftElement): void {
		this.#found.push({ set, key, element })
	}

	choose(n: number, put: (value: number) => void): void {
		const { values, weights } = this.#branches(n, put)
		if (values.length === 1) {
			put(values[0] as number)
			return
		}
		let choice = this.choices[this.#next++]
		if (choice === undefined) {
			choice = { taken: 0, weights }
			this.choices.push(choice)
		}
		put(values[choice.taken] as number)
	}

	/** Values that a map lookup right after misses are one branch: all of them end the rule alike. */
	#branches(n: number, put: (value: number) => void): { values: number[]; weights: number[] } {
		const after = this.#following
		if (after?.kind !== 'lookup')
			return { values: Array.from({ length: n }, (_, i) => i), weights: Array(n).fill(1 / n) }
		const set = this.findSet(after.set)
		const length = keyLength(set.key)
		const values: number[] = []
		const weights: number[] = []
		const misses: number[] = []
		for (let value = 0; value < n; value++) {
			put(value)
			if (this.findElement(set, this.registers.subarray(after.from * 4, after.from * 4 + length)) === undefined)
				misses.push(value)
			else {
				values.push(value)
				weights.push(1 / n)
			}
		}
		if (misses.length > 0) {
			values.push(misses[0] as number)
			weights.push(misses.length / n)
		}
		return { values, weights }
	}
}

function hitOf(
	table: NftTable,
	chain: NftChain,
	rule: NftRule,
	found: readonly { set: NftSet; key: string; element: NftElement }[],
): NftHit {
	return {
		family: table.family,
		table: table.name,
		chain: chain.name,
		...(rule.handle === undefined ? {} : { handle: rule.handle }),
		text: printRule(table.family, rule, (name) => table.sets.get(name)),
		...(rule.comment === undefined ? {} : { comment: rule.comment }),
		elements: found.map(({ key, element }) => printElement(key, element)),
		found,
	}
}

/** The rule with that handle, described as a hit of it would be; undefined where there is none. */
export function describeHandle(
	program: NftProgram,
	family: string,
	table: string,
	chain: string,
	handle: number,
): NftHit | undefined {
	const at = program.tables.get(`${family} ${table}`)
	const inside = at?.chains.get(chain)
	const rule = inside?.rules.find((r) => r.handle === handle)
	return at === undefined || inside === undefined || rule === undefined ? undefined : hitOf(at, inside, rule, [])
}

/** Interval sets are searched element by element: they are short where they are ours. */
function findInterval(set: NftSet, key: Buffer): { key: string; element: NftElement } | undefined {
	const low = Buffer.alloc(key.length)
	const high = Buffer.alloc(key.length)
	for (const [text, element] of set.elements) {
		const ends = bounds(set.key, text)
		writeFields(set.key, ends.low, low, 0)
		writeFields(set.key, ends.high, high, 0)
		let at = 0
		const inside = set.key.every((f) => {
			const part = (b: Buffer) => b.subarray(at, at + f.bytes)
			const within = Buffer.compare(part(key), part(low)) >= 0 && Buffer.compare(part(key), part(high)) <= 0
			at += (f.bytes + 3) & ~3
			return within
		})
		if (inside) return { key: text, element }
	}
	return undefined
}
