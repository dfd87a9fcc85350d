// A node of a real lab is stopped while requests flow through a Service: once its endpoints have left, none fails; its
// pods come back elsewhere; started again, it is a node as before.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { after, before, test } from 'node:test'
import { isFailure } from '../../src/base/failure.ts'
import { createKubeClient } from '../../src/kube/client.ts'
import { endpointSlices, leases, nodes, pods } from '../../src/kube/kinds.ts'
import { readRecord } from '../../src/lab/record.ts'
import { inNetnsAt } from '../../src/linux/netns.ts'
import { createTestLab, podObject, skip, type TestLab } from './lab.ts'

let lab: TestLab
before(async () => {
	if (!skip) lab = await createTestLab('stop', undefined, { nodes: 3 })
})
after(() => lab?.remove())

/** One request after the other, each on a connection of its own: when it was begun, and whether it was answered. */
const client = `
const http = require('node:http')
const ask = () => {
	const begun = Date.now()
	let told = false
	const tell = (ok) => { if (!told) { told = true; console.log(begun + ' ' + ok); setTimeout(ask, 10) } }
	const request = http.get({ host: process.argv[1], port: 80, agent: false, timeout: 1000 }, (answer) => {
		answer.resume().on('end', () => tell(answer.statusCode))
	})
	request.on('timeout', () => request.destroy()).on('error', () => tell('failed'))
}
ask()`

test('stopped, left by its endpoints and pods, started again', { skip, timeout: 60_000 }, async (t) => {
	const tolerations = ['not-ready', 'unreachable'].map((name) => ({
		key: `node.kubernetes.io/${name}`,
		operator: 'Exists',
		effect: 'NoExecute',
		tolerationSeconds: 1,
	}))
	const containers = [{ name: 'c', image: 'nginx', ports: [{ containerPort: 80 }] }]
	const spread = { maxSkew: 1, topologyKey: 'kubernetes.io/hostname', whenUnsatisfiable: 'ScheduleAnyway' }
	const selector = { matchLabels: { app: 'web' } }
	await lab.create({
		apiVersion: 'apps/v1',
		kind: 'Deployment',
		metadata: { name: 'web', namespace: 'default' },
		spec: {
			replicas: 3,
			selector,
			template: {
				metadata: { labels: { app: 'web' } },
				spec: {
					tolerations,
					containers,
					terminationGracePeriodSeconds: 1,
					topologySpreadConstraints: [{ ...spread, labelSelector: selector }],
				},
			},
		},
	})
	await lab.create({
		apiVersion: 'v1',
		kind: 'Service',
		metadata: { name: 'web', namespace: 'default' },
		spec: { clusterIP: '10.96.0.80', selector: { app: 'web' }, ports: [{ port: 80 }] },
	})
	await lab.create(podObject('client', { nodeName: 'node-1' }))
	const from = await lab.pod('client')
	const endpoints = async () =>
		(
			await lab.client.list(endpointSlices, { namespace: 'default', labelSelector: 'kubernetes.io/service-name=web' })
		).items
			.flatMap((s) => s.endpoints ?? [])
			.filter((e) => e.conditions?.ready === true)
	await lab.until(async () => ((await endpoints()).length === 3 ? true : undefined))
	const netns = lab.netns(`pod-${from.metadata.uid}`)
	const child = inNetnsAt(netns, () =>
		spawn(process.execPath, ['-e', client, '10.96.0.80'], { stdio: ['ignore', 'pipe', 'inherit'] }),
	)
	t.after(() => child.kill('SIGKILL'))
	let said = ''
	child.stdout.setEncoding('utf8').on('data', (text: string) => {
		said += text
	})
	const asked = () =>
		said
			.split('\n')
			.slice(0, -1)
			.map((line) => ({ begun: Number(line.split(' ')[0]), ok: line.endsWith(' 200') }))
	await lab.until(async () => (asked().filter((r) => r.ok).length > 20 ? true : undefined))

	const victim = (await lab.client.list(pods, { fieldSelector: 'spec.nodeName=node-2', labelSelector: 'app=web' }))
		.items[0]!
	const stopped = Date.now()
	await lab.handle.client.stopNode('node-2')
	// The packets really stop: some requests have met the silent node.
	await lab.until(async () => (asked().some((r) => !r.ok && r.begun >= stopped) ? true : undefined))
	await lab.until(async () => ((await endpoints()).every((e) => e.nodeName !== 'node-2') ? true : undefined))
	// The agents' turn: half a second is many times what they take.
	const left = Date.now() + 500
	const node = await lab.client.get(nodes, 'node-2')
	assert.equal(node.status?.conditions?.find((c) => c.type === 'Ready')?.status, 'Unknown')
	// Evicted: a replacement elsewhere, while the old one cannot be ended by anybody.
	await lab.until(async () => ((await endpoints()).length === 3 ? true : undefined))
	const cut = await lab.client.get(pods, `default/${victim.metadata.name}`)
	assert.notEqual(cut.metadata.deletionTimestamp, undefined)
	await assert.rejects(lab.handle.client.stopNode('node-9'), (e) => isFailure(e, 'NotFound'))

	await lab.handle.client.startNode('node-2')
	await lab.until(async () => {
		const { status, spec } = await lab.client.get(nodes, 'node-2')
		const ready = status?.conditions?.find((c) => c.type === 'Ready')?.status === 'True'
		return ready && (spec?.taints ?? []).length === 0 ? true : undefined
	})
	// What was ended meanwhile ends now.
	await lab.until(async () =>
		(await lab.client.find(pods, `default/${victim.metadata.name}`)) === undefined ? true : undefined,
	)
	// It takes pods and packets again.
	await lab.create(podObject('back', { nodeName: 'node-2' }, { app: 'web' }))
	await lab.pod('back')
	const since = Math.max(Date.now(), left)
	await lab.until(async () => (asked().filter((r) => r.begun > since).length > 50 ? true : undefined))
	const late = asked().filter((r) => r.begun > left)
	assert.ok(late.length > 50, `${late.length} requests`)
	assert.deepEqual(
		late.filter((r) => !r.ok),
		[],
		'after the endpoints left, no request fails',
	)
	const failed = asked().filter((r) => !r.ok)
	t.diagnostic(
		`${asked().length} requests, ${failed.length} failed, all of them within ${left - stopped} ms of the stop`,
	)
})

test('stays stopped when the daemon is killed and started anew', { skip, timeout: 60_000 }, async () => {
	await lab.create(podObject('stays', { nodeName: 'node-3' }))
	const before = await lab.pod('stays')
	await lab.handle.client.stopNode('node-3')
	process.kill(readRecord(lab.paths)!.daemon.pid, 'SIGKILL')
	const { client } = await lab.up({ nodes: 3 })
	const kube = createKubeClient(client.transport)
	const ready = async (name: string) =>
		(await kube.get(nodes, name)).status?.conditions?.find((c) => c.type === 'Ready')?.status
	const renewed = async (name: string) => (await kube.get(leases, `kube-node-lease/${name}`)).spec?.renewTime
	assert.equal(await ready('node-1'), 'True')
	// Unknown by now or soon, and nothing says otherwise while the others go on.
	await lab.until(async () => ((await ready('node-3')) === 'Unknown' ? true : undefined))
	const [others, own] = [await renewed('node-1'), await renewed('node-3')]
	await lab.until(async () => ((await renewed('node-1')) === others ? undefined : true))
	assert.equal(await renewed('node-3'), own)
	assert.equal(await ready('node-3'), 'Unknown')
	await client.startNode('node-3')
	await lab.until(async () => ((await ready('node-3')) === 'True' ? true : undefined))
	const after = await kube.get(pods, 'default/stays')
	assert.equal(after.status?.podIP, before.status?.podIP)
})
