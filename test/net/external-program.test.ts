// The appliance's program in a kernel: what was applied is what is read back, for each kind of Service at once, and one
// program becomes another by its difference.

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import type { Cidr } from '../../src/base/ip.ts'
import { createBalancer } from '../../src/dataplane/loadbalancer/loadbalancer.ts'
import type { Node, Service } from '../../src/kube/objects/core.ts'
import { createNetns, deleteNetns } from '../../src/linux/netns.ts'
import { build } from '../../src/model/build.ts'
import { emptyState, setObjects } from '../../src/model/state.ts'
import { skip } from './lab.ts'

function node(number: number): Node {
	return {
		apiVersion: 'v1',
		kind: 'Node',
		metadata: { name: `node-${number}` },
		status: {
			addresses: [
				{ type: 'InternalIP', address: `172.18.0.${number + 1}` },
				{ type: 'InternalIP', address: `fd00:18::${number + 1}` },
			],
		},
	}
}

function service(name: string, ip: string, spec: Partial<NonNullable<Service['spec']>>, annotations = {}): Service {
	return {
		apiVersion: 'v1',
		kind: 'Service',
		metadata: { namespace: 'default', name, annotations },
		spec: { type: 'LoadBalancer', ports: [{ port: 80, nodePort: 30080 }], ...spec },
		status: { loadBalancer: { ingress: [{ ip }] } },
	}
}

const all: readonly Service[] = [
	service('plain', '172.18.255.1', {}),
	service('six', 'fd00:18::ff01', { ports: [{ port: 53, nodePort: 30053, protocol: 'UDP' }] }),
	service('sticky', '172.18.255.2', { sessionAffinity: 'ClientIP' }),
	service('sticky-six', 'fd00:18::ff02', { sessionAffinity: 'ClientIP' }),
	service('ranged', '172.18.255.3', { loadBalancerSourceRanges: ['10.0.0.0/8', '10.1.0.0/16', '203.0.113.7/32'] }),
	service('intern', '172.18.255.4', {}, { 'podwire.dev/internal': 'true' }),
	service('announced', '172.18.255.5', { loadBalancerClass: 'podwire.dev/l2' }),
	service('sctp', '172.18.255.6', { ports: [{ port: 80, nodePort: 30081, protocol: 'SCTP' }] }),
]

test('applied is what is read back', { skip }, async () => {
	const folder = mkdtempSync(join(tmpdir(), 'podwire-test-'))
	const netns = join(folder, 'router')
	createNetns(netns)
	const edge = {
		outsideInterface: 'outside0',
		nodesInterface: 'underlay0',
		nodes: ['172.18.0.0/16', 'fd00:18::/64'] as Cidr[],
	}
	const balancer = createBalancer({ netns, edge, addresses: [] })
	try {
		let have = await balancer.read()
		for (const [services, nodes] of [
			[all, [1, 2, 3]],
			[all.slice(2), [1, 2]],
			[all.slice(0, 3), [2]],
			[[], []],
		] as const) {
			const objects = [...services, ...nodes.map(node)].map((object) => ({ object }))
			const want = balancer.compile(build(setObjects(emptyState(), objects)), () => true)
			assert.notDeepEqual(balancer.diff(have, want), [])
			assert.deepEqual(await balancer.apply(balancer.diff(have, want)), { ok: true })
			assert.deepEqual(balancer.diff(await balancer.read(), want), [])
			have = want
		}
	} finally {
		balancer.close()
		deleteNetns(netns)
		rmSync(folder, { recursive: true, force: true })
	}
})
