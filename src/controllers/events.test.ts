import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Clock } from '../base/clock.ts'
import { createKubeClient } from '../kube/client.ts'
import type { Event } from '../kube/objects/core.ts'
import type { KubeObject } from '../kube/objects/meta.ts'
import { createEventRecorder } from './events.ts'

/** An API that keeps events, as far as the recorder uses it. */
function eventStore() {
	const events = new Map<string, Event>()
	const client = createKubeClient(async (request) => {
		const name = new URL(request.url).pathname.split('/').at(-1)!
		const body = (await request.json()) as Event
		if (request.method === 'POST') {
			events.set(body.metadata.name, body)
			return Response.json(body, { status: 201 })
		}
		const before = events.get(name)
		if (before === undefined) {
			const status = { kind: 'Status', apiVersion: 'v1', reason: 'NotFound', code: 404, message: 'gone' }
			return Response.json(status, { status: 404 })
		}
		events.set(name, { ...before, ...body })
		return Response.json(events.get(name))
	})
	return { client, events }
}

let now = Date.parse('2026-01-01T00:00:00Z')
const clock: Clock = { now: () => now, after: () => () => {} }
const object = (uid: string, namespace?: string): KubeObject => ({
	apiVersion: 'v1',
	kind: namespace === undefined ? 'Node' : 'Pod',
	metadata: { name: uid, uid, resourceVersion: '7', ...(namespace === undefined ? {} : { namespace }) },
})

async function until(done: () => boolean): Promise<void> {
	for (let i = 0; i < 1000 && !done(); i++) await new Promise((resolve) => setImmediate(resolve))
}

function setUp() {
	const { client, events } = eventStore()
	const recorder = createEventRecorder(client, { clock, signal: new AbortController().signal })
	return { recorder, events }
}

test('an event as the API has it; of a cluster-scoped object in default', async () => {
	const { recorder, events } = setUp()
	recorder.record('scheduler', object('web', 'shop'), 'Normal', 'Scheduled', 'assigned')
	recorder.record('nodes', object('node-1'), 'Warning', 'Bad', 'why')
	await until(() => events.size === 2)
	const [event, other] = [...events.values()]
	const { metadata, ...rest } = event!
	assert.match(metadata.name, /^web\.[0-9a-f]{16}$/)
	assert.deepEqual(rest, {
		apiVersion: 'v1',
		kind: 'Event',
		involvedObject: { kind: 'Pod', namespace: 'shop', name: 'web', uid: 'web', apiVersion: 'v1', resourceVersion: '7' },
		reason: 'Scheduled',
		message: 'assigned',
		source: { component: 'scheduler' },
		firstTimestamp: '2026-01-01T00:00:00Z',
		lastTimestamp: '2026-01-01T00:00:00Z',
		count: 1,
		type: 'Normal',
		eventTime: null,
		reportingComponent: 'scheduler',
		reportingInstance: '',
	})
	assert.equal(other!.metadata.namespace, 'default')
})

test('the same again is counted, also after it was deleted', async () => {
	const { recorder, events } = setUp()
	const tell = () => recorder.record('c', object('p', 'n'), 'Warning', 'Failed', 'same')
	tell()
	tell()
	now += 5000
	tell()
	await until(() => [...events.values()][0]?.count === 3)
	const [event] = [...events.values()]
	assert.deepEqual([event!.firstTimestamp, event!.lastTimestamp], ['2026-01-01T00:00:00Z', '2026-01-01T00:00:05Z'])
	events.clear()
	tell()
	await until(() => events.size === 1)
	assert.equal([...events.values()][0]!.count, 1)
})

test('many alike are combined, and no object gets more than its share', async () => {
	const { recorder, events } = setUp()
	for (let i = 0; i < 100; i++) recorder.record('c', object('set', 'n'), 'Normal', 'Created', `pod ${i}`)
	recorder.record('c', object('other', 'n'), 'Normal', 'Created', 'pod x')
	await until(() => [...events.values()].some((e) => e.involvedObject.name === 'other'))
	const ofSet = [...events.values()].filter((e) => e.involvedObject.name === 'set')
	assert.equal(ofSet.length, 11)
	const combined = ofSet.find((e) => e.message?.startsWith('(combined from similar events): '))
	assert.equal(combined!.count, 15, '25 in all: 10 of their own, 15 combined')
	now += 300_000
	recorder.record('c', object('set', 'n'), 'Normal', 'Created', 'pod z')
	await until(() => combined !== [...events.values()].find((e) => e.metadata.name === combined!.metadata.name))
	assert.equal(events.get(combined!.metadata.name)!.count, 16, 'one more in five minutes')
})

test('events of many objects are written together, those of one in order', async () => {
	const asked: string[] = []
	const answers: (() => void)[] = []
	const client = createKubeClient(async (request) => {
		const { involvedObject, message } = (await request.json()) as Event
		asked.push(`${involvedObject.name} ${message}`)
		await new Promise<void>((resolve) => answers.push(resolve))
		return Response.json({}, { status: 201 })
	})
	const recorder = createEventRecorder(client, { clock, signal: new AbortController().signal })
	for (const [uid, message] of [
		['a', '1'],
		['b', '1'],
		['a', '2'],
		['c', '1'],
		['a', '3'],
		['d', '1'],
	] as const) {
		recorder.record('kubelet', object(uid, 'shop'), 'Normal', 'Said', message)
	}
	// The first of all goes alone: it was written before the others were there.
	await until(() => asked.length === 1)
	answers.shift()!()
	await until(() => asked.length === 4)
	assert.deepEqual(asked, ['a 1', 'b 1', 'a 2', 'c 1'])
	for (const answer of answers.splice(0)) answer()
	await until(() => asked.length === 6)
	assert.deepEqual(asked.slice(4), ['a 3', 'd 1'])
	for (const answer of answers.splice(0)) answer()
})
