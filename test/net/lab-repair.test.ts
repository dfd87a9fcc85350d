// What somebody else changes in a node's kernel is found and undone; a paper lab says that it has no kernel.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { pods, services } from '../../src/kube/kinds.ts'
import type { LabEvent } from '../../src/lab/status.ts'
import { createTestLab, skip as noRights, podObject, type TestLab } from './lab.ts'

const skip = noRights || (process.getuid?.() === 0 ? false : 'needs root to enter the namespaces from outside')
const timeout = 60_000
let lab: TestLab

before(async () => {
	if (!skip) lab = await createTestLab('repair')
})
after(async () => {
	if (!skip) await lab.remove()
})

const run = async (namespace: string, command: string, ...args: string[]) => {
	const { spawnSync } = await import('node:child_process')
	const { inNetnsAt } = await import('../../src/linux/netns.ts')
	return inNetnsAt(lab.netns(namespace), () => spawnSync(command, args, { encoding: 'utf8', timeout: 10_000 }))
}

test('flushed rules, a deleted route and a downed interface come back, and it is said', { skip, timeout }, async () => {
	await lab.create(podObject('web', { nodeName: 'node-1' }))
	await lab.create(podObject('client', { nodeName: 'node-2' }))
	await lab.create({
		apiVersion: 'v1',
		kind: 'Service',
		metadata: { name: 'web', namespace: 'default' },
		spec: { selector: { app: 'web' }, ports: [{ port: 80 }] },
	})
	const web = await lab.pod('web')
	const client = await lab.pod('client')
	const ip = (await lab.client.get(services, 'default/web')).spec?.clusterIP as string
	const ask = () => run(`pod-${client.metadata.uid}`, 'curl', '-s', '-m', '2', `http://${ip}/`)
	await lab.until(async () => ((await ask()).status === 0 ? true : undefined))

	await run('node-2', 'nft', 'flush', 'ruleset')
	await run('node-1', 'ip', 'route', 'del', `${web.status?.podIP}/32`)
	await run(`pod-${client.metadata.uid}`, 'ip', 'link', 'set', 'eth0', 'down')
	assert.notEqual((await ask()).status, 0)

	const said: LabEvent[] = []
	const stop = new AbortController()
	void (async () => {
		for await (const event of lab.handle.client.events(stop.signal)) said.push(event)
	})().catch(() => {})
	await lab.handle.client.repair()
	assert.equal((await ask()).status, 0)
	await lab.until(async () =>
		said.filter((e) => e.event === 'warning' && /somebody else had changed/.test(e.text)).length >= 2
			? true
			: undefined,
	)
	stop.abort()
	said.length = 0
	await lab.handle.client.repair()
	assert.deepEqual((await lab.handle.client.status()).trouble, [])
})

test('the programs of a node and a probe travel over the control socket', { skip, timeout }, async () => {
	const programs = await lab.handle.client.agent.read('node-1')
	const web = await lab.pod('web')
	assert.equal(programs.links.attachments.get(web.metadata.uid as string)?.pod, 'default/web')
	assert.ok(programs.nftables.tables.size > 0)
	const ip = (await lab.client.get(services, 'default/web')).spec?.clusterIP as string
	const probe = await lab.handle.client.agent.probe({
		from: { pod: 'default/client' },
		to: ip as never,
		port: 80,
		protocol: 'TCP',
		nodes: ['node-1', 'node-2'],
		timeout: 3_000,
	})
	assert.equal(probe.outcome, 'connected')
	assert.ok(
		probe.sightings.some((s) => s.node === 'node-1'),
		'seen on the far node',
	)
	assert.ok(probe.rules.length > 0)
	await assert.rejects(lab.handle.client.agent.read('node-9'), /node-9/)
})

test('UDP follows when its endpoint leaves', { skip, timeout }, async () => {
	const udp = { containers: [{ name: 'c', image: 'x', ports: [{ containerPort: 5353, protocol: 'UDP' as const }] }] }
	await lab.create(podObject('u1', udp, { app: 'udp' }))
	await lab.pod('u1')
	await lab.create({
		apiVersion: 'v1',
		kind: 'Service',
		metadata: { name: 'udp', namespace: 'default' },
		spec: { selector: { app: 'udp' }, ports: [{ port: 53, protocol: 'UDP', targetPort: 5353 }] },
	})
	const client = await lab.pod('client')
	const ip = (await lab.client.get(services, 'default/udp')).spec?.clusterIP as string
	// One socket for ever: connection tracking remembers the endpoint it chose first.
	const program = `const s = require('dgram').createSocket('udp4'); s.bind(40000)
		s.on('message', (m) => console.log(JSON.parse(m.toString().split('\\n')[0]).pod))
		setInterval(() => s.send('x', 53, '${ip}'), 50)`
	const { spawn } = await import('node:child_process')
	const { inNetnsAt } = await import('../../src/linux/netns.ts')
	const child = inNetnsAt(lab.netns(`pod-${client.metadata.uid}`), () => spawn(process.execPath, ['-e', program]))
	let heard = ''
	child.stdout.on('data', (d) => (heard += d))
	try {
		await lab.until(async () => heard.includes('u1') || undefined)
		await lab.create(podObject('u2', udp, { app: 'udp' }))
		await lab.pod('u2')
		await lab.client.delete(pods, 'default/u1')
		await lab.until(async () => heard.trimEnd().endsWith('u2') || undefined)
	} finally {
		child.kill('SIGKILL')
	}
})

test('a lab on paper: pods count as running, and exec says that there is no kernel', { timeout }, async () => {
	const paper = await createTestLab('paper', undefined, { dataplane: 'paper' })
	try {
		assert.equal(paper.handle.status.dataplane, 'paper')
		assert.equal(paper.handle.status.whyPaper, '--dataplane paper')
		await paper.create(podObject('web'))
		const pod = await paper.pod('web')
		assert.match(pod.status?.podIP ?? '', /^10\.244\.\d\.\d+$/)
		const log = await paper.handle.client.transport(new Request('http://x/api/v1/namespaces/default/pods/web/log'))
		assert.match(await log.text(), /paper data plane, without a kernel/)
		await assert.rejects(paper.handle.client.agent.read('node-1'), /no kernel/)
	} finally {
		await paper.remove()
	}
})
