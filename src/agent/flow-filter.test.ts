import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { FlowEvent } from './flow-event.ts'
import { type FlowFilter, matchesFlow, parseEnd } from './flow-filter.ts'
import { FlowRing } from './flow-ring.ts'

const time = '2026-11-23T04:10:49.886Z'
const event: FlowEvent = {
	flow: {
		time,
		verdict: 'DROPPED',
		IP: { source: '10.244.2.3', destination: '10.244.2.4', ipVersion: 'IPv4' },
		l4: { TCP: { source_port: 45270, destination_port: 5432 } },
		source: {
			namespace: 'shop',
			pod_name: 'web-5d8c-abc',
			labels: ['k8s:app=web', 'k8s:tier=front'],
			workloads: [{ name: 'web', kind: 'Deployment' }],
		},
		destination: {
			namespace: 'data',
			pod_name: 'db-0',
			labels: ['k8s:app=db'],
			workloads: [{ name: 'db', kind: 'StatefulSet' }],
		},
		Type: 'L3_L4',
		node_name: 'node-3',
		destination_service: { name: 'sql', namespace: 'data' },
		traffic_direction: 'INGRESS',
		is_reply: false,
		Summary: 'TCP Flags: SYN',
	},
	node_name: 'node-3',
	time,
	podwire: { event: 'new', because: [], asked: { ip: '10.96.4.4', port: 3306 } },
}
const outside: FlowEvent = {
	...event,
	flow: { ...event.flow, source: { labels: ['reserved:world'] }, l4: { ICMPv4: { type: 8, code: 0 } } },
}
const fromNode: FlowEvent = { ...event, podwire: { ...event.podwire, source: 'node/node-1' } }
const ended: FlowEvent = { ...event, podwire: { ...event.podwire, event: 'end' } }

const cases: readonly (readonly [FlowFilter, FlowEvent, boolean])[] = [
	[{}, event, true],
	[{}, ended, false],
	[{ ended: true }, ended, true],
	[{ namespace: 'shop' }, event, true],
	[{ namespace: 'data' }, event, true],
	[{ namespace: 'other' }, event, false],
	[{ pod: 'db-0' }, event, true],
	[{ pod: 'shop/web-*' }, event, true],
	[{ pod: 'data/web-*' }, event, false],
	[{ pod: 'web' }, event, false],
	[{ verdicts: ['FORWARDED', 'AUDIT'] }, event, false],
	[{ verdicts: ['DROPPED'] }, event, true],
	[{ port: 5432 }, event, true],
	[{ port: 3306 }, event, true],
	[{ port: 45270 }, event, false],
	[{ protocol: 'TCP' }, event, true],
	[{ protocol: 'UDP' }, event, false],
	[{ protocol: 'ICMP' }, outside, true],
	[{ node: 'node-1' }, event, false],
	[{ since: Date.parse(time) }, event, true],
	[{ since: Date.parse(time) + 1 }, event, false],
	[{ from: parseEnd('deploy/web') }, event, true],
	[{ from: parseEnd('deploy/web', 'data') }, event, false],
	[{ from: parseEnd('sts/web') }, event, false],
	[{ to: parseEnd('ns/data/pod/db-0') }, event, true],
	[{ from: parseEnd('db-0') }, event, false],
	[{ from: parseEnd('shop/web') }, event, true],
	[{ to: parseEnd('svc/sql') }, event, true],
	[{ to: parseEnd('sql', 'data') }, event, true],
	[{ from: parseEnd('svc/sql') }, event, false],
	[{ from: parseEnd('ns/shop') }, event, true],
	[{ to: parseEnd('ns/shop') }, event, false],
	[{ to: parseEnd('10.244.2.0/24') }, event, true],
	[{ to: parseEnd('10.96.4.4') }, event, true],
	[{ from: parseEnd('10.96.4.4') }, event, false],
	[{ from: parseEnd('app=web,tier=front') }, event, true],
	[{ from: parseEnd('app=web,tier=back') }, event, false],
	[{ from: parseEnd('outside') }, event, false],
	[{ from: parseEnd('outside') }, outside, true],
	[{ from: parseEnd('node/node-1') }, fromNode, true],
	[{ from: parseEnd('node/node-2') }, fromNode, false],
]

describe('filters of flows', () => {
	for (const [filter, of, expected] of cases)
		it(`${JSON.stringify(filter)}: ${expected}`, () => {
			// As it crosses the control socket.
			assert.equal(matchesFlow(JSON.parse(JSON.stringify(filter)) as FlowFilter, of), expected)
		})

	for (const text of ['', 'a/b/c', '=x', 'no spaces', 'ns//pod/x', '-x'])
		it(`refuses ${JSON.stringify(text)}`, () => {
			assert.throws(() => parseEnd(text), { code: 'BadRequest' })
		})
})

it('a ring keeps the newest, in order, and counts the others', () => {
	const ring = new FlowRing<number>(3)
	for (let i = 1; i <= 3; i++) ring.push(i)
	assert.deepEqual([[...ring], ring.dropped], [[1, 2, 3], 0])
	for (let i = 4; i <= 8; i++) ring.push(i)
	assert.deepEqual([[...ring], ring.dropped, ring.size], [[6, 7, 8], 5, 3])
})
