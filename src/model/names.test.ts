// resolv.conf for each dnsPolicy, and the order of questions.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseIp } from '../base/ip.ts'
import { type ClusterDns, type DnsRequest, podDns, queries, resolvConf } from './names.ts'

const cluster: ClusterDns = {
	clusterDomain: 'cluster.local',
	dnsServiceIp: parseIp('10.96.0.10'),
	nodeDns: { nameservers: [parseIp('192.0.2.53')], searches: ['example.net'], options: [{ name: 'edns0' }] },
}
const pod: DnsRequest = { namespace: 'shop', policy: 'ClusterFirst', hostNetwork: false }
const clusterText =
	'search shop.svc.cluster.local svc.cluster.local cluster.local example.net\nnameserver 10.96.0.10\noptions ndots:5\n'
const nodeText = 'search example.net\nnameserver 192.0.2.53\noptions edns0\n'

test('resolv.conf by dnsPolicy', () => {
	const rows: [string, DnsRequest, ClusterDns, string][] = [
		['ClusterFirst', pod, cluster, clusterText],
		['hostNetwork falls back to the node', { ...pod, hostNetwork: true }, cluster, nodeText],
		['ClusterFirstWithHostNet', { ...pod, hostNetwork: true, policy: 'ClusterFirstWithHostNet' }, cluster, clusterText],
		['Default', { ...pod, policy: 'Default' }, cluster, nodeText],
		['no cluster DNS', pod, { ...cluster, dnsServiceIp: undefined } as unknown as ClusterDns, nodeText],
		['None', { ...pod, policy: 'None' }, cluster, ''],
		[
			'None with a configuration',
			{ ...pod, policy: 'None', config: { nameservers: [parseIp('198.51.100.1')], searches: ['a.b'] } },
			cluster,
			'search a.b\nnameserver 198.51.100.1\n',
		],
		[
			'merge: servers and domains append without duplicates, an option replaces',
			{
				...pod,
				config: {
					nameservers: [parseIp('10.96.0.10'), parseIp('198.51.100.1')],
					searches: ['cluster.local', 'corp'],
					options: [{ name: 'ndots', value: '2' }, { name: 'rotate' }],
				},
			},
			cluster,
			'search shop.svc.cluster.local svc.cluster.local cluster.local example.net corp\nnameserver 10.96.0.10\nnameserver 198.51.100.1\noptions ndots:2 rotate\n',
		],
	]
	for (const [name, request, where, want] of rows) assert.equal(resolvConf(podDns(request, where)), want, name)
})

test('resolv.conf keeps its limits', () => {
	const many = podDns(
		{
			...pod,
			config: {
				nameservers: [1, 2, 3].map((i) => parseIp(`198.51.100.${i}`)),
				searches: Array.from({ length: 40 }, (_, i) => `d${i}`),
			},
		},
		cluster,
	)
	assert.deepEqual(many.nameservers, ['10.96.0.10', '198.51.100.1', '198.51.100.2'])
	assert.equal(many.searches.length, 32)
	const long = podDns({ ...pod, config: { searches: ['x'.repeat(2000)] } }, cluster)
	assert.equal(long.searches.includes('x'.repeat(2000)), false)
})

test('the order of questions', () => {
	const dns = podDns(pod, { ...cluster, nodeDns: { nameservers: [], searches: [], options: [] } })
	const rows: [string, string[]][] = [
		['web', ['web.shop.svc.cluster.local.', 'web.svc.cluster.local.', 'web.cluster.local.', 'web.']],
		['web.', ['web.']],
		[
			'web.other',
			['web.other.shop.svc.cluster.local.', 'web.other.svc.cluster.local.', 'web.other.cluster.local.', 'web.other.'],
		],
		[
			'a.b.c.d.e',
			['a.b.c.d.e.shop.svc.cluster.local.', 'a.b.c.d.e.svc.cluster.local.', 'a.b.c.d.e.cluster.local.', 'a.b.c.d.e.'],
		],
		[
			'a.b.c.d.e.f',
			[
				'a.b.c.d.e.f.',
				'a.b.c.d.e.f.shop.svc.cluster.local.',
				'a.b.c.d.e.f.svc.cluster.local.',
				'a.b.c.d.e.f.cluster.local.',
			],
		],
	]
	for (const [name, want] of rows) assert.deepEqual(queries(name, dns), want, name)
	assert.deepEqual(queries('web', { nameservers: [], searches: [], options: [] }), ['web.'])
	assert.deepEqual(
		queries('web', { nameservers: [], searches: ['.'], options: [] }),
		['web.'],
		'the root as a search domain',
	)
	assert.deepEqual(
		queries(`${'x'.repeat(250)}`, { nameservers: [], searches: ['corp'], options: [] }),
		[`${'x'.repeat(250)}.`],
		'too long a name is not sent',
	)
})
