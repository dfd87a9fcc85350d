// A lab that is killed at any moment goes on where it was, and `down` leaves nothing, crashed or not.

import assert from 'node:assert/strict'
import { existsSync, readFileSync, rmSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { deployments, pods } from '../../src/kube/kinds.ts'
import { labMark } from '../../src/lab/pod-process.ts'
import { findMarkedProcesses, isAlive, signalProcess, waitForEnd } from '../../src/lab/process-identity.ts'
import { type LabRecord, readRecord } from '../../src/lab/record.ts'
import { labStatus, listLabs, stopLab } from '../../src/lab/start.ts'
import { createTestLab, podObject, skip, type TestLab } from './lab.ts'

const timeout = 60_000
let lab: TestLab
before(async () => {
	if (skip) return
	lab = await createTestLab('crash')
})
after(async () => {
	if (!skip) await lab.remove()
})

const record = () => readRecord(lab.paths) as LabRecord
const kill = async (which: 'daemon' | 'workloads') => {
	const target = record()[which]!
	assert.ok(signalProcess(target, 'SIGKILL'))
	assert.deepEqual(await waitForEnd([target], 5_000), [])
}
/** Name, uid, node and address of every pod. */
const fingerprint = async () =>
	(await lab.client.list(pods)).items
		.map((p) => [p.metadata.name, p.metadata.uid, p.spec?.nodeName, p.status?.podIP].join(' '))
		.sort()
test('the second up of a running lab finds it', { skip, timeout }, async () => {
	const again = await lab.up()
	assert.equal(again.created, false)
	assert.equal(again.status.phase, 'running')
	const labs = await listLabs()
	assert.deepEqual(
		labs.map((l) => [l.name, l.phase]),
		[['crash', 'running']],
	)
})

test('after kill -9 of the daemon: the same pods, addresses and connections', {
	skip: skip || rootOnly(),
}, async () => {
	await lab.create({
		apiVersion: 'apps/v1',
		kind: 'Deployment',
		metadata: { name: 'web', namespace: 'default' },
		spec: {
			replicas: 4,
			selector: { matchLabels: { app: 'web' } },
			template: {
				metadata: { labels: { app: 'web' } },
				spec: { containers: [{ name: 'c', image: 'nginx', ports: [{ containerPort: 80 }] }] },
			},
		},
	} as never)
	await lab.create(podObject('client'))
	await lab.pod('client')
	await lab.until(
		async () => (await lab.client.get(deployments, 'default/web')).status?.readyReplicas === 4 || undefined,
	)
	const before = await fingerprint()
	const server = (await lab.client.list(pods, { labelSelector: 'app=web' })).items[0]!.status!.podIP!

	// A connection that is open across the crash: half the request before, half after.
	const { spawn } = await import('node:child_process')
	const { inNetnsAt } = await import('../../src/linux/netns.ts')
	const client = await lab.pod('client')
	const connection = inNetnsAt(lab.netns(`pod-${client.metadata.uid}`), () =>
		spawn(process.execPath, [
			'-e',
			`const s = require('net').connect(80, '${server}', () => { s.write('GET / HTTP/1.1\\r\\n'); console.log('open') })
			s.on('data', (d) => { process.stdout.write(d); s.end() }).on('error', (e) => console.log(e.code))
			process.stdin.once('data', () => s.write('Host: x\\r\\n\\r\\n'))`,
		]),
	)
	let heard = ''
	connection.stdout.on('data', (d) => (heard += d))
	await lab.until(async () => heard.includes('open') || undefined)

	await kill('daemon')
	assert.equal((await labStatus('crash'))?.phase, 'crashed')
	const { spawnSync } = await import('node:child_process')
	const asked = inNetnsAt(lab.netns(`pod-${client.metadata.uid}`), () =>
		spawnSync('curl', ['-s', '-m', '3', `http://${server}/`], { encoding: 'utf8' }),
	)
	assert.match(asked.stdout, /"standIn":true/, 'packets flow without the daemon')
	const handle = await lab.up()
	assert.equal(handle.created, true)
	assert.deepEqual(await fingerprint(), before)
	for (const pod of (await lab.client.list(pods)).items) {
		assert.deepEqual(
			pod.status?.containerStatuses?.map((c) => c.restartCount),
			[0],
			pod.metadata.name,
		)
	}
	connection.stdin.end('go')
	await new Promise((resolve) => connection.once('close', resolve))
	assert.match(heard, /HTTP\/1.1 200 OK/)
})

test('after kill -9 of the workloads: the daemon starts them again by itself', { skip, timeout }, async () => {
	const before = await fingerprint()
	await kill('workloads')
	await lab.until(async () => {
		const now = record().workloads
		return now !== undefined && isAlive(now) ? true : undefined
	})
	await lab.until(async () => {
		const all = (await lab.client.list(pods)).items
		return all.every((p) => p.status?.containerStatuses?.every((c) => c.ready && c.restartCount === 1)) || undefined
	})
	assert.deepEqual(await fingerprint(), before)
})

test('after kill -9 of both: the same pods and addresses, started again', { skip, timeout }, async () => {
	const before = await fingerprint()
	await kill('daemon')
	await kill('workloads')
	await lab.up()
	await lab.until(async () => {
		const all = (await lab.client.list(pods)).items
		return all.every((p) => p.status?.containerStatuses?.every((c) => c.ready && c.restartCount === 2)) || undefined
	})
	assert.deepEqual(await fingerprint(), before)
})

test('a pod deleted while nobody looked is let go of', { skip: skip || rootOnly(), timeout }, async () => {
	// Deleted in the API, its wiring still there: the daemon dies before it gets to it.
	const client = await lab.pod('client')
	const force = () => lab.client.delete(pods, 'default/client', { gracePeriodSeconds: 0 }).catch(() => {})
	await Promise.all([force(), kill('daemon')])
	await lab.up()
	await force()
	await lab.until(async () => (existsSync(lab.netns(`pod-${client.metadata.uid}`)) ? undefined : true))
})

test('killed while it starts: the next up repairs', { skip, timeout }, async () => {
	await kill('daemon')
	for (const delay of [60, 150, 300]) {
		const starting = lab.up().catch((e) => e as Error)
		await new Promise((resolve) => setTimeout(resolve, delay))
		const now = readRecord(lab.paths)
		if (now !== undefined) signalProcess(now.daemon, 'SIGKILL')
		await starting
	}
	const handle = await lab.up()
	assert.equal(handle.status.phase, 'running')
	await lab.until(
		async () => (await lab.client.get(deployments, 'default/web')).status?.readyReplicas === 4 || undefined,
	)
})

test('down leaves nothing, after a crash too, and once more is nothing to do', { skip, timeout }, async () => {
	const marked = () => findMarkedProcesses(labMark, lab.paths.runtime)
	const traces = () => [
		...[lab.paths.state, lab.paths.runtime].filter((p) => existsSync(p)),
		...marked().map((p) => `process ${p.pid}`),
		...readFileSync('/proc/self/mountinfo', 'utf8')
			.split('\n')
			.filter((l) => l.includes(lab.paths.runtime)),
	]
	await kill('daemon')
	assert.ok(traces().length > 0)
	assert.equal(await stopLab('crash'), true)
	assert.deepEqual(traces(), [])
	assert.equal(await stopLab('crash'), false)
	assert.equal(await labStatus('crash'), undefined)

	await lab.up()
	assert.equal(await stopLab('crash'), true, 'in good order')
	assert.deepEqual(traces(), [])

	await lab.up()
	// Whoever removes the folder of the boot by hand leaves a lab without a record.
	await kill('daemon')
	rmSync(lab.paths.record)
	assert.equal(await stopLab('crash'), true)
	assert.deepEqual(traces(), [])
})

/** In a user namespace the test process cannot enter the pods' namespaces. */
function rootOnly(): string | false {
	return process.getuid?.() === 0 ? false : 'needs root to enter the namespaces from outside'
}
