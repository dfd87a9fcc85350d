import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseIp } from '../base/ip.ts'
import type { Service } from '../kube/objects/core.ts'
import type { EndpointSlice } from '../kube/objects/discovery.ts'
import type { KubeObject } from '../kube/objects/meta.ts'
import { build } from './build.ts'
import { originText } from './origin.ts'
import { type ClusterState, deleteObject, emptyState, setObject } from './state.ts'
import {
	addressOfReverseName,
	type DnsRecord,
	lookup,
	type QuestionType,
	reverseName,
	type Zone,
	zoneOf,
} from './zone.ts'

function service(key: string, spec: Service['spec']): Service {
	const [namespace = '', name = ''] = key.split('/')
	return { apiVersion: 'v1', kind: 'Service', metadata: { namespace, name, uid: key }, spec: { ...spec } }
}

/** Endpoints as `10.244.1.3`, `10.244.1.3 web-0`, `!10.244.1.4` (not ready). */
function slice(key: string, port: { name?: string; port: number } | undefined, ...endpoints: string[]): EndpointSlice {
	const [namespace = '', name = ''] = key.split('/')
	return {
		apiVersion: 'discovery.k8s.io/v1',
		kind: 'EndpointSlice',
		metadata: { namespace, name: `${name}-1`, uid: `${key}-1`, labels: { 'kubernetes.io/service-name': name } },
		addressType: endpoints[0]?.includes(':') ? 'IPv6' : 'IPv4',
		ports: port === undefined ? [] : [{ protocol: 'TCP', ...port }],
		endpoints: endpoints.map((text) => {
			const [address = '', hostname] = text.replace('!', '').split(' ')
			const ready = !text.startsWith('!')
			return { addresses: [address], conditions: { ready, serving: ready }, ...(hostname ? { hostname } : {}) }
		}),
	}
}

const namespace = (name: string): KubeObject => ({ apiVersion: 'v1', kind: 'Namespace', metadata: { name, uid: name } })

const objects: readonly KubeObject[] = [
	namespace('default'),
	namespace('empty'),
	service('default/web', {
		clusterIP: '10.96.0.20',
		clusterIPs: ['10.96.0.20', 'fd00:96::20'],
		ports: [
			{ name: 'http', port: 80, protocol: 'TCP' },
			{ name: 'Dns', port: 53, protocol: 'UDP' },
		],
	}),
	slice('default/web', { name: 'http', port: 8080 }, '10.244.1.9'),
	service('default/plain', { clusterIP: '10.96.0.21', clusterIPs: ['10.96.0.21'], ports: [{ port: 80 }] }),
	service('default/db', { clusterIP: 'None', clusterIPs: ['None'], ports: [{ name: 'sql', port: 5432 }] }),
	slice('default/db', { name: 'sql', port: 15432 }, '10.244.1.3 db-0', '10.244.2.3', '!10.244.2.4 db-2'),
	service('default/bare', { clusterIP: 'None', clusterIPs: ['None'] }),
	slice('default/bare', undefined, '10.244.1.3 b-0', '10.244.3.3'),
	service('default/early', {
		clusterIP: 'None',
		clusterIPs: ['None'],
		publishNotReadyAddresses: true,
		ports: [{ port: 1 }],
	}),
	slice('default/early', { name: '', port: 1 }, '!10.244.9.9 e-0'),
	service('default/none', { clusterIP: 'None', clusterIPs: ['None'], ports: [{ name: 'x', port: 1 }] }),
	slice('default/none', { name: 'x', port: 1 }, '!10.244.7.7'),
	service('default/out', { type: 'ExternalName', externalName: 'WWW.Example.com.' }),
	service('default/alias', { type: 'ExternalName', externalName: 'web.default.svc.cluster.local' }),
	service('default/dangling', { type: 'ExternalName', externalName: 'gone.default.svc.cluster.local' }),
	service('default/loop', { type: 'ExternalName', externalName: 'pool.default.svc.cluster.local' }),
	service('default/pool', { type: 'ExternalName', externalName: 'loop.default.svc.cluster.local' }),
	service('other/late', { clusterIP: '10.96.0.30', clusterIPs: ['10.96.0.30'], ports: [{ port: 80 }] }),
]

function stateOf(list: readonly KubeObject[]): ClusterState {
	return list.reduce((state, object) => setObject(state, object), emptyState())
}
const zone = zoneOf(build(stateOf(objects)))

function text(r: DnsRecord): string {
	if ('address' in r) return r.address
	if (r.type === 'SRV') return `${r.port} ${r.target}`
	if ('target' in r) return r.type === 'CNAME' ? `→${r.target}` : r.target
	return r.type === 'TXT' ? r.texts.join() : `SOA ${r.primary}`
}
function ask(z: Zone, name: string, type: QuestionType): string {
	const answer = lookup(z, name, type)
	const outside = answer.outside === undefined ? '' : ` outside:${answer.outside}`
	return `${answer.rcode === 'NOERROR' ? 'ok' : 'none'}${answer.records.map((r) => ` ${text(r)}`).join('')}${outside}`
}

test('records of Services, endpoints and pods', () => {
	const table: [string, QuestionType, string][] = [
		['web.default.svc.cluster.local', 'A', 'ok 10.96.0.20'],
		['WEB.Default.svc.cluster.LOCAL.', 'A', 'ok 10.96.0.20'],
		['web.default.svc.cluster.local', 'AAAA', 'ok fd00:96::20'],
		['web.default.svc.cluster.local', 'ANY', 'ok 10.96.0.20 fd00:96::20'],
		['plain.default.svc.cluster.local', 'AAAA', 'ok'],
		['_http._tcp.web.default.svc.cluster.local', 'SRV', 'ok 80 web.default.svc.cluster.local'],
		['_dns._udp.web.default.svc.cluster.local', 'SRV', 'ok 53 web.default.svc.cluster.local'],
		['_tcp.web.default.svc.cluster.local', 'SRV', 'ok'],
		['_tcp.plain.default.svc.cluster.local', 'SRV', 'none'],
		['_http._udp.web.default.svc.cluster.local', 'SRV', 'none'],
		['10-244-1-9.web.default.svc.cluster.local', 'A', 'ok 10.244.1.9'],
		['20.0.96.10.in-addr.arpa', 'PTR', 'ok web.default.svc.cluster.local'],
		[reverseName(parseIp('fd00:96::20')), 'PTR', 'ok web.default.svc.cluster.local'],
		// headless
		['db.default.svc.cluster.local', 'A', 'ok 10.244.1.3 10.244.2.3'],
		['db-0.db.default.svc.cluster.local', 'A', 'ok 10.244.1.3'],
		['10-244-2-3.db.default.svc.cluster.local', 'A', 'ok 10.244.2.3'],
		['db-2.db.default.svc.cluster.local', 'A', 'none'],
		['db-0.db.default.svc.cluster.local', 'AAAA', 'ok'],
		[
			'_sql._tcp.db.default.svc.cluster.local',
			'SRV',
			'ok 15432 db-0.db.default.svc.cluster.local 15432 10-244-2-3.db.default.svc.cluster.local',
		],
		['3.2.244.10.in-addr.arpa', 'PTR', 'ok 10-244-2-3.db.default.svc.cluster.local'],
		['bare.default.svc.cluster.local', 'A', 'ok 10.244.1.3 10.244.3.3'],
		['3.1.244.10.in-addr.arpa', 'PTR', 'ok b-0.bare.default.svc.cluster.local db-0.db.default.svc.cluster.local'],
		['early.default.svc.cluster.local', 'A', 'ok 10.244.9.9'],
		['e-0.early.default.svc.cluster.local', 'A', 'ok 10.244.9.9'],
		['none.default.svc.cluster.local', 'A', 'none'],
		['_x._tcp.none.default.svc.cluster.local', 'SRV', 'none'],
		// ExternalName
		['out.default.svc.cluster.local', 'A', 'ok →www.example.com outside:www.example.com'],
		['out.default.svc.cluster.local', 'CNAME', 'ok →www.example.com'],
		['alias.default.svc.cluster.local', 'A', 'ok →web.default.svc.cluster.local 10.96.0.20'],
		['alias.default.svc.cluster.local', 'SRV', 'ok →web.default.svc.cluster.local'],
		['dangling.default.svc.cluster.local', 'A', 'none →gone.default.svc.cluster.local'],
		['loop.default.svc.cluster.local', 'A', 'ok →pool.default.svc.cluster.local →loop.default.svc.cluster.local'],
		// names on the way
		['default.svc.cluster.local', 'A', 'ok'],
		['empty.svc.cluster.local', 'A', 'ok'],
		['other.svc.cluster.local', 'A', 'ok'],
		['nowhere.svc.cluster.local', 'A', 'none'],
		['cluster.local', 'A', 'ok'],
		['cluster.local', 'SOA', 'ok SOA ns.dns.cluster.local'],
		['svc.cluster.local', 'A', 'ok'],
		['web.cluster.local', 'A', 'none'],
		['dns-version.cluster.local', 'TXT', 'ok 1.1.0'],
		// pods
		['10-244-1-3.default.pod.cluster.local', 'A', 'ok 10.244.1.3'],
		['1-2-3-4.default.pod.cluster.local', 'A', 'ok 1.2.3.4'],
		['fd00--1.default.pod.cluster.local', 'AAAA', 'ok fd00::1'],
		['fd00--1.default.pod.cluster.local', 'A', 'ok'],
		['10-244-1-3.nowhere.pod.cluster.local', 'A', 'none'],
		['10-244-1-300.default.pod.cluster.local', 'A', 'none'],
		['x.10-244-1-3.default.pod.cluster.local', 'A', 'none'],
		// reverse names in our networks, and those that are not ours
		['1.9.244.10.in-addr.arpa', 'PTR', 'none'],
		['244.10.in-addr.arpa', 'PTR', 'ok'],
		['10.in-addr.arpa', 'PTR', 'none outside:10.in-addr.arpa'],
		['245.10.in-addr.arpa', 'PTR', 'none outside:245.10.in-addr.arpa'],
		['8.8.8.8.in-addr.arpa', 'PTR', 'none outside:8.8.8.8.in-addr.arpa'],
		['www.example.com', 'A', 'none outside:www.example.com'],
		['xcluster.local', 'A', 'none outside:xcluster.local'],
		['', 'A', 'none outside:'],
	]
	const got = table.map(([name, type]) => [name, type, ask(zone, name, type)])
	assert.deepEqual(got, table)
})

test('every answer says why', () => {
	const why = (name: string, type: QuestionType = 'A') => lookup(zone, name, type).because.map(originText).join('; ')
	assert.equal(why('web.default.svc.cluster.local'), 'Service default/web spec.clusterIP')
	assert.match(why('db-0.db.default.svc.cluster.local'), /^EndpointSlice default\/db-1 endpoints\[0\]/)
	assert.match(why('early.default.svc.cluster.local'), /Service default\/early spec\.publishNotReadyAddresses/)
	assert.match(why('none.default.svc.cluster.local'), /the headless Service has no ready endpoint/)
	assert.match(why('x.none.default.svc.cluster.local'), /the headless Service has no ready endpoint/)
	assert.match(why('wbe.default.svc.cluster.local'), /no name "wbe" under "default.svc.cluster.local"/)
	assert.match(why('a.b.nowhere.svc.cluster.local'), /no name "nowhere" under "svc.cluster.local"/)
	assert.match(why('plain.default.svc.cluster.local', 'AAAA'), /exists and has no AAAA record/)
	assert.match(
		why('alias.default.svc.cluster.local'),
		/Service default\/alias spec\.externalName; Service default\/web/,
	)
	assert.match(why('www.example.com'), /outside the cluster domain "cluster.local"/)
	assert.match(why('1-2-3-4.default.pod.cluster.local'), /spells its address/)
})

test('the domain may be any', () => {
	const state = objects.reduce((s, o) => setObject(s, o), emptyState({ clusterDomain: 'K8s.Example' }))
	const z = zoneOf(build(state))
	assert.equal(ask(z, 'web.default.svc.k8s.example', 'A'), 'ok 10.96.0.20')
	assert.equal(ask(z, 'web.default.svc.cluster.local', 'A'), 'none outside:web.default.svc.cluster.local')
})

test('reverse names read back', () => {
	for (const ip of ['10.1.2.3', '::', 'fd00:96::20', '2001:db8::ff00:42:8329'].map(parseIp)) {
		assert.equal(addressOfReverseName(reverseName(ip)), ip)
	}
	assert.equal(addressOfReverseName('1.2.3.in-addr.arpa'), undefined)
	assert.equal(addressOfReverseName('300.2.3.4.in-addr.arpa'), undefined)
})

test('following changes ends where starting anew does, in any order, and touches nothing else', () => {
	const versions: KubeObject[] = [
		...objects,
		service('default/web', {
			clusterIP: '10.96.0.99',
			clusterIPs: ['10.96.0.99'],
			ports: [{ name: 'http', port: 81 }],
		}),
		service('default/db', { clusterIP: 'None', clusterIPs: ['None'], ports: [{ name: 'mysql', port: 3306 }] }),
		slice('default/db', { name: 'sql', port: 15432 }, '10.244.1.3 db-1', '10.244.2.9'),
		slice('default/bare', undefined, '10.244.1.4 b-0', '10.244.2.3 b-1'),
		service('default/bare', { type: 'ExternalName', externalName: 'x.example' }),
		slice('default/none', { name: 'x', port: 1 }, '10.244.7.7'),
	]
	const step = fc.record({ at: fc.nat(versions.length - 1), drop: fc.boolean() }, { noNullPrototype: true })
	fc.assert(
		fc.property(fc.array(fc.array(step, { maxLength: 4 }), { maxLength: 12, size: 'max' }), (rounds) => {
			let state = emptyState()
			let model = build(state)
			let followed = zoneOf(model)
			for (const round of rounds) {
				const before = { state, model }
				for (const { at, drop } of round) {
					const object = versions[at] as KubeObject
					const { namespace: ns, name } = object.metadata
					const key = ns === undefined ? name : `${ns}/${name}`
					state = drop ? deleteObject(state, object.kind, key) : setObject(state, object)
				}
				model = build(state, before)
				followed = zoneOf(model, followed)
			}
			const fresh = zoneOf(build(state))
			const plain = (z: Zone) => Object.fromEntries([...z.names].sort(([a], [b]) => (a < b ? -1 : 1)))
			assert.deepEqual(plain(followed), plain(fresh))
			assert.deepEqual(new Map(followed.silent), new Map(fresh.silent))
		}),
	)
	const first = stateOf(objects)
	const model = build(first)
	const before = zoneOf(model)
	const second = setObject(first, versions[objects.length] as KubeObject)
	const after = zoneOf(build(second, { state: first, model }), before)
	assert.equal(after.names.get('db.default.svc.cluster.local'), before.names.get('db.default.svc.cluster.local'))
	assert.equal(ask(after, 'web.default.svc.cluster.local', 'A'), 'ok 10.96.0.99')
	assert.equal(ask(after, '20.0.96.10.in-addr.arpa', 'PTR'), 'none')
})
