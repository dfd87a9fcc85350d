// The workloads process with real namespaces: stand-ins, programs, logs, stopping, and that it outlives its parent.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import type { Ip } from '../../src/base/ip.ts'
import { labPathsIn, makeLabFolders } from '../../src/lab/paths.ts'
import { startWorkloads, type WorkloadsClient } from '../../src/lab/workloads/client.ts'
import type { WorkloadPod } from '../../src/lab/workloads/protocol.ts'
import { createNetns, deleteNetns, inNetnsAt } from '../../src/linux/netns.ts'

const skip = process.getuid?.() === 0 ? false : 'needs root to make network namespaces'
const dir = mkdtempSync(join(tmpdir(), 'pw-w-'))
const paths = labPathsIn('w', join(dir, 'state'), join(dir, 'run'))
const netns = join(paths.namespaces, 'pod')
let client: WorkloadsClient

const pod = (containers: WorkloadPod['containers'], uid = 'u1'): WorkloadPod => ({
	uid,
	namespace: 'default',
	name: 'web',
	node: 'node-1',
	ips: ['127.0.0.1' as Ip],
	netns,
	containers,
})

/** Runs a program inside the pod's namespace. */
const inPod = (command: string, ...args: string[]) =>
	inNetnsAt(netns, () => spawnSync(command, args, { encoding: 'utf8', timeout: 10_000 }))

before(async () => {
	if (skip) return
	makeLabFolders(paths)
	createNetns(netns)
	inPod('ip', 'link', 'set', 'lo', 'up')
	client = await startWorkloads(paths)
})
after(async () => {
	if (skip) return
	await client.call('exit', null).catch(() => {})
	deleteNetns(netns)
	rmSync(dir, { recursive: true })
})

async function logLines(container: string, uid = 'u1'): Promise<string[]> {
	const lines: string[] = []
	for await (const line of client.stream('logs', { uid, container, follow: false, previous: false }))
		lines.push(line.text)
	return lines
}

test('a stand-in answers HTTP with who it is, echoes TCP, answers UDP, and logs', { skip }, async () => {
	const status = await client.call(
		'setPod',
		pod([
			{
				kind: 'stand-in',
				name: 'app',
				image: 'nginx',
				restart: 'Always',
				listeners: [
					{ protocol: 'TCP', port: 80 },
					{ protocol: 'UDP', port: 53 },
				],
			},
		]),
	)
	assert.equal(status.containers[0]?.state.state, 'running')
	const reply = inPod('curl', '-s', '-d', 'x=1', 'http://127.0.0.1/some/path?q=1')
	const body = JSON.parse(reply.stdout)
	assert.equal(body.pod, 'web')
	assert.equal(body.method, 'POST')
	assert.equal(body.path, '/some/path?q=1')
	assert.equal(body.standIn, true)
	assert.match(body.client, /^127\.0\.0\.1:\d+$/)
	const echo = inPod(
		process.execPath,
		'-e',
		`require('net').connect(80, '127.0.0.1').on('connect', function () { this.end('hello') }).pipe(process.stdout)`,
	)
	assert.equal(echo.stdout, 'hello')
	const udp = inPod(
		process.execPath,
		'-e',
		`const s = require('dgram').createSocket('udp4')
		s.on('message', (m) => { process.stdout.write(m); s.close() }).send('ping', 53, '127.0.0.1')`,
	)
	const [who, payload] = udp.stdout.split('\n')
	assert.equal(JSON.parse(who as string).pod, 'web')
	assert.equal(payload, 'ping')
	const lines = await logLines('app')
	assert.ok(
		lines.some((l) => /"POST \/some\/path\?q=1 HTTP\/1.1" 200$/.test(l)),
		lines.join('\n'),
	)
})

test('sending a pod again changes only what differs', { skip }, async () => {
	const container = { kind: 'stand-in', name: 'app', image: 'nginx', restart: 'Always' } as const
	const status = await client.call('setPod', pod([{ ...container, listeners: [{ protocol: 'TCP', port: 81 }] }]))
	assert.equal(status.containers[0]?.restarts, 0)
	assert.equal(inPod('curl', '-s', 'http://127.0.0.1:81/').status, 0)
	assert.notEqual(inPod('curl', '-s', 'http://127.0.0.1:80/').status, 0)
})

test('a port that is taken is a container that waits, and says why', { skip }, async () => {
	const status = await client.call(
		'setPod',
		pod(
			[{ kind: 'stand-in', name: 'b', image: 'x', restart: 'Always', listeners: [{ protocol: 'TCP', port: 81 }] }],
			'u2',
		),
	)
	const state = status.containers[0]?.state
	assert.equal(state?.state, 'waiting')
	assert.match((state as { message: string }).message, /Address already in use/)
	await client.call('stopPod', { uid: 'u2', grace: 0, keepLogs: false })
})

test('a program runs inside the pod with its own hostname and files, and dies with its namespace', {
	skip,
}, async () => {
	const resolvConf = join(dir, 'resolv.conf')
	const hosts = join(dir, 'hosts')
	writeFileSync(resolvConf, 'nameserver 10.96.0.10\n')
	writeFileSync(hosts, '127.0.0.1 localhost\n10.0.0.1 web\n')
	const command = [
		'sh',
		'-c',
		'hostname; cat /etc/resolv.conf; echo "$GREETING"; ls /sys/class/net | wc -l; sleep 1000 & wait',
	]
	const status = await client.call('setPod', {
		...pod([], 'u3'),
		containers: [
			{
				kind: 'program',
				name: 'prog',
				image: 'x',
				restart: 'Always',
				run: { command, env: { GREETING: 'hi there' }, hostname: 'web-0', resolvConf, hosts },
			},
		],
	})
	const state = status.containers[0]?.state
	assert.equal(state?.state, 'running')
	const lines: string[] = []
	for await (const line of client.stream('logs', { uid: 'u3', container: 'prog', follow: true, previous: false })) {
		lines.push(line.text)
		if (lines.length === 3) break
	}
	assert.deepEqual(lines, ['web-0', 'nameserver 10.96.0.10', 'hi there'])
	const begun = Date.now()
	await client.call('stopPod', { uid: 'u3', grace: 5_000, keepLogs: false })
	assert.ok(Date.now() - begun < 3_000, 'TERM ends it before the grace is over')
})

test('a program that is not there waits with its reason', { skip }, async () => {
	const status = await client.call('setPod', {
		...pod([], 'u4'),
		containers: [
			{
				kind: 'program',
				name: 'prog',
				image: 'x',
				restart: 'Always',
				run: { command: ['no-such-program'], env: {}, hostname: 'x', resolvConf: '/dev/null', hosts: '/dev/null' },
			},
		],
	})
	assert.match(JSON.stringify(status), /executable file not found in \$PATH/)
	await client.call('stopPod', { uid: 'u4', grace: 0, keepLogs: false })
})
