import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Endpoints, Node, Service } from '../../kube/objects/core.ts'
import type { Pod } from '../../kube/objects/pod.ts'
import { planEndpoints } from './plan.ts'

const service = (spec: Partial<Service['spec']> & object = {}): Service => ({
	apiVersion: 'v1',
	kind: 'Service',
	metadata: { name: 'web', namespace: 'default', uid: 's', labels: { team: 'a' } },
	spec: {
		clusterIP: '10.96.0.9',
		selector: { app: 'web' },
		ports: [
			{ name: 'http', port: 80, targetPort: 'http', protocol: 'TCP' },
			{ name: 'dns', port: 53, targetPort: 53, protocol: 'UDP' },
		],
		...spec,
	},
})
const pod = (n: number, http: number, ready = true, deleted = false): Pod => ({
	apiVersion: 'v1',
	kind: 'Pod',
	metadata: {
		name: `p${n}`,
		namespace: 'default',
		uid: `u${n}`,
		...(deleted ? { deletionTimestamp: '2026-01-01T00:00:00Z' } : {}),
	},
	spec: { containers: [{ name: 'c', ports: [{ name: 'http', containerPort: http }] }], nodeName: 'node-1' },
	status: {
		phase: 'Running',
		podIP: `10.0.0.${n}`,
		conditions: [{ type: 'Ready', status: ready ? 'True' : 'False' }],
	},
})
const node: Node = { apiVersion: 'v1', kind: 'Node', metadata: { name: 'node-1' } }
const plan = (svc: Service, pods: Pod[], existing?: Endpoints) =>
	planEndpoints({ service: svc, pods, existing, nodeOf: () => node })
const shape = (svc: Service, pods: Pod[]) => {
	const planned = plan(svc, pods)
	assert.equal(planned.do, 'create')
	return ('endpoints' in planned ? planned.endpoints.subsets! : []).map((s) => [
		(s.addresses ?? []).map((a) => a.ip),
		(s.notReadyAddresses ?? []).map((a) => a.ip),
		(s.ports ?? []).map((p) => `${p.name}/${p.port}`),
	])
}

test('ports with the same addresses share a subset', () => {
	assert.deepEqual(shape(service(), [pod(2, 8080), pod(1, 8080)]), [
		[['10.0.0.1', '10.0.0.2'], [], ['http/8080', 'dns/53']],
	])
	assert.deepEqual(shape(service(), [pod(1, 8080), pod(2, 9090)]), [
		[['10.0.0.1'], [], ['http/8080']],
		[['10.0.0.1', '10.0.0.2'], [], ['dns/53']],
		[['10.0.0.2'], [], ['http/9090']],
	])
})

test('not ready apart, terminating not at all, unless published', () => {
	const pods = [pod(1, 80), pod(2, 80, false), pod(3, 80, true, true)]
	assert.deepEqual(shape(service(), pods), [[['10.0.0.1'], ['10.0.0.2'], ['http/80', 'dns/53']]])
	const all = ['10.0.0.1', '10.0.0.2', '10.0.0.3']
	assert.deepEqual(shape(service({ publishNotReadyAddresses: true }), pods), [[all, [], ['http/80', 'dns/53']]])
})

test('written once, changed only when something changed', () => {
	const first = plan(service(), [pod(1, 80), pod(2, 80)])
	assert.ok(first.do === 'create')
	assert.deepEqual(first.endpoints.metadata.labels, {
		team: 'a',
		'endpoints.kubernetes.io/managed-by': 'endpoint-controller',
	})
	const [subset] = first.endpoints.subsets!
	const shuffled = { ...first.endpoints, subsets: [{ ...subset!, addresses: [...subset!.addresses!].reverse() }] }
	assert.equal(plan(service(), [pod(1, 80), pod(2, 80)], shuffled).do, 'nothing')
	assert.equal(plan(service(), [pod(1, 80)], first.endpoints).do, 'update')
	assert.equal(plan(service({ selector: {} }), [pod(1, 80)], first.endpoints).do, 'nothing')
})

test('a thousand at most, the ready ones first', () => {
	const many = Array.from({ length: 1005 }, (_, i) => {
		const p = pod(i, 80, i >= 10)
		return { ...p, status: { ...p.status, podIP: `10.0.${i >> 8}.${i & 255}` } }
	})
	const planned = plan(service(), many)
	assert.ok(planned.do === 'create')
	assert.equal(planned.endpoints.metadata.annotations!['endpoints.kubernetes.io/over-capacity'], 'truncated')
	const [subset] = planned.endpoints.subsets!
	assert.deepEqual([subset!.addresses!.length, subset!.notReadyAddresses!.length], [995, 5])
})
