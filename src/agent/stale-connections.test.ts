import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseIp } from '../base/ip.ts'
import { emptyTable, tableOf } from '../base/table.ts'
import type { Connection } from '../linux/conntrack.ts'
import { build } from '../model/build.ts'
import type { NetworkModel, Service, ServicePort } from '../model/network.ts'
import { objectOrigin } from '../model/origin.ts'
import { emptyState } from '../model/state.ts'
import { isStale, touchedFrontends } from './stale-connections.ts'

const origin = objectOrigin('Service', 'default/dns')
const empty = build(emptyState(), undefined)

function service(
	endpoints: readonly string[],
	more: Partial<Service> = {},
	protocol: ServicePort['protocol'] = 'UDP',
): Service {
	return {
		key: 'default/dns',
		namespace: 'default',
		name: 'dns',
		type: 'NodePort',
		clusterIps: [parseIp('10.96.0.20')],
		headless: false,
		publishNotReadyAddresses: false,
		internalTrafficPolicy: 'Cluster',
		externalTrafficPolicy: 'Cluster',
		externalIps: [],
		ports: [
			{
				name: 'dns',
				protocol,
				port: 53,
				nodePort: 30053,
				targetPort: 5353,
				endpoints: endpoints.map((ip) => ({
					ip: parseIp(ip),
					port: 5353,
					ready: true,
					serving: true,
					terminating: false,
					hints: [],
					origin,
				})),
				origin,
			},
		],
		origin,
		...more,
	}
}

function model(...services: Service[]): NetworkModel {
	return {
		...empty,
		services: tableOf(services.map((s) => [s.key, s] as const)),
		nodes: tableOf([
			['node-1', { name: 'node-1', addresses: [parseIp('172.18.0.2')], podCidrs: [], ready: true, labels: {}, origin }],
		]),
	}
}

function entry(destination: string, port: number, replySource: string, replyPort: number): Connection {
	const client = parseIp('10.244.0.9')
	return {
		original: {
			protocol: 'UDP',
			source: client,
			sourcePort: 4000,
			destination: parseIp(destination),
			destinationPort: port,
		},
		reply: {
			protocol: 'UDP',
			source: parseIp(replySource),
			sourcePort: replyPort,
			destination: client,
			destinationPort: 4000,
		},
		seenReply: true,
		assured: true,
		translated: { source: false, destination: true },
		timeout: 100,
		mark: 0,
		id: 1,
	}
}

const toOld = entry('10.96.0.20', 53, '10.244.1.1', 5353)
const toNew = entry('10.96.0.20', 53, '10.244.1.2', 5353)
const nowhere = entry('10.96.0.20', 53, '10.96.0.20', 53)
const byNodePort = entry('172.18.0.2', 30053, '10.244.1.1', 5353)
const foreign = entry('10.96.0.99', 53, '10.244.1.1', 5353)

for (const row of [
	{
		name: 'an endpoint leaves',
		before: model(service(['10.244.1.1', '10.244.1.2'])),
		after: model(service(['10.244.1.2'])),
		stale: [toOld, nowhere, byNodePort],
	},
	{
		name: 'the first endpoint comes',
		before: model(service([])),
		after: model(service(['10.244.1.2'])),
		stale: [toOld, nowhere, byNodePort],
	},
	{
		name: 'the last endpoint leaves',
		before: model(service(['10.244.1.1'])),
		after: model(service([])),
		stale: [toOld, toNew, byNodePort],
	},
	{
		name: 'the Service goes',
		before: model(service(['10.244.1.1'])),
		after: model(),
		stale: [toOld, toNew, byNodePort],
	},
	{
		name: 'the Service comes',
		before: model(),
		after: model(service(['10.244.1.2'])),
		stale: [toOld, nowhere, byNodePort],
	},
	{
		name: 'the agent starts again',
		before: undefined,
		after: model(service(['10.244.1.2'])),
		stale: [toOld, nowhere, byNodePort],
	},
	{
		name: 'the address moves to another',
		before: model(service(['10.244.1.1'])),
		after: model(service(['10.244.1.2'], { key: 'default/other' })),
		stale: [toOld, nowhere, byNodePort],
	},
	{ name: 'nothing changes', before: model(service(['10.244.1.1'])), after: undefined, stale: [] },
	{
		name: 'TCP ends by itself',
		before: model(service(['10.244.1.1'], {}, 'TCP')),
		after: model(service([], {}, 'TCP')),
		stale: [],
	},
] as const) {
	test(`stale UDP connections: ${row.name}`, () => {
		const touched = touchedFrontends(row.before, row.after ?? row.before!, 'node-1')
		const all = [toOld, toNew, nowhere, byNodePort, foreign]
		assert.deepEqual(
			all.filter((c) => isStale(c, touched)),
			row.stale,
		)
	})
}

/** The Service with endpoints `old` in this state, and one that is ready. */
function draining(old: Partial<ServicePort['endpoints'][number]>, more: Partial<Service> = {}): NetworkModel {
	const both = service(['10.244.1.1', '10.244.1.2'], more)
	const port = both.ports[0]!
	const [first, second] = port.endpoints
	return model({ ...both, ports: [{ ...port, endpoints: [{ ...first!, ...old }, second!] }] })
}

for (const row of [
	{
		name: 'terminates and still serves',
		after: draining({ ready: false, terminating: true }),
		kept: true,
	},
	{
		name: 'terminates and serves no more',
		after: draining({ ready: false, serving: false, terminating: true }),
		kept: false,
	},
	{
		name: 'is not ready',
		after: draining({ ready: false, serving: false }),
		kept: false,
	},
	{
		name: 'is on another node, and the policies are Local now',
		after: draining({ node: 'node-2' }, { internalTrafficPolicy: 'Local', externalTrafficPolicy: 'Local' }),
		kept: true,
	},
] as const) {
	test(`a UDP client whose endpoint ${row.name} ${row.kept ? 'stays with it' : 'is sent elsewhere'}`, () => {
		const touched = touchedFrontends(model(service(['10.244.1.1', '10.244.1.2'])), row.after, 'node-1')
		assert.deepEqual(
			[toOld, byNodePort, toNew].map((c) => isStale(c, touched)),
			[!row.kept, !row.kept, false],
		)
	})
}

test('an empty model touches nothing', () => {
	assert.equal(touchedFrontends(undefined, { ...empty, services: emptyTable() }, 'node-1').size, 0)
})
