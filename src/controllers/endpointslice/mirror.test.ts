import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Endpoints, Service } from '../../kube/objects/core.ts'
import type { EndpointSlice } from '../../kube/objects/discovery.ts'
import type { Pod } from '../../kube/objects/pod.ts'
import { planMirror } from './mirror.ts'
import { createTriggerTimes } from './trigger.ts'

const service = (spec: Service['spec'] = {}): Service => ({
	apiVersion: 'v1',
	kind: 'Service',
	metadata: { name: 'db', namespace: 'a', uid: 'svc', creationTimestamp: '2026-01-01T00:00:05Z' },
	spec,
})
const by = (
	metadata: object = {},
	subsets: Endpoints['subsets'] = [{ addresses: [{ ip: '192.0.2.1' }], ports: [{ port: 5432 }] }],
) =>
	({
		apiVersion: 'v1',
		kind: 'Endpoints',
		metadata: { name: 'db', namespace: 'a', uid: 'ep', ...metadata },
		subsets,
	}) as Endpoints

test('one slice for each family and set of ports, owned by the Endpoints', () => {
	const object = by(
		{ labels: { team: 'x' }, annotations: { note: 'y', 'kubectl.kubernetes.io/last-applied-configuration': '{}' } },
		[
			{
				addresses: [{ ip: '192.0.2.1', nodeName: 'n' }, { ip: '2001:db8::1' }],
				notReadyAddresses: [{ ip: '192.0.2.2', hostname: 'h' }],
				ports: [{ name: 'sql', port: 5432 }],
			},
			{ addresses: [{ ip: '192.0.2.1' }], ports: [{ name: 'metrics', port: 9000, protocol: 'TCP' }] },
		],
	)
	const { create, update, remove } = planMirror(service(), object, [])
	assert.deepEqual([update, remove], [[], []])
	assert.deepEqual(
		create.map((s) => [
			s.addressType,
			s.ports?.map((p) => `${p.name}/${p.port}`),
			s.endpoints?.map((e) => [e.addresses[0], e.conditions?.ready]),
		]),
		[
			[
				'IPv4',
				['sql/5432'],
				[
					['192.0.2.1', true],
					['192.0.2.2', false],
				],
			],
			['IPv4', ['metrics/9000'], [['192.0.2.1', true]]],
			['IPv6', ['sql/5432'], [['2001:db8::1', true]]],
		],
	)
	assert.deepEqual(create[0]!.metadata.labels, {
		team: 'x',
		'kubernetes.io/service-name': 'db',
		'endpointslice.kubernetes.io/managed-by': 'endpointslicemirroring-controller.k8s.io',
	})
	assert.deepEqual(create[0]!.metadata.annotations, { note: 'y' })
	assert.deepEqual(
		create[0]!.metadata.ownerReferences?.map((o) => [o.kind, o.uid]),
		[['Endpoints', 'ep']],
	)
})

test('what is there stays, what has changed is written, what is no more goes', () => {
	const have = (object: Endpoints) =>
		planMirror(service(), object, []).create.map(
			(s, i): EndpointSlice => ({ ...s, metadata: { ...s.metadata, name: `db-${i}`, resourceVersion: '1' } }),
		)
	const slices = have(by())
	assert.deepEqual(planMirror(service(), by(), slices), { create: [], update: [], remove: [] })
	const moved = planMirror(service(), by({}, [{ addresses: [{ ip: '192.0.2.9' }], ports: [{ port: 5432 }] }]), slices)
	assert.deepEqual(
		moved.update.map((s) => [s.metadata.name, s.endpoints?.[0]?.addresses]),
		[['db-0', ['192.0.2.9']]],
	)
	assert.deepEqual(planMirror(service(), by({}, []), slices).remove, slices)
})

for (const [what, of, object] of [
	['no Service', undefined, by()],
	['no Endpoints', service(), undefined],
	['a Service that selects pods', service({ selector: { app: 'db' } }), by()],
	['a label that forbids it', service(), by({ labels: { 'endpointslice.kubernetes.io/skip-mirror': 'true' } })],
	[
		'a lock of old leader elections',
		service(),
		by({ annotations: { 'control-plane.alpha.kubernetes.io/leader': '{}' } }),
	],
] as const) {
	test(`no mirror: ${what}`, () => {
		const old = { metadata: { name: 'old' } } as EndpointSlice
		assert.deepEqual(planMirror(of, object, [old]), { create: [], update: [], remove: [old] })
	})
}

test('since when: the creation of the Service, then the earliest change of a pod', () => {
	const pod = (uid: string, time: string) =>
		({
			metadata: { uid },
			status: { conditions: [{ type: 'Ready', status: 'True', lastTransitionTime: time }] },
		}) as unknown as Pod
	const times = createTriggerTimes()
	const at = (s: number) => `2026-01-01T00:00:0${s}Z`
	assert.equal(times.next(service(), [pod('a', at(1))]), at(5))
	assert.equal(times.next(service(), [pod('a', at(1))]), undefined)
	assert.equal(times.next(service(), [pod('a', at(7)), pod('b', at(6))]), at(6))
	assert.equal(times.next(service(), [pod('b', at(6))]), undefined, 'one that left says no time')
	times.forget('a/db')
	assert.equal(times.next(service(), []), at(5))
})
