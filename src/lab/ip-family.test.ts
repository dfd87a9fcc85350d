import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { cidrContains, cidrSize, familyOf } from '../base/ip.ts'
import { clusterConfigOf, labIpFamilies, networksOf, readIpFamily, settleIpFamily } from './ip-family.ts'
import { labPathsIn } from './paths.ts'

test('the networks of a family lie beside each other, and have room for every node', () => {
	for (const network of networksOf('dual')) {
		const { family, underlay, pods, services, outside, balancers } = network
		const cidrs = [underlay, pods, services, outside]
		for (const cidr of cidrs) {
			assert.equal(familyOf(cidr), family)
			const others = cidrs.filter((c) => c !== cidr)
			assert.ok(!others.some((c) => cidrContains(c, cidr.split('/')[0] as never)), `${cidr} in ${others}`)
		}
		assert.ok(cidrContains(services, network.dns))
		assert.ok(cidrContains(outside, network.outsideIp) && cidrContains(outside, network.outsideGateway))
		assert.ok(cidrContains(underlay, balancers.split('/')[0] as never))
		const share = 1n << BigInt((family === 4 ? 32 : 128) - network.nodeMask)
		assert.ok(cidrSize(pods) / share >= 100n)
		const nodes = Array.from({ length: 100 }, (_, i) => network.nodeIp(i + 1))
		assert.equal(new Set([...nodes, network.router]).size, 101)
		assert.ok(nodes.every((ip) => cidrContains(underlay, ip) && !cidrContains(balancers, ip)))
	}
})

test('the primary family comes first everywhere', () => {
	const table = Object.fromEntries(
		labIpFamilies.map((choice) => {
			const { podCidrs, serviceCidrs, dnsServiceIp, routerIps } = clusterConfigOf(choice)
			return [choice, [...podCidrs, ...serviceCidrs, dnsServiceIp, ...(routerIps ?? [])].join(' ')]
		}),
	)
	assert.deepEqual(table, {
		ipv4: '10.244.0.0/16 10.96.0.0/16 10.96.0.10 172.18.0.1',
		ipv6: 'fd00:10:244::/56 fd00:10:96::/112 fd00:10:96::a fd00:172:18::1',
		dual: '10.244.0.0/16 fd00:10:244::/56 10.96.0.0/16 fd00:10:96::/112 10.96.0.10 172.18.0.1 fd00:172:18::1',
	})
})

test('a choice is kept from the first node on', () => {
	const root = mkdtempSync(join(tmpdir(), 'pw-'))
	try {
		const paths = labPathsIn('x', join(root, 's'), join(root, 'r'))
		mkdirSync(paths.state)
		assert.equal(readIpFamily(paths), undefined)
		assert.equal(settleIpFamily(paths, 'ipv6'), 'ipv6')
		// The first attempt came to nothing: there is no node yet.
		assert.equal(settleIpFamily(paths, 'dual'), 'dual')
		writeFileSync(paths.nodes, '3\n')
		assert.equal(settleIpFamily(paths, undefined), 'dual')
		assert.equal(settleIpFamily(paths, 'dual'), 'dual')
		assert.throws(() => settleIpFamily(paths, 'ipv4'), { code: 'Immutable' })
		// A lab from before there was a choice.
		rmSync(paths.ipFamily)
		assert.equal(settleIpFamily(paths, undefined), 'ipv4')
		assert.throws(() => settleIpFamily(paths, 'dual'), { code: 'Immutable' })
	} finally {
		rmSync(root, { recursive: true })
	}
})
