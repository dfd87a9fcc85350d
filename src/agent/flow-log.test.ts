import assert from 'node:assert/strict'
import { test } from 'node:test'
import { createManualClock } from '../base/manual-clock.ts'
import type { FlowEvent, FlowMessage } from './flow-event.ts'
import { observeFlows } from './flow-log.ts'
import { FlowRing } from './flow-ring.ts'
import type { FlowReader } from './flows.ts'

const at = (second: number, node: string): FlowEvent => {
	const time = new Date(second * 1000).toISOString()
	return {
		flow: {
			time,
			verdict: 'DROPPED',
			IP: { source: '10.0.0.1', destination: '10.0.0.2', ipVersion: 'IPv4' },
			l4: { TCP: { source_port: 1, destination_port: second } },
			source: { labels: [] },
			destination: { labels: [] },
			Type: 'L3_L4',
			node_name: node,
			traffic_direction: 'INGRESS',
			is_reply: false,
			Summary: 'TCP',
		},
		node_name: node,
		time,
		podwire: { event: 'new', because: [] },
	}
}

interface FakeReader extends FlowReader {
	happen(event: FlowEvent): void
	readonly watchers: number
}

function fakeReader(node: string, limit: number, quiet = 0): FakeReader {
	const ring = new FlowRing<FlowEvent>(limit)
	const watchers = new Set<(message: FlowMessage) => void>()
	return {
		node,
		log: undefined,
		update() {},
		recent: () => ({ events: ring, overwritten: ring.dropped }),
		watch(tell) {
			watchers.add(tell)
			return () => void watchers.delete(tell)
		},
		counts: { processed: new Map(), dropped: new Map(), lost: 0, unlogged: new Map() },
		unlogged: () => quiet,
		missed: 0,
		close() {},
		happen(event) {
			ring.push(event)
			for (const tell of watchers) tell(event)
		},
		get watchers() {
			return watchers.size
		},
	}
}

const brief = (message: FlowMessage) =>
	'flow' in message
		? `${message.node_name} ${message.flow.l4.TCP?.destination_port}`
		: `${message.node_name} lost ${message.lost_events.num_events_lost} ${message.lost_events.source}`

async function all(messages: AsyncIterable<FlowMessage>): Promise<string[]> {
	const found: string[] = []
	for await (const message of messages) found.push(brief(message))
	return found
}

const clock = createManualClock()
const never = new AbortController().signal

test('what nodes remember comes in the order of time, and what they do not is said', async () => {
	const a = fakeReader('a', 3, 7)
	const b = fakeReader('b', 3)
	for (const second of [1, 3, 5, 7]) a.happen(at(second, 'a'))
	for (const second of [2, 4]) b.happen(at(second, 'b'))
	const ask = (query: object) => all(observeFlows([a, b], { filter: {}, follow: false, ...query }, clock, never))
	assert.deepEqual(await ask({}), ['a lost 1 RING_BUFFER', 'a lost 7 RATE_LIMIT', 'b 2', 'a 3', 'b 4', 'a 5', 'a 7'])
	assert.deepEqual(await ask({ last: 2 }), ['a lost 7 RATE_LIMIT', 'a 5', 'a 7'])
	assert.deepEqual(await ask({ last: 0 }), [])
	assert.deepEqual(await ask({ filter: { port: 4 }, last: 9 }), ['a lost 7 RATE_LIMIT', 'b 4'])
	assert.deepEqual([a.watchers, b.watchers], [0, 0])
})

test('who follows gets the past once, then what comes, until it has enough', async () => {
	const a = fakeReader('a', 10)
	a.happen(at(1, 'a'))
	const abort = new AbortController()
	const stream = observeFlows([a], { filter: {}, follow: true }, clock, abort.signal)[Symbol.asyncIterator]()
	const next = async () => brief((await stream.next()).value as FlowMessage)
	assert.equal(await next(), 'a 1')
	assert.equal(a.watchers, 1)
	const waiting = next()
	a.happen(at(2, 'a'))
	assert.equal(await waiting, 'a 2')
	a.happen(at(3, 'a'))
	assert.equal(await next(), 'a 3')
	const end = stream.next()
	abort.abort()
	assert.equal((await end).done, true)
	assert.equal(a.watchers, 0)
})

test('who reads too slowly is told how much it was', async () => {
	const a = fakeReader('a', 1)
	const abort = new AbortController()
	const stream = observeFlows([a], { filter: {}, follow: true, last: 0 }, clock, abort.signal)[Symbol.asyncIterator]()
	const first = stream.next()
	for (let i = 1; i <= 10_006; i++) a.happen(at(i, 'a'))
	assert.equal(brief((await first).value as FlowMessage), 'a 1')
	for (let i = 2; i <= 10_000; i++) assert.equal(brief((await stream.next()).value as FlowMessage), `a ${i}`)
	assert.equal(brief((await stream.next()).value as FlowMessage), ' lost 6 OBSERVER_QUEUE')
	a.happen(at(7, 'a'))
	assert.equal(brief((await stream.next()).value as FlowMessage), 'a 7')
	await stream.return?.()
	assert.equal(a.watchers, 0)
})
