// The sets that everything else computes with: connections and pieces of the address space.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type Cidr, cidrContains, type Ip, parseCidr, parseIp } from '../base/ip.ts'
import { hasPort, intersectPorts, subtractPorts, unitePorts } from '../base/ports.ts'
import {
	cidrsOf,
	contains,
	cutAddresses,
	gapsOf,
	intervalOf,
	intervalText,
	joinIntervals,
	positionOf,
} from './addresses.ts'
import { Bits, eachOfAll } from './bits.ts'
import {
	allConnections,
	ConnectionPool,
	type Connections,
	connectionsOf,
	connectionsOfRanges,
	connectionsText,
	noConnections,
	pointOf,
	rangesOf,
} from './connections.ts'

const texts: readonly (readonly [Connections, string])[] = [
	[noConnections, 'none'],
	[allConnections, 'all'],
	[connectionsOf('TCP', 80), 'TCP 80'],
	[connectionsOf('TCP'), 'TCP all'],
	[connectionsOf('TCP', 1, 65535), 'TCP all'],
	[connectionsOf('TCP', 2, 65535), 'TCP 2-65535'],
	[connectionsOf('TCP', 9, 8), 'none'],
	[unitePorts(connectionsOf('UDP', 53), connectionsOf('TCP', 53)), 'TCP 53 UDP 53'],
	[unitePorts(connectionsOf('TCP', 80, 81), connectionsOf('TCP', 82)), 'TCP 80-82'],
	[unitePorts(connectionsOf('TCP', 65535), connectionsOf('UDP', 1)), 'TCP 65535 UDP 1'],
	[connectionsOf('ICMP'), 'other'],
	[subtractPorts(allConnections, connectionsOf('ICMP')), 'TCP all UDP all SCTP all'],
	[subtractPorts(allConnections, connectionsOf('TCP', 22)), 'TCP 1-21,23-65535 UDP all SCTP all other'],
]
for (const [set, text] of texts) {
	test(`connections: ${text}`, () => {
		assert.equal(connectionsText(set), text)
		assert.equal(connectionsText(connectionsOfRanges(rangesOf(set))), text)
	})
}

const set = fc
	.array(
		fc.record({
			protocol: fc.constantFrom('TCP', 'UDP', 'SCTP', 'ICMP'),
			first: fc.integer({ min: 1, max: 12 }),
			length: fc.integer({ min: 0, max: 5 }),
		}),
		{ maxLength: 4 },
	)
	.map((list) =>
		list.reduce<Connections>(
			(all, { protocol, first, length }) => unitePorts(all, connectionsOf(protocol as 'TCP', first, first + length)),
			noConnections,
		),
	)

test('the pool says what the sets say', () => {
	const pool = new ConnectionPool()
	fc.assert(
		fc.property(set, set, (a, b) => {
			const [x, y] = [pool.idOf(a), pool.idOf(b)]
			assert.deepEqual(pool.setOf(pool.unite(x, y)), unitePorts(a, b))
			assert.deepEqual(pool.setOf(pool.intersect(x, y)), intersectPorts(a, b))
			assert.deepEqual(pool.setOf(pool.subtract(x, y)), subtractPorts(a, b))
			assert.equal(pool.unite(x, y) === x, subtractPorts(b, a).length === 0)
			assert.equal(hasPort(a, pointOf('ICMP', 0)), hasPort(a, pointOf('ICMP', 99)))
		}),
	)
})

const cidr = fc.oneof(
	fc
		.tuple(fc.integer({ min: 0, max: 0xffffffff }), fc.constantFrom(0, 1, 5, 8, 16, 24, 30, 31, 32))
		.map(([n, length]) =>
			parseCidr(`${n >>> 24}.${(n >>> 16) & 255}.${(n >>> 8) & 255}.${n & 255}/${length}`, { mask: true }),
		),
	fc
		.tuple(fc.constantFrom('0', '1', 'a0', 'ff'), fc.constantFrom(0, 7, 16, 64, 127, 128))
		.map(([x, length]) => parseCidr(`2001:db8:${x}::${x}/${length}`, { mask: true })),
)

test('within a piece no network tells two addresses apart', () => {
	fc.assert(
		fc.property(fc.array(cidr, { maxLength: 8 }), (cidrs) => {
			const space = cutAddresses(cidrs)
			let covered = { 4: 0n, 6: 0n }
			for (let piece = 0; piece < space.size; piece++) {
				const { family, first, last } = space.intervalOf(piece)
				covered = { ...covered, [family]: covered[family] + BigInt(last) - BigInt(first) + 1n }
				assert.equal(space.pieceOf(family, first), piece)
				assert.equal(space.pieceOf(family, last), piece)
				for (const name of cidrs) {
					const inside = contains(intervalOf(name), family, first)
					assert.equal(contains(intervalOf(name), family, last), inside)
					const { from, to } = space.piecesOf(name)
					assert.equal(piece >= from && piece < to, inside)
				}
			}
			assert.deepEqual(covered, { 4: 1n << 32n, 6: 1n << 128n })
		}),
	)
})

test('intervals as networks', () => {
	const ip = (text: string) => positionOf(parseIp(text))
	const range = (first: string, last: string) =>
		({ family: first.includes(':') ? 6 : 4, first: ip(first), last: ip(last) }) as const
	assert.deepEqual(cidrsOf(range('10.0.0.0', '10.0.0.255')), ['10.0.0.0/24'])
	assert.deepEqual(cidrsOf(range('10.0.0.1', '10.0.0.4')), ['10.0.0.1/32', '10.0.0.2/31', '10.0.0.4/32'])
	assert.deepEqual(cidrsOf(range('0.0.0.0', '255.255.255.255')), ['0.0.0.0/0'])
	assert.deepEqual(cidrsOf(range('::', 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff')), ['::/0'])
	assert.equal(intervalText(range('10.0.0.1', '10.0.0.4')), '10.0.0.1-10.0.0.4')
	assert.deepEqual(
		joinIntervals([range('10.0.1.0', '10.0.1.255'), range('10.0.0.0', '10.0.0.255'), range('10.0.3.0', '10.0.3.1')]),
		[range('10.0.0.0', '10.0.1.255'), range('10.0.3.0', '10.0.3.1')],
	)
	assert.deepEqual(gapsOf([range('0.0.0.0', '9.255.255.255'), range('11.0.0.0', '255.255.255.255')]).flatMap(cidrsOf), [
		'10.0.0.0/8',
	])
	assert.ok(cidrContains('10.0.0.0/8' as Cidr, '10.1.2.3' as Ip))
})

test('bits', () => {
	fc.assert(
		fc.property(fc.uniqueArray(fc.nat(400)), fc.uniqueArray(fc.nat(400)), (a, b) => {
			const make = (list: readonly number[]) => {
				const bits = new Bits()
				for (const n of list) bits.set(n, true)
				return bits
			}
			const found: number[] = []
			eachOfAll([make(a), make(b)], (n) => found.push(n))
			assert.deepEqual(
				found,
				a.filter((n) => b.includes(n)).sort((x, y) => x - y),
			)
			const bits = make(a)
			for (const n of b) bits.set(n, false)
			for (const n of a) assert.equal(bits.has(n), !b.includes(n))
		}),
	)
})
