// eBPF programs as data: instructions with names instead of numbers, maps by name, jumps by label. What an assembler
// encodes, a disassembler prints and an interpreter runs. Source: RFC 9669 (BPF ISA), include/uapi/linux/bpf.h.

/** r0 result, r1-r5 arguments (lost at a call), r6-r9 kept, r10 frame pointer (read-only, 512 bytes below it). */
export const registers = ['r0', 'r1', 'r2', 'r3', 'r4', 'r5', 'r6', 'r7', 'r8', 'r9', 'r10'] as const
export type Register = (typeof registers)[number]

/** Functions of the kernel by their number (bpf-helpers(7)). */
export const helpers = {
	map_lookup_elem: 1,
	map_update_elem: 2,
	map_delete_elem: 3,
	ktime_get_ns: 5,
	get_prandom_u32: 7,
	get_socket_cookie: 46,
	get_netns_cookie: 122,
} as const
export type Helper = keyof typeof helpers

export const operators = {
	'+': 0x0,
	'-': 0x1,
	'*': 0x2,
	'/': 0x3,
	'|': 0x4,
	'&': 0x5,
	'<<': 0x6,
	'>>': 0x7,
	'%': 0x9,
	'^': 0xa,
	'=': 0xb,
} as const
export type Operator = keyof typeof operators

export const comparisons = {
	'==': 0x1,
	'>': 0x2,
	'>=': 0x3,
	'&': 0x4,
	'!=': 0x5,
	'<': 0xa,
	'<=': 0xb,
} as const
export type Comparison = keyof typeof comparisons

/** Bytes. */
export type Size = 1 | 2 | 4 | 8
/** Bits an operation takes; 32 clears the upper half. */
export type Width = 32 | 64

export type Instruction =
	/** `to operator= by`; all unsigned. A number is a signed 32-bit one, sign-extended for 64 bits. */
	| {
			readonly kind: 'do'
			readonly op: Operator
			readonly to: Register
			readonly by: Register | number
			readonly width: Width
	  }
	| {
			readonly kind: 'load'
			readonly to: Register
			readonly size: Size
			readonly from: Register
			readonly offset: number
	  }
	| {
			readonly kind: 'store'
			readonly size: Size
			readonly at: Register
			readonly offset: number
			readonly value: Register | number
	  }
	/** The address of a map (two instructions long). */
	| { readonly kind: 'map'; readonly to: Register; readonly map: string }
	/** Without `when`: always. Unsigned. */
	| {
			readonly kind: 'jump'
			readonly label: string
			readonly when?: {
				readonly left: Register
				readonly is: Comparison
				readonly right: Register | number
				readonly width: Width
			}
	  }
	| { readonly kind: 'label'; readonly name: string }
	| { readonly kind: 'call'; readonly helper: Helper }
	| { readonly kind: 'exit' }
	/** For people; no code. Says what the instructions up to the next one are for. */
	| { readonly kind: 'remark'; readonly text: string }

export type Code = readonly Instruction[]

export const set = (to: Register, by: Register | number): Instruction => ({ kind: 'do', op: '=', to, by, width: 64 })

/** 64 bits. */
export const calculate = (to: Register, op: Operator, by: Register | number): Instruction => ({
	kind: 'do',
	op,
	to,
	by,
	width: 64,
})

/** The lower 32 bits; the upper ones become zero. */
export const calculate32 = (to: Register, op: Operator, by: Register | number): Instruction => ({
	kind: 'do',
	op,
	to,
	by,
	width: 32,
})

export const load = (size: Size, to: Register, from: Register, offset: number): Instruction => ({
	kind: 'load',
	to,
	size,
	from,
	offset,
})

export const store = (size: Size, at: Register, offset: number, value: Register | number): Instruction => ({
	kind: 'store',
	size,
	at,
	offset,
	value,
})

export const loadMap = (to: Register, map: string): Instruction => ({ kind: 'map', to, map })
export const label = (name: string): Instruction => ({ kind: 'label', name })
export const call = (helper: Helper): Instruction => ({ kind: 'call', helper })
export const exit: Instruction = { kind: 'exit' }
export const remark = (text: string): Instruction => ({ kind: 'remark', text })
export const jump = (to: string): Instruction => ({ kind: 'jump', label: to })

export const jumpIf = (
	left: Register,
	is: Comparison,
	right: Register | number,
	to: string,
	width: Width = 64,
): Instruction => ({ kind: 'jump', label: to, when: { left, is, right, width } })

/** How many of the machine's 8-byte instructions one takes. */
export function slotsOf(instruction: Instruction): number {
	switch (instruction.kind) {
		case 'label':
		case 'remark':
			return 0
		case 'map':
			return 2
		default:
			return 1
	}
}
