// hostPort on real kernels: from the other node, from pods, from the node itself, from a pod to itself; on one address;
// UDP that follows the pod; and what the three witnesses say.

import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { after, before, test } from 'node:test'
import { pods } from '../../src/kube/kinds.ts'
import type { PodSpec } from '../../src/kube/objects/pod.ts'
import { inNetnsAt } from '../../src/linux/netns.ts'
import { createTestLab, podObject, skip, type TestLab } from './lab.ts'

let lab: TestLab
const where = { skip, concurrency: false }

const asks = (node: string, ports: PodSpec['containers'][number]['ports']): Partial<PodSpec> => ({
	nodeName: node,
	terminationGracePeriodSeconds: 0,
	containers: [{ name: 'c', image: 'x', ports: ports ?? [] }],
})
function get(netns: string, url: string): { pod?: string; client?: string; status: number | null } {
	const got = inNetnsAt(netns, () =>
		spawnSync('curl', ['-sS', '--max-time', '3', url], { encoding: 'utf8', timeout: 10_000 }),
	)
	return { ...(got.status === 0 ? JSON.parse(got.stdout) : {}), status: got.status }
}

before(async () => {
	if (skip) return
	lab = await createTestLab('hostports')
	await lab.create(
		podObject(
			'web',
			asks('node-2', [
				{ containerPort: 80, hostPort: 8080 },
				{ containerPort: 81, hostPort: 8081, hostIP: '172.18.0.3' },
				{ containerPort: 82, hostPort: 8082, hostIP: '172.18.0.99' },
			]),
		),
	)
	await lab.create(podObject('near', { nodeName: 'node-2' }))
	await lab.create(podObject('far', { nodeName: 'node-1' }))
	await lab.pod('web')
	await lab.until(async () => (get(lab.netns('node-1'), 'http://172.18.0.3:8080/').status === 0 ? true : undefined))
})
after(() => lab?.remove())

test('from everywhere that reaches the node, with the client’s own address', where, async () => {
	const [web, near, far] = await Promise.all(['web', 'near', 'far'].map((n) => lab.pod(n)))
	const cases: readonly (readonly [from: string, netns: string, client: string])[] = [
		['the other node', lab.netns('node-1'), '172.18.0.2'],
		['a pod of the other node', await lab.podNetns('far'), far!.status!.podIP!],
		['a pod of the node', await lab.podNetns('near'), near!.status!.podIP!],
		['the node itself', lab.netns('node-2'), '172.18.0.3'],
		['the pod itself, by its node', await lab.podNetns('web'), '172.18.0.3'],
		['outside', lab.netns('underlay'), '172.18.0.1'],
	]
	for (const [from, netns, client] of cases) {
		const got = get(netns, 'http://172.18.0.3:8080/')
		assert.equal(got.status, 0, `from ${from}`)
		assert.equal(got.pod, 'web', `from ${from}`)
		assert.equal(got.client?.replace(/:\d+$/, ''), client, `from ${from}`)
	}
	assert.ok(web)
})

test('the other node’s address, an address that is not there and localhost lead nowhere', where, () => {
	assert.equal(get(lab.netns('node-1'), 'http://172.18.0.2:8080/').status, 7)
	assert.equal(get(lab.netns('node-1'), 'http://172.18.0.3:8081/').status, 0)
	assert.equal(get(lab.netns('node-1'), 'http://172.18.0.3:8082/').status, 7)
	assert.equal(get(lab.netns('node-2'), 'http://127.0.0.1:8080/').status, 7)
})

test('the programs read back hold it, with its origin, and a repair brings it back', where, async () => {
	const { nftables } = await lab.handle.client.agent.read('node-2')
	const table = nftables.tables.get('ip podwire-hostports')
	const element = table?.sets.get('host-ports')?.elements.get('tcp . 8080')
	assert.match(element?.data ?? '', /^10\.244\.1\.\d+ \. 80$/)
	assert.equal(element?.comment, 'Pod default/web spec.containers[0].ports[0]')
	const other = await lab.handle.client.agent.read('node-1')
	assert.equal(other.nftables.tables.get('ip podwire-hostports'), undefined, 'nobody asks there')
})

test('a UDP client that asks on and on from one port finds the pod that comes', where, async () => {
	const program = `
		const s = require('node:dgram').createSocket('udp4')
		let last
		s.on('message', (m) => {
			const { pod } = JSON.parse(m.toString().split('\\n')[0])
			if (pod !== last) console.log((last = pod))
		})
		s.on('error', () => {})
		setInterval(() => s.send('?', 5353, '172.18.0.3'), 20)`
	const client = inNetnsAt(lab.netns('node-1'), () =>
		spawn(process.execPath, ['-e', program], { stdio: ['ignore', 'pipe', 'inherit'] }),
	)
	try {
		let heard = ''
		client.stdout.on('data', (chunk) => {
			heard += chunk
		})
		const udp = asks('node-2', [{ containerPort: 5353, hostPort: 5353, protocol: 'UDP' }])
		for (const [name, all] of [
			['first', 'first\n'],
			['second', 'first\nsecond\n'],
		] as const) {
			await lab.create(podObject(name, udp))
			await lab.pod(name)
			await lab.until(async () => (heard === all ? true : undefined), 5)
			await lab.client.delete(pods, `default/${name}`)
			await lab.until(async () => ((await lab.client.find(pods, `default/${name}`)) === undefined ? true : undefined))
		}
	} finally {
		client.kill('SIGKILL')
	}
})
