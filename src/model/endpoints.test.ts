// Who may serve: the table of KEP-1669, traffic policies, hints.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseIp } from '../base/ip.ts'
import { type ServiceClient, servingEndpoints } from './endpoints.ts'
import type { Endpoint, Service, ServicePort } from './network.ts'
import { defaultOrigin, originText } from './origin.ts'

const origin = defaultOrigin('test')

/** `1@node-1 ready`, `2@node-1 serving+terminating`, with hints `zone:a`. */
function endpoint(text: string): Endpoint {
	const [place = '', state = '', ...hints] = text.split(' ')
	const [last = '', node = ''] = place.split('@')
	return {
		ip: parseIp(last.includes(':') ? last : `10.244.0.${last}`),
		port: 8080,
		node,
		ready: state === 'ready',
		serving: state === 'ready' || state === 'serving+terminating',
		terminating: state.includes('terminating'),
		hints: hints.map((h) => ({ kind: h.startsWith('node:') ? 'node' : 'zone', name: h.slice(5) })),
		origin,
	}
}

function serve(policy: 'Cluster' | 'Local', client: ServiceClient, ...endpoints: string[]) {
	const port: ServicePort = {
		name: 'http',
		protocol: 'TCP',
		port: 80,
		targetPort: 8080,
		endpoints: endpoints.map(endpoint),
		origin,
	}
	const service: Service = {
		key: 'default/web',
		namespace: 'default',
		name: 'web',
		type: 'ClusterIP',
		clusterIps: [parseIp('10.96.0.1')],
		headless: false,
		publishNotReadyAddresses: false,
		internalTrafficPolicy: policy,
		externalTrafficPolicy: 'Cluster',
		externalIps: [],
		ports: [port],
		origin,
	}
	const result = servingEndpoints(service, port, client)
	assert.equal(result.none !== undefined, result.endpoints.length === 0)
	assert.ok(result.because.length > 0, 'a choice always has a reason')
	const who = result.endpoints.map((e) => e.ip.slice(e.ip.lastIndexOf('.') + 1)).join(',')
	return `${result.none ?? who}: ${result.because.map(originText).at(-1)}`
}

const here: ServiceClient = { node: 'a', zone: 'za', traffic: 'internal' }

test('Cluster policy', () => {
	const rows: [string, string[], string][] = [
		['all ready', ['1@a ready', '2@b ready'], '1,2: every ready endpoint serves'],
		['ready only', ['1@a ready', '2@b notready'], '1: every ready endpoint serves'],
		['a ready one hides the terminating', ['1@a serving+terminating', '2@b ready'], '2: every ready endpoint serves'],
		[
			'fallback',
			['1@a serving+terminating', '2@b terminating'],
			'1: no endpoint is ready: those that still serve while terminating do',
		],
		['not ready', ['1@a notready', '2@b terminating'], 'reject: no endpoint is ready, none serves while terminating'],
		['none', [], 'reject: the port has no endpoint'],
	]
	for (const [name, endpoints, want] of rows) assert.equal(serve('Cluster', here, ...endpoints), want, name)
})

test('Local policy', () => {
	const because = 'Service default/web spec.internalTrafficPolicy'
	const rows: [string, string[], string][] = [
		['local ready', ['1@a ready', '2@b ready'], `1: ${because}`],
		[
			'local terminating before a remote ready one',
			['1@a serving+terminating', '2@b ready'],
			'1: no endpoint is ready: those that still serve while terminating do',
		],
		['none here drops', ['2@b ready'], `drop: ${because}`],
		['none anywhere rejects', ['2@b notready'], 'reject: no endpoint is ready, none serves while terminating'],
		['no hints', ['1@a ready zone:zb', '2@b ready zone:za'], `1: ${because}`],
	]
	for (const [name, endpoints, want] of rows) assert.equal(serve('Local', here, ...endpoints), want, name)
	assert.equal(
		serve('Local', { ...here, traffic: 'external' }, '2@b ready'),
		'2: every ready endpoint serves',
		'the other policy decides',
	)
	assert.equal(
		serve('Local', { traffic: 'internal' }, '2@b ready'),
		`drop: ${because}`,
		'an unknown node has no local endpoint',
	)
})

test('hints: all or nothing', () => {
	const rows: [string, string[], string][] = [
		['zone', ['1@a ready zone:za', '2@b ready zone:zb'], '1: hints of the EndpointSlices name zone "za"'],
		[
			'node before zone',
			['1@a ready zone:za node:a', '2@b ready zone:za node:b'],
			'1: hints of the EndpointSlices name node "a"',
		],
		['one without a hint', ['1@a ready zone:za', '2@b ready'], '1,2: every ready endpoint serves'],
		['none for this zone', ['1@a ready zone:zb', '2@b ready zone:zc'], '1,2: every ready endpoint serves'],
		[
			'a not-ready one without a hint does not count',
			['1@a ready zone:za', '2@b ready zone:zb', '3@b notready'],
			'1: hints of the EndpointSlices name zone "za"',
		],
		[
			'the fallback ignores hints',
			['1@a serving+terminating zone:zb', '2@b terminating zone:za'],
			'1: no endpoint is ready: those that still serve while terminating do',
		],
	]
	for (const [name, endpoints, want] of rows) assert.equal(serve('Cluster', here, ...endpoints), want, name)
})

test('a client of one family sees endpoints of that family only', () => {
	const both = ['1@a ready', 'fd00::1@a ready zone:za']
	assert.equal(serve('Cluster', { ...here, family: 4 }, ...both), '1: every ready endpoint serves')
	assert.equal(serve('Cluster', { ...here, family: 6 }, ...both), 'fd00::1: hints of the EndpointSlices name zone "za"')
	assert.equal(serve('Cluster', { ...here, family: 6 }, '1@a ready'), 'reject: the port has no endpoint')
})
