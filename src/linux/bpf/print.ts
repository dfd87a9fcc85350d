// Programs as text, one instruction a line, close to C and to what `bpftool prog dump` prints.

import type { Code, Instruction, Register, Size, Width } from './instruction.ts'

const types: Readonly<Record<Size, string>> = { 1: 'u8', 2: 'u16', 4: 'u32', 8: 'u64' }

/** Labels flush left, remarks as comments, instructions indented. Ends without a newline. */
export function printCode(code: Code): string {
	return code.map(printInstruction).join('\n')
}

export function printInstruction(one: Instruction): string {
	switch (one.kind) {
		case 'label':
			return `${one.name}:`
		case 'remark':
			return `\t// ${one.text}`
		case 'do': {
			const operator = one.op === '=' ? '=' : `${one.op}=`
			return `\t${register(one.to, one.width)} ${operator} ${operand(one.by, one.width)}`
		}
		case 'load':
			return `\t${one.to} = ${place(one.size, one.from, one.offset)}`
		case 'store':
			return `\t${place(one.size, one.at, one.offset)} = ${one.value}`
		case 'map':
			return `\t${one.to} = map ${one.map}`
		case 'jump': {
			if (one.when === undefined) return `\tgoto ${one.label}`
			const { left, is, right, width } = one.when
			return `\tif ${register(left, width)} ${is} ${operand(right, width)} goto ${one.label}`
		}
		case 'call':
			return `\tcall ${one.helper}`
		case 'exit':
			return '\texit'
		default:
			return one satisfies never
	}
}

function register(name: Register, width: Width): string {
	return width === 32 ? `w${name.slice(1)}` : name
}

function operand(value: Register | number, width: Width): string {
	return typeof value === 'number' ? String(value) : register(value, width)
}

function place(size: Size, base: Register, offset: number): string {
	const sign = offset < 0 ? '-' : '+'
	return `*(${types[size]} *)(${base} ${sign} ${Math.abs(offset)})`
}
