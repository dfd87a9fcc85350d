import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Node, Service } from '../../kube/objects/core.ts'
import type { Endpoint } from '../../kube/objects/discovery.ts'
import { assignZones, isTopologyAuto, zoneShares } from './topology.ts'

const node = (zone: string | undefined, cpu = '2', more: { ready?: boolean; role?: string } = {}): Node => ({
	apiVersion: 'v1',
	kind: 'Node',
	metadata: {
		name: 'n',
		labels: {
			...(zone === undefined ? {} : { 'topology.kubernetes.io/zone': zone }),
			...(more.role === undefined ? {} : { [`node-role.kubernetes.io/${more.role}`]: '' }),
		},
	},
	status: { allocatable: { cpu }, conditions: [{ type: 'Ready', status: more.ready === false ? 'False' : 'True' }] },
})

for (const [what, nodes, want] of [
	['two zones', [node('a'), node('b', '6000m')], { a: 0.25, b: 0.75 }],
	['one zone', [node('a'), node('a')], undefined],
	['a node without zone', [node('a'), node('b'), node(undefined)], undefined],
	['a node without CPU', [node('a'), node('b', '0')], undefined],
	['a silent node does not count', [node('a'), node('b'), node(undefined, '2', { ready: false })], { a: 0.5, b: 0.5 }],
	['nor a control plane', [node('a'), node('b'), node('c', '9', { role: 'control-plane' })], { a: 0.5, b: 0.5 }],
] as const) {
	test(`shares: ${what}`, () => {
		const shares = zoneShares(nodes)
		assert.deepEqual(shares && Object.fromEntries(shares), want)
	})
}

let next = 0
const endpoints = (zones: string, ready = true): Endpoint[] =>
	[...zones].map((zone) => ({ addresses: [`10.0.0.${100 + next++}`], zone, conditions: { ready } }))
const even = new Map([
	['a', 1 / 3],
	['b', 1 / 3],
	['c', 1 / 3],
])

for (const [what, zones, shares, want] of [
	['each zone its own', 'abc', even, 'abc'],
	['one more is within bounds', 'aabbc', even, undefined],
	['a rich zone gives', 'aaaabbccc'.slice(0, 9), even, undefined],
	['all in one zone', 'aaaaaa', even, 'aabbcc'],
	['too few', 'ab', even, 'none'],
	['a zone nobody knows', 'abcx', even, 'none'],
	[
		'in proportion',
		'abab',
		new Map([
			['a', 0.75],
			['b', 0.25],
		]),
		undefined,
	],
] as const) {
	test(`hints: ${what}`, () => {
		const list = endpoints(zones)
		const hints = assignZones([...list, ...endpoints('c', false)], shares)
		const text =
			hints === undefined
				? 'none'
				: list
						.map((e) => hints.get(e))
						.sort()
						.join('')
		if (want !== undefined) assert.equal(text, want)
		if (hints === undefined) return
		assert.equal(hints.size, list.length, 'all or nothing')
		for (const [zone, share] of shares) {
			const count = [...hints.values()].filter((z) => z === zone).length
			const load = (share * list.length) / count
			assert.ok(load <= 1.2 + 1e-9, `an endpoint of zone ${zone} carries ${load} of its share`)
		}
	})
}

test('the annotation, and its old name', () => {
	const of = (annotations: Record<string, string>) =>
		isTopologyAuto({ metadata: { annotations } } as unknown as Service)
	assert.ok(of({ 'service.kubernetes.io/topology-mode': 'Auto' }))
	assert.ok(of({ 'service.kubernetes.io/topology-aware-hints': 'auto' }))
	assert.ok(!of({ 'service.kubernetes.io/topology-mode': 'Disabled' }))
	assert.ok(!of({}))
})
