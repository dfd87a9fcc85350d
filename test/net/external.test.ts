// Real packets from a client outside of a lab, through its load balancers, to pods.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { after, before, test } from 'node:test'
import { deployments, nodes, services } from '../../src/kube/kinds.ts'
import { signalProcess, waitForEnd } from '../../src/lab/process-identity.ts'
import { readRecord } from '../../src/lab/record.ts'
import { NETLINK_ROUTE, NetlinkSocket } from '../../src/linux/netlink/socket.ts'
import { inNetnsAt } from '../../src/linux/netns.ts'
import { readNeighbours } from '../../src/linux/route/neighbours.ts'
import {
	addressOf,
	ask,
	askMany,
	askUntil,
	balanced,
	countBy,
	inForce,
	openDatagrams,
	openEcho,
} from './external-client.ts'
import { createTestLab, skip, type TestLab } from './lab.ts'

const outside = '203.0.113.1'
const options = { skip, timeout: 60_000 }

let lab: TestLab
before(async () => {
	if (skip) return
	lab = await createTestLab('external', undefined, { nodes: 3, dataplane: 'kernel' })
	const ports = [{ containerPort: 80 }, { containerPort: 53, protocol: 'UDP' as const }]
	await lab.create({
		apiVersion: 'apps/v1',
		kind: 'Deployment',
		metadata: { name: 'web', namespace: 'default' },
		spec: {
			replicas: 2,
			selector: { matchLabels: { app: 'web' } },
			template: {
				metadata: { labels: { app: 'web' } },
				spec: {
					containers: [{ name: 'c', image: 'nginx', ports }],
					terminationGracePeriodSeconds: 1,
					affinity: {
						nodeAffinity: {
							requiredDuringSchedulingIgnoredDuringExecution: {
								nodeSelectorTerms: [
									{
										matchExpressions: [{ key: 'kubernetes.io/hostname', operator: 'In', values: ['node-1', 'node-2'] }],
									},
								],
							},
						},
					},
					topologySpreadConstraints: [
						{
							maxSkew: 1,
							topologyKey: 'kubernetes.io/hostname',
							whenUnsatisfiable: 'DoNotSchedule',
							labelSelector: { matchLabels: { app: 'web' } },
						},
					],
				},
			},
		},
	})
	await lab.until(async () => {
		const web = await lab.client.get(deployments, 'default/web')
		return web.status?.readyReplicas === 2 ? true : undefined
	})
})
after(() => lab?.remove())

const label = 'node.kubernetes.io/exclude-from-external-load-balancers'
const exclude = (node: string, value: string | null) =>
	lab.client.patch(nodes, node, { metadata: { labels: { [label]: value } } })
/** Resolves when the controller has taken its load balancer down. */
async function remove(name: string): Promise<void> {
	await lab.client.delete(services, `default/${name}`)
	await lab.until(async () => ((await lab.client.find(services, `default/${name}`)) === undefined ? true : undefined))
}

/** Resolves when nobody answers outside; until then somebody may refuse who had the address before, and nobody connects. */
async function silent(ip: string): Promise<void> {
	await lab.until(async () => {
		const { outcome } = await ask(lab, ip)
		assert.notEqual(outcome, 'connected')
		return outcome === 'timeout' ? true : undefined
	})
}

test('policy Cluster: every node takes its turn and shows the pod its own address', options, async () => {
	const ip = await balanced(lab, 'web', {})
	await inForce(lab, ip)
	const answers = await askMany(lab, ip, 60)
	const byNode = countBy(answers, (a) => a.client)
	assert.deepEqual(Object.keys(byNode).sort(), ['172.18.0.2', '172.18.0.3', '172.18.0.4'])
	for (const [node, count] of Object.entries(byNode))
		assert.ok(count >= 19 && count <= 21, `${node} had ${count} of 60`)
	const byPod = Object.values(countBy(answers, (a) => a.pod))
	// Each node chooses at random: 60 throws of a coin stay within 14 and 46 but once in 40,000 times.
	assert.ok(byPod.length === 2 && byPod.every((n) => n >= 14), `${byPod}`)
	// Events of the cloud's service controller, and its finalizer.
	const service = await lab.client.get(services, 'default/web')
	assert.deepEqual(service.metadata.finalizers, ['service.kubernetes.io/load-balancer-cleanup'])
	assert.equal((await ask(lab, ip, { port: 81 })).outcome, 'refused')
	await remove('web')
	await lab.until(async () => ((await ask(lab, ip)).outcome === 'connected' ? undefined : true))
})

test('policy Local: only nodes with an endpoint, and the pod sees the client', options, async () => {
	const ip = await balanced(lab, 'local', { externalTrafficPolicy: 'Local' })
	await inForce(lab, ip)
	const answers = await askMany(lab, ip, 40)
	assert.deepEqual(
		countBy(answers, (a) => `${a.client} at ${a.node}`),
		{ [`${outside} at node-1`]: 20, [`${outside} at node-2`]: 20 },
	)
	await remove('local')
})

test('session affinity: a client has one node, and so one pod', options, async () => {
	const ip = await balanced(lab, 'sticky', { sessionAffinity: 'ClientIP' })
	await inForce(lab, ip)
	const answers = await askMany(lab, ip, 10)
	assert.equal(Object.keys(countBy(answers, (a) => `${a.pod} ${a.client}`)).length, 1)
	await remove('sticky')
})

test('a node that is excluded gets no new connections and keeps those it has', options, async () => {
	const ip = await balanced(lab, 'web', { externalTrafficPolicy: 'Local' })
	await inForce(lab, ip)
	const connections = await Promise.all([openEcho(lab, ip), openEcho(lab, ip)])
	for (const c of connections) assert.equal(await c.echo('before\n'), 'before\n')
	await exclude('node-1', '')
	await lab.until(async () => {
		const some = await askMany(lab, ip, 4)
		return some.every((a) => a.node === 'node-2') ? true : undefined
	})
	// One of the two is through node-1.
	for (const c of connections) assert.equal(await c.echo('after\n'), 'after\n')
	for (const c of connections) c.socket.destroy()
	await exclude('node-1', null)
	await lab.until(async () => {
		const some = await askMany(lab, ip, 4)
		return some.some((a) => a.node === 'node-1') ? true : undefined
	})
	await remove('web')
})

test('datagrams of one client go elsewhere at once when their node is taken out', options, async () => {
	const ip = await balanced(lab, 'udp', { ports: [{ port: 53, protocol: 'UDP' }], externalTrafficPolicy: 'Local' })
	const client = openDatagrams(lab, ip, 53)
	try {
		const first = await lab.until(async () => client.ask())
		// Connection tracking would keep a client that never falls silent with its node for ever.
		assert.equal((await client.ask())?.node, first.node)
		await exclude(first.node, '')
		await lab.until(async () => {
			const answer = await client.ask()
			return answer !== undefined && answer.node !== first.node ? true : undefined
		})
		await exclude(first.node, null)
	} finally {
		client.close()
	}
	await remove('udp')
})

test('layer 2: one node answers for the address, and gets its packets as they are', options, async () => {
	const ip = await balanced(lab, 'announced', { loadBalancerClass: 'podwire.dev/l2', externalTrafficPolicy: 'Local' })
	await inForce(lab, ip)
	const { announced } = await lab.handle.client.agent.readBalancer!()
	const [node] = new Set((await askMany(lab, ip, 10)).map((a) => `${a.node} ${a.client}`))
	assert.equal(node, `${(announced as Record<string, string>)[ip]} ${outside}`)
	// Nothing but the Service's ports: what nobody translates has nowhere to go, not even to the node's own servers.
	assert.notEqual((await ask(lab, ip, { port: 10256 })).outcome, 'connected')
	await remove('announced')
})

test('without node ports a node gets the packets as they are', options, async () => {
	const ip = await balanced(lab, 'direct', { allocateLoadBalancerNodePorts: false })
	await inForce(lab, ip)
	const service = await lab.client.get(services, 'default/direct')
	assert.equal(service.spec?.ports?.[0]?.nodePort, undefined)
	await askMany(lab, ip, 5)
	await remove('direct')
})

test('Services that share an address, TCP and UDP of one port', options, async () => {
	const share = { 'podwire.dev/allow-shared-ip': 'dns' }
	const ip = await balanced(lab, 'tcp', { ports: [{ port: 53, targetPort: 80 }] }, share)
	const other = await balanced(lab, 'udp', { ports: [{ port: 53, protocol: 'UDP' }] }, share)
	assert.equal(other, ip)
	await lab.until(async () => (await ask(lab, ip, { port: 53 })).answer)
	const { answer } = await lab.until(async () => {
		const got = await ask(lab, ip, { port: 53, udp: true })
		return got.answer === undefined ? undefined : got
	})
	assert.match(answer!.client, /^172\.18\.0\.[234]$/)
	// Without asking for it, nobody shares.
	const own = await balanced(lab, 'own', { ports: [{ port: 54 }] })
	assert.notEqual(own, ip)
	for (const name of ['tcp', 'udp', 'own']) await remove(name)
})

test('both protocols in one Service', options, async () => {
	const ports = [
		{ name: 'tcp', port: 53, targetPort: 80 },
		{ name: 'udp', port: 53, protocol: 'UDP' as const },
	]
	const ip = await balanced(lab, 'mixed', { ports })
	await lab.until(async () => (await ask(lab, ip, { port: 53 })).answer)
	await lab.until(async () => (await ask(lab, ip, { port: 53, udp: true })).answer)
	await remove('mixed')
})

test('internal: the nodes reach it, the outside does not', options, async () => {
	const ip = await balanced(lab, 'intern', {}, { 'networking.gke.io/load-balancer-type': 'Internal' })
	await lab.until(async () => (await ask(lab, ip, { from: { node: 'node-3' } })).answer)
	await silent(ip)
	await remove('intern')
})

for (const [how, more] of [
	['the appliance', {}],
	['the node that announces', { loadBalancerClass: 'podwire.dev/l2' }],
] as const) {
	test(`source ranges are kept by ${how}`, options, async () => {
		const ip = await balanced(lab, 'ranged', { ...more, loadBalancerSourceRanges: ['198.51.100.0/24'] })
		await silent(ip)
		await lab.client.patch(services, 'default/ranged', {
			spec: { loadBalancerSourceRanges: ['203.0.113.0/24', '203.0.113.1/32', '198.51.100.0/24'] },
		})
		await askUntil(lab, ip, 5)
		await remove('ranged')
	})
}

test('ipMode Proxy: a node meets the load balancer itself', options, async () => {
	const ip = await balanced(lab, 'proxy', {}, { 'podwire.dev/ip-mode': 'Proxy' })
	await inForce(lab, ip)
	const { answer } = await ask(lab, ip, { from: { node: 'node-3' } })
	assert.match(answer?.client ?? '', /^172\.18\.0\./)
	await remove('proxy')
})

test('what somebody else takes away is put back', options, async () => {
	const ip = await balanced(lab, 'web', {})
	await inForce(lab, ip)
	const router = lab.netns('underlay')
	const deleted = spawnSync('nsenter', [`--net=${router}`, 'nft', 'delete', 'table', 'ip', 'podwire-balancer'])
	assert.equal(deleted.status, 0, deleted.stderr.toString())
	await lab.handle.client.repair()
	await askMany(lab, ip, 3)
	await remove('web')
})

test('a daemon that was killed leaves the load balancers working, and takes up where it stopped', options, async () => {
	const ip = await balanced(lab, 'web', {})
	const announced = await balanced(lab, 'announced', { loadBalancerClass: 'podwire.dev/l2' })
	await inForce(lab, ip)
	await inForce(lab, announced)
	const { daemon } = readRecord(lab.paths)!
	signalProcess(daemon, 'SIGKILL')
	assert.deepEqual(await waitForEnd([daemon], 5000), [])
	for (const to of [ip, announced]) {
		const { socket } = await openEcho(lab, to)
		socket.destroy()
	}
	await lab.up()
	assert.equal(await addressOf(lab, 'web'), ip)
	assert.equal(await addressOf(lab, 'announced'), announced)
	await askMany(lab, ip, 3)
	await askMany(lab, announced, 3)
	for (const name of ['web', 'announced']) await remove(name)
})

test('a node dies: its connections go elsewhere within seconds, announced addresses move', options, async (t) => {
	// Else the dead node's endpoints, which stay until Kubernetes has noticed, would be in the way.
	const local = { externalTrafficPolicy: 'Local' } as const
	const ip = await balanced(lab, 'web', local)
	const announced = await balanced(lab, 'announced', { ...local, loadBalancerClass: 'podwire.dev/l2' })
	await inForce(lab, ip)
	await inForce(lab, announced)
	const holder = async () => (await lab.handle.client.agent.readBalancer!()).announced[announced as never] as string
	const node = await lab.until(holder)
	const macOf = () =>
		inNetnsAt(lab.netns('underlay'), () => {
			const socket = new NetlinkSocket(NETLINK_ROUTE)
			try {
				return readNeighbours(socket).find((n) => n.ip === announced)?.mac
			} finally {
				socket.close()
			}
		})
	const mac = macOf()
	await lab.handle.client.stopNode(node)
	const began = performance.now()
	const moved = await askUntil(lab, announced, 10)
	// A node takes each second connection: eight in a row tell that none goes to the dead one.
	await lab.until(async () => {
		for (let i = 0; i < 8; i++) if ((await ask(lab, ip)).answer === undefined) return undefined
		return true
	}, 15)
	const through = performance.now() - began
	t.diagnostic(
		`layer 2 moved in ${Math.round(moved)} ms; the appliance was without the node in ${Math.round(through)} ms`,
	)
	assert.notEqual(await holder(), node)
	assert.notEqual(macOf(), mac)
	await lab.handle.client.startNode(node)
	await lab.until(async () => ((await holder()) === node ? true : undefined), 15)
	await askUntil(lab, announced, 5)
	for (const name of ['web', 'announced']) await remove(name)
})
