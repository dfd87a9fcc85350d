// The two ends of a flow as people write them.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFailure } from '../base/failure.ts'
import { build } from '../model/build.ts'
import { emptyState, setObject } from '../model/state.ts'
import { planFlows } from './endpoint.ts'
import { parseTarget } from './endpoint-text.ts'

function pod(
	namespace: string,
	name: string,
	ip: string | undefined,
	owner: string | undefined,
	ports: object[] = [],
): object {
	return {
		apiVersion: 'v1',
		kind: 'Pod',
		metadata: {
			name,
			namespace,
			...(owner === undefined
				? {}
				: { ownerReferences: [{ kind: owner.split('/')[0], name: owner.split('/')[1], controller: true }] }),
		},
		spec: { nodeName: 'node-1', containers: [{ name: 'c', ports }] },
		status: { phase: ip === undefined ? 'Pending' : 'Running', podIPs: ip === undefined ? [] : [{ ip }] },
	}
}

function service(namespace: string, name: string, clusterIP: string, ports: object[]): object {
	return { apiVersion: 'v1', kind: 'Service', metadata: { name, namespace }, spec: { clusterIP, ports } }
}

const objects = [
	{ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'shop' } },
	{
		apiVersion: 'v1',
		kind: 'Node',
		metadata: { name: 'node-1' },
		status: { addresses: [{ type: 'InternalIP', address: '172.18.0.2' }] },
	},
	service('kube-system', 'kube-dns', '10.96.0.10', [
		{ name: 'dns', port: 53, protocol: 'UDP' },
		{ name: 'dns-tcp', port: 53, protocol: 'TCP' },
	]),
	pod('default', 'client', '10.244.0.5', undefined),
	pod('default', 'web-0', undefined, 'StatefulSet/web', [{ name: 'http', containerPort: 8080 }]),
	pod('default', 'web-1', '10.244.0.7', 'StatefulSet/web', [{ name: 'http', containerPort: 8080 }]),
	pod('default', 'web-2', '10.244.0.8', 'StatefulSet/web', [{ name: 'http', containerPort: 8080 }]),
	pod('default', 'twice-a', '10.244.0.9', 'StatefulSet/twice'),
	pod('default', 'twice-b', '10.244.0.10', 'DaemonSet/twice'),
	pod('default', 'waiting', undefined, undefined, [{ containerPort: 80 }]),
	service('default', 'api', '10.96.0.20', [{ name: 'http', port: 80 }]),
	service('default', 'open', '10.96.0.23', [{ port: 80, nodePort: 30023 }]),
	{
		...service('default', 'balanced', '10.96.0.24', [{ port: 80 }]),
		spec: { type: 'LoadBalancer', clusterIP: '10.96.0.24', ports: [{ port: 80 }] },
		status: { loadBalancer: { ingress: [{ ip: '192.0.2.24' }, { ip: '2001:db8::24' }] } },
	},
	service('default', 'names', '10.96.0.21', [{ name: 'q', port: 53, protocol: 'UDP' }]),
	service('shop', 'cart', '10.96.0.22', [
		{ name: 'http', port: 80 },
		{ name: 'metrics', port: 9090 },
	]),
	service('shop', 'db', 'None', [{ name: 'sql', port: 5432 }]),
] as unknown as Parameters<typeof setObject>[1][]

const model = build(objects.reduce((state, object) => setObject(state, object), emptyState()))

/** `SOURCE > DESTINATION PROTOCOL/PORT`, or the failure's code and text. */
function plan(from: string, to: string, more: { allPods?: boolean; protocol?: 'UDP' | 'ICMP' } = {}): string {
	try {
		const { flows, path } = planFlows(model, { from, to, namespace: 'default', ...more })
		const texts = flows.map((f) => {
			const source =
				f.from.kind === 'pod' ? f.from.pod.replace('default/', '') : f.from.kind === 'node' ? f.from.node : f.from.ip
			return `${source} > ${'ip' in f.to ? f.to.ip : f.to.name} ${f.protocol}/${f.port}`
		})
		return `${texts.join(', ')}${path === undefined ? '' : ` ${path}`}`
	} catch (e) {
		if (!isFailure(e)) throw e
		return `${e.code}: ${e.message}`
	}
}

test('what the ends mean', () => {
	const rows: [string, string, string][] = [
		['client', 'svc/api', 'client > api TCP/80'],
		['pod/client', 'api:80/path/x', 'client > api TCP/80 /path/x'],
		['ns/default/pod/client', 'ns/shop/svc/cart:metrics', 'client > cart.shop TCP/9090'],
		['default/pod/client', 'shop/svc/cart:metrics', 'client > cart.shop TCP/9090'],
		['default/sts/web', 'default/pod/client:5', 'web-1 > 10.244.0.5 TCP/5'],
		['client', 'cart.shop:http', 'client > cart.shop TCP/80'],
		['client', 'cart.shop.svc.cluster.local:metrics', 'client > cart.shop.svc.cluster.local TCP/9090'],
		['client', 'ns/shop/svc/db', 'client > db.shop TCP/5432'],
		['client', 'svc/names', 'client > names UDP/53'],
		['client', 'svc/names:53', 'client > names UDP/53'],
		['client', 'ns/kube-system/svc/kube-dns:53', 'client > kube-dns.kube-system TCP/53'],
		['client', 'ns/kube-system/svc/kube-dns:udp/53', 'client > kube-dns.kube-system UDP/53'],
		['client', '10.96.0.20', 'client > 10.96.0.20 TCP/80'],
		['client', '10.244.0.7:http', 'client > 10.244.0.7 TCP/8080'],
		['client', '[fd00::1]:443', 'client > fd00::1 TCP/443'],
		['client', 'web', 'client > 10.244.0.7 TCP/8080, client > 10.244.0.8 TCP/8080'],
		['sts/web', 'client:5', 'web-1 > 10.244.0.5 TCP/5'],
		['web', 'web-2', 'web-1 > 10.244.0.8 TCP/8080'],
		['node-1', 'api', 'UnknownEndpoint: Cannot find "node-1": there is no pod, workload or Service "default/node-1"'],
		['node/node-1', 'api', 'node-1 > 10.96.0.20 TCP/80'],
		['172.18.0.2', 'node/node-1:22', 'node-1 > 172.18.0.2 TCP/22'],
		['10.244.0.8', 'outside:443', 'web-2 > 203.0.113.1 TCP/443'],
		['outside', '172.18.0.2:30000', '203.0.113.1 > 172.18.0.2 TCP/30000'],
		['outside', 'svc/open', '203.0.113.1 > 172.18.0.2 TCP/30023'],
		['outside', 'svc/balanced', '203.0.113.1 > 192.0.2.24 TCP/80'],
		['outside', '192.0.2.24', '203.0.113.1 > 192.0.2.24 TCP/80'],
		['outside', 'svc/api', '203.0.113.1 > 10.96.0.20 TCP/80'],
		['2001:db8::1', 'svc/balanced', '2001:db8::1 > 2001:db8::24 TCP/80'],
		['198.51.100.7', 'node/node-1:80', '198.51.100.7 > 172.18.0.2 TCP/80'],
		['client', 'example.com:443', 'client > example.com TCP/443'],
		['client', 'nosuch.:80', 'client > nosuch. TCP/80'],
	]
	for (const [from, to, want] of rows) assert.equal(plan(from, to), want, `${from} -> ${to}`)
	assert.equal(
		plan('web', 'client:5', { allPods: true }),
		'web-0 > 10.244.0.5 TCP/5, web-1 > 10.244.0.5 TCP/5, web-2 > 10.244.0.5 TCP/5',
	)
	assert.equal(plan('client', 'web-1', { protocol: 'ICMP' }), 'client > 10.244.0.7 ICMP/0')
	assert.equal(plan('client', 'web-1:9', { protocol: 'UDP' }), 'client > 10.244.0.7 UDP/9')
})

test('what cannot be meant is said with the choices', () => {
	const rows: [string, string, string][] = [
		['client', 'twice:1', 'AmbiguousEndpoint: Cannot tell what "twice:1" means: daemonset/twice, statefulset/twice'],
		[
			'client',
			'cart',
			'UnknownEndpoint: Cannot find "cart": there is no pod, workload or Service "default/cart"; did you mean "shop/cart"?',
		],
		[
			'clinet',
			'api',
			'UnknownEndpoint: Cannot find "clinet": there is no pod, workload or Service "default/clinet"; did you mean "default/client"?',
		],
		[
			'client',
			'deploy/web',
			'UnknownEndpoint: Cannot find "deploy/web": there is no Deployment with a pod "default/web"',
		],
		[
			'client',
			'crat.shop:80',
			'UnknownEndpoint: Cannot find "crat.shop:80": there is no pod, workload or Service "shop/crat"; did you mean "shop/cart"?',
		],
		[
			'client',
			'cart.shop',
			'MissingPort: Cannot trace to "cart.shop": name a port; Service "shop/cart" has 80 (http), 9090 (metrics)',
		],
		[
			'client',
			'api:https',
			'UnknownPort: Cannot trace to "api:https": Service "default/api" has no port "https"; Service "default/api" has 80 (http)',
		],
		[
			'client',
			'waiting',
			'NoAddress: Cannot trace to pod "default/waiting": it has no address, it is Pending on node "node-1"',
		],
		['client:80', 'api', 'InvalidEndpoint: Cannot read source "client:80": a source has no port'],
		[
			'svc/api',
			'client:1',
			'InvalidEndpoint: Cannot start at "svc/api": Service "default/api" starts no connection; name a pod or workload behind it',
		],
		[
			'example.com',
			'client:1',
			'InvalidEndpoint: Cannot start at "example.com": a DNS name starts no connection; name a pod, a workload, a node or an address',
		],
		['client', 'api:0', 'InvalidEndpoint: Cannot read destination "api:0": port 0 is not between 1 and 65535'],
		[
			'client',
			'api:70000',
			'InvalidEndpoint: Cannot read destination "api:70000": port 70000 is not between 1 and 65535',
		],
		['client', 'api:', 'InvalidEndpoint: Cannot read destination "api:": "" is no port'],
		[
			'client',
			'cat/api:80',
			'InvalidEndpoint: Cannot read destination "cat/api:80": "cat" is no kind of endpoint (pod, deploy, sts, ds, job, svc, node)',
		],
		['client', 'a b:80', 'InvalidEndpoint: Cannot read destination "a b:80": "a b" is no name'],
		['', 'api', 'InvalidEndpoint: Cannot read source "": it is empty'],
	]
	for (const [from, to, want] of rows) assert.equal(plan(from, to), want, `${from} -> ${to}`)
})

test('texts are taken apart', () => {
	const rows: [string, object][] = [
		['svc/web/a/b', { kind: 'Service', name: 'web', path: '/a/b' }],
		['web/healthz', { name: 'web', path: '/healthz' }],
		['web/jobs/42', { name: 'web', path: '/jobs/42' }],
		['shop/deploy/web:80', { namespace: 'shop', kind: 'Deployment', name: 'web', port: { port: 80 } }],
		[
			'ns/x/deploy/web:tcp/http/p',
			{ namespace: 'x', kind: 'Deployment', name: 'web', port: { protocol: 'TCP', port: 'http' }, path: '/p' },
		],
		['[2001:db8::1]', { name: '2001:db8::1' }],
		['2001:db8::1', { name: '2001:db8::1' }],
	]
	for (const [text, want] of rows) assert.deepEqual(parseTarget(text, 'to'), want, text)
})
