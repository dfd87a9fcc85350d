// The assembler against bytes that llvm-mc 14 (-triple bpfel) makes of the same, its reversal, the printed form, and what
// the interpreter makes of programs; each with generated programs besides.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { assemble, disassemble, tagsOf } from './assemble.ts'
import { findCgroup2 } from './cgroup.ts'
import {
	type Code,
	calculate,
	calculate32,
	call,
	comparisons,
	exit,
	helpers,
	type Instruction,
	jump,
	jumpIf,
	label,
	load,
	loadMap,
	operators,
	registers,
	remark,
	set,
	store,
} from './instruction.ts'
import { type Interpretation, interpret, type Surroundings } from './interpret.ts'
import { printCode } from './print.ts'

const hex = (code: Code) => Buffer.from(assemble(code, () => 7)).toString('hex')

describe('assembler', () => {
	const known: readonly [string, Instruction, string][] = [
		['r6 = r1', set('r6', 'r1'), 'bf16000000000000'],
		['r0 = 1', set('r0', 1), 'b700000001000000'],
		['r2 += -8', calculate('r2', '+', -8), '07020000f8ffffff'],
		['w0 %= w1', calculate32('r0', '%', 'r1'), '9c10000000000000'],
		['w7 /= 7', calculate32('r7', '/', 7), '3407000007000000'],
		['r1 *= r2', calculate('r1', '*', 'r2'), '2f21000000000000'],
		['w1 |= 16384', calculate32('r1', '|', 16384), '4401000000400000'],
		['r1 = *(u32 *)(r6 + 36)', load(4, 'r1', 'r6', 36), '6161240000000000'],
		['r1 = *(u8 *)(r8 + 2)', load(1, 'r1', 'r8', 2), '7181020000000000'],
		['r2 = *(u64 *)(r10 - 24)', load(8, 'r2', 'r10', -24), '79a2e8ff00000000'],
		['*(u64 *)(r10 - 8) = r0', store(8, 'r10', -8, 'r0'), '7b0af8ff00000000'],
		['*(u16 *)(r10 - 62) = r1', store(2, 'r10', -62, 'r1'), '6b1ac2ff00000000'],
		['*(u32 *)(r10 - 72) = -65536', store(4, 'r10', -72, 0xffff0000), '620ab8ff0000ffff'],
		['r1 = map', loadMap('r1', 'x'), '18110000070000000000000000000000'],
		['call map_lookup_elem', call('map_lookup_elem'), '8500000001000000'],
		['call get_netns_cookie', call('get_netns_cookie'), '850000007a000000'],
		['exit', exit, '9500000000000000'],
	]
	for (const [name, instruction, bytes] of known) it(name, () => assert.equal(hex([instruction]), bytes))

	it('jumps forwards and backwards, over maps, which take two places', () => {
		const code = [
			label('top'),
			jumpIf('r0', '==', 0, 'end'),
			loadMap('r1', 'x'),
			jumpIf('r1', '>', 6, 'top', 32),
			jump('end'),
			label('end'),
			exit,
		]
		assert.equal(
			hex(code),
			[
				'1500040000000000',
				'1811000007000000',
				'0000000000000000',
				'2601fcff06000000',
				'0500000000000000',
				'9500000000000000',
			].join(''),
		)
	})

	it('refuses what does not fit', () => {
		assert.throws(() => hex([jump('nowhere')]), /no label "nowhere"/)
		assert.throws(() => hex([label('a'), label('a')]), /twice/)
		assert.throws(() => hex([load(4, 'r1', 'r6', 40_000)]), /offset 40000/)
		assert.throws(() => hex([set('r1', 2 ** 33)]), /32 bits/)
	})

	it('names a program as kernels do, without regard to descriptors and remarks', () => {
		// The tag that older kernels show for a program that only says yes, as in many a `bpftool prog`.
		assert.deepEqual(tagsOf([remark('go on'), set('r0', 1), exit]), ['b11459a0e11ca14c', '57cd311f2e27366b'])
	})
})

const register = fc.constantFrom(...registers)
const number = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 })
const offset = fc.integer({ min: -32768, max: 32767 })
const size = fc.constantFrom(1, 2, 4, 8) as fc.Arbitrary<1 | 2 | 4 | 8>
const operand = fc.oneof(register, number)
const names = <T extends object>(table: T) => fc.constantFrom(...(Object.keys(table) as (keyof T & string)[]))
const plain: fc.Arbitrary<Instruction> = fc.oneof(
	fc.tuple(register, names(operators), operand).map(([a, op, b]) => calculate(a, op, b)),
	fc.tuple(register, names(operators), operand).map(([a, op, b]) => calculate32(a, op, b)),
	fc.tuple(size, register, register, offset).map(([n, a, b, o]) => load(n, a, b, o)),
	fc.tuple(size, register, offset, operand).map(([n, a, o, b]) => store(n, a, o, b)),
	register.map((r) => loadMap(r, 'map 7')),
	names(helpers).map(call),
	fc.constant(exit),
)
/** Labels l0 … at the places, jumps to any of them. */
const programs = fc
	.array(
		fc.oneof(
			plain,
			fc
				.tuple(register, names(comparisons), operand, fc.nat(3), fc.constantFrom(32 as const, 64 as const))
				.map(([a, is, b, to, width]) => jumpIf(a, is, b, `l${to}`, width)),
			fc.nat(3).map((to) => jump(`l${to}`)),
		),
		{ minLength: 4, maxLength: 30 },
	)
	.map((list) => [...list.flatMap((one, i) => (i < 4 ? [label(`l${i}`), one] : [one])), exit])

describe('disassembler', () => {
	it('law: bytes to instructions to the same bytes', () => {
		fc.assert(
			fc.property(programs, (code) => {
				const bytes = assemble(code, () => 7)
				const back = disassemble(bytes, (fd) => `map ${fd}`)
				assert.deepEqual(
					assemble(back, () => 7),
					bytes,
				)
				assert.deepEqual(
					disassemble(
						assemble(back, () => 7),
						(fd) => `map ${fd}`,
					),
					back,
				)
			}),
		)
	})

	it('refuses what it does not know', () => {
		assert.throws(() => disassemble(Buffer.from('c300000000000000', 'hex'), String), /opcode 0xc3/)
		assert.throws(() => disassemble(Buffer.from('85000000ff000000', 'hex'), String), /opcode 0x85/)
	})

	it('prints', () => {
		const code = [
			remark('why'),
			load(4, 'r1', 'r6', 4),
			store(2, 'r10', -62, 'r1'),
			loadMap('r1', 'frontends4'),
			call('map_lookup_elem'),
			jumpIf('r0', '==', 0, 'pass'),
			calculate32('r0', '%', 'r1'),
			jump('pass'),
			label('pass'),
			set('r0', 1),
			exit,
		]
		assert.equal(
			printCode(code),
			[
				'\t// why',
				'\tr1 = *(u32 *)(r6 + 4)',
				'\t*(u16 *)(r10 - 62) = r1',
				'\tr1 = map frontends4',
				'\tcall map_lookup_elem',
				'\tif r0 == 0 goto pass',
				'\tw0 %= w1',
				'\tgoto pass',
				'pass:',
				'\tr0 = 1',
				'\texit',
			].join('\n'),
		)
	})
})

const silent: Surroundings = {
	lookUp: () => undefined,
	netnsCookie: () => 1n,
	socketCookie: () => 2n,
	now: () => 3n,
}
const on = (surroundings: Partial<Surroundings> = {}): Interpretation => ({
	context: new Uint8Array(72),
	sizes: { m: { key: 8, value: 8 } },
	surroundings: () => ({ ...silent, ...surroundings }),
})

describe('interpreter', () => {
	it('law: calculates as unsigned machine words', () => {
		const word = fc.bigInt({ min: 0n, max: (1n << 64n) - 1n })
		fc.assert(
			fc.property(word, word, names(operators), fc.constantFrom(32 as const, 64 as const), (a, b, op, width) => {
				const context = new Uint8Array(72)
				new DataView(context.buffer).setBigUint64(0, a, true)
				new DataView(context.buffer).setBigUint64(8, b, true)
				const code: Code = [
					load(8, 'r2', 'r1', 0),
					load(8, 'r3', 'r1', 8),
					{ kind: 'do', op, to: 'r2', by: 'r3', width },
					set('r0', 'r2'),
					exit,
				]
				const got = interpret(code, { ...on(), context })[0]?.result
				const cut = (n: bigint) => BigInt.asUintN(width, n)
				const [x, y] = [cut(a), cut(b)]
				const shift = y % BigInt(width)
				const expected = {
					'+': () => cut(x + y),
					'-': () => cut(x - y),
					'*': () => cut(x * y),
					'/': () => (y === 0n ? 0n : x / y),
					'%': () => (y === 0n ? x : x % y),
					'|': () => x | y,
					'&': () => x & y,
					'^': () => x ^ y,
					'<<': () => cut(x << shift),
					'>>': () => x >> shift,
					'=': () => y,
				}[op]()
				assert.equal(got, expected)
			}),
		)
	})

	it('law: what is stored is loaded, whatever the pieces', () => {
		fc.assert(
			fc.property(fc.uint8Array({ minLength: 8, maxLength: 8 }), size, size, (bytes, out, back) => {
				const code: Instruction[] = []
				for (let i = 0; i < 8; i += out) code.push(load(out, 'r2', 'r1', i), store(out, 'r10', i - 8, 'r2'))
				for (let i = 0; i < 8; i += back) code.push(load(back, 'r2', 'r10', i - 8), store(back, 'r1', 16 + i, 'r2'))
				const context = new Uint8Array(72)
				context.set(bytes)
				const [outcome] = interpret([...code, set('r0', 0), exit], { ...on(), context })
				assert.deepEqual(outcome?.context.slice(16, 24), bytes)
			}),
		)
	})

	it('follows every random choice, each as likely', () => {
		const code = [
			call('get_prandom_u32'),
			calculate32('r0', '%', 3),
			set('r6', 'r0'),
			call('get_prandom_u32'),
			set('r1', 2),
			calculate32('r0', '%', 'r1'),
			calculate('r6', '*', 10),
			calculate('r0', '+', 'r6'),
			exit,
		]
		const outcomes = interpret(code, on())
		assert.deepEqual(
			outcomes.map((o) => o.result),
			[0n, 1n, 10n, 11n, 20n, 21n],
		)
		for (const { chance } of outcomes) assert.ok(Math.abs(chance - 1 / 6) < 1e-12)
	})

	it('maps: values may be written to, updates and lookups are told', () => {
		const value = new Uint8Array(8)
		const updates: string[] = []
		const code = [
			store(8, 'r10', -8, 5),
			set('r2', 'r10'),
			calculate('r2', '+', -8),
			loadMap('r1', 'm'),
			call('map_lookup_elem'),
			jumpIf('r0', '==', 0, 'out'),
			store(4, 'r0', 4, 9),
			set('r2', 'r10'),
			calculate('r2', '+', -8),
			set('r3', 'r2'),
			loadMap('r1', 'm'),
			set('r4', 0),
			call('map_update_elem'),
			label('out'),
			set('r0', 1),
			exit,
		]
		const outcomes = interpret(
			code,
			on({
				lookUp: (_, key) => (key[0] === 5 ? value : undefined),
				update: (map, key) => updates.push(`${map} ${key[0]}`),
			}),
		)
		assert.equal(value[4], 9)
		assert.deepEqual(updates, ['m 5'])
		assert.deepEqual(
			outcomes[0]?.lookups.map((l) => [l.map, l.key[0], l.found]),
			[['m', 5, true]],
		)
	})

	const wrong: readonly [string, Code, RegExp][] = [
		['a register that was not written', [set('r0', 'r5'), exit], /r5 is read before/],
		['arguments after a call', [call('ktime_get_ns'), set('r0', 'r1'), exit], /r1 is read before/],
		['memory outside of the stack', [load(4, 'r0', 'r10', 0), exit], /outside of stack/],
		['memory outside of the call', [load(8, 'r0', 'r1', 68), exit], /outside of context/],
		['an address as a number', [calculate('r1', '*', 2), exit], /used as a number/],
		['an endless loop', [label('a'), jump('a')], /does not end/],
		['no end', [set('r0', 1)], /past its end/],
		['a random number as it is', [call('get_prandom_u32'), calculate('r0', '+', 1), exit], /otherwise than modulo/],
	]
	for (const [name, code, why] of wrong) it(`refuses ${name}`, () => assert.throws(() => interpret(code, on()), why))
})

describe('kernel objects', () => {
	it('finds the control groups of version 2 wherever they are mounted', () => {
		const line = (path: string, type: string) => `31 26 0:28 / ${path} rw,relatime shared:9 - ${type} ${type} rw\n`
		assert.equal(findCgroup2(line('/sys/fs/cgroup', 'cgroup2')), '/sys/fs/cgroup')
		assert.equal(findCgroup2(line('/sys/fs/cgroup/cpu', 'cgroup') + line('/a\\040b', 'cgroup2')), '/a b')
		const below = line('/container', 'cgroup2').replace(' / ', ' /system.slice/x ')
		assert.equal(findCgroup2(below + line('/sys/fs/cgroup', 'cgroup2')), '/sys/fs/cgroup')
		assert.equal(findCgroup2(below), '/container')
		assert.equal(findCgroup2(line('/proc', 'proc')), undefined)
	})
})
