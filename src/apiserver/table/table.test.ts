import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import type { UnknownObject } from '../../kube/objects/meta.ts'
import { createRegistry } from '../registry.ts'
import { humanDuration } from './cells.ts'
import { tableOf } from './table.ts'

const registry = createRegistry()
const now = Date.parse('2026-01-02T03:04:05Z')
const metadata = { name: 'x', namespace: 'default', creationTimestamp: '2026-01-02T03:00:00Z' }

function shown(apiVersion: string, kind: string, object: object) {
	const served = registry.ofKind(apiVersion, kind)!
	const whole = { kind, apiVersion, metadata, ...object } as unknown as UnknownObject
	const table = tableOf(served, [whole], {}, { include: 'Metadata', now }) as {
		columnDefinitions: { name: string; priority: number; type: string; format: string }[]
		rows: { cells: unknown[]; conditions?: { reason: string }[]; object: object }[]
	}
	const row = table.rows[0]!
	assert.equal(row.cells.length, table.columnDefinitions.length, `${kind}: as many cells as columns`)
	return {
		row,
		columns: table.columnDefinitions,
		/** Name of the column → its cell. */
		cell: (name: string) => row.cells[table.columnDefinitions.findIndex((c) => c.name === name)],
	}
}

test('ages as apimachinery writes them', () => {
	const cases: [number, string][] = [
		[-5, '<invalid>'],
		[-1, '0s'],
		[0, '0s'],
		[119, '119s'],
		[120, '2m'],
		[121, '2m1s'],
		[599, '9m59s'],
		[600, '10m'],
		[3 * 3600 - 1, '179m'],
		[3 * 3600, '3h'],
		[7 * 3600 + 60, '7h1m'],
		[8 * 3600, '8h'],
		[48 * 3600 - 1, '47h'],
		[48 * 3600, '2d'],
		[49 * 3600, '2d1h'],
		[8 * 86400, '8d'],
		[729 * 86400, '729d'],
		[730 * 86400, '2y'],
		[731 * 86400, '2y1d'],
		[8 * 365 * 86400, '8y'],
	]
	for (const [seconds, text] of cases) assert.equal(humanDuration(seconds * 1000), text, String(seconds))
})

test('every kind has a row, also of an object that says nothing', () => {
	for (const served of registry.all()) shown(served.apiVersion, served.resource.kind, {})
})

describe('the status of a pod', () => {
	const running = { state: { running: {} }, ready: true, restartCount: 0 }
	const spec = { containers: [{ name: 'a' }] }
	const cases: [string, object, object, string, string, string][] = [
		['just made', spec, { phase: 'Pending' }, '0/1', 'Pending', '0'],
		['running', spec, { phase: 'Running', containerStatuses: [running] }, '1/1', 'Running', '0'],
		[
			'creating',
			spec,
			{ phase: 'Pending', containerStatuses: [{ state: { waiting: { reason: 'ContainerCreating' } } }] },
			'0/1',
			'ContainerCreating',
			'0',
		],
		[
			'restarted',
			spec,
			{
				phase: 'Running',
				containerStatuses: [
					{ ...running, restartCount: 3, lastState: { terminated: { finishedAt: '2026-01-02T03:03:05Z' } } },
				],
			},
			'1/1',
			'Running',
			'3 (60s ago)',
		],
		[
			'crashing',
			spec,
			{
				phase: 'Running',
				containerStatuses: [{ restartCount: 2, state: { waiting: { reason: 'CrashLoopBackOff' } } }],
			},
			'0/1',
			'CrashLoopBackOff',
			'2',
		],
		[
			'ended',
			spec,
			{
				phase: 'Succeeded',
				containerStatuses: [{ restartCount: 0, state: { terminated: { exitCode: 0, reason: 'Completed' } } }],
			},
			'0/1',
			'Completed',
			'0',
		],
		[
			'killed by a signal',
			spec,
			{
				phase: 'Failed',
				containerStatuses: [{ restartCount: 0, state: { terminated: { exitCode: 137, signal: 9 } } }],
			},
			'0/1',
			'Signal:9',
			'0',
		],
		['evicted', spec, { phase: 'Failed', reason: 'Evicted' }, '0/1', 'Evicted', '0'],
		[
			'one of two ended',
			{ containers: [{}, {}] },
			{
				phase: 'Running',
				conditions: [{ type: 'Ready', status: 'True' }],
				containerStatuses: [{ restartCount: 0, state: { terminated: { exitCode: 0, reason: 'Completed' } } }, running],
			},
			'1/2',
			'Running',
			'0',
		],
		[
			'first init',
			{ ...spec, initContainers: [{ name: 'i' }, { name: 'j' }] },
			{ phase: 'Pending', initContainerStatuses: [{ name: 'i', state: { running: {} } }] },
			'0/1',
			'Init:0/2',
			'0',
		],
		[
			'init fails',
			{ ...spec, initContainers: [{ name: 'i' }] },
			{
				phase: 'Pending',
				initContainerStatuses: [{ name: 'i', restartCount: 4, state: { waiting: { reason: 'CrashLoopBackOff' } } }],
			},
			'0/1',
			'Init:CrashLoopBackOff',
			'4',
		],
		[
			'sidecar',
			{ ...spec, initContainers: [{ name: 's', restartPolicy: 'Always' }] },
			{
				phase: 'Running',
				initContainerStatuses: [{ name: 's', started: true, ready: true, state: { running: {} } }],
				containerStatuses: [running],
			},
			'2/2',
			'Running',
			'0',
		],
		[
			'gated',
			spec,
			{ phase: 'Pending', conditions: [{ type: 'PodScheduled', status: 'False', reason: 'SchedulingGated' }] },
			'0/1',
			'SchedulingGated',
			'0',
		],
	]
	for (const [name, podSpec, status, ready, text, restarts] of cases) {
		test(name, () => {
			const { cell } = shown('v1', 'Pod', { spec: podSpec, status })
			assert.deepEqual([cell('Ready'), cell('Status'), cell('Restarts')], [ready, text, restarts])
		})
	}
	test('going, and lost', () => {
		const going = { metadata: { ...metadata, deletionTimestamp: '2026-01-02T03:04:00Z' }, spec }
		assert.equal(shown('v1', 'Pod', { ...going, status: { phase: 'Running' } }).cell('Status'), 'Terminating')
		assert.equal(
			shown('v1', 'Pod', { ...going, status: { phase: 'Running', reason: 'NodeLost' } }).cell('Status'),
			'Unknown',
		)
		assert.equal(shown('v1', 'Pod', { spec, status: { phase: 'Failed' } }).row.conditions?.[0]?.reason, 'Failed')
	})
	test('wide columns', () => {
		const { cell, columns } = shown('v1', 'Pod', {
			spec: { ...spec, nodeName: 'n', readinessGates: [{ conditionType: 'g' }] },
			status: { podIPs: [{ ip: '10.0.0.1' }] },
		})
		assert.deepEqual(
			columns.filter((c) => c.priority === 1).map((c) => [c.name, cell(c.name)]),
			[
				['IP', '10.0.0.1'],
				['Node', 'n'],
				['Nominated Node', '<none>'],
				['Readiness Gates', '0/1'],
			],
		)
		assert.deepEqual([columns[0]?.format, cell('Age')], ['name', '4m5s'])
	})
})

test('Services: what the world sees of them', () => {
	const service = (spec: object, status: object = {}) => shown('v1', 'Service', { spec, status }).row.cells.slice(1, 5)
	const ports = [
		{ port: 80, protocol: 'TCP', nodePort: 30080 },
		{ port: 53, protocol: 'UDP' },
	]
	assert.deepEqual(service({ type: 'NodePort', clusterIP: '10.96.0.1', ports }), [
		'NodePort',
		'10.96.0.1',
		'<none>',
		'80:30080/TCP,53/UDP',
	])
	assert.deepEqual(service({ type: 'ClusterIP', clusterIP: 'None' }), ['ClusterIP', 'None', '<none>', '<none>'])
	assert.deepEqual(service({ type: 'ExternalName', externalName: 'x.test' }), [
		'ExternalName',
		'<none>',
		'x.test',
		'<none>',
	])
	assert.deepEqual(service({ type: 'LoadBalancer', clusterIP: '10.96.0.1' })[2], '<pending>')
	const ingress = { loadBalancer: { ingress: [{ ip: '192.0.2.1' }, { hostname: 'lb.test' }] } }
	assert.deepEqual(
		service({ type: 'LoadBalancer', externalIPs: ['192.0.2.2'] }, ingress)[2],
		'192.0.2.1,lb.test,192.0.2.2',
	)
})

test('endpoints: three, and how many more', () => {
	const addresses = (n: number) => Array.from({ length: n }, (_, i) => ({ addresses: [`10.0.0.${i}`] }))
	const slice = (n: number) =>
		shown('discovery.k8s.io/v1', 'EndpointSlice', {
			addressType: 'IPv4',
			ports: [{ port: 80 }, { name: 'all' }],
			endpoints: addresses(n),
		})
	assert.equal(slice(3).cell('Endpoints'), '10.0.0.0,10.0.0.1,10.0.0.2')
	assert.equal(slice(5).cell('Endpoints'), '10.0.0.0,10.0.0.1,10.0.0.2 + 2 more...')
	assert.equal(slice(0).cell('Endpoints'), '<unset>')
	assert.equal(slice(1).cell('Ports'), '80,all')
	const subsets = [{ addresses: [{ ip: '10.0.0.1' }, { ip: 'fd00::1' }], ports: [{ port: 80 }] }]
	assert.equal(shown('v1', 'Endpoints', { subsets }).cell('Endpoints'), '10.0.0.1:80,[fd00::1]:80')
	assert.equal(shown('v1', 'Endpoints', {}).cell('Endpoints'), '<none>')
})

test('nodes, Ingresses, policies, Jobs', () => {
	const node = shown('v1', 'Node', {
		metadata: {
			...metadata,
			labels: { 'node-role.kubernetes.io/control-plane': '', 'node-role.kubernetes.io/worker': '' },
		},
		spec: { unschedulable: true },
		status: {
			conditions: [{ type: 'Ready', status: 'True' }],
			addresses: [{ type: 'InternalIP', address: '172.18.0.2' }],
			nodeInfo: { kubeletVersion: 'v1.35.0' },
		},
	})
	assert.deepEqual(node.row.cells.slice(1, 7), [
		'Ready,SchedulingDisabled',
		'control-plane,worker',
		'4m5s',
		'v1.35.0',
		'172.18.0.2',
		'<none>',
	])
	assert.equal(shown('v1', 'Node', {}).cell('Status'), 'Unknown')
	const ingress = shown('networking.k8s.io/v1', 'Ingress', {
		spec: { ingressClassName: 'c', tls: [{}], rules: [{ host: 'a.test' }, { host: 'b.test' }] },
		status: { loadBalancer: { ingress: [{ ip: '192.0.2.1' }] } },
	})
	assert.deepEqual(ingress.row.cells.slice(1, 5), ['c', 'a.test,b.test', '192.0.2.1', '80, 443'])
	assert.equal(shown('networking.k8s.io/v1', 'Ingress', {}).cell('Hosts'), '*')
	const policy = (podSelector: object) =>
		shown('networking.k8s.io/v1', 'NetworkPolicy', { spec: { podSelector } }).cell('Pod-Selector')
	assert.equal(policy({}), '<none>')
	assert.equal(
		policy({ matchLabels: { app: 'a' }, matchExpressions: [{ key: 't', operator: 'In', values: ['x', 'y'] }] }),
		'app=a,t in (x,y)',
	)
	const job = (spec: object, status: object) => shown('batch/v1', 'Job', { spec, status }).row.cells.slice(1, 4)
	assert.deepEqual(job({ completions: 3, parallelism: 1 }, { succeeded: 1, startTime: '2026-01-02T03:03:05Z' }), [
		'Running',
		'1/3',
		'60s',
	])
	assert.deepEqual(
		job(
			{ parallelism: 4 },
			{
				succeeded: 1,
				conditions: [{ type: 'Complete', status: 'True' }],
				startTime: '2026-01-02T03:00:00Z',
				completionTime: '2026-01-02T03:00:30Z',
			},
		),
		['Complete', '1/1 of 4', '30s'],
	)
})
