import assert from 'node:assert/strict'
import { test } from 'node:test'
import { tableOf } from '../base/table.ts'
import { logPrefix } from '../dataplane/policy/log.ts'
import { emptyProgram, type NftProgram, type NftRule, tableKey } from '../linux/nft/program.ts'
import { UnloggedPackets } from './flow-unlogged.ts'

const chain = 'ingress-shop-0a1b2c3d4e5f'
const counter = (packets: number) => ({ kind: 'counter', packets, bytes: 0 }) as const

/** Rules that log, each with what it and the one after it count. */
function program(
	table: number,
	rules: readonly (readonly [handle: number, says: 'deny' | 'audit', logged: number, met: number])[],
): NftProgram {
	const all = rules.flatMap(([handle, says, logged, met]): NftRule[] => [
		{ handle, expressions: [counter(logged), { kind: 'log', prefix: logPrefix(says, chain, 'x'), group: 1 }] },
		{ handle: handle + 1, expressions: [counter(met), { kind: 'verdict', verdict: 'drop' } as never] },
	])
	const tables = {
		family: 'ip' as const,
		name: 'podwire-policy',
		handle: table,
		chains: tableOf([[chain, { name: chain, rules: all }]]),
		sets: tableOf<string, never>([]),
	}
	return { tables: tableOf([[tableKey('ip', 'podwire-policy'), tables as never]]) }
}

test('what rules met and did not log, by verdict, also after they have gone', () => {
	const quiet = new UnloggedPackets()
	const says = (expected: Record<string, number>) => assert.deepEqual(Object.fromEntries(quiet.byVerdict), expected)
	quiet.see(emptyProgram)
	says({})
	quiet.see(program(1, [[10, 'deny', 200, 3000]]))
	says({ DROPPED: 2800 })
	quiet.see(
		program(1, [
			[10, 'deny', 201, 3001],
			[20, 'audit', 5, 6],
		]),
	)
	says({ DROPPED: 2800, AUDIT: 1 })
	assert.equal(quiet.logged, 206)
	// A packet between the two readings is not taken back when they agree.
	quiet.see(
		program(1, [
			[10, 'deny', 201, 3002],
			[20, 'audit', 5, 6],
		]),
	)
	quiet.see(
		program(1, [
			[10, 'deny', 202, 3002],
			[20, 'audit', 5, 6],
		]),
	)
	says({ DROPPED: 2801, AUDIT: 1 })
	// The chain is rewritten: other rules, which begin at zero.
	quiet.see(program(1, [[30, 'deny', 0, 0]]))
	says({ DROPPED: 2801, AUDIT: 1 })
	quiet.see(program(1, [[30, 'deny', 1, 11]]))
	says({ DROPPED: 2811, AUDIT: 1 })
	// Another table, whose handles are the same.
	quiet.see(program(2, [[30, 'deny', 1, 2]]))
	says({ DROPPED: 2812, AUDIT: 1 })
	quiet.see(emptyProgram)
	says({ DROPPED: 2812, AUDIT: 1 })
	assert.equal(quiet.total, 2813)
})
