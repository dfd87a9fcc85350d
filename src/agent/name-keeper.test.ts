import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Ip } from '../base/ip.ts'
import { createManualClock } from '../base/manual-clock.ts'
import { mostNames } from '../dataplane/dns/answered.ts'
import { createNameKeeper } from './name-keeper.ts'

const answered = (name: string, until: number, ...ips: string[]) => ({
	name,
	addresses: ips.map((ip) => ({ ip: ip as Ip, until })),
})

function keeperWith(used: Set<Ip> = new Set()) {
	const clock = createManualClock(0)
	const said: string[] = []
	const keeper = createNameKeeper({
		clock,
		publish: (names) =>
			said.push(
				[...names]
					.map(([name, ips]) => `${name} ${ips.join(' ')}`)
					.sort()
					.join(', '),
			),
		inUse: (ips) => ips.filter((ip) => used.has(ip)),
	})
	return { clock, keeper, said: () => said.splice(0) }
}

test('an address is there from the answer to its end; that it lasts longer is no news', () => {
	const { clock, keeper, said } = keeperWith()
	keeper.learn([answered('a.example', 30_000, '192.0.2.2', '192.0.2.1')])
	assert.deepEqual(said(), ['a.example 192.0.2.1 192.0.2.2'])
	clock.advance(20_000)
	keeper.learn([answered('a.example', 50_000, '192.0.2.1')])
	assert.deepEqual(said(), [])
	clock.advance(9_999)
	assert.deepEqual(said(), [])
	clock.advance(1)
	assert.deepEqual(said(), ['a.example 192.0.2.1'], 'the other is over')
	keeper.learn([answered('b.example', 40_000, '192.0.2.1'), answered('over.example', 1, '192.0.2.9')])
	assert.deepEqual(said(), ['a.example 192.0.2.1, b.example 192.0.2.1'])
	clock.advance(60_000)
	assert.deepEqual(said(), ['a.example 192.0.2.1', ''])
	assert.equal(clock.waiting, 0)
})

test('an address that connections use stays until they do not', () => {
	const used = new Set(['192.0.2.1' as Ip])
	const { clock, keeper, said } = keeperWith(used)
	keeper.learn([answered('a.example', 10_000, '192.0.2.1', '192.0.2.2')])
	said()
	clock.advance(10_000)
	assert.deepEqual(said(), ['a.example 192.0.2.1'])
	clock.advance(60_000)
	assert.deepEqual(said(), [])
	used.clear()
	clock.advance(10_000)
	assert.deepEqual(said(), [''])
})

test('bounded: what was asked for least recently goes', () => {
	const { keeper } = keeperWith()
	for (let i = 0; i <= mostNames; i++) keeper.learn([answered(`n${i}.example`, 1e6, '192.0.2.1')])
	assert.equal(keeper.names.size, mostNames)
	assert.ok(!keeper.names.has('n0.example') && keeper.names.has(`n${mostNames}.example`))
	keeper.stop()
})
