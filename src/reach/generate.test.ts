// Policies that are written allow what is needed, and nothing else; from manifests' texts and from observed flows.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { configMaps, type Shop, shop } from '../../test/reach/shop.ts'
import { build } from '../model/build.ts'
import { setObject } from '../model/state.ts'
import { connectionsText } from './connections.ts'
import { Reach } from './engine.ts'
import { readFlows } from './flows.ts'
import { commentOf, compareWithNeeds, type Generated, generatePolicies, mismatchText } from './generate.ts'
import { declaredNeeds, endId, mentionsIn, merge, type Need } from './needs.ts'
import { allowedBetween, partiesOf } from './parties.ts'

const bare = shop()

function needsOf(s: Shop): readonly Need[] {
	return declaredNeeds({ ...s, configMaps: configMaps() })
}

function text(need: Need): string {
	return `${endId(need.from)} > ${endId(need.to)} ${need.protocol} ${need.port}: ${need.why}`
}

test('what the manifests say is needed', () => {
	assert.deepEqual(needsOf(bare).map(text), [
		'shop/sts/web > shop/sts/api TCP 9000: env API_URL',
		'shop/sts/api > shop/sts/db TCP 5432: env DB_HOST',
		'0.0.0.0/0 > shop/sts/web TCP 8080: Service shop/web (LoadBalancer)',
		'ingress-controller > shop/sts/web TCP 8080: Ingress shop/shop',
		'other/sts/client > shop/sts/web TCP 8080: command',
	])
})

const mentions: readonly (readonly [string, boolean, readonly string[]])[] = [
	['cartservice:7070', true, ['cartservice:7070']],
	['http://web.shop.svc.cluster.local/x?y=http', false, ['web.shop.svc.cluster.local http']],
	['postgres://user:secret@db:5433/app', true, ['db:5433 postgres']],
	['--redis=redis-master:6379', false, ['redis-master:6379']],
	['a:1,b:2', true, ['a:1', 'b:2']],
	['db', true, ['db']],
	['db', false, []],
	['/var/run/db', true, []],
	['wget http://api:8080/health && echo ok', false, ['api:8080 http']],
	['', true, []],
	['[::1]:80', true, []],
]
for (const [value, whole, wanted] of mentions) {
	test(`hosts in ${JSON.stringify(value)}${whole ? '' : ' (of a command)'}`, () => {
		assert.deepEqual(
			mentionsIn(value, whole).map(
				(m) => `${m.host}${m.port === undefined ? '' : `:${m.port}`}${m.scheme === undefined ? '' : ` ${m.scheme}`}`,
			),
			wanted,
		)
	})
}

/** The cluster with the policies, as a new engine sees it. */
function enforce(s: Shop, generated: readonly Generated[]) {
	const state = generated.reduce((next, g) => setObject(next, g.policy), s.state)
	const model = build(state)
	const reach = new Reach({ model })
	return { reach, parties: partiesOf(model, reach) }
}

test('the policies of the manifests', () => {
	const needs = needsOf(bare)
	const generated = generatePolicies({ ...bare, needs, wanted: (party) => party.namespace === 'shop' })
	assert.deepEqual(
		generated.map((g) => g.policy.metadata.name),
		['api', 'db', 'web'],
	)
	const { reach, parties } = enforce(bare, generated)
	assert.deepEqual(compareWithNeeds(reach, parties, generated, needs).map(mismatchText), [])
	assert.deepEqual(generated[0]!.policy.spec, {
		podSelector: { matchLabels: { app: 'api' } },
		policyTypes: ['Ingress', 'Egress'],
		ingress: [{ from: [{ podSelector: { matchLabels: { app: 'web' } } }], ports: [{ protocol: 'TCP', port: 9000 }] }],
		egress: [{ to: [{ podSelector: { matchLabels: { app: 'db' } } }], ports: [{ protocol: 'TCP', port: 5432 }] }],
	})
	assert.match(commentOf(generated[0]!).join('\n'), /from shop\/sts\/web TCP 9000: env API_URL cluster\.yaml:\d+/)
})

test('a policy that lacks something, or allows more, is told', () => {
	const needs = needsOf(bare)
	const generated = generatePolicies({ ...bare, needs, wanted: (party) => party.namespace === 'shop' })
	const { reach, parties } = enforce(bare, generated)
	const without = needs.filter((n) => endId(n.to) !== 'shop/sts/db')
	assert.deepEqual(compareWithNeeds(reach, parties, generated, without).map(mismatchText), [
		'shop/sts/api → shop/sts/db: needed none, allowed TCP 5432',
	])
	const more = merge([...needs, { ...needs.find((n) => endId(n.to) === 'shop/sts/db')!, port: 9999 }])
	assert.deepEqual(compareWithNeeds(reach, parties, generated, more).map(mismatchText), [
		'shop/sts/api → shop/sts/db: needed TCP 5432,9999, allowed TCP 5432',
	])
})

test('any flows come back as they were', () => {
	const names = bare.parties.filter((p) => !p.hostNetwork)
	const flow = fc.record({
		from: fc.constantFrom(...names),
		to: fc.constantFrom(...names),
		protocol: fc.constantFrom('TCP', 'UDP', 'SCTP'),
		port: fc.constantFrom(53, 80, 8080, 9000, 65535),
	})
	fc.assert(
		fc.property(fc.array(flow, { maxLength: 12 }), (flows) => {
			const lines = flows
				.map((f) => JSON.stringify({ source: f.from.name, destination: f.to.name, protocol: f.protocol, port: f.port }))
				.join('\n')
			const { needs, problems } = readFlows(lines, 'flows.jsonl', bare.parties)
			assert.deepEqual(problems, [])
			const generated = generatePolicies({ ...bare, needs, wanted: () => true })
			const { reach, parties } = enforce(bare, generated)
			assert.deepEqual(compareWithNeeds(reach, parties, generated, needs).map(mismatchText), [])
			// Said once more without the comparison: the pairs that may talk are those of the flows.
			for (const from of parties) {
				for (const to of parties) {
					if (from.hostNetwork || to.hostNetwork) continue
					const allowed = allowedBetween(reach, from.members, to.members)
					if (allowed === undefined) continue
					const wanted = flows.filter((f) => f.from.name === from.name && f.to.name === to.name)
					assert.equal(
						allowed.every === 0,
						wanted.length === 0,
						`${from.name} ${to.name} ${connectionsText(reach.pool.setOf(allowed.every))}`,
					)
				}
			}
		}),
		{ numRuns: 60 },
	)
})

/** As the exporter writes them. */
function logged(
	source: object,
	destination: object,
	more: object = {},
	ports: object = { TCP: { destination_port: 9000 } },
) {
	return JSON.stringify({
		flow: {
			verdict: 'FORWARDED',
			IP: { source: '192.0.2.7', destination: '198.51.100.7', ipVersion: 'IPv4' },
			l4: ports,
			source,
			destination,
			is_reply: false,
			...more,
		},
		node_name: 'node-1',
	})
}
const of = (name: string, kind = 'StatefulSet', namespace = 'shop') => ({
	namespace,
	pod_name: `${name}-0`,
	labels: [],
	workloads: [{ name, kind }],
})

test('the log of observe and of Hubble', () => {
	const world = { labels: ['reserved:world'] }
	const lines = [
		logged(of('web'), of('api')),
		// The same connection as the other node tells it, and its end.
		logged(of('web'), of('api'), { traffic_direction: 'INGRESS' }),
		logged(of('web', 'Deployment'), of('db'), { verdict: 'AUDIT' }, { SCTP: { destination_port: 5432 } }),
		logged(of('web'), of('db'), { verdict: 'DROPPED' }),
		logged(of('api'), of('web'), { is_reply: true }),
		logged(of('web'), of('api'), {}, { ICMPv4: { type: 8, code: 0 } }),
		logged(world, of('web'), {}, { TCP: { destination_port: 8080 } }),
		logged({ labels: ['reserved:host'] }, of('web'), {}, { TCP: { destination_port: 8081 } }),
		logged({ labels: ['reserved:remote-node'] }, of('web'), {}, { TCP: { destination_port: 8082 } }),
		logged(of('api'), world, {}, { TCP: { destination_port: 443 } }),
		logged(of('gone'), of('api')),
		logged(of('gone'), of('api')),
		logged(of('web'), of('api'), {}, { UDP: { destination_port: 0 } }),
		'{"lost_events":{"source":"RING_BUFFER","num_events_lost":3},"node_name":"node-1"}',
		JSON.parse(logged(of('client', 'StatefulSet', 'other'), of('web'), {}, { TCP: { destination_port: 8080 } })).flow,
	].map((line) => (typeof line === 'string' ? line : JSON.stringify(line)))
	const { needs, problems, gone, lost } = readFlows(lines.join('\n'), 'flows.jsonl', bare.parties)
	assert.deepEqual(needs.map(text), [
		'shop/sts/api > 198.51.100.7/32 TCP 443: observed',
		'shop/sts/web > shop/sts/api TCP 9000: observed',
		'shop/sts/web > shop/sts/db SCTP 5432: observed',
		'0.0.0.0/0 > shop/sts/web TCP 8080: observed',
		'192.0.2.7/32 > shop/sts/web TCP 8082: observed',
		'other/sts/client > shop/sts/web TCP 8080: observed',
	])
	assert.deepEqual(problems, [{ line: 13, text: 'l4.UDP.destination_port is no number from 1 to 65535' }])
	assert.deepEqual([[...gone], lost], [[['shop/gone', 2]], 1])
})

test('flows that cannot be read are told with their lines', () => {
	const { needs, problems } = readFlows(
		[
			'{"source":"shop/web","destination":{"namespace":"shop","workload":"api"},"port":9000}',
			'',
			'not json',
			'[]',
			'{"source":"shop/web","destination":"shop/nobody","port":9000}',
			'{"source":"shop/web","destination":"shop/api","port":0}',
			'{"source":"shop/web","destination":"shop/api","port":80,"protocol":"icmp"}',
			'{"source":"outside","destination":"shop/sts/web","port":8080}',
			'{"source":"192.0.2.1","destination":"shop/sts/web","port":8080}',
			'{"source":"shop/web","destination":"shop/api","port":9001,"verdict":"denied"}',
		].join('\n'),
		'flows.jsonl',
		bare.parties,
	)
	assert.deepEqual(problems, [
		{ line: 3, text: 'is no JSON' },
		{ line: 4, text: 'is no JSON object' },
		{ line: 5, text: 'destination "shop/nobody" is no workload of the cluster' },
		{ line: 6, text: 'the port 0 is no number from 1 to 65535' },
		{ line: 7, text: 'the protocol "icmp" is none of TCP, UDP, SCTP' },
	])
	assert.deepEqual(needs.map(text), [
		'shop/sts/web > shop/sts/api TCP 9000: observed',
		'0.0.0.0/0 > shop/sts/web TCP 8080: observed',
		'192.0.2.1/32 > shop/sts/web TCP 8080: observed',
	])
})
