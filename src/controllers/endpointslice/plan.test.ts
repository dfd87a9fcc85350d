import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Node, Service } from '../../kube/objects/core.ts'
import type { EndpointSlice } from '../../kube/objects/discovery.ts'
import type { Pod } from '../../kube/objects/pod.ts'
import { mostEndpoints, planSlices, type SlicePlan } from './plan.ts'

function service(spec: Partial<Service['spec']> & object = {}, labels?: Record<string, string>): Service {
	return {
		apiVersion: 'v1',
		kind: 'Service',
		metadata: { name: 'web', namespace: 'shop', uid: 'svc', ...(labels === undefined ? {} : { labels }) },
		spec: {
			clusterIP: '10.96.0.20',
			ipFamilies: ['IPv4'],
			selector: { app: 'web' },
			ports: [{ name: 'http', port: 80, targetPort: 8080, protocol: 'TCP' }],
			...spec,
		},
	}
}

interface PodFacts {
	ready?: boolean
	deleted?: boolean
	phase?: 'Pending' | 'Running' | 'Succeeded' | 'Failed'
	ips?: string[]
	node?: string
	named?: Record<string, number>
	hostname?: string
	subdomain?: string
}

function pod(n: number, facts: PodFacts = {}): Pod {
	const ips = facts.ips ?? [`10.244.${n >> 8}.${n & 255}`]
	const ports = Object.entries(facts.named ?? {}).map(([name, containerPort]) => ({ name, containerPort }))
	return {
		apiVersion: 'v1',
		kind: 'Pod',
		metadata: {
			name: `web-${n}`,
			namespace: 'shop',
			uid: `pod-${n}`,
			...(facts.deleted ? { deletionTimestamp: '2026-01-01T00:00:00Z' } : {}),
		},
		spec: {
			containers: [{ name: 'c', ports }],
			nodeName: facts.node ?? 'node-1',
			...(facts.hostname === undefined ? {} : { hostname: facts.hostname }),
			...(facts.subdomain === undefined ? {} : { subdomain: facts.subdomain }),
		},
		status: {
			phase: facts.phase ?? 'Running',
			...(ips[0] === undefined ? {} : { podIP: ips[0] }),
			podIPs: ips.map((ip) => ({ ip })),
			conditions: [{ type: 'Ready', status: (facts.ready ?? true) ? 'True' : 'False' }],
		},
	}
}

const nodes = new Map<string, Node>(
	['node-1', 'node-2'].map((name, i) => [
		name,
		{
			apiVersion: 'v1',
			kind: 'Node',
			metadata: { name, labels: { 'topology.kubernetes.io/zone': `zone-${i + 1}` } },
		},
	]),
)

/** The slices of one Service, changed as the plans say. */
class World {
	slices: EndpointSlice[] = []
	made = 0
	plan(svc: Service, pods: Pod[]): SlicePlan {
		return planSlices({ service: svc, pods, slices: this.slices, nodeOf: (name) => nodes.get(name) })
	}
	apply(svc: Service, pods: Pod[]): { create: number; update: string[]; remove: string[] } {
		const plan = this.plan(svc, pods)
		const update = new Map(plan.update.map((s) => [s.metadata.name, s]))
		const remove = new Set(plan.remove.map((s) => s.metadata.name))
		this.slices = this.slices.filter((s) => !remove.has(s.metadata.name)).map((s) => update.get(s.metadata.name) ?? s)
		for (const slice of plan.create) {
			this.slices.push({ ...slice, metadata: { ...slice.metadata, name: `web-${this.made++}` } })
		}
		return { create: plan.create.length, update: [...update.keys()], remove: [...remove] }
	}
	sizes(): number[] {
		return this.slices.map((s) => s.endpoints!.length)
	}
}

const many = (from: number, to: number, facts?: PodFacts) =>
	Array.from({ length: to - from }, (_, i) => pod(from + i, facts))

test('an endpoint as the API has it', () => {
	const world = new World()
	world.apply(service({}, { app: 'web', 'kubernetes.io/service-name': 'forged' }), [pod(1)])
	assert.deepEqual(world.slices[0], {
		apiVersion: 'discovery.k8s.io/v1',
		kind: 'EndpointSlice',
		metadata: {
			name: 'web-0',
			generateName: 'web-',
			namespace: 'shop',
			labels: {
				app: 'web',
				'kubernetes.io/service-name': 'web',
				'endpointslice.kubernetes.io/managed-by': 'endpointslice-controller.k8s.io',
			},
			ownerReferences: [
				{ apiVersion: 'v1', kind: 'Service', name: 'web', uid: 'svc', controller: true, blockOwnerDeletion: true },
			],
		},
		addressType: 'IPv4',
		endpoints: [
			{
				addresses: ['10.244.0.1'],
				conditions: { ready: true, serving: true, terminating: false },
				targetRef: { kind: 'Pod', namespace: 'shop', name: 'web-1', uid: 'pod-1' },
				nodeName: 'node-1',
				zone: 'zone-1',
			},
		],
		ports: [{ name: 'http', protocol: 'TCP', port: 8080 }],
	})
})

const conditions: [string, PodFacts, Partial<Service['spec']>, string | undefined][] = [
	['ready', {}, {}, 'ready serving'],
	['not ready', { ready: false }, {}, ''],
	['terminating and still serving', { deleted: true }, {}, 'serving terminating'],
	['terminating, no longer serving', { deleted: true, ready: false }, {}, 'terminating'],
	['published although not ready', { ready: false }, { publishNotReadyAddresses: true }, 'ready'],
	['published while terminating', { deleted: true }, { publishNotReadyAddresses: true }, 'ready serving terminating'],
	['failed', { phase: 'Failed' }, {}, undefined],
	['succeeded', { phase: 'Succeeded' }, {}, undefined],
	['without an address yet', { ips: [] }, {}, undefined],
	['on a node nobody knows', { node: 'gone' }, {}, undefined],
	['on a node nobody knows, published', { node: 'gone' }, { publishNotReadyAddresses: true }, 'ready serving'],
	['of the other family', { ips: ['fd00::1'] }, {}, undefined],
]
for (const [what, facts, spec, wanted] of conditions) {
	test(`a pod ${what}`, () => {
		const [slice] = new World().plan(service(spec), [pod(1, facts)]).create
		const endpoint = slice!.endpoints![0]
		const set = Object.entries(endpoint?.conditions ?? {}).filter(([, on]) => on)
		assert.equal(endpoint === undefined ? undefined : set.map(([name]) => name).join(' '), wanted)
	})
}

test('named target ports that differ between pods make separate slices, a pod without the name has none', () => {
	const world = new World()
	const ports = [
		{ name: 'http', port: 80, targetPort: 'web', protocol: 'TCP' as const, appProtocol: 'kubernetes.io/h2c' },
		{ name: 'dns', port: 53, targetPort: 'web', protocol: 'UDP' as const },
	]
	world.apply(service({ ports }), [pod(1, { named: { web: 8080 } }), pod(2, { named: { web: 9090 } }), pod(3)])
	const seen = world.slices.map((s) => [
		s.ports!.map((p) => `${p.name}:${p.port}:${p.appProtocol}`),
		s.endpoints!.length,
	])
	assert.deepEqual(seen, [
		[['http:8080:kubernetes.io/h2c'], 1],
		[['http:9090:kubernetes.io/h2c'], 1],
		[[], 1],
	])
})

test('a headless Service: the label, hostnames of its own subdomain, no ports needed', () => {
	const world = new World()
	world.apply(service({ clusterIP: 'None', ports: [] }), [
		pod(1, { hostname: 'a', subdomain: 'web' }),
		pod(2, { hostname: 'b', subdomain: 'other' }),
	])
	assert.equal(world.slices[0]!.metadata.labels!['service.kubernetes.io/headless'], '')
	assert.deepEqual(
		world.slices[0]!.endpoints!.map((e) => e.hostname),
		['a', undefined],
	)
	assert.deepEqual(world.slices[0]!.ports, [])
})

test('two families, two slices; a family given up loses its slice', () => {
	const world = new World()
	const pods = [pod(1, { ips: ['10.244.0.1', 'fd00::1'] })]
	world.apply(service({ ipFamilies: ['IPv4', 'IPv6'] }), pods)
	assert.deepEqual(
		world.slices.map((s) => [s.addressType, s.endpoints![0]!.addresses]),
		[
			['IPv4', ['10.244.0.1']],
			['IPv6', ['fd00::1']],
		],
	)
	assert.deepEqual(world.apply(service(), pods), { create: 0, update: [], remove: ['web-1'] })
})

test('no endpoints: one empty slice, which takes the first endpoint in place', () => {
	const world = new World()
	assert.deepEqual(world.apply(service(), []), { create: 1, update: [], remove: [] })
	assert.deepEqual([world.slices[0]!.endpoints, world.slices[0]!.ports], [[], []])
	assert.deepEqual(world.apply(service(), []), { create: 0, update: [], remove: [] })
	assert.deepEqual(world.apply(service(), [pod(1)]), { create: 0, update: ['web-0'], remove: [] })
	assert.deepEqual(world.slices[0]!.ports, [{ name: 'http', protocol: 'TCP', port: 8080 }])
	assert.deepEqual(world.apply(service(), []), { create: 0, update: ['web-0'], remove: [] })
	assert.deepEqual([world.slices[0]!.endpoints, world.slices[0]!.ports], [[], []])
})

test('a Service without selector, or of another kind, has none of ours', () => {
	const world = new World()
	world.apply(service(), [pod(1)])
	const slice = world.slices[0]!
	assert.deepEqual(world.plan(service({ selector: {} }), []), { create: [], update: [], remove: [slice] })
	assert.deepEqual(world.plan(service({ type: 'ExternalName' }), []), { create: [], update: [], remove: [slice] })
})

test('endpoints are packed by hundreds; what is unchanged is not written', () => {
	const world = new World()
	const pods = many(0, 250)
	assert.deepEqual(world.apply(service(), pods), { create: 3, update: [], remove: [] })
	assert.deepEqual(world.sizes(), [100, 100, 50])
	assert.deepEqual(world.apply(service(), pods), { create: 0, update: [], remove: [] })
	assert.equal(mostEndpoints, 100)

	// One pod changes its state: its slice alone is written.
	pods[120] = pod(120, { ready: false })
	assert.deepEqual(world.apply(service(), pods), { create: 0, update: ['web-1'], remove: [] })
	// New pods go into the slice with room.
	pods.push(...many(250, 270))
	assert.deepEqual(world.apply(service(), pods), { create: 0, update: ['web-2'], remove: [] })
	assert.deepEqual(world.sizes(), [100, 100, 70])
	// A removal and an addition together are one write: the gap is filled.
	pods.splice(5, 1)
	pods.push(pod(270))
	assert.deepEqual(world.apply(service(), pods), { create: 0, update: ['web-0'], remove: [] })
	assert.deepEqual(world.sizes(), [100, 100, 70])
	// More than any slice has room for.
	pods.push(...many(271, 311))
	assert.deepEqual(world.apply(service(), pods), { create: 1, update: [], remove: [] })
	assert.deepEqual(world.sizes(), [100, 100, 70, 40])
	// Two slices empty out: they go.
	assert.deepEqual(world.apply(service(), pods.slice(0, 99)), {
		create: 0,
		update: ['web-0'],
		remove: ['web-1', 'web-2', 'web-3'],
	})
})

test('a changed target port changes the slices in place', () => {
	const world = new World()
	const pods = many(0, 150)
	world.apply(service(), pods)
	const moved = service({ ports: [{ name: 'http', port: 80, targetPort: 9090, protocol: 'TCP' }] })
	assert.deepEqual(world.apply(moved, pods), { create: 0, update: ['web-0', 'web-1'], remove: [] })
	assert.deepEqual(world.sizes().sort(), [100, 50])
})

test('labels of the Service follow into its slices', () => {
	const world = new World()
	world.apply(service(), [pod(1)])
	assert.deepEqual(world.apply(service({}, { team: 'a' }), [pod(1)]), { create: 0, update: ['web-0'], remove: [] })
	assert.equal(world.slices[0]!.metadata.labels!.team, 'a')
	assert.deepEqual(world.apply(service({}, { team: 'a' }), [pod(1)]), { create: 0, update: [], remove: [] })
})

test('a pod that is replaced under the same address is another endpoint', () => {
	const world = new World()
	world.apply(service(), [pod(1)])
	const again = { ...pod(1), metadata: { ...pod(1).metadata, uid: 'new' } }
	assert.deepEqual(world.apply(service(), [again]), { create: 0, update: ['web-0'], remove: [] })
	assert.equal(world.slices[0]!.endpoints![0]!.targetRef!.uid, 'new')
})

test('trafficDistribution hints', () => {
	const hints = (trafficDistribution: 'PreferClose' | 'PreferSameZone' | 'PreferSameNode') =>
		new World()
			.plan(service({ trafficDistribution }), [pod(1), pod(2, { node: 'node-2', ready: false })])
			.create[0]!.endpoints!.map((e) => e.hints)
	const zone = { forZones: [{ name: 'zone-1' }] }
	assert.deepEqual(hints('PreferClose'), [zone, undefined])
	assert.deepEqual(hints('PreferSameZone'), [zone, undefined])
	assert.deepEqual(hints('PreferSameNode'), [{ ...zone, forNodes: [{ name: 'node-1' }] }, undefined])
})
