import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Ip } from '../../base/ip.ts'
import type { Pod, PodSpec } from '../../kube/objects/pod.ts'
import { hostnameOf, hostsOf, resolvConfOf } from './files.ts'

const pod = (spec: Partial<PodSpec> = {}, name = 'web-0'): Pod => ({
	apiVersion: 'v1',
	kind: 'Pod',
	metadata: { name, namespace: 'shop' },
	spec: { containers: [], ...spec },
})
const dns = { clusterDomain: 'cluster.local', dnsServiceIp: '10.96.0.10' as Ip }

test('resolv.conf by policy and config', () => {
	assert.equal(
		resolvConfOf(pod(), dns),
		'search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n',
	)
	assert.equal(
		resolvConfOf(
			pod({
				dnsPolicy: 'None',
				dnsConfig: {
					nameservers: ['1.2.3.4', 'nonsense'],
					searches: ['a.b'],
					options: [{ name: 'ndots', value: '2' }],
				},
			}),
			dns,
		),
		'search a.b\nnameserver 1.2.3.4\noptions ndots:2\n',
	)
	assert.equal(resolvConfOf(pod({ hostNetwork: true }), dns), '', 'the node has no resolver')
})

test('hostname and subdomain', () => {
	assert.deepEqual(hostnameOf(pod(), 'cluster.local'), { hostname: 'web-0' })
	assert.deepEqual(hostnameOf(pod({ hostname: 'db', subdomain: 'data' }), 'cluster.local'), {
		hostname: 'db',
		fqdn: 'db.data.shop.svc.cluster.local',
	})
	assert.deepEqual(hostnameOf(pod({ hostNetwork: true, nodeName: 'node-1' }), 'cluster.local'), { hostname: 'node-1' })
	assert.equal(hostnameOf(pod({}, `${'a'.repeat(62)}.bcd`), 'cluster.local').hostname, 'a'.repeat(62))
})

test('hosts with aliases', () => {
	const text = hostsOf(
		pod({ hostname: 'db', subdomain: 'data', hostAliases: [{ ip: '10.1.2.3', hostnames: ['foo', 'bar'] }] }),
		['10.244.0.5' as Ip],
		'cluster.local',
	)
	assert.match(text, /^127\.0\.0\.1\tlocalhost$/m)
	assert.match(text, /^10\.244\.0\.5\tdb\.data\.shop\.svc\.cluster\.local\tdb$/m)
	assert.match(text, /^# Entries added by HostAliases\.\n10\.1\.2\.3\tfoo\tbar\n$/m)
})
