// Instructions to bytes (struct bpf_insn: code, registers, 16-bit offset, 32-bit immediate) and back.

import { createHash } from 'node:crypto'
import {
	type Code,
	comparisons,
	helpers,
	type Instruction,
	operators,
	type Register,
	registers,
	type Size,
	slotsOf,
	type Width,
} from './instruction.ts'

const sizeBits: Readonly<Record<Size, number>> = { 1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18 }
const numberOf = Object.fromEntries(registers.map((name, i) => [name, i])) as Record<Register, number>

const LOAD_64 = 0x18
const LOAD = 0x61
const STORE_NUMBER = 0x62
const STORE = 0x63
const CALL = 0x85
const EXIT = 0x95
const JUMP = 0x05
const fromRegister = 0x08
const classOf: Readonly<Record<'do' | 'jump', Record<Width, number>>> = {
	do: { 32: 0x04, 64: 0x07 },
	jump: { 32: 0x06, 64: 0x05 },
}
/** The register field of a 64-bit load that says: the immediate is a map's descriptor. */
const MAP_DESCRIPTOR = 1

/**
 * The program's bytes for the kernel. `descriptorOf` gives each map's file descriptor. Throws Error (our bug) for an
 * unknown or repeated label, and for a jump or an offset that does not fit in 16 bits.
 */
export function assemble(code: Code, descriptorOf: (map: string) => number): Uint8Array<ArrayBuffer> {
	const labels = new Map<string, number>()
	let length = 0
	for (const instruction of code) {
		if (instruction.kind === 'label') {
			if (labels.has(instruction.name)) throw new Error(`label "${instruction.name}" is there twice`)
			labels.set(instruction.name, length)
		}
		length += slotsOf(instruction)
	}
	const bytes = new Uint8Array(new ArrayBuffer(length * 8))
	const view = new DataView(bytes.buffer)
	let at = 0
	const emit = (opcode: number, to: number, from: number, offset: number, immediate: number) => {
		if (offset < -32768 || offset > 32767) throw new Error(`offset ${offset} does not fit in 16 bits`)
		if (immediate < -(2 ** 31) || immediate >= 2 ** 32) throw new Error(`${immediate} does not fit in 32 bits`)
		view.setUint8(at * 8, opcode)
		view.setUint8(at * 8 + 1, to | (from << 4))
		view.setInt16(at * 8 + 2, offset, true)
		view.setInt32(at * 8 + 4, immediate | 0, true)
		at++
	}
	/** With the second operand a register or a number. */
	const either = (opcode: number, to: Register, operand: Register | number, offset: number) => {
		if (typeof operand === 'number') emit(opcode, numberOf[to], 0, offset, operand)
		else emit(opcode | fromRegister, numberOf[to], numberOf[operand], offset, 0)
	}
	for (const one of code) {
		switch (one.kind) {
			case 'label':
			case 'remark':
				break
			case 'do':
				either(classOf.do[one.width] | (operators[one.op] << 4), one.to, one.by, 0)
				break
			case 'load':
				emit(LOAD | sizeBits[one.size], numberOf[one.to], numberOf[one.from], one.offset, 0)
				break
			case 'store':
				if (typeof one.value === 'number')
					emit(STORE_NUMBER | sizeBits[one.size], numberOf[one.at], 0, one.offset, one.value)
				else emit(STORE | sizeBits[one.size], numberOf[one.at], numberOf[one.value], one.offset, 0)
				break
			case 'map':
				emit(LOAD_64, numberOf[one.to], MAP_DESCRIPTOR, 0, descriptorOf(one.map))
				emit(0, 0, 0, 0, 0)
				break
			case 'jump': {
				const target = labels.get(one.label)
				if (target === undefined) throw new Error(`there is no label "${one.label}"`)
				const distance = target - at - 1
				if (one.when === undefined) emit(JUMP, 0, 0, distance, 0)
				else {
					const { left, is, right, width } = one.when
					either(classOf.jump[width] | (comparisons[is] << 4), left, right, distance)
				}
				break
			}
			case 'call':
				emit(CALL, 0, 0, 0, helpers[one.helper])
				break
			case 'exit':
				emit(EXIT, 0, 0, 0, 0)
				break
			default:
				one satisfies never
		}
	}
	return bytes
}

/**
 * What the kernel calls a program by: the first 8 bytes of a hash over the bytes with map descriptors zero, in
 * hexadecimal (kernel/bpf/core.c, bpf_prog_calc_tag). SHA-1 up to Linux 6.17, SHA-256 since.
 */
export function tagsOf(code: Code): readonly string[] {
	const bytes = assemble(code, () => 0)
	return ['sha256', 'sha1'].map((name) => createHash(name).update(bytes).digest('hex').slice(0, 16))
}

const named = <N extends string>(numbers: Readonly<Record<N, number>>): ReadonlyMap<number, N> =>
	new Map((Object.entries(numbers) as [N, number][]).map(([name, number]) => [number, name]))
const operatorOf = named(operators)
const comparisonOf = named(comparisons)
const helperOf = named(helpers)
const sizeOf = new Map<number, Size>([
	[0x10, 1],
	[0x08, 2],
	[0x00, 4],
	[0x18, 8],
])

/**
 * Bytes back to instructions: labels are named `L<n>` by position, maps by `nameOf` their descriptor. Throws Error for
 * an instruction that this assembler does not write.
 */
export function disassemble(bytes: Uint8Array, nameOf: (descriptor: number) => string): Instruction[] {
	const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
	const count = bytes.length / 8
	const found: { at: number; instruction: Instruction }[] = []
	const targets = new Set<number>()
	for (let at = 0; at < count; at++) {
		const opcode = view.getUint8(at * 8)
		const to = registers[view.getUint8(at * 8 + 1) & 15] as Register
		const from = registers[view.getUint8(at * 8 + 1) >> 4] as Register
		const offset = view.getInt16(at * 8 + 2, true)
		const immediate = view.getInt32(at * 8 + 4, true)
		const instruction = one(opcode, to, from, offset, immediate, at)
		if (instruction.kind === 'jump') targets.add(at + 1 + offset)
		found.push({ at, instruction })
		at += slotsOf(instruction) - 1
	}
	return found.flatMap(({ at, instruction }) =>
		targets.has(at) ? [{ kind: 'label', name: `L${at}` } as const, instruction] : [instruction],
	)

	function one(
		opcode: number,
		to: Register,
		from: Register,
		offset: number,
		immediate: number,
		at: number,
	): Instruction {
		const operand = (opcode & fromRegister) === 0 ? immediate : from
		const size = sizeOf.get(opcode & 0x18) as Size
		const upper = opcode >> 4
		if (opcode === LOAD_64) return { kind: 'map', to, map: nameOf(immediate) }
		if (opcode === CALL) {
			const helper = helperOf.get(immediate)
			if (helper !== undefined) return { kind: 'call', helper }
		}
		if (opcode === EXIT) return { kind: 'exit' }
		switch (opcode & 7) {
			case 1:
				if ((opcode & 0xe0) === 0x60) return { kind: 'load', to, size, from, offset }
				break
			case 2:
				if ((opcode & 0xe0) === 0x60) return { kind: 'store', size, at: to, offset, value: immediate }
				break
			case 3:
				if ((opcode & 0xe0) === 0x60) return { kind: 'store', size, at: to, offset, value: from }
				break
			case 4:
			case 7: {
				const op = operatorOf.get(upper)
				if (op !== undefined) return { kind: 'do', op, to, by: operand, width: (opcode & 7) === 4 ? 32 : 64 }
				break
			}
			case 5:
			case 6: {
				const label = `L${at + 1 + offset}`
				if (opcode === JUMP) return { kind: 'jump', label }
				const is = comparisonOf.get(upper)
				const width = (opcode & 7) === 6 ? 32 : 64
				if (is !== undefined) return { kind: 'jump', label, when: { left: to, is, right: operand, width } }
				break
			}
		}
		throw new Error(`instruction ${at} (opcode 0x${opcode.toString(16)}) is none that is written here`)
	}
}
