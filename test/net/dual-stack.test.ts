// A dual-stack lab and one of IPv6 alone, with real packets of both families: between pods, through every frontend of a
// Service, from outside, answers that refuse, and the same after the lab was killed.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { after, before, suite, test } from 'node:test'
import type { ProbeRequest } from '../../src/agent/protocol.ts'
import { familyOf, type Ip } from '../../src/base/ip.ts'
import { endpointSlices, endpoints, nodes, pods, services } from '../../src/kube/kinds.ts'
import type { Service, ServiceSpec } from '../../src/kube/objects/core.ts'
import type { LabIpFamily } from '../../src/lab/ip-family.ts'
import { signalProcess, waitForEnd } from '../../src/lab/process-identity.ts'
import { readRecord } from '../../src/lab/record.ts'
import { labStatus, startLab } from '../../src/lab/start.ts'
import { inNetnsAt } from '../../src/linux/netns.ts'
import { readSysctl } from '../../src/linux/sysctl.ts'
import { ask, asOutside, inForce } from './external-client.ts'
import { createTestLab, podObject, skip, type TestLab } from './lab.ts'

const families = [4, 6] as const
type Family = (typeof families)[number]
const options = { skip: skip || (existsSync('/proc/net/if_inet6') ? false : 'no IPv6 in this kernel'), timeout: 90_000 }

const client: ProbeRequest['from'] = { pod: 'default/client' }
const nodeIps = (number: number) => ({ 4: `172.18.0.${number + 1}`, 6: `fd00:172:18::${number + 1}` })
const outsideIps = { 4: '203.0.113.1', 6: '2001:db8:113::1' }
const show = (ip: string) => (ip.includes(':') ? `[${ip}]` : ip)
const ofFamily = (ips: readonly string[], family: Family) => ips.find((ip) => familyOf(ip as Ip) === family)

async function createService(lab: TestLab, name: string, spec: ServiceSpec): Promise<Service> {
	const metadata = { name, namespace: 'default' }
	return (await lab.create({ apiVersion: 'v1', kind: 'Service', metadata, spec })) as Service
}

/** web-1 and web-2 serve on their nodes, the client is beside web-1. */
async function createPods(lab: TestLab): Promise<ReadonlyMap<string, readonly string[]>> {
	const ports = [{ containerPort: 80 }, { containerPort: 53, protocol: 'UDP' as const }]
	const containers = [{ name: 'c', image: 'nginx', ports }]
	const probed = [{ ...containers[0]!, readinessProbe: { httpGet: { path: '/', port: 80 } } }]
	await lab.create(podObject('web-1', { nodeName: 'node-1', containers: probed }, { app: 'web' }))
	await lab.create(podObject('web-2', { nodeName: 'node-2', containers }, { app: 'web' }))
	await lab.create(podObject('client', { nodeName: 'node-1', containers }))
	const ips = new Map<string, readonly string[]>()
	for (const name of ['web-1', 'web-2', 'client']) {
		ips.set(name, (await lab.pod(name)).status?.podIPs?.map(({ ip }) => ip) ?? [])
	}
	return ips
}

/**
 * Who answers, as whom it saw its client. First until the Service is in force where it is asked; then every request is
 * answered, and it is asked until as many have been seen as `pods` and `clients` say: which of k is chosen, chance
 * decides, and one of them stays unseen in 16 × k requests once in millions of runs.
 */
async function answersOf(
	lab: TestLab,
	to: string,
	from: ProbeRequest['from'],
	{
		port = 80,
		udp = false,
		pods = 1,
		clients = 1,
	}: { port?: number; udp?: boolean; pods?: number; clients?: number } = {},
): Promise<{ readonly pods: readonly string[]; readonly clients: readonly string[] }> {
	await lab.until(async () => ((await ask(lab, to, { port, udp, from })).answer === undefined ? undefined : true))
	const found = { pods: new Set<string>(), clients: new Set<string>() }
	for (let i = 0; i < 16 * pods * clients && (i < 3 || found.pods.size < pods || found.clients.size < clients); i++) {
		const { outcome, answer } = await ask(lab, to, { port, udp, from })
		assert.ok(answer !== undefined, `request ${i} to ${show(to)} port ${port}: ${outcome}`)
		found.pods.add(answer.pod)
		found.clients.add(answer.client.replace(/^\[|\]$/g, ''))
	}
	return { pods: [...found.pods].sort(), clients: [...found.clients].sort() }
}

async function outcomeOf(lab: TestLab, to: string, from: ProbeRequest['from'], port: number, wanted: string) {
	await lab.until(async () => ((await ask(lab, to, { port, from })).outcome === wanted ? true : undefined))
}

async function kill(lab: TestLab, which: 'daemon' | 'workloads'): Promise<void> {
	const process = readRecord(lab.paths)?.[which]
	assert.ok(process !== undefined)
	signalProcess(process, 'SIGKILL')
	assert.deepEqual(await waitForEnd([process], 5_000), [])
}

suite('a dual-stack lab', options, () => {
	let lab: TestLab
	let ips: ReadonlyMap<string, readonly string[]>
	const ipOf = (pod: string, family: Family) => ofFamily(ips.get(pod) ?? [], family)!
	before(async () => {
		if (options.skip) return
		lab = await createTestLab('dual', undefined, { nodes: 3, dataplane: 'kernel', ipFamily: 'dual' })
		ips = await createPods(lab)
	})
	after(() => lab?.remove())

	test('nodes and pods have an address of each family, of their own networks, IPv4 first', async () => {
		const all = [...(await lab.client.list(nodes)).items].sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1))
		assert.deepEqual(
			all.map(({ status, spec }) => [
				status?.addresses?.filter((a) => a.type === 'InternalIP').map((a) => a.address),
				spec?.podCIDR,
				spec?.podCIDRs,
			]),
			[1, 2, 3].map((n) => {
				const six = n === 1 ? 'fd00:10:244::/64' : `fd00:10:244:${n - 1}::/64`
				const four = `10.244.${n - 1}.0/24`
				return [[nodeIps(n)[4], nodeIps(n)[6]], four, [four, six]]
			}),
		)
		const { status } = await lab.client.get(pods, 'default/web-2')
		assert.match(status?.podIP ?? '', /^10\.244\.1\.\d+$/)
		assert.deepEqual(status?.podIPs?.[0], { ip: status?.podIP })
		assert.match(status?.podIPs?.[1]?.ip ?? '', /^fd00:10:244:1::[0-9a-f]+$/)
		assert.deepEqual(status?.hostIPs, [{ ip: '172.18.0.3' }, { ip: 'fd00:172:18::3' }])
	})

	test('the cluster DNS has both addresses, the API server that of the primary family', async () => {
		const { spec: dns } = await lab.client.get(services, 'kube-system/kube-dns')
		assert.deepEqual(dns?.clusterIPs, ['10.96.0.10', 'fd00:10:96::a'])
		assert.deepEqual(dns?.ipFamilies, ['IPv4', 'IPv6'])
		assert.equal(dns?.ipFamilyPolicy, 'PreferDualStack')
		const { spec } = await lab.client.get(services, 'default/kubernetes')
		assert.deepEqual(spec?.clusterIPs, ['10.96.0.1'])
	})

	test('no address of a node waits for anything, and nodes route both families', () => {
		for (const place of ['underlay', 'node-1', 'outside']) {
			const read = (name: string) => inNetnsAt(lab.netns(place), () => readSysctl(name))
			const device = place === 'underlay' ? 'underlay0' : 'eth0'
			assert.equal(read(`net.ipv6.conf.${device}.accept_dad`), '0', place)
			assert.equal(read(`net.ipv6.conf.${device}.accept_ra`), '0', place)
			if (place !== 'outside') assert.equal(read('net.ipv6.conf.all.forwarding'), '1', place)
		}
	})

	for (const family of families) {
		test(`IPv${family}: pods reach pods on their node and on others, untranslated`, async () => {
			for (const to of ['web-1', 'web-2', 'client']) {
				for (const udp of [false, true]) {
					const found = await answersOf(lab, ipOf(to, family), client, { udp, port: udp ? 53 : 80 })
					assert.deepEqual(found, { pods: [to], clients: [ipOf('client', family)] }, `${to} ${udp}`)
				}
			}
			const found = await answersOf(lab, ipOf('web-2', family), { node: 'node-1' })
			assert.deepEqual(found.clients, [nodeIps(1)[family]])
		})
	}

	test('a Service of both families serves both, TCP and UDP, and its client is seen', async () => {
		const made = await createService(lab, 'both', {
			ipFamilyPolicy: 'RequireDualStack',
			selector: { app: 'web' },
			ports: [
				{ name: 'http', port: 80 },
				{ name: 'dns', port: 53, protocol: 'UDP' },
			],
		})
		assert.deepEqual(made.spec?.ipFamilies, ['IPv4', 'IPv6'])
		for (const family of families) {
			const ip: string = ofFamily(made.spec?.clusterIPs ?? [], family)!
			for (const udp of [false, true]) {
				const found = await answersOf(lab, ip, client, { udp, port: udp ? 53 : 80, pods: 2 })
				assert.deepEqual(found, { pods: ['web-1', 'web-2'], clients: [ipOf('client', family)] }, ip)
			}
			await outcomeOf(lab, ip, client, 81, 'refused')
		}
	})

	test('endpoints are in slices of each family; the old Endpoints have the primary one', async () => {
		const labelSelector = 'kubernetes.io/service-name=both'
		const slices = (await lab.client.list(endpointSlices, { namespace: 'default', labelSelector })).items
		const byFamily = Object.fromEntries(
			slices.map((s) => [s.addressType, s.endpoints?.flatMap((e) => e.addresses).sort()]),
		)
		assert.deepEqual(byFamily, {
			IPv4: [ipOf('web-1', 4), ipOf('web-2', 4)].sort(),
			IPv6: [ipOf('web-1', 6), ipOf('web-2', 6)].sort(),
		})
		const old = await lab.client.get(endpoints, 'default/both')
		assert.deepEqual(old.subsets?.flatMap((s) => s.addresses?.map((a) => a.ip) ?? []).sort(), byFamily.IPv4)
	})

	test('a pod that reaches itself through a Service sees its node', async () => {
		const made = await createService(lab, 'self', {
			ipFamilyPolicy: 'PreferDualStack',
			selector: { app: 'client' },
			ports: [{ port: 80 }],
		})
		for (const family of families) {
			const found = await answersOf(lab, ofFamily(made.spec?.clusterIPs ?? [], family)!, client)
			assert.deepEqual(found, { pods: ['client'], clients: [nodeIps(1)[family]] })
		}
	})

	test('a Service of IPv6 alone in the same cluster', async () => {
		const made = await createService(lab, 'six', {
			ipFamilies: ['IPv6'],
			selector: { app: 'web' },
			ports: [{ port: 80 }],
		})
		assert.equal(made.spec?.ipFamilyPolicy, 'SingleStack')
		assert.match(made.spec?.clusterIP ?? '', /^fd00:10:96::/)
		const found = await answersOf(lab, made.spec?.clusterIP ?? '', client, { pods: 2 })
		assert.deepEqual(found.pods, ['web-1', 'web-2'])
	})

	test('node ports from outside: masqueraded, or with the client for policy Local', async () => {
		const selector = { app: 'web' }
		const cluster = await createService(lab, 'np', {
			type: 'NodePort',
			ipFamilyPolicy: 'RequireDualStack',
			selector,
			ports: [{ port: 80 }],
		})
		const local = await createService(lab, 'np-local', {
			type: 'NodePort',
			ipFamilyPolicy: 'RequireDualStack',
			externalTrafficPolicy: 'Local',
			selector,
			ports: [{ port: 80 }],
		})
		for (const family of families) {
			for (const number of [1, 3]) {
				const port = cluster.spec?.ports?.[0]?.nodePort ?? 0
				const found = await answersOf(lab, nodeIps(number)[family], asOutside, { port, pods: 2 })
				assert.deepEqual(found, { pods: ['web-1', 'web-2'], clients: [nodeIps(number)[family]] })
			}
			const port = local.spec?.ports?.[0]?.nodePort ?? 0
			const found = await answersOf(lab, nodeIps(2)[family], asOutside, { port })
			assert.deepEqual(found, { pods: ['web-2'], clients: [outsideIps[family]] })
			await outcomeOf(lab, nodeIps(3)[family], asOutside, port, 'timeout')
			const health = await ask(lab, nodeIps(3)[family], { port: 10256 })
			assert.equal(health.outcome, 'connected')
		}
	})

	test('a load balancer has an address of each family', async () => {
		await createService(lab, 'lb', {
			type: 'LoadBalancer',
			ipFamilyPolicy: 'RequireDualStack',
			selector: { app: 'web' },
			ports: [{ port: 80 }],
		})
		const ingress = await lab.until(async () => {
			const list = (await lab.client.get(services, 'default/lb')).status?.loadBalancer?.ingress ?? []
			return list.length === 2 ? list.map((i) => i.ip ?? '') : undefined
		})
		for (const family of families) {
			await inForce(lab, ofFamily(ingress, family)!)
			const found = await answersOf(lab, ofFamily(ingress, family)!, asOutside, { pods: 2, clients: 3 })
			assert.deepEqual(found.pods, ['web-1', 'web-2'])
			assert.deepEqual(found.clients, [1, 2, 3].map((n) => nodeIps(n)[family]).sort())
		}
	})

	test('who serves nobody refuses, an address nobody has is unreachable', async () => {
		const made = await createService(lab, 'empty', {
			ipFamilyPolicy: 'PreferDualStack',
			selector: { app: 'nobody' },
			ports: [{ port: 80 }],
		})
		for (const family of families) {
			await outcomeOf(lab, ofFamily(made.spec?.clusterIPs ?? [], family)!, client, 80, 'refused')
			// A second for IPv6: an error that comes while connect() still runs is only taken at the next try.
			const nobody = family === 4 ? '10.244.1.99' : 'fd00:10:244:1::99'
			const probe: ProbeRequest = {
				from: client,
				to: nobody as Ip,
				port: 80,
				protocol: 'TCP',
				nodes: [],
				timeout: 3_000,
			}
			assert.equal((await lab.handle.client.agent.probe(probe)).outcome, 'unreachable')
		}
	})

	test('a family taken from a Service is gone from the kernel, and comes back', async () => {
		const before = (await lab.client.get(services, 'default/both')).spec?.clusterIPs ?? []
		await lab.client.patch(services, 'default/both', { spec: { ipFamilyPolicy: 'SingleStack' } })
		await outcomeOf(lab, ofFamily(before, 6)!, client, 80, 'timeout')
		await answersOf(lab, ofFamily(before, 4)!, client)
		const again = await lab.client.patch(services, 'default/both', { spec: { ipFamilyPolicy: 'RequireDualStack' } })
		await answersOf(lab, ofFamily(again.spec?.clusterIPs ?? [], 6)!, client)
	})

	test('each data plane carries both families', async () => {
		const { spec } = await lab.client.get(services, 'default/both')
		for (const mode of ['ebpf', 'iptables', 'nftables'] as const) {
			try {
				await lab.handle.client.setServiceProxy(mode)
			} catch (e) {
				// This machine does not allow that one.
				if ((e as { code?: string }).code === 'Unsupported') continue
				throw e
			}
			for (const ip of spec?.clusterIPs ?? []) {
				const found = await answersOf(lab, ip, client, { pods: 2 })
				assert.deepEqual(found, { pods: ['web-1', 'web-2'], clients: [ipOf('client', familyOf(ip as Ip))] }, mode)
			}
		}
	})

	test('a hostNetwork pod has the addresses of its node, in endpoints of both families', async () => {
		const containers = [{ name: 'c', image: 'nginx', ports: [{ containerPort: 8123 }] }]
		await lab.create(podObject('host', { nodeName: 'node-3', hostNetwork: true, containers }))
		const { status } = await lab.pod('host')
		assert.deepEqual(
			status?.podIPs?.map(({ ip }) => ip),
			[nodeIps(3)[4], nodeIps(3)[6]],
		)
		const made = await createService(lab, 'host', {
			ipFamilyPolicy: 'RequireDualStack',
			selector: { app: 'host' },
			ports: [{ port: 80, targetPort: 8123 }],
		})
		for (const family of families) {
			const found = await answersOf(lab, ofFamily(made.spec?.clusterIPs ?? [], family)!, client)
			assert.deepEqual(found, { pods: ['host'], clients: [ipOf('client', family)] })
		}
	})

	test('what somebody else takes away of IPv6 is put back', async () => {
		const { metadata } = await lab.client.get(pods, 'default/web-2')
		const inside = (place: string, ...words: string[]) => {
			const ran = spawnSync('nsenter', [`--net=${lab.netns(place)}`, ...words], { encoding: 'utf8' })
			assert.equal(ran.status, 0, `${words.join(' ')}: ${ran.stderr}`)
		}
		const { spec } = await lab.client.get(services, 'default/both')
		const service = ofFamily(spec?.clusterIPs ?? [], 6)!
		await answersOf(lab, service, client)
		inside('node-2', 'ip', '-6', 'route', 'del', ipOf('web-2', 6))
		inside('node-1', 'ip', '-6', 'route', 'del', 'fd00:10:244:1::/64')
		inside('node-1', 'nft', 'delete table ip6 podwire')
		inside(`pod-${metadata.uid}`, 'ip', '-6', 'route', 'del', 'default')
		inside(`pod-${metadata.uid}`, 'ip', '-6', 'addr', 'flush', 'dev', 'eth0', 'scope', 'global')
		assert.notEqual((await ask(lab, ipOf('web-2', 6), { from: client })).outcome, 'connected')
		await lab.handle.client.repair()
		assert.equal((await ask(lab, ipOf('web-2', 6), { from: client })).answer?.pod, 'web-2')
		assert.notEqual((await ask(lab, service, { from: client })).answer, undefined)
	})

	test('a node that was stopped forwards both families again', async () => {
		await lab.handle.client.stopNode('node-2')
		for (const family of families) {
			assert.notEqual((await ask(lab, ipOf('web-2', family), { from: client })).outcome, 'connected')
		}
		await lab.handle.client.startNode('node-2')
		for (const family of families) await answersOf(lab, ipOf('web-2', family), client)
	})

	test('killed, all of it or only the daemon: the same addresses of both families, and they answer', async () => {
		const addresses = async () =>
			(await lab.client.list(pods)).items.map((p) => `${p.metadata.name} ${JSON.stringify(p.status?.podIPs)}`).sort()
		const had = await addresses()
		const { spec } = await lab.client.get(services, 'default/both')
		for (const which of [['daemon'], ['daemon', 'workloads']] as const) {
			for (const process of which) await kill(lab, process)
			assert.equal((await labStatus('dual'))?.ipFamily, 'dual')
			await lab.up()
			assert.equal(lab.handle.status.ipFamily, 'dual')
			await lab.pod('web-2')
			assert.deepEqual(await addresses(), had)
			for (const ip of spec?.clusterIPs ?? []) await answersOf(lab, ip, client)
			const found = await answersOf(lab, ipOf('web-2', 6), client)
			assert.deepEqual(found.clients, [ipOf('client', 6)])
		}
	})

	test('a lab keeps its families', async () => {
		const other = (ipFamily: LabIpFamily) =>
			startLab({ name: 'dual', ipFamily, config: lab.handle.status as never, version: 'test' })
		await assert.rejects(other('ipv4'), { code: 'Immutable' })
		assert.equal((await lab.up({ ipFamily: 'dual' })).created, false)
	})
})

suite('a lab of IPv6 alone', options, () => {
	let lab: TestLab
	let ips: ReadonlyMap<string, readonly string[]>
	before(async () => {
		if (options.skip) return
		lab = await createTestLab('six', undefined, { nodes: 2, dataplane: 'kernel', ipFamily: 'ipv6' })
		ips = await createPods(lab)
	})
	after(() => lab?.remove())

	test('nothing has an IPv4 address', async () => {
		for (const list of ips.values())
			assert.deepEqual(
				list.map((ip) => familyOf(ip as Ip)),
				[6],
			)
		for (const node of lab.handle.status.nodes)
			assert.deepEqual(node.ips, [`fd00:172:18::${node.name === 'node-1' ? 2 : 3}`])
		for (const { spec } of (await lab.client.list(services)).items) assert.deepEqual(spec?.ipFamilies, ['IPv6'])
		await assert.rejects(
			createService(lab, 'four', { ipFamilies: ['IPv4'], selector: { app: 'web' }, ports: [{ port: 80 }] }),
			/not configured/,
		)
	})

	test('pods, Services, node ports, the API server', async () => {
		const six = { selector: { app: 'web' }, ports: [{ port: 80 }] }
		const inside = await createService(lab, 'web', six)
		const found = await answersOf(lab, inside.spec?.clusterIP ?? '', client, { pods: 2 })
		assert.deepEqual(found, { pods: ['web-1', 'web-2'], clients: ips.get('client') })
		const ports = await createService(lab, 'np', { ...six, type: 'NodePort' })
		const port = ports.spec?.ports?.[0]?.nodePort ?? 0
		const masked = await answersOf(lab, nodeIps(2)[6], asOutside, { port, pods: 2 })
		assert.deepEqual(masked, { pods: ['web-1', 'web-2'], clients: [nodeIps(2)[6]] })
		await createService(lab, 'lb', { ...six, type: 'LoadBalancer' })
		const balancer = await lab.until(
			async () => (await lab.client.get(services, 'default/lb')).status?.loadBalancer?.ingress?.[0]?.ip,
		)
		await inForce(lab, balancer)
		// Its health probes come from the router's own address: to the load balancer's a node would answer itself.
		const words = [`--net=${lab.netns('underlay')}`, 'ip', '-6', 'route', 'get', nodeIps(2)[6]]
		assert.match(spawnSync('nsenter', words, { encoding: 'utf8' }).stdout, / src fd00:172:18::1 /)
		const balanced = await answersOf(lab, balancer, asOutside, { pods: 2, clients: 2 })
		assert.deepEqual(balanced, { pods: ['web-1', 'web-2'], clients: [nodeIps(1)[6], nodeIps(2)[6]] })
		const probe = {
			from: client,
			to: 'fd00:10:96::1' as Ip,
			port: 443,
			protocol: 'TCP',
			nodes: [],
			timeout: 2_000,
		} as const
		assert.equal((await lab.handle.client.agent.probe({ ...probe, observe: false })).outcome, 'connected')
	})

	test('killed, it goes on as it was', async () => {
		await kill(lab, 'daemon')
		await lab.up()
		const { spec } = await lab.client.get(services, 'default/web')
		await answersOf(lab, spec?.clusterIP ?? '', client)
		assert.deepEqual(
			(await lab.pod('client')).status?.podIPs?.map(({ ip }) => ip),
			ips.get('client'),
		)
	})
})
