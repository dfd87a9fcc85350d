// Where a Service answers and what becomes of connections there: the table of kube-proxy's decisions.

import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { type Cidr, parseIp } from '../base/ip.ts'
import type { Service as ServiceObject, ServiceSpec } from '../kube/objects/core.ts'
import type { KubeObject } from '../kube/objects/meta.ts'
import { build } from './build.ts'
import {
	admits,
	type ClientPlace,
	changedServices,
	findFrontend,
	frontendKeyOf,
	frontendsOf,
	nodePortIps,
	ownsFrontend,
	placeOf,
	treat,
} from './frontends.ts'
import type { NetworkModel, Service } from './network.ts'
import { originText } from './origin.ts'
import { deleteObject, emptyState, setObject, setObjects } from './state.ts'

type Ingress = NonNullable<NonNullable<ServiceObject['status']>['loadBalancer']>['ingress']

interface Sketch {
	readonly name?: string
	readonly spec: ServiceSpec
	readonly ingress?: Ingress
	readonly labels?: Readonly<Record<string, string>>
	readonly created?: string
}

const port80 = { port: 80, targetPort: 8080 }
const lb = { type: 'LoadBalancer', clusterIPs: ['10.96.0.1'], ports: [{ ...port80, nodePort: 30080 }] } as const

function objectOf({ name = 'web', spec, ingress, labels = {}, created }: Sketch): KubeObject {
	return {
		apiVersion: 'v1',
		kind: 'Service',
		metadata: { name, namespace: 'default', labels, ...(created === undefined ? {} : { creationTimestamp: created }) },
		spec: { ports: [port80], clusterIPs: ['10.96.0.1'], ...spec },
		...(ingress === undefined ? {} : { status: { loadBalancer: { ingress } } }),
	} as KubeObject
}

function modelOf(...sketches: readonly Sketch[]): NetworkModel {
	return build(
		setObjects(
			emptyState(),
			sketches.map((s) => ({ object: objectOf(s) })),
		),
	)
}

function serviceOf(model: NetworkModel, name = 'web'): Service {
	return model.services.get(`default/${name}`)!
}

/** `kind key traffic`, with ranges where there are. */
function listOf(sketch: Sketch): string[] {
	const service = serviceOf(modelOf(sketch))
	return service.ports.flatMap((port) =>
		frontendsOf(service, port).map(
			(f) => `${f.kind} ${frontendKeyOf(f)} ${f.traffic}${f.sourceRanges === undefined ? '' : ` ${f.sourceRanges}`}`,
		),
	)
}

describe('frontends', () => {
	const rows: [string, Sketch, string[]][] = [
		['a ClusterIP', { spec: {} }, ['cluster-ip 10.96.0.1 TCP 80 internal']],
		[
			'both families',
			{ spec: { clusterIPs: ['10.96.0.1', 'fd00::1'] } },
			['cluster-ip 10.96.0.1 TCP 80 internal', 'cluster-ip fd00::1 TCP 80 internal'],
		],
		[
			'SCTP and UDP as TCP',
			{
				spec: {
					ports: [
						{ ...port80, name: 'a', protocol: 'SCTP' },
						{ ...port80, name: 'b', protocol: 'UDP' },
					],
				},
			},
			['cluster-ip 10.96.0.1 SCTP 80 internal', 'cluster-ip 10.96.0.1 UDP 80 internal'],
		],
		['headless', { spec: { clusterIPs: ['None'], externalIPs: ['192.0.2.1'] } }, []],
		['ExternalName', { spec: { type: 'ExternalName', externalName: 'x.example', externalIPs: ['192.0.2.1'] } }, []],
		['no ClusterIP yet', { spec: { clusterIPs: [''], externalIPs: ['192.0.2.1'] } }, []],
		[
			'left to another proxy',
			{ spec: { externalIPs: ['192.0.2.1'] }, labels: { 'service.kubernetes.io/service-proxy-name': 'mesh' } },
			[],
		],
		['labelled headless', { spec: {}, labels: { 'service.kubernetes.io/headless': '' } }, []],
		[
			'node port in each family of the ClusterIPs',
			{ spec: { type: 'NodePort', clusterIPs: ['10.96.0.1', 'fd00::1'], ports: [{ ...port80, nodePort: 30080 }] } },
			[
				'cluster-ip 10.96.0.1 TCP 80 internal',
				'cluster-ip fd00::1 TCP 80 internal',
				'node-port *4 TCP 30080 external',
				'node-port *6 TCP 30080 external',
			],
		],
		[
			'externalIPs of a family without ClusterIP are not served',
			{ spec: { externalIPs: ['192.0.2.1', '2001:db8::1', '192.0.2.1'] } },
			['cluster-ip 10.96.0.1 TCP 80 internal', 'external-ip 192.0.2.1 TCP 80 external'],
		],
		[
			'a load balancer with node ports',
			{ spec: lb, ingress: [{ ip: '192.0.2.10' }, { hostname: 'lb.example' }] },
			[
				'cluster-ip 10.96.0.1 TCP 80 internal',
				'load-balancer 192.0.2.10 TCP 80 external',
				'node-port *4 TCP 30080 external',
			],
		],
		[
			'ipMode Proxy: nodes let it pass',
			{ spec: { ...lb, ports: [port80] }, ingress: [{ ip: '192.0.2.10', ipMode: 'Proxy' }] },
			['cluster-ip 10.96.0.1 TCP 80 internal'],
		],
		[
			'an address of the load balancer of a family without ClusterIP',
			{ spec: { ...lb, ports: [port80] }, ingress: [{ ip: '2001:db8::1' }] },
			['cluster-ip 10.96.0.1 TCP 80 internal'],
		],
		[
			'source ranges of each family for its own; host bits and spaces are forgiven; node ports are free',
			{
				spec: {
					...lb,
					clusterIPs: ['10.96.0.1', 'fd00::1'],
					loadBalancerSourceRanges: [' 198.51.100.7/24 ', '10.244.0.0/16'],
				},
				ingress: [{ ip: '192.0.2.10' }, { ip: '2001:db8::1' }],
			},
			[
				'cluster-ip 10.96.0.1 TCP 80 internal',
				'cluster-ip fd00::1 TCP 80 internal',
				'load-balancer 192.0.2.10 TCP 80 external 198.51.100.0/24,10.244.0.0/16',
				'load-balancer 2001:db8::1 TCP 80 external',
				'node-port *4 TCP 30080 external',
				'node-port *6 TCP 30080 external',
			],
		],
		[
			"an address that is the load balancer's and in externalIPs keeps its ranges",
			{
				spec: {
					...lb,
					ports: [port80],
					externalIPs: ['192.0.2.10'],
					loadBalancerSourceRanges: ['198.51.100.0/24'],
				},
				ingress: [{ ip: '192.0.2.10' }],
			},
			['cluster-ip 10.96.0.1 TCP 80 internal', 'load-balancer 192.0.2.10 TCP 80 external 198.51.100.0/24'],
		],
		[
			'the ranges of no load balancer restrict nothing',
			{ spec: { externalIPs: ['192.0.2.1'], loadBalancerSourceRanges: ['198.51.100.0/24'] } },
			['cluster-ip 10.96.0.1 TCP 80 internal', 'external-ip 192.0.2.1 TCP 80 external'],
		],
	]
	for (const [name, sketch, expected] of rows) {
		test(name, () => assert.deepEqual(listOf(sketch), expected))
	}
})

test('who is let in by source ranges', () => {
	const of = (...cidrs: string[]) => ({ sourceRanges: cidrs as Cidr[] })
	assert.equal(admits({}, parseIp('203.0.113.1')), true)
	assert.equal(admits(of('198.51.100.0/24'), parseIp('198.51.100.9')), true)
	assert.equal(admits(of('198.51.100.0/24', '10.244.0.0/16'), parseIp('10.244.3.4')), true)
	assert.equal(admits(of('198.51.100.0/24'), parseIp('10.244.3.4')), false)
	assert.equal(admits(of('198.51.100.0/24'), parseIp('172.18.0.2')), false)
})

const node = { addresses: ['172.18.0.2', '172.18.9.2', 'fd00:172::2'].map((ip) => parseIp(ip)) }

test('where a client is, by its address alone', () => {
	const { config } = modelOf()
	const at = (ip: string) => placeOf({ config }, node, parseIp(ip))
	assert.equal(at('10.244.7.7'), 'pod')
	assert.equal(at('172.18.0.2'), 'node')
	assert.equal(at('172.18.9.2'), 'node', 'any of its addresses')
	assert.equal(at('172.18.0.3'), 'outside', 'another node is outside')
	assert.equal(at('203.0.113.1'), 'outside')
})

test('addresses for node ports: the primary ones, or those of the networks named', () => {
	const { config } = modelOf()
	assert.deepEqual(nodePortIps({ config }, node), ['172.18.0.2', 'fd00:172::2'])
	const nodePortAddresses = ['172.18.9.0/24'] as Cidr[]
	assert.deepEqual(nodePortIps({ config: { ...config, nodePortAddresses } }, node), ['172.18.9.2'])
})

describe('treatment', () => {
	const slice = {
		apiVersion: 'discovery.k8s.io/v1',
		kind: 'EndpointSlice',
		metadata: { name: 'web-1', namespace: 'default', labels: { 'kubernetes.io/service-name': 'web' } },
		addressType: 'IPv4',
		ports: [{ port: 8080 }],
		endpoints: [
			{ addresses: ['10.244.0.9'], nodeName: 'near' },
			{ addresses: ['10.244.1.9'], nodeName: 'far' },
		],
	} as unknown as KubeObject
	/** What a client on a node gets: who serves, and whether its source is masqueraded. */
	function treated(spec: ServiceSpec, kind: string, place: ClientPlace, on: string, with_: KubeObject = slice): string {
		const object = objectOf({ spec: { ...lb, ...spec, externalIPs: ['192.0.2.1'] }, ingress: [{ ip: '192.0.2.10' }] })
		const service = serviceOf(build(setObject(setObject(emptyState(), object), with_)))
		const port = service.ports[0]!
		const frontend = frontendsOf(service, port).find((f) => f.kind === kind)!
		const { serving, masquerade } = treat(service, port, frontend, { place, node: on })
		assert.ok(masquerade === undefined || originText(masquerade) !== '')
		const who = serving.endpoints.map((e) => e.node).join('+')
		return `${serving.none ?? who}${masquerade === undefined ? '' : ' masqueraded'}`
	}
	const external = ['external-ip', 'load-balancer', 'node-port']

	test('ClusterIP: clients that are no pods are masqueraded', () => {
		for (const spec of [{}, { externalTrafficPolicy: 'Local' }] as const) {
			assert.equal(treated(spec, 'cluster-ip', 'pod', 'near'), 'near+far')
			assert.equal(treated(spec, 'cluster-ip', 'node', 'near'), 'near+far masqueraded')
			assert.equal(treated(spec, 'cluster-ip', 'outside', 'near'), 'near+far masqueraded')
		}
	})

	test('internalTrafficPolicy Local keeps to the node, and drops where nobody is', () => {
		const spec = { internalTrafficPolicy: 'Local' } as const
		assert.equal(treated(spec, 'cluster-ip', 'pod', 'near'), 'near')
		assert.equal(treated(spec, 'cluster-ip', 'node', 'near'), 'near masqueraded')
		assert.equal(treated(spec, 'cluster-ip', 'pod', 'nobody'), 'drop')
		for (const kind of external) assert.equal(treated(spec, kind, 'outside', 'nobody'), 'near+far masqueraded')
	})

	test('external Cluster: masqueraded, whoever asks', () => {
		for (const kind of external) {
			for (const place of ['pod', 'node', 'outside'] as const) {
				assert.equal(treated({ externalTrafficPolicy: 'Cluster' }, kind, place, 'near'), 'near+far masqueraded')
			}
		}
	})

	test('external Local: outside keeps its address and the node; pods and the node itself reach all', () => {
		const spec = { externalTrafficPolicy: 'Local' } as const
		for (const kind of external) {
			assert.equal(treated(spec, kind, 'outside', 'near'), 'near')
			assert.equal(treated(spec, kind, 'outside', 'nobody'), 'drop')
			assert.equal(treated(spec, kind, 'pod', 'nobody'), 'near+far')
			assert.equal(treated(spec, kind, 'node', 'nobody'), 'near+far masqueraded')
		}
	})

	test('nobody anywhere is a rejection, under each policy and everywhere', () => {
		const none = { ...slice, endpoints: [] }
		for (const policy of ['Cluster', 'Local'] as const) {
			const spec = { externalTrafficPolicy: policy, internalTrafficPolicy: policy }
			for (const kind of ['cluster-ip', ...external]) {
				for (const place of ['pod', 'node', 'outside'] as const)
					assert.match(treated(spec, kind, place, 'near', none), /^reject/)
			}
		}
	})

	test('each policy falls back on terminating endpoints by itself', () => {
		const closing = {
			...slice,
			endpoints: [
				{ addresses: ['10.244.0.9'], nodeName: 'near', conditions: { ready: false, serving: true, terminating: true } },
				{ addresses: ['10.244.1.9'], nodeName: 'far' },
			],
		}
		const spec = { externalTrafficPolicy: 'Local' } as const
		assert.equal(treated(spec, 'load-balancer', 'outside', 'near', closing), 'near', 'the last one here still serves')
		assert.equal(treated(spec, 'load-balancer', 'pod', 'near', closing), 'far', 'Cluster has somebody ready')
		assert.equal(treated(spec, 'cluster-ip', 'pod', 'near', closing), 'far')
	})
})

describe('who has a frontend', () => {
	const shared = { ip: '192.0.2.10' }
	const named = (name: string, n: number, spec: ServiceSpec, more: Partial<Sketch> = {}): Sketch => ({
		name,
		spec: { ...spec, clusterIPs: [`10.96.0.${n}`] },
		...more,
	})
	const frontends = (model: NetworkModel) =>
		[...model.frontends].map(([key, service]) => `${key} ${service.slice('default/'.length)}`).sort()

	test('one load balancer address, several Services by port', () => {
		const a = named('a', 1, { type: 'LoadBalancer' }, { ingress: [shared] })
		const b = named('b', 2, { type: 'LoadBalancer', ports: [{ port: 443 }] }, { ingress: [shared] })
		assert.deepEqual(frontends(modelOf(a, b)), ['192.0.2.10 TCP 443 b', '192.0.2.10 TCP 80 a'])
	})

	test('the older Service, else the first by name; what the cluster gave before what a user wrote', () => {
		const claim = (name: string, n: number, created?: string) =>
			named(name, n, { externalIPs: ['192.0.2.10'] }, created === undefined ? {} : { created })
		assert.deepEqual(frontends(modelOf(claim('b', 2), claim('a', 1))), ['192.0.2.10 TCP 80 a'])
		const old = '2026-01-01T00:00:00Z'
		assert.deepEqual(frontends(modelOf(claim('a', 1, '2026-02-01T00:00:00Z'), claim('b', 2, old))), [
			'192.0.2.10 TCP 80 b',
		])
		const given = named('z', 3, { type: 'LoadBalancer' }, { ingress: [shared] })
		const model = modelOf(claim('a', 1, old), given)
		assert.deepEqual(frontends(model), ['192.0.2.10 TCP 80 z'])
		for (const name of ['a', 'z']) {
			const service = serviceOf(model, name)
			const external = frontendsOf(service, service.ports[0]!).find((f) => f.kind !== 'cluster-ip')!
			assert.equal(ownsFrontend(model, service, external), name === 'z')
		}
	})

	test('two node ports of one number', () => {
		const nodePort = (name: string, n: number, protocol: 'TCP' | 'UDP') =>
			named(name, n, { type: 'NodePort', ports: [{ ...port80, protocol, nodePort: 30080 }] })
		const model = modelOf(nodePort('a', 1, 'TCP'), nodePort('b', 2, 'TCP'), nodePort('c', 3, 'UDP'))
		assert.deepEqual(frontends(model), ['*4 TCP 30080 a', '*4 UDP 30080 c'])
	})

	test("a ClusterIP is nobody else's external address, at any port", () => {
		const owner = named('owner', 1, {})
		const thief = named('thief', 2, { externalIPs: ['10.96.0.1'], ports: [port80, { port: 443, name: 'b' }] })
		assert.deepEqual(frontends(modelOf(thief)), ['10.96.0.1 TCP 443 thief', '10.96.0.1 TCP 80 thief'])
		assert.deepEqual(frontends(modelOf(thief, owner)), [])
		// The same, step by step.
		let state = setObject(emptyState(), objectOf(thief))
		let model = build(state)
		const next = setObject(state, objectOf(owner))
		model = build(next, { state, model })
		assert.deepEqual(frontends(model), [])
		state = next
		const moved = setObject(state, objectOf(named('owner', 3, {})))
		assert.equal(build(moved, { state, model }).frontends.size, 2)
	})

	test('what is found for a packet', () => {
		const web = named(
			'web',
			1,
			{ ...lb, externalIPs: ['192.0.2.1', '172.18.0.2'] },
			{
				ingress: [shared],
			},
		)
		const other = named('other', 5, {}, { labels: { 'service.kubernetes.io/service-proxy-name': 'mesh' } })
		const model = modelOf(web, other)
		const at = (ip: string, port: number, protocol: 'TCP' | 'UDP' | 'ICMP' = 'TCP') => {
			const found = findFrontend(model, node, { ip: parseIp(ip), protocol, port })
			return found?.kind === 'frontend' ? found.frontend.kind : found?.kind
		}
		assert.equal(at('10.96.0.1', 80), 'cluster-ip')
		assert.equal(at('10.96.0.1', 81), 'unknown-port')
		assert.equal(at('10.96.0.1', 80, 'UDP'), 'unknown-port')
		assert.equal(at('10.96.0.1', 30080), 'unknown-port')
		assert.equal(at('192.0.2.1', 80), 'external-ip')
		assert.equal(at('192.0.2.1', 81), undefined)
		assert.equal(at('192.0.2.10', 80), 'load-balancer')
		assert.equal(at('192.0.2.10', 30080), undefined)
		assert.equal(at('172.18.0.2', 30080), 'node-port')
		assert.equal(at('172.18.9.2', 30080), undefined, 'not a primary address')
		assert.equal(at('172.18.0.3', 30080), undefined, "another node's address")
		assert.equal(at('172.18.0.2', 80), 'external-ip', 'a node address in externalIPs')
		assert.equal(at('10.96.0.5', 80), undefined, 'left to another proxy')
	})
})

describe('Services a data plane looks at again', () => {
	const shared = { externalIPs: ['198.51.100.7'] }
	const one: Sketch = { name: 'one', spec: { ...shared }, created: '2026-01-01T00:00:00Z' }
	const two: Sketch = { name: 'two', spec: { clusterIPs: ['10.96.0.2'], ...shared }, created: '2026-01-02T00:00:00Z' }
	const port: Sketch = {
		name: 'port',
		spec: { type: 'NodePort', clusterIPs: ['10.96.0.3'], ports: [{ ...port80, nodePort: 30080 }] },
	}
	const other: Sketch = { name: 'other', spec: { clusterIPs: ['10.96.0.4'] } }
	const all = modelOf(one, two, port, other)
	const keys = (changed: ReturnType<typeof changedServices>) => [...changed.keys()].sort().join(' ')

	test('all at first, none where nothing changed', () => {
		assert.equal(keys(changedServices(undefined, all)), 'default/one default/other default/port default/two')
		assert.equal(keys(changedServices(all, all)), '')
	})
	test('one that differs, and one that is the same but gets an address that is free now', () => {
		const state = setObjects(
			emptyState(),
			[one, two, port, other].map((s) => ({ object: objectOf(s) })),
		)
		const before = build(state)
		const changed = changedServices(
			before,
			build(deleteObject(state, 'Service', 'default/one'), { state, model: before }),
		)
		assert.equal(keys(changed), 'default/one default/two')
		assert.equal(changed.get('default/one')?.now, undefined)
		assert.equal(changed.get('default/two')?.before, changed.get('default/two')?.now)
	})
	test('node ports, where the address they answer at becomes a ClusterIP, and the port of it an external IP', () => {
		const ip = parseIp('172.18.0.2')
		const owned = { ...all, addresses: all.addresses.set(ip, { kind: 'service', service: 'default/other' } as const) }
		assert.equal(keys(changedServices(all, owned, { nodePortIps: [ip] })), 'default/other default/port')
		assert.equal(keys(changedServices(all, owned)), 'default/other')
		const claimed = { ...all, frontends: all.frontends.set('172.18.0.2 TCP 30080', 'default/other') }
		assert.equal(keys(changedServices(all, claimed, { nodePortIps: [ip] })), 'default/other default/port')
	})
	test('those that claim an address which becomes a pod', () => {
		const ip = parseIp('198.51.100.7')
		const now = { ...all, addresses: all.addresses.set(ip, { kind: 'pod', pod: 'default/x' } as const) }
		const claimantsOf = (asked: string) => (asked === ip ? ['default/one'] : [])
		assert.equal(keys(changedServices(all, now, { claimantsOf })), 'default/one')
		assert.equal(keys(changedServices(all, now)), '')
	})
})
