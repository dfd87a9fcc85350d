import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Node, Taint } from '../../kube/objects/core.ts'
import type { Pod, PodSpec } from '../../kube/objects/pod.ts'
import { Placements } from './placements.ts'
import { schedule } from './plan.ts'

interface NodeFacts {
	labels?: Record<string, string>
	taints?: Taint[]
	unschedulable?: boolean
	allocatable?: Record<string, string>
}

function node(name: string, facts: NodeFacts = {}): Node {
	return {
		apiVersion: 'v1',
		kind: 'Node',
		metadata: { name, labels: { 'kubernetes.io/hostname': name, ...facts.labels } },
		spec: {
			...(facts.taints === undefined ? {} : { taints: facts.taints }),
			...(facts.unschedulable === undefined ? {} : { unschedulable: facts.unschedulable }),
		},
		status: facts.allocatable === undefined ? {} : { allocatable: facts.allocatable },
	}
}

let serial = 0
function pod(spec: Partial<PodSpec> = {}, labels: Record<string, string> = { app: 'web' }, owner?: string): Pod {
	const name = `p${serial++}`
	const reference = { apiVersion: 'apps/v1', kind: 'ReplicaSet', name: 'rs', uid: owner ?? '', controller: true }
	return {
		apiVersion: 'v1',
		kind: 'Pod',
		metadata: {
			name,
			namespace: 'default',
			uid: name,
			labels,
			...(owner === undefined ? {} : { ownerReferences: [reference] }),
		},
		spec: { containers: [{ name: 'c' }], ...spec },
	}
}

function world(...nodes: Node[]): Placements {
	const placements = new Placements((name) => ({ 'kubernetes.io/metadata.name': name }))
	for (const n of nodes) placements.setNode(n)
	return placements
}

const three = () => world(node('node-1'), node('node-2'), node('node-3'))

function place(w: Placements, p: Pod): string {
	const decision = schedule(p, w)
	if ('unschedulable' in decision) return decision.unschedulable
	w.put(p, decision.node)
	return decision.node
}

test('pods of one owner spread, others fill the emptier node', () => {
	const w = three()
	const spread = Array.from({ length: 6 }, () => place(w, pod({}, {}, 'rs-a')))
	assert.deepEqual(spread, ['node-1', 'node-2', 'node-3', 'node-1', 'node-2', 'node-3'])
	w.put(pod(), 'node-1')
	w.put(pod(), 'node-1')
	w.put(pod(), 'node-2')
	assert.equal(place(w, pod()), 'node-3')
	// An owner's spread counts more than the load: node-3 has its pod already.
	const other = world(node('node-1'), node('node-2'))
	other.put(pod({}, {}, 'rs-b'), 'node-2')
	for (let i = 0; i < 5; i++) other.put(pod(), 'node-1')
	assert.equal(place(other, pod({}, {}, 'rs-b')), 'node-1')
})

test('pods of one owner spread over zones before nodes', () => {
	const zone = (name: string) => ({ labels: { 'topology.kubernetes.io/zone': name } })
	const w = world(node('node-1', zone('a')), node('node-2', zone('a')), node('node-3', zone('b')))
	const zones = Array.from({ length: 4 }, () => place(w, pod({}, {}, 'rs')))
	assert.deepEqual(zones, ['node-1', 'node-3', 'node-2', 'node-3'])
})

const refusals: [string, Node[], Partial<PodSpec>, string][] = [
	['no nodes', [], {}, 'no nodes available to schedule pods'],
	[
		'a selector nobody has',
		[node('node-1'), node('node-2'), node('node-3')],
		{ nodeSelector: { disk: 'ssd' } },
		"0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector.",
	],
	[
		'a cordoned node, a tainted one, one without the label',
		[
			node('node-1', { unschedulable: true }),
			node('node-2', { taints: [{ key: 'k', value: 'v', effect: 'NoSchedule' }] }),
			node('node-3'),
		],
		{ nodeSelector: { disk: 'ssd' } },
		"0/3 nodes are available: 1 node(s) didn't match Pod's node affinity/selector, 1 node(s) had untolerated taint {k: v}, 1 node(s) were unschedulable.",
	],
	[
		'resources',
		[node('node-1', { allocatable: { cpu: '1', memory: '1Gi' } }), node('node-2', { allocatable: { cpu: '500m' } })],
		{ containers: [{ name: 'c', resources: { requests: { cpu: '600m', memory: '2Gi' } } }] },
		'0/2 nodes are available: 1 Insufficient cpu, 1 Insufficient memory.',
	],
	[
		'an extended resource',
		[node('node-1')],
		{ containers: [{ name: 'c', resources: { limits: { 'example.com/gpu': '1' } } }] },
		'0/1 nodes are available: 1 Insufficient example.com/gpu.',
	],
	[
		'no topology for the spread',
		[node('node-1')],
		{
			topologySpreadConstraints: [
				{ maxSkew: 1, topologyKey: 'rack', whenUnsatisfiable: 'DoNotSchedule', labelSelector: {} },
			],
		},
		"0/1 nodes are available: 1 node(s) didn't match pod topology spread constraints (missing required label).",
	],
]
for (const [what, nodes, spec, message] of refusals) {
	test(`unschedulable: ${what}`, () => {
		assert.deepEqual(schedule(pod(spec), world(...nodes)), { unschedulable: message })
	})
}

test('required node affinity: one of the terms, all of its expressions', () => {
	const w = world(node('node-1', { labels: { size: '4' } }), node('node-2', { labels: { size: '9' } }))
	const spec = (
		expressions: { key: string; operator: 'Gt' | 'In' | 'DoesNotExist'; values?: string[] }[],
	): PodSpec => ({
		containers: [],
		affinity: {
			nodeAffinity: {
				requiredDuringSchedulingIgnoredDuringExecution: {
					nodeSelectorTerms: [
						{ matchExpressions: [{ key: 'absent', operator: 'Exists' }] },
						{ matchExpressions: expressions },
					],
				},
			},
		},
	})
	assert.deepEqual(schedule(pod(spec([{ key: 'size', operator: 'Gt', values: ['5'] }])), w), { node: 'node-2' })
	assert.deepEqual(schedule(pod(spec([{ key: 'size', operator: 'In', values: ['4'] }])), w), { node: 'node-1' })
	assert.ok('unschedulable' in schedule(pod(spec([])), w), 'an empty term matches nothing')
	const byName: PodSpec = {
		containers: [],
		affinity: {
			nodeAffinity: {
				requiredDuringSchedulingIgnoredDuringExecution: {
					nodeSelectorTerms: [{ matchFields: [{ key: 'metadata.name', operator: 'In', values: ['node-2'] }] }],
				},
			},
		},
	}
	assert.deepEqual(schedule(pod(byName), w), { node: 'node-2' })
})

test('preferences: node affinity, taints to avoid', () => {
	const w = world(
		node('node-1', { taints: [{ key: 'slow', effect: 'PreferNoSchedule' }] }),
		node('node-2'),
		node('node-3', { labels: { disk: 'ssd' } }),
	)
	assert.deepEqual(schedule(pod(), w), { node: 'node-2' })
	const term = { matchExpressions: [{ key: 'disk', operator: 'Exists' as const }] }
	const nodeAffinity = { preferredDuringSchedulingIgnoredDuringExecution: [{ weight: 10, preference: term }] }
	assert.deepEqual(schedule(pod({ affinity: { nodeAffinity } }), w), { node: 'node-3' })
})

test('tolerations', () => {
	const w = world(node('node-1', { taints: [{ key: 'k', value: 'v', effect: 'NoExecute' }] }))
	const fits = (toleration: object) => 'node' in schedule(pod({ tolerations: [toleration] }), w)
	assert.equal(fits({ key: 'k', operator: 'Equal', value: 'v', effect: 'NoExecute' }), true)
	assert.equal(fits({ key: 'k', value: 'v' }), true)
	assert.equal(fits({ operator: 'Exists' }), true)
	assert.equal(fits({ key: 'k', operator: 'Exists', effect: 'NoSchedule' }), false)
	assert.equal(fits({ key: 'k', value: 'w' }), false)
	const cordoned = world(node('node-1', { unschedulable: true }))
	const toleration = { key: 'node.kubernetes.io/unschedulable', operator: 'Exists' as const }
	assert.ok('node' in schedule(pod({ tolerations: [toleration] }), cordoned))
})

test('host ports: one pod an address, protocol and port', () => {
	const w = world(node('node-1'))
	const on = (hostPort: number, hostIP?: string, protocol: 'TCP' | 'UDP' = 'TCP') =>
		pod({
			containers: [
				{ name: 'c', ports: [{ containerPort: 80, hostPort, protocol, ...(hostIP === undefined ? {} : { hostIP }) }] },
			],
		})
	w.put(on(80, '10.0.0.1'), 'node-1')
	assert.ok('node' in schedule(on(81), w))
	assert.ok('node' in schedule(on(80, '10.0.0.2'), w))
	assert.ok('node' in schedule(on(80, undefined, 'UDP'), w))
	const taken = "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod ports."
	assert.deepEqual(schedule(on(80), w), { unschedulable: taken })
	assert.deepEqual(schedule(on(80, '10.0.0.1'), w), { unschedulable: taken })
})

const hostname = 'kubernetes.io/hostname'

test('anti-affinity: of the pod, and of those there', () => {
	const w = world(node('node-1'), node('node-2'))
	const term = { topologyKey: hostname, labelSelector: { matchLabels: { app: 'db' } } }
	const alone = () =>
		pod({ affinity: { podAntiAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [term] } } }, { app: 'db' })
	assert.equal(place(w, alone()), 'node-1')
	assert.equal(place(w, alone()), 'node-2')
	assert.match(place(w, alone()), /2 node\(s\) didn't satisfy existing pods anti-affinity rules/)
	assert.match(place(w, pod({}, { app: 'db' })), /existing pods anti-affinity/)
	const other = world(node('node-1'))
	other.put(pod({}, { app: 'db' }), 'node-1')
	assert.match(place(other, alone()), /1 node\(s\) didn't match pod anti-affinity rules/)
	const elsewhere = { ...pod({}, { app: 'db' }) }
	const far = { ...elsewhere, metadata: { ...elsewhere.metadata, namespace: 'other' } }
	assert.ok('node' in schedule(far, w), 'the term means its own namespace')
})

test('affinity: with its kind, the first anywhere', () => {
	const term = { topologyKey: hostname, labelSelector: { matchLabels: { app: 'web' } } }
	const together = { podAffinity: { requiredDuringSchedulingIgnoredDuringExecution: [term] } }
	const w = three()
	const at = place(w, pod({ affinity: together }))
	assert.equal(at, 'node-1')
	assert.deepEqual([place(w, pod({ affinity: together })), place(w, pod({ affinity: together }))], [at, at])
	const lonely = pod({ affinity: together }, { app: 'client' })
	const empty = three()
	assert.match(place(empty, lonely), /3 node\(s\) didn't match pod affinity rules/)
	empty.put(pod(), 'node-2')
	assert.equal(place(empty, lonely), 'node-2')
})

test('topology spread constraints', () => {
	const zone = (name: string) => ({ labels: { zone: name } })
	const w = world(node('node-1', zone('a')), node('node-2', zone('a')), node('node-3', zone('b')))
	const constraint = { maxSkew: 1, topologyKey: 'zone', labelSelector: { matchLabels: { app: 'web' } } }
	const hard = () => pod({ topologySpreadConstraints: [{ ...constraint, whenUnsatisfiable: 'DoNotSchedule' }] })
	const zones = Array.from({ length: 4 }, () => place(w, hard()))
	assert.deepEqual(zones.filter((n) => n === 'node-3').length, 2)
	w.setNode(node('node-3', { ...zone('b'), unschedulable: true }))
	assert.notEqual(place(w, hard()), 'node-3')
	assert.match(
		place(w, hard()),
		/1 node\(s\) were unschedulable, 2 node\(s\) didn't match pod topology spread constraints\./,
	)
	const soft = pod({ topologySpreadConstraints: [{ ...constraint, whenUnsatisfiable: 'ScheduleAnyway' }] })
	assert.ok('node' in schedule(soft, w))
})

test('requests: init containers count once, sidecars with all, the overhead on top', () => {
	const w = world(node('node-1', { allocatable: { cpu: '2', pods: '2' } }))
	const cpu = (amount: string) => ({ resources: { requests: { cpu: amount } } })
	const big = pod({
		initContainers: [
			{ name: 's', restartPolicy: 'Always', ...cpu('500m') },
			{ name: 'i', ...cpu('1') },
		],
		containers: [
			{ name: 'c', ...cpu('500m') },
			{ name: 'd', ...cpu('200m') },
		],
		overhead: { cpu: '100m' },
	})
	assert.equal(place(w, big), 'node-1')
	assert.equal(w.places.get('node-1')!.requested.get('cpu'), 1_600_000_000n)
	const small = (amount: string) => pod({ containers: [{ name: 'c', ...cpu(amount) }] })
	assert.match(place(w, small('500m')), /Insufficient cpu/)
	assert.equal(place(w, small('400m')), 'node-1')
	assert.match(place(w, small('0')), /Too many pods/)
	w.remove(big.metadata.uid!)
	assert.equal(place(w, small('1600m')), 'node-1')
})

test('a node that goes and comes back has its pods again', () => {
	const w = world(node('node-1', { allocatable: { pods: '1' } }))
	w.put(pod(), 'node-1')
	w.removeNode('node-1')
	w.setNode(node('node-1', { allocatable: { pods: '1' } }))
	assert.match(place(w, pod()), /Too many pods/)
})
