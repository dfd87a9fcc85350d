// The kubelet stand-in with real namespaces and real kubectl: exec, logs, port-forward, host programs, graceful ends.

import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { deployments, endpointSlices, events, pods, services } from '../../src/kube/kinds.ts'
import { mergeContext } from '../../src/kube/kubeconfig.ts'
import type { Pod } from '../../src/kube/objects/pod.ts'
import { createTestLab, skip as noRights, podObject, type TestLab } from './lab.ts'

const hasKubectl = spawnSync('kubectl', ['version', '--client']).status === 0
const skip = noRights || (hasKubectl ? false : 'kubectl is not installed')
const timeout = 60_000
let lab: TestLab
let kubeconfig: string

before(async () => {
	if (skip) return
	lab = await createTestLab('kubelet', {
		images: [
			{ match: 'echo-server', command: [process.execPath, '-e'], env: { GREETING: 'from the map' } },
			{ match: 'crasher', command: ['sh', '-c', 'echo once; exit 3'], env: {} },
			{ match: 'waiter', command: ['sh', '-c', 'echo prepared'], env: {} },
		],
	})
	kubeconfig = join(lab.paths.state, 'test.kubeconfig')
	await mergeContext(await lab.handle.client.context(), { path: kubeconfig })
})
after(async () => {
	if (!skip) await lab.remove()
})

interface Result {
	readonly status: number | null
	readonly stdout: string
	readonly stderr: string
}
function kubectl(args: readonly string[], input?: string): Promise<Result> {
	const child = spawn('kubectl', args, { env: { ...process.env, KUBECONFIG: kubeconfig } })
	let stdout = ''
	let stderr = ''
	child.stdout.on('data', (d) => (stdout += d))
	child.stderr.on('data', (d) => (stderr += d))
	child.stdin.end(input)
	return new Promise((resolve) => child.once('close', (status) => resolve({ status, stdout, stderr })))
}

test('exec runs host programs inside the pod: network, name, files, environment, exit code, input', {
	skip,
	timeout,
}, async () => {
	await lab.create({
		apiVersion: 'v1',
		kind: 'Service',
		metadata: { name: 'web', namespace: 'default' },
		spec: { selector: { app: 'web' }, ports: [{ port: 80 }] },
	})
	await lab.create(
		podObject('web', {
			hostname: 'front',
			hostAliases: [{ ip: '10.1.2.3', hostnames: ['legacy'] }],
			containers: [
				{
					name: 'c',
					image: 'nginx',
					ports: [{ containerPort: 80 }],
					env: [{ name: 'NODE', valueFrom: { fieldRef: { fieldPath: 'spec.nodeName' } } }],
				},
			],
		}),
	)
	const pod = await lab.pod('web')
	const script =
		'hostname; cat /etc/resolv.conf; grep legacy /etc/hosts; echo $NODE $HOSTNAME $WEB_SERVICE_PORT; cat; exit 7'
	const result = await kubectl(['exec', '-i', 'web', '--', 'sh', '-c', script], 'some input')
	assert.equal(result.status, 7, result.stderr)
	assert.equal(
		result.stdout,
		[
			'front',
			'search default.svc.cluster.local svc.cluster.local cluster.local',
			'nameserver 10.96.0.10',
			'options ndots:5',
			'10.1.2.3\tlegacy',
			`${pod.spec?.nodeName} front 80`,
			'some input',
		].join('\n'),
	)
	const err = await kubectl(['exec', 'web', '--', 'sh', '-c', 'echo oops >&2; echo fine'])
	assert.deepEqual([err.status, err.stdout, err.stderr], [0, 'fine\n', 'oops\n'])
	const missing = await kubectl(['exec', 'web', '--', 'no-such-program'])
	assert.notEqual(missing.status, 0)
	assert.match(missing.stderr, /executable file not found in \$PATH/)
	const container = await kubectl(['exec', 'web', '-c', 'nope', '--', 'true'])
	assert.match(container.stderr, /container nope is not valid for pod web/)
	const self = await kubectl(['exec', 'web', '--', 'curl', '-s', '-m', '5', 'http://web/'])
	assert.equal(JSON.parse(self.stdout).pod, 'web', 'by name, through its own Service')
})

test('exec on a terminal has one, of the size of the user', { skip, timeout }, async () => {
	const command = 'stty cols 101 rows 33; exec kubectl exec -it web -- sh -c "sleep 0.3; stty size; tty; exit 5"'
	const result = spawnSync('script', ['-qec', command, '/dev/null'], {
		encoding: 'utf8',
		env: { ...process.env, KUBECONFIG: kubeconfig },
		timeout: 20_000,
	})
	assert.match(result.stdout, /33 101/)
	assert.match(result.stdout, /\/dev\/pts\/\d+/)
	assert.equal(result.status, 5)
})

test('logs: what was said, the tail of it, times, following', { skip, timeout }, async () => {
	const ask = (path: string) => kubectl(['exec', 'web', '--', 'curl', '-s', `http://127.0.0.1/${path}`])
	await ask('one')
	const all = await kubectl(['logs', 'web'])
	assert.match(all.stdout, /^stand-in for image nginx: listening on TCP\/80$/m)
	assert.match(all.stdout, /"GET \/one HTTP\/1.1" 200$/m)
	const tail = await kubectl(['logs', 'web', '--tail=1', '--timestamps'])
	assert.match(tail.stdout, /^\d{4}-\d\d-\d\dT[\d:.]+Z 127\.0\.0\.1:\d+ "GET \/one HTTP\/1\.1" 200\n$/)
	const follow = spawn('kubectl', ['logs', '-f', '--tail=0', 'web'], {
		env: { ...process.env, KUBECONFIG: kubeconfig },
	})
	let heard = ''
	follow.stdout.on('data', (d) => (heard += d))
	await lab.until(async () => {
		await ask('two')
		return heard.includes('/two') || undefined
	})
	follow.kill()
	assert.ok(!heard.includes('/one'))
})

test('port-forward reaches the pod, over the control socket', { skip, timeout }, async () => {
	const { WebSocket } = await import('ws')
	const path = '/kube/api/v1/namespaces/default/pods/web/portforward?ports=80'
	const socket = new WebSocket(`ws+unix://${lab.paths.controlSocket}:${path}`, 'v4.channel.k8s.io')
	// Each message begins with its channel; the first of a channel names the port.
	const seen = new Set<number>()
	let answer = ''
	socket.on('message', (message: Buffer) => {
		if (!seen.has(message[0]!)) seen.add(message[0]!)
		else answer += message.subarray(1).toString()
	})
	await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject))
	socket.send(
		Buffer.concat([Buffer.from([0]), Buffer.from('GET /forwarded HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n')]),
	)
	await new Promise((resolve) => socket.once('close', resolve))
	assert.match(answer, /"pod":"web".*"path":"\/forwarded"/)
})

test('the image map runs a host program in place of an image', { skip, timeout }, async () => {
	const source = `require('http').createServer((q, r) => r.end(process.env.GREETING + ' on ' + require('os').hostname())).listen(8000); console.log('listening')`
	await lab.create(
		podObject('mapped', {
			containers: [{ name: 'c', image: 'echo-server', args: [source], ports: [{ containerPort: 8000 }] }],
		}),
	)
	const pod = await lab.pod('mapped')
	const answer = await lab.until(async () => {
		const got = await kubectl(['exec', 'web', '--', 'curl', '-s', '-m', '3', `http://${pod.status?.podIP}:8000/`])
		return got.status === 0 ? got.stdout : undefined
	})
	assert.equal(answer, 'from the map on mapped')
	assert.equal((await kubectl(['logs', 'mapped'])).stdout, 'listening\n')
	const described = await lab.client.list(events, { namespace: 'default', fieldSelector: 'involvedObject.name=mapped' })
	assert.ok(described.items.some((e) => e.reason === 'Pulled' && /The image map runs/.test(e.message ?? '')))
	const begun = Date.now()
	await kubectl(['delete', 'pod', 'mapped'])
	assert.ok(Date.now() - begun < 5_000, 'TERM ends it')
})

test('a program that fails is started again with back-off; its last run has a log', { skip, timeout }, async () => {
	await lab.create(podObject('crasher', { containers: [{ name: 'c', image: 'crasher' }] }))
	const pod = await lab.until(async () => {
		const found = await lab.client.get(pods, 'default/crasher')
		const status = found.status?.containerStatuses?.[0]
		return status?.state?.waiting?.reason === 'CrashLoopBackOff' && status.restartCount >= 1 ? found : undefined
	})
	const status = pod.status?.containerStatuses?.[0]
	assert.equal(status?.lastState?.terminated?.exitCode, 3)
	assert.match(status?.state?.waiting?.message ?? '', /^back-off \d+s restarting failed container=c/)
	assert.equal((await kubectl(['logs', '--previous', 'crasher'])).stdout, 'once\n')
	await lab.client.delete(pods, 'default/crasher')
})

test('init containers: a program runs to its end, a stand-in succeeds and says that nothing was run', {
	skip,
	timeout,
}, async () => {
	await lab.create(
		podObject('prepared', {
			initContainers: [
				{ name: 'first', image: 'waiter' },
				{ name: 'second', image: 'some/migration' },
			],
		}),
	)
	const pod = await lab.pod('prepared')
	const [first, second] = pod.status?.initContainerStatuses ?? []
	assert.equal(first?.state?.terminated?.exitCode, 0)
	assert.equal((await kubectl(['logs', 'prepared', '-c', 'first'])).stdout, 'prepared\n')
	assert.match(
		second?.state?.terminated?.message ?? '',
		/nothing was run: a stand-in takes the place of image "some\/migration"/,
	)
	assert.match((await kubectl(['logs', 'prepared', '-c', 'second'])).stdout, /^nothing was run: /)
})

test('a program that may end once: the pod ends as it did, and its log stays', { skip, timeout }, async () => {
	await lab.create(podObject('once', { restartPolicy: 'Never', containers: [{ name: 'c', image: 'crasher' }] }))
	const failed = await lab.until(async () => {
		const found = await lab.client.get(pods, 'default/once')
		return found.status?.phase === 'Failed' ? found : undefined
	})
	assert.equal(failed.status?.containerStatuses?.[0]?.state?.terminated?.exitCode, 3)
	assert.equal((await kubectl(['logs', 'once'])).stdout, 'once\n')
	assert.match((await kubectl(['exec', 'once', '--', 'true'])).stderr, /has ended: its phase is Failed|completed pod/)
	await lab.client.delete(pods, 'default/once')
})

test('a hostNetwork pod listens on its node', { skip, timeout }, async () => {
	await lab.create(
		podObject('onhost', {
			hostNetwork: true,
			containers: [{ name: 'c', image: 'nginx', ports: [{ containerPort: 8088 }] }],
		}),
	)
	const pod = await lab.pod('onhost')
	assert.equal(pod.status?.podIP, pod.status?.hostIP)
	const answer = await kubectl(['exec', 'web', '--', 'curl', '-s', '-m', '3', `http://${pod.status?.hostIP}:8088/`])
	assert.equal(JSON.parse(answer.stdout).pod, 'onhost')
	const other = await kubectl(['exec', 'onhost', '--', 'hostname'])
	assert.equal(other.stdout.trim(), pod.spec?.nodeName)
})

test('a pod without declared ports listens where Services aim, and follows them', { skip, timeout }, async () => {
	await lab.create(podObject('portless', { containers: [{ name: 'c', image: 'x' }] }))
	const pod = await lab.pod('portless')
	const ask = async (port: number) =>
		(await kubectl(['exec', 'web', '--', 'curl', '-s', '-m', '2', `http://${pod.status?.podIP}:${port}/`])).status
	assert.notEqual(await ask(9000), 0)
	await lab.create({
		apiVersion: 'v1',
		kind: 'Service',
		metadata: { name: 'portless', namespace: 'default' },
		spec: { selector: { app: 'portless' }, ports: [{ port: 80, targetPort: 9000 }] },
	})
	await lab.until(async () => ((await ask(9000)) === 0 ? true : undefined))
	await lab.client.delete(services, 'default/portless')
	await lab.until(async () => ((await ask(9000)) === 0 ? undefined : true))
	assert.deepEqual(
		(await lab.pod('portless')).status?.containerStatuses?.map((c) => c.restartCount),
		[0],
		'without a restart',
	)
})

test('no request fails while pods of a Service are deleted', { skip, timeout }, async () => {
	await lab.create({
		apiVersion: 'apps/v1',
		kind: 'Deployment',
		metadata: { name: 'busy', namespace: 'default' },
		spec: {
			replicas: 3,
			selector: { matchLabels: { app: 'busy' } },
			template: podTemplate('busy'),
		},
	})
	await lab.create({
		apiVersion: 'v1',
		kind: 'Service',
		metadata: { name: 'busy', namespace: 'default' },
		spec: { selector: { app: 'busy' }, ports: [{ port: 80 }] },
	})
	await lab.until(
		async () => (await lab.client.get(deployments, 'default/busy')).status?.readyReplicas === 3 || undefined,
	)
	await lab.until(async () => {
		const slices = await lab.client.list(endpointSlices, {
			namespace: 'default',
			labelSelector: 'kubernetes.io/service-name=busy',
		})
		return slices.items.flatMap((s) => s.endpoints ?? []).length === 3 || undefined
	})
	// Clients that go on until their input ends, then count.
	const program = `const http = require('http'); let ok = 0, bad = [], on = true
		process.stdin.on('end', () => { on = false }).resume()
		const one = () => new Promise((done) => {
			const q = http.get({ host: 'busy', port: 80, agent: false, timeout: 3000 }, (m) => { m.resume(); m.on('end', () => { ok++; done() }); m.on('error', (e) => { bad.push(e.code); done() }) })
			q.on('error', (e) => { bad.push(e.code); done() }); q.on('timeout', () => q.destroy(new Error('timeout')))
		})
		Promise.all(Array.from({ length: 4 }, async () => { while (on) await one() })).then(() => console.log(JSON.stringify({ ok, bad })))`
	const clients = spawn('kubectl', ['exec', '-i', 'web', '--', process.execPath, '-e', program], {
		env: { ...process.env, KUBECONFIG: kubeconfig },
	})
	let said = ''
	clients.stdout.on('data', (d) => (said += d))
	const replace = async () => {
		const [first] = (await lab.client.list(pods, { namespace: 'default', labelSelector: 'app=busy' })).items as [Pod]
		await kubectl(['delete', 'pod', first.metadata.name])
		await lab.until(
			async () => (await lab.client.get(deployments, 'default/busy')).status?.readyReplicas === 3 || undefined,
		)
	}
	for (let i = 0; i < 4; i++) await replace()
	clients.stdin.end()
	await new Promise((resolve) => clients.once('close', resolve))
	const { ok, bad } = JSON.parse(said) as { ok: number; bad: string[] }
	assert.ok(ok > 50, `${ok} requests`)
	assert.deepEqual(bad, [])
})

function podTemplate(app: string) {
	return {
		metadata: { labels: { app } },
		spec: { containers: [{ name: 'c', image: 'nginx', ports: [{ containerPort: 80 }] }] },
	}
}
