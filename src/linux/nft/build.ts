// Rules in the words of nft, as expressions: what a compiler of programs calls instead of counting registers.

import { type Cidr, cidrAddress, cidrLength, type Ip, ipToBytes } from '../../base/ip.ts'
import { dataType, type Field, field, keyLength } from './datatype.ts'
import type { Expression } from './expr/expression.ts'
import type { VerdictName } from './wire.ts'

/** Something a rule can look at, and a set can be keyed by. */
export interface Part {
	readonly field: Field
	/** Loads it into registers from `word` on. */
	load(word: number): Expression
}

function payload(text: string, base: 'network' | 'transport', offset: number, type: string): Part {
	const f = field(type, text)
	return { field: f, load: (to) => ({ kind: 'payload', base, offset, length: f.bytes, to }) }
}

export const ip = {
	saddr: payload('ip saddr', 'network', 12, 'ipv4_addr'),
	daddr: payload('ip daddr', 'network', 16, 'ipv4_addr'),
}
export const ip6 = {
	saddr: payload('ip6 saddr', 'network', 8, 'ipv6_addr'),
	daddr: payload('ip6 daddr', 'network', 24, 'ipv6_addr'),
}
/** Ports of whatever transport protocol has them at the usual place. */
export const th = {
	sport: payload('th sport', 'transport', 0, 'inet_service'),
	dport: payload('th dport', 'transport', 2, 'inet_service'),
}
export const l4proto: Part = {
	field: field('inet_proto', 'meta l4proto'),
	load: (to) => ({ kind: 'meta', key: 'l4proto', to }),
}

/**
 * A random number below `modulus`. The modulus in a set's declaration only gives the type, so maps of every modulus
 * are declared alike.
 */
export function random(modulus: number): Part {
	return {
		field: field('integer', 'numgen random mod 65536', 4),
		load: (to) => ({ kind: 'numgen', mode: 'random', modulus, offset: 0, to }),
	}
}

export function fieldsOf(parts: readonly Part[]): Field[] {
	return parts.map((p) => p.field)
}

/** Loads a concatenation into registers from word 0 on. */
export function load(parts: readonly Part[], from = 0): Expression[] {
	let word = from
	return parts.map((part) => {
		const expression = part.load(word)
		word += ((part.field.bytes + 3) & ~3) / 4
		return expression
	})
}

/** `ip daddr . meta l4proto @name`: goes on where the key is in the set. */
export function inSet(parts: readonly Part[], set: string): Expression[] {
	return [...load(parts), { kind: 'lookup', set, from: 0 }]
}

/** `ip daddr != @name`: goes on where the key is not in the set. */
export function notInSet(parts: readonly Part[], set: string): Expression[] {
	return [...load(parts), { kind: 'lookup', set, from: 0, invert: true }]
}

/**
 * The same of an interval set of several fields: nft turns what it takes for a number of the host (l4proto, one byte, to
 * no effect), and so do we, so that a listing loaded again is the same.
 */
export function inRanges(parts: readonly Part[], set: string): Expression[] {
	const turned = load(parts).flatMap((e): Expression[] =>
		e.kind === 'meta' && e.to !== undefined
			? [e, { kind: 'byteorder', op: 'hton', from: e.to, to: e.to, length: 1, size: 2 }]
			: [e],
	)
	return [...turned, { kind: 'lookup', set, from: 0 }]
}

/** `… vmap @name`. */
export function verdictMap(parts: readonly Part[], set: string): Expression[] {
	return [...load(parts), { kind: 'lookup', set, from: 0, to: 'verdict' }]
}

/** `dnat ip to … map @name`, the data being an address and a port; goes on where the key is absent. */
export function dnatByMap(family: 'ip' | 'ip6', parts: readonly Part[], set: string): Expression[] {
	return [
		...load(parts),
		{ kind: 'lookup', set, from: 0, to: 0 },
		{
			kind: 'nat',
			type: 'dnat',
			family,
			address: 0,
			port: keyLength([field(family === 'ip' ? 'ipv4_addr' : 'ipv6_addr')]) / 4,
		},
	]
}

/** `ip daddr 10.96.0.0/16`, in the form nft itself compiles it to. */
export function matchPrefix(part: Part, cidr: Cidr): Expression[] {
	const length = cidrLength(cidr)
	const bytes = Buffer.from(ipToBytes(cidrAddress(cidr)))
	const whole = part.load(0)
	if (whole.kind !== 'payload') throw new Error('a prefix is matched on a header field')
	if (length === 0) return []
	if (length % 8 === 0) {
		const used = length / 8
		return [
			{ ...whole, length: used },
			{ kind: 'cmp', op: 'eq', from: 0, value: bytes.subarray(0, used).toString('hex') },
		]
	}
	const mask = Buffer.alloc(bytes.length)
	for (let i = 0; i < mask.length; i++) mask[i] = (0xff00 >> Math.min(8, Math.max(0, length - i * 8))) & 0xff
	return [
		whole,
		{
			kind: 'bitwise',
			from: 0,
			to: 0,
			length: bytes.length,
			mask: mask.toString('hex'),
			xor: '00'.repeat(bytes.length),
		},
		{ kind: 'cmp', op: 'eq', from: 0, value: bytes.toString('hex') },
	]
}

/** `ip daddr 10.0.0.1`, `th dport 80`, `meta l4proto tcp`. */
export function matchAddress(part: Part, address: Ip): Expression[] {
	return [part.load(0), { kind: 'cmp', op: 'eq', from: 0, value: Buffer.from(ipToBytes(address)).toString('hex') }]
}

export function matchPort(part: Part, port: number): Expression[] {
	return [part.load(0), { kind: 'cmp', op: 'eq', from: 0, value: port.toString(16).padStart(4, '0') }]
}

export function matchProtocol(protocol: number): Expression[] {
	return [l4proto.load(0), { kind: 'cmp', op: 'eq', from: 0, value: protocol.toString(16).padStart(2, '0') }]
}

/** `ct state new,established`: any of them. */
export function connectionState(...states: readonly string[]): Expression[] {
	return anyOf('state', 'ct_state', states)
}

/** `ct status dnat`: any of them. */
export function connectionStatus(...bits: readonly string[]): Expression[] {
	return anyOf('status', 'ct_status', bits)
}

function anyOf(key: 'state' | 'status', type: string, flags: readonly string[]): Expression[] {
	const mask = Buffer.alloc(4)
	mask.writeUInt32LE(flags.reduce((bits, name) => bits | (dataType(type).symbols?.[name] ?? 0), 0))
	return [
		{ kind: 'ct', key, to: 0 },
		{ kind: 'bitwise', from: 0, to: 0, length: 4, mask: mask.toString('hex'), xor: '00000000' },
		{ kind: 'cmp', op: 'neq', from: 0, value: '00000000' },
	]
}

/** `fib saddr type local`: sent by this host. */
export const localSource: readonly Expression[] = (() => {
	const value = Buffer.alloc(4)
	value.writeUInt32LE(dataType('fib_addrtype').symbols?.local ?? 0)
	return [
		{ kind: 'fib', result: 'type', by: ['saddr'], to: 0 },
		{ kind: 'cmp', op: 'eq', from: 0, value: value.toString('hex') },
	]
})()

export const count: Expression = Object.freeze({ kind: 'counter', packets: 0, bytes: 0 })

export function decide(verdict: VerdictName, chain?: string): Expression {
	return { kind: 'verdict', verdict, ...(chain === undefined ? {} : { chain }) }
}

export const rejectTcp: Expression = Object.freeze({ kind: 'reject', with: 'tcp-reset', code: 0 })

/** ICMP port unreachable of the family: what `reject` alone means. */
export function rejectPort(family: 'ip' | 'ip6'): Expression {
	return { kind: 'reject', with: 'icmp', code: family === 'ip' ? 3 : 4 }
}

/** The family's address parts. */
export function addresses(family: 'ip' | 'ip6'): typeof ip {
	return family === 'ip' ? ip : ip6
}
