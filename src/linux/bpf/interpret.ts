// Runs a program on paper, with maps and a call given by whoever asks, and follows every random choice: what the kernel
// would do, with the chance of each outcome. Only what the assembler knows; a program the verifier took never does what
// is an Error here.

import type { Code, Comparison, Helper, Instruction, Operator, Register, Size } from './instruction.ts'

/** A piece of memory that addresses point into. */
export interface Region {
	readonly name: string
	readonly bytes: Uint8Array
}

type Value =
	| bigint
	| { readonly region: Region; readonly offset: number }
	| { readonly map: string }
	/** Of get_prandom_u32, not looked at yet. */
	| { readonly random: true }

/** A call of a helper, as far as it is up to the surroundings. */
export interface Surroundings {
	/** The value's memory (it may be written to), undefined where the key is not there. */
	lookUp(map: string, key: Uint8Array): Uint8Array | undefined
	netnsCookie(): bigint
	socketCookie(): bigint
	/** Nanoseconds since boot. */
	now(): bigint
	/** Called for each path that is followed: what one writes another does not see. */
	update?(map: string, key: Uint8Array, value: Uint8Array): void
}

export interface Outcome {
	/** r0 at the end. */
	readonly result: bigint
	/** The call's memory as the program left it. */
	readonly context: Uint8Array
	readonly chance: number
	/** Keys that were looked up, in order, and whether they were there. */
	readonly lookups: readonly Lookup[]
}

export interface Lookup {
	readonly map: string
	readonly key: Uint8Array
	readonly found: boolean
	/** Label the program had passed last. */
	readonly after: string
}

export interface Interpretation {
	/** The memory r1 points to at the start. */
	readonly context: Uint8Array
	readonly sizes: Readonly<Record<string, { readonly key: number; readonly value: number }>>
	/** Fresh for every path. */
	surroundings(): Surroundings
}

const stackSize = 512
const mostSteps = 100_000
const wordMask: Readonly<Record<32 | 64, bigint>> = { 32: (1n << 32n) - 1n, 64: (1n << 64n) - 1n }

/** What was chosen so far: a path is run again from the start for each further choice. */
interface Choice {
	readonly value: bigint
	readonly of: bigint
}

/** All outcomes; their chances add up to 1. */
export function interpret(code: Code, on: Interpretation): Outcome[] {
	const labels = new Map<string, number>()
	for (const [i, one] of code.entries()) if (one.kind === 'label') labels.set(one.name, i)
	const outcomes: Outcome[] = []
	const waiting: Choice[][] = [[]]
	for (let choices = waiting.pop(); choices !== undefined; choices = waiting.pop()) {
		const path = new Path(code, labels, on, choices)
		const of = path.run()
		if (of === undefined) {
			const chance = choices.reduce((product, choice) => product / Number(choice.of), 1)
			outcomes.push({ result: path.result, context: path.context, chance, lookups: path.lookups })
		} else for (let value = of - 1n; value >= 0n; value--) waiting.push([...choices, { value, of }])
	}
	return outcomes
}

class Path {
	readonly context: Uint8Array
	readonly lookups: Lookup[] = []
	result = 0n
	readonly #code: Code
	readonly #labels: ReadonlyMap<string, number>
	readonly #on: Interpretation
	readonly #surroundings: Surroundings
	readonly #choices: readonly Choice[]
	readonly #registers = new Map<Register, Value>()
	/** Addresses that were stored on the stack, by offset. */
	readonly #spilled = new Map<number, Value>()
	#taken = 0
	#after = ''

	constructor(code: Code, labels: ReadonlyMap<string, number>, on: Interpretation, choices: readonly Choice[]) {
		this.#code = code
		this.#labels = labels
		this.#on = on
		this.#choices = choices
		this.#surroundings = on.surroundings()
		this.context = on.context.slice()
		this.#registers.set('r1', { region: { name: 'context', bytes: this.context }, offset: 0 })
		this.#registers.set('r10', { region: { name: 'stack', bytes: new Uint8Array(stackSize) }, offset: stackSize })
	}

	/** undefined at the end; otherwise out of how many the next choice is, which was not made yet. */
	run(): bigint | undefined {
		let at = 0
		for (let steps = 0; steps < mostSteps; steps++) {
			const one = this.#code[at++]
			if (one === undefined) throw new Error('the program runs past its end')
			switch (one.kind) {
				case 'remark':
					break
				case 'label':
					this.#after = one.name
					break
				case 'do': {
					const of = this.#calculate(one)
					if (of !== undefined) return of
					break
				}
				case 'load':
					this.#registers.set(one.to, this.#load(one.size, one.from, one.offset))
					break
				case 'store':
					this.#store(
						one.size,
						one.at,
						one.offset,
						typeof one.value === 'number' ? BigInt(one.value) : this.#get(one.value),
					)
					break
				case 'map':
					this.#registers.set(one.to, { map: one.map })
					break
				case 'jump':
					if (one.when === undefined || this.#holds(one.when)) at = this.#labels.get(one.label) as number
					break
				case 'call':
					this.#call(one.helper)
					break
				case 'exit':
					this.result = this.#number('r0')
					return undefined
				default:
					one satisfies never
			}
		}
		throw new Error(`the program does not end within ${mostSteps} steps`)
	}

	#get(register: Register): Value {
		const value = this.#registers.get(register)
		if (value === undefined) throw new Error(`${register} is read before it is written`)
		return value
	}

	#number(register: Register): bigint {
		const value = this.#get(register)
		if (typeof value !== 'bigint') throw new Error(`${register} holds no number`)
		return value
	}

	#operand(by: Register | number, width: 32 | 64): bigint {
		return BigInt.asUintN(width, typeof by === 'number' ? BigInt(by) : this.#number(by))
	}

	#calculate({ op, to, by, width }: Extract<Instruction, { kind: 'do' }>): bigint | undefined {
		if (op === '=') {
			this.#registers.set(
				to,
				typeof by === 'number' ? BigInt.asUintN(64, BigInt.asUintN(width, BigInt(by))) : this.#get(by),
			)
			if (width === 32) this.#registers.set(to, this.#number(to) & wordMask[32])
			return undefined
		}
		const value = this.#get(to)
		const operand = this.#operand(by, width)
		if (typeof value === 'bigint') {
			this.#registers.set(to, compute(op, BigInt.asUintN(width, value), operand, width))
			return undefined
		}
		if ('random' in value) {
			// Any number modulo n: each remainder is as likely as the next.
			if (op !== '%' || operand === 0n) throw new Error('a random number is used otherwise than modulo something')
			const choice = this.#choices[this.#taken]
			if (choice === undefined) return operand
			this.#taken++
			this.#registers.set(to, choice.value)
			return undefined
		}
		if (!('region' in value) || width !== 64 || (op !== '+' && op !== '-'))
			throw new Error(`an address in ${to} is used as a number`)
		const by64 = Number(BigInt.asIntN(64, operand))
		this.#registers.set(to, { region: value.region, offset: value.offset + (op === '+' ? by64 : -by64) })
		return undefined
	}

	#place(register: Register, offset: number, size: number): { readonly region: Region; readonly at: number } {
		const value = this.#get(register)
		if (typeof value === 'bigint' || !('region' in value)) throw new Error(`${register} is no address`)
		const at = value.offset + offset
		if (at < 0 || at + size > value.region.bytes.length)
			throw new Error(`bytes ${at} to ${at + size} are outside of ${value.region.name}`)
		return { region: value.region, at }
	}

	#load(size: Size, from: Register, offset: number): Value {
		const { region, at } = this.#place(from, offset, size)
		const spilled = region.name === 'stack' && size === 8 ? this.#spilled.get(at) : undefined
		if (spilled !== undefined) return spilled
		let value = 0n
		for (let i = size - 1; i >= 0; i--) value = (value << 8n) | BigInt(region.bytes[at + i] as number)
		return value
	}

	#store(size: Size, to: Register, offset: number, value: Value): void {
		const { region, at } = this.#place(to, offset, size)
		if (region.name === 'stack') this.#spilled.delete(at)
		if (typeof value !== 'bigint') {
			if (region.name !== 'stack' || size !== 8) throw new Error('an address is stored outside of the stack')
			this.#spilled.set(at, value)
			return
		}
		let rest = BigInt.asUintN(64, value)
		for (let i = 0; i < size; i++) {
			region.bytes[at + i] = Number(rest & 255n)
			rest >>= 8n
		}
	}

	#holds({ left, is, right, width }: NonNullable<Extract<Instruction, { kind: 'jump' }>['when']>): boolean {
		const value = this.#get(left)
		if (typeof value !== 'bigint') {
			// An address is compared with nothing but zero.
			if (right !== 0 || (is !== '==' && is !== '!=')) throw new Error(`an address in ${left} is compared`)
			return is === '!='
		}
		return compare(is, BigInt.asUintN(width, value), this.#operand(right, width))
	}

	#memory(register: Register, size: number): Uint8Array {
		const { region, at } = this.#place(register, 0, size)
		return region.bytes.subarray(at, at + size)
	}

	#map(): string {
		const value = this.#get('r1')
		if (typeof value === 'bigint' || !('map' in value)) throw new Error('r1 is no map')
		return value.map
	}

	#call(helper: Helper): void {
		const result = this.#help(helper)
		for (const register of ['r1', 'r2', 'r3', 'r4', 'r5'] as const) this.#registers.delete(register)
		this.#registers.set('r0', result)
	}

	#help(helper: Helper): Value {
		switch (helper) {
			case 'get_prandom_u32':
				return { random: true }
			case 'get_netns_cookie':
				return this.#surroundings.netnsCookie()
			case 'get_socket_cookie':
				return this.#surroundings.socketCookie()
			case 'ktime_get_ns':
				return this.#surroundings.now()
			case 'map_lookup_elem': {
				const map = this.#map()
				const key = this.#memory('r2', this.#size(map).key).slice()
				const bytes = this.#surroundings.lookUp(map, key)
				this.lookups.push({ map, key, found: bytes !== undefined, after: this.#after })
				return bytes === undefined ? 0n : { region: { name: map, bytes }, offset: 0 }
			}
			case 'map_update_elem': {
				const map = this.#map()
				const { key, value } = this.#size(map)
				this.#surroundings.update?.(map, this.#memory('r2', key).slice(), this.#memory('r3', value).slice())
				return 0n
			}
			case 'map_delete_elem':
				return 0n
			default:
				return helper satisfies never
		}
	}

	#size(map: string): { readonly key: number; readonly value: number } {
		const size = this.#on.sizes[map]
		if (size === undefined) throw new Error(`there is no map "${map}"`)
		return size
	}
}

function compute(op: Exclude<Operator, '='>, a: bigint, b: bigint, width: 32 | 64): bigint {
	const cut = (value: bigint) => BigInt.asUintN(width, value)
	const shift = b & BigInt(width - 1)
	switch (op) {
		case '+':
			return cut(a + b)
		case '-':
			return cut(a - b)
		case '*':
			return cut(a * b)
		// By zero: RFC 9669, section 4.1.
		case '/':
			return b === 0n ? 0n : a / b
		case '%':
			return b === 0n ? a : a % b
		case '|':
			return a | b
		case '&':
			return a & b
		case '^':
			return a ^ b
		case '<<':
			return cut(a << shift)
		case '>>':
			return a >> shift
		default:
			return op satisfies never
	}
}

function compare(is: Comparison, a: bigint, b: bigint): boolean {
	switch (is) {
		case '==':
			return a === b
		case '!=':
			return a !== b
		case '>':
			return a > b
		case '>=':
			return a >= b
		case '<':
			return a < b
		case '<=':
			return a <= b
		case '&':
			return (a & b) !== 0n
		default:
			return is satisfies never
	}
}
