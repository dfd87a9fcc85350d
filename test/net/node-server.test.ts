// What a node answers about its Services, asked with real connections inside its namespace.

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { request } from 'node:http'
import { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { createNodeMetrics, type NodeMetrics } from '../../src/agent/metrics.ts'
import { createNodeServer, type NodeProgress, type NodeServer } from '../../src/agent/node-server.ts'
import { ipToBytes, parseIp } from '../../src/base/ip.ts'
import { tableOf } from '../../src/base/table.ts'
import { NetlinkEncoder } from '../../src/linux/netlink/encode.ts'
import { NETLINK_ROUTE, NetlinkSocket } from '../../src/linux/netlink/socket.ts'
import { createNetns, deleteNetns, inNetnsAt } from '../../src/linux/netns.ts'
import { LOOPBACK, setLink } from '../../src/linux/route/links.ts'
import { AF_INET, close, connect, inetAddress, SOCK_STREAM, socket } from '../../src/linux/syscalls.ts'
import { build } from '../../src/model/build.ts'
import type { NetworkModel, Service } from '../../src/model/network.ts'
import { objectOrigin } from '../../src/model/origin.ts'
import { emptyState } from '../../src/model/state.ts'
import { reasonToSkip, sketchService } from './services-world.ts'

const empty = build(emptyState(), undefined)
const origin = objectOrigin('Node', 'node-1')

function balanced(name: string, healthCheckNodePort: number | undefined, ...nodes: string[]): Service {
	return sketchService({
		name,
		ips: ['10.96.0.9'],
		ports: [{ port: 80, endpoints: nodes.map((node, i) => ({ ip: parseIp(`10.244.0.${i + 2}`), port: 8080, node })) }],
		more: {
			type: 'LoadBalancer',
			externalTrafficPolicy: 'Local',
			...(healthCheckNodePort === undefined ? {} : { healthCheckNodePort }),
		},
	})
}

function modelOf(services: readonly Service[], leaving = false): NetworkModel {
	return {
		...empty,
		services: tableOf(services.map((s) => [s.key, s] as const)),
		nodes: tableOf([
			[
				'node-1',
				{
					name: 'node-1',
					addresses: [parseIp('127.0.0.1')],
					podCidrs: [],
					ready: true,
					labels: {},
					origin,
					...(leaving ? { leaving: true as const } : {}),
				},
			],
		]),
	}
}

suite('a node answers about its Services', { skip: reasonToSkip() }, () => {
	let folder: string
	let netns: string
	let server: NodeServer
	let metrics: NodeMetrics
	let progress: NodeProgress = {}
	let now = 1_000_000
	const failures: string[] = []

	before(() => {
		folder = mkdtempSync(join(tmpdir(), 'pw-node-'))
		netns = join(folder, 'node')
		createNetns(netns, () => {
			const route = new NetlinkSocket(NETLINK_ROUTE)
			const e = new NetlinkEncoder(256)
			setLink(e, { index: LOOPBACK, up: true })
			route.request(e)
			route.close()
		})
		metrics = createNodeMetrics('nftables', () => now / 1000)
		server = createNodeServer({
			node: 'node-1',
			netns,
			clock: { now: () => now, after: () => () => {} },
			progress: () => progress,
			metrics,
			onFailure: (what, e) => failures.push(`${what}: ${(e as Error).message}`),
		})
	})
	after(async () => {
		await server?.close()
		deleteNetns(netns)
		rmSync(folder, { recursive: true, force: true })
	})

	/** By a socket made inside: a connection of the process itself would look for the port on the host. */
	function ask(port: number, path: string): Promise<{ status: number; text: string; weight: string | undefined }> {
		const fd = inNetnsAt(netns, () => {
			const made = socket(AF_INET, SOCK_STREAM, 0)
			try {
				connect(made, inetAddress(ipToBytes(parseIp('127.0.0.1')), port))
				return made
			} catch (e) {
				close(made)
				throw e
			}
		})
		return new Promise((resolve, reject) => {
			const outgoing = request({ path, createConnection: () => new Socket({ fd }) }, (message) => {
				let text = ''
				message.on('data', (chunk) => {
					text += chunk
				})
				message.on('end', () =>
					resolve({
						status: message.statusCode ?? 0,
						text,
						weight: message.headers['x-load-balancing-endpoint-weight'] as string | undefined,
					}),
				)
			})
			outgoing.on('error', reject)
			outgoing.end()
		})
	}

	test('healthy only once Services are in force, and while changes get there', async () => {
		server.update(modelOf([]))
		assert.equal((await ask(10256, '/healthz')).status, 503)
		progress = { appliedAt: now }
		const { status, text } = await ask(10256, '/healthz')
		assert.equal(status, 200)
		assert.deepEqual(JSON.parse(text), {
			lastUpdated: '1970-01-01T00:16:40.000Z',
			currentTime: '1970-01-01T00:16:40.000Z',
			nodeEligible: true,
		})
		progress = { appliedAt: now, pendingSince: now }
		now += 59_000
		assert.equal((await ask(10256, '/healthz')).status, 200)
		now += 2_000
		const late = await ask(10256, '/healthz')
		assert.equal(late.status, 503)
		assert.equal(JSON.parse(late.text).lastUpdated, '1970-01-01T00:16:40.000Z')
		progress = { appliedAt: now }
		assert.equal((await ask(10256, '/elsewhere')).status, 404)
	})

	test('a node that is about to go is not eligible, but alive', async () => {
		server.update(modelOf([], true))
		const health = await ask(10256, '/healthz')
		assert.equal(health.status, 503)
		assert.equal(JSON.parse(health.text).nodeEligible, false)
		const alive = await ask(10256, '/livez')
		assert.equal(alive.status, 200)
		assert.equal('nodeEligible' in JSON.parse(alive.text), false)
		server.update(modelOf([]))
	})

	test('a health check node port counts the ready endpoints of the node, and goes with its Service', async () => {
		server.update(modelOf([balanced('here', 31000, 'node-1', 'node-1', 'node-2'), balanced('there', 31001, 'node-2')]))
		const here = await ask(31000, '/')
		assert.deepEqual(
			[here.status, here.weight, JSON.parse(here.text)],
			[200, '2', { service: { namespace: 'default', name: 'here' }, localEndpoints: 2, serviceProxyHealthy: true }],
		)
		const there = await ask(31001, '/healthz')
		assert.deepEqual([there.status, there.weight, JSON.parse(there.text).localEndpoints], [503, '0', 0])
		// Endpoints move; the port changes hands; one goes.
		server.update(modelOf([balanced('here', 31000, 'node-2'), balanced('there', 31002, 'node-1')]))
		assert.equal((await ask(31000, '/')).status, 503)
		assert.equal((await ask(31002, '/')).status, 200)
		assert.throws(() => ask(31001, '/'), { code: 'ECONNREFUSED' })
		server.update(modelOf([balanced('other', 31000, 'node-1')]))
		assert.equal(JSON.parse((await ask(31000, '/')).text).service.name, 'other')
		assert.deepEqual(failures, [])
	})

	test('a port somebody else has is said, and the rest goes on', async () => {
		server.update(modelOf([balanced('clash', 10249, 'node-1'), balanced('fine', 31005, 'node-1')]))
		assert.match(failures.splice(0).join(), /health check of Service "default\/clash" on port 10249.*EADDRINUSE|in use/)
		assert.equal((await ask(31005, '/')).status, 200)
	})

	test('metrics under the names of kube-proxy', async () => {
		metrics.queued({ services: 2, endpoints: 3 })
		metrics.synced(0.004, true)
		metrics.programmed(0.02)
		metrics.reconciled(new Map([[4, 2]]), 0.001)
		metrics.requested({ method: 'GET', code: '200', host: 'api:6443', seconds: 0.02 })
		server.update(modelOf([balanced('away', undefined, 'node-2')]))
		const { status, text } = await ask(10249, '/metrics')
		assert.equal(status, 200)
		for (const line of [
			'kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family="IPv4"} 1',
			'kubeproxy_network_programming_duration_seconds_bucket{le="0.025",ip_family="IPv4"} 1',
			'kubeproxy_sync_proxy_rules_service_changes_total{ip_family="IPv4"} 2',
			'kubeproxy_sync_proxy_rules_endpoint_changes_total{ip_family="IPv4"} 3',
			'kubeproxy_sync_proxy_rules_endpoint_changes_pending{ip_family="IPv4"} 0',
			'kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy="external",ip_family="IPv4"} 1',
			'kubeproxy_sync_proxy_rules_no_local_endpoints_total{traffic_policy="internal",ip_family="IPv4"} 0',
			'kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family="IPv4"} 0',
			'kubeproxy_sync_proxy_rules_iptables_restore_failures_total{ip_family="IPv4"} 0',
			'kubeproxy_conntrack_reconciler_deleted_entries_total{ip_family="IPv4"} 2',
			'kubeproxy_conntrack_reconciler_sync_duration_seconds_count{ip_family="IPv4"} 1',
			'rest_client_requests_total{code="200",method="GET",host="api:6443"} 1',
			'rest_client_request_duration_seconds_count{verb="GET",host="api:6443"} 1',
			'proxy_livez_total{code="200"} 1',
		])
			assert.ok(text.split('\n').includes(line), `${line}\n${text}`)
		assert.match(text, /^process_resident_memory_bytes \d+/m)
		assert.equal((await ask(10249, '/proxyMode')).text, 'nftables')
		assert.equal((await ask(10249, '/healthz')).text, 'ok')
	})
})
