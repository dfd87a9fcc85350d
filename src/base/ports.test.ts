import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
	allPorts,
	formatPorts,
	hasPort,
	intersectPorts,
	noPorts,
	type PortSet,
	portRange,
	portRanges,
	samePorts,
	subtractPorts,
	unitePorts,
} from './ports.ts'

// A small world, so that intervals touch, overlap and swallow each other.
const range = fc.tuple(fc.nat(20), fc.nat(20)).map(([a, b]) => portRange(Math.min(a, b), Math.max(a, b)))
const set = fc.array(range, { maxLength: 5 }).map((ranges) => ranges.reduce(unitePorts, noPorts))
const members = (s: PortSet) => Array.from({ length: 25 }, (_, port) => port).filter((port) => hasPort(s, port))

test('sets of ports are sets', () => {
	fc.assert(
		fc.property(set, set, (a, b) => {
			const [x, y] = [members(a), members(b)]
			assert.deepEqual(
				members(unitePorts(a, b)),
				[...new Set([...x, ...y])].sort((p, q) => p - q),
			)
			assert.deepEqual(
				members(intersectPorts(a, b)),
				x.filter((p) => y.includes(p)),
			)
			assert.deepEqual(
				members(subtractPorts(a, b)),
				x.filter((p) => !y.includes(p)),
			)
			// canonical: the same members are the same list, and no two intervals touch
			assert.equal(samePorts(a, b), JSON.stringify(x) === JSON.stringify(y))
			for (let i = 1; i < a.length; i++) assert.ok(a[i]! > a[i - 1]!)
			assert.deepEqual(
				portRanges(a).flatMap((r) => Array.from({ length: r.last - r.first + 1 }, (_, i) => r.first + i)),
				x,
			)
		}),
	)
})

test('in words', () => {
	const table: [PortSet, string][] = [
		[noPorts, 'none'],
		[allPorts, 'all'],
		[portRange(5, 4), 'none'],
		[unitePorts(portRange(80), portRange(8000, 8100)), '80,8000-8100'],
		[unitePorts(portRange(80), portRange(81)), '80-81'],
		[subtractPorts(allPorts, portRange(53)), '0-52,54-65535'],
	]
	for (const [s, text] of table) assert.equal(formatPorts(s), text)
	assert.ok(hasPort(allPorts, 65535))
	assert.ok(!hasPort(allPorts, 65536))
})
