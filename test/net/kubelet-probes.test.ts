// Probes and hooks with real namespaces: readiness, startup and liveness by every kind of check, against stand-ins and
// programs of this machine.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { endpointSlices, events, pods } from '../../src/kube/kinds.ts'
import type { Pod } from '../../src/kube/objects/pod.ts'
import { createTestLab, podObject, skip, type TestLab } from './lab.ts'

const timeout = 60_000
let lab: TestLab

/** 503 on /bad, on the third and fourth /health, on /head without its header, and 200 else; no gRPC. */
const server = `
let asked = 0
require('http').createServer((q, r) => {
	const ill = q.url === '/health' && [3, 4].includes(++asked)
	if (q.url === '/moved') r.writeHead(302, { location: '/good' })
	else r.statusCode = q.url === '/bad' || ill || (q.url === '/head' && q.headers['x-probe'] !== 'yes') ? 503 : 200
	r.end()
}).listen(8000)`

before(async () => {
	if (skip) return
	lab = await createTestLab('probes', {
		images: [
			{ match: 'server', command: [process.execPath, '-e', server], env: {} },
			{ match: 'sleeper', command: ['sleep', '1000'], env: {} },
		],
	})
})
after(async () => {
	if (!skip) await lab.remove()
})

const get = (name: string) => lab.client.get(pods, `default/${name}`)
const isReady = (pod: Pod) => pod.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True') === true
const eventsOf = async (name: string) =>
	(await lab.client.list(events, { namespace: 'default', fieldSelector: `involvedObject.name=${name}` })).items
const event = (name: string, reason: string, text: RegExp) =>
	lab.until(async () => (await eventsOf(name)).find((e) => e.reason === reason && text.test(e.message ?? '')))

test('a stand-in passes httpGet, tcpSocket and grpc by really answering, without its initial delay', {
	skip,
	timeout,
}, async () => {
	const begun = Date.now()
	await lab.create(
		podObject('standin', {
			containers: [
				{
					name: 'c',
					image: 'nginx',
					ports: [{ name: 'web', containerPort: 80 }],
					startupProbe: { tcpSocket: { port: 80 }, initialDelaySeconds: 20 },
					readinessProbe: { httpGet: { path: '/x', port: 'web' }, initialDelaySeconds: 20 },
					livenessProbe: { grpc: { port: 80, service: 'shop.Cart' } },
				},
			],
		}),
	)
	await lab.pod('standin')
	assert.ok(Date.now() - begun < 3_000)
	const log = await lab.until(async () => {
		const text = await logOf('standin')
		return text.includes('gRPC') ? text : undefined
	})
	assert.match(log, /"GET \/x HTTP\/1\.1" 200/)
	assert.match(log, /"POST \/grpc\.health\.v1\.Health\/Check HTTP\/2\.0" gRPC/)
	const unhealthy = (await eventsOf('standin')).filter((e) => e.reason === 'Unhealthy').map((e) => e.message)
	assert.deepEqual(unhealthy, [])
})

async function logOf(name: string): Promise<string> {
	const url = `http://lab/api/v1/namespaces/default/pods/${name}/log`
	return (await lab.handle.client.transport(new Request(url))).text()
}

test('an exec probe of a stand-in counts as passed, and an event says so', { skip, timeout }, async () => {
	await lab.create(
		podObject('redis', {
			containers: [{ name: 'c', image: 'redis', readinessProbe: { exec: { command: ['redis-cli', 'ping'] } } }],
		}),
	)
	await lab.pod('redis')
	await event('redis', 'ProbeAssumed', /counts as passed against a stand-in: exec "redis-cli ping" needs the image/)
})

test('a probe of a port nobody listens on fails: not ready, and the event says why', { skip, timeout }, async () => {
	await lab.create(
		podObject('wrong', {
			containers: [
				{
					name: 'c',
					image: 'nginx',
					ports: [{ containerPort: 80 }],
					readinessProbe: { httpGet: { port: 81 }, periodSeconds: 1 },
				},
			],
		}),
	)
	await event('wrong', 'Unhealthy', /^Readiness probe failed: Get "http:\/\/10\.244\.[\d.]+:81\/": dial tcp .*refused$/)
	const pod = await get('wrong')
	assert.equal(pod.status?.phase, 'Running')
	assert.equal(isReady(pod), false)
	assert.equal(pod.status?.containerStatuses?.[0]?.started, true)
})

test('readiness goes and comes, and with it the endpoint', { skip, timeout }, async () => {
	await lab.create({
		apiVersion: 'v1',
		kind: 'Service',
		metadata: { name: 'flip', namespace: 'default' },
		spec: { selector: { app: 'flip' }, ports: [{ port: 80, targetPort: 8000 }] },
	})
	await lab.create(
		podObject('flip', {
			containers: [
				{
					name: 'c',
					image: 'server',
					ports: [{ containerPort: 8000 }],
					readinessProbe: { httpGet: { path: '/health', port: 8000 }, periodSeconds: 1, failureThreshold: 1 },
					livenessProbe: {
						httpGet: { path: '/head', port: 8000, httpHeaders: [{ name: 'X-Probe', value: 'yes' }] },
						periodSeconds: 1,
						initialDelaySeconds: 1,
					},
				},
			],
		}),
	)
	const ready = async () => {
		const { items } = await lab.client.list(endpointSlices, {
			namespace: 'default',
			labelSelector: 'kubernetes.io/service-name=flip',
		})
		return items.flatMap((s) => s.endpoints ?? []).some((e) => e.conditions?.ready === true)
	}
	await lab.pod('flip')
	await lab.until(async () => (await ready()) || undefined)
	await lab.until(async () => !(await ready()) || undefined)
	await event('flip', 'Unhealthy', /^Readiness probe failed: HTTP probe failed with statuscode: 503$/)
	assert.equal((await get('flip')).status?.containerStatuses?.[0]?.restartCount, 0)
	await lab.until(async () => (await ready()) || undefined)
})

test('a failed liveness probe starts the container again; a startup probe keeps it back until it passes', {
	skip,
	timeout,
}, async () => {
	await lab.create(
		podObject('dies', {
			containers: [
				{
					name: 'c',
					image: 'server',
					startupProbe: { exec: { command: ['true'] }, periodSeconds: 1 },
					livenessProbe: { httpGet: { path: '/bad', port: 8000 }, periodSeconds: 1, failureThreshold: 2 },
				},
			],
		}),
	)
	await event('dies', 'Killing', /^Container c failed liveness probe, will be restarted$/)
	await lab.until(async () => ((await get('dies')).status?.containerStatuses?.[0]?.restartCount ?? 0) >= 1 || undefined)
	await lab.create(
		podObject('held', {
			containers: [
				{
					name: 'c',
					image: 'sleeper',
					startupProbe: {
						exec: { command: ['sh', '-c', 'echo not yet; exit 1'] },
						periodSeconds: 1,
						failureThreshold: 30,
					},
				},
			],
		}),
	)
	await event('held', 'Unhealthy', /^Startup probe failed: not yet$/)
	const held = await get('held')
	assert.equal(held.status?.containerStatuses?.[0]?.started, false)
	assert.equal(isReady(held), false)
})

test('a tcpSocket probe and a redirected httpGet pass; a grpc probe of a plain HTTP server fails', {
	skip,
	timeout,
}, async () => {
	const container = { name: 'c', image: 'server', ports: [{ containerPort: 8000 }] }
	await lab.create(
		podObject('moved', {
			containers: [
				{
					...container,
					startupProbe: { tcpSocket: { port: 8000 }, periodSeconds: 1 },
					readinessProbe: { httpGet: { path: '/moved', port: 8000 } },
				},
			],
		}),
	)
	await lab.pod('moved')
	await lab.create(
		podObject('nogrpc', {
			containers: [
				{ ...container, readinessProbe: { grpc: { port: 8000 }, periodSeconds: 1, initialDelaySeconds: 1 } },
			],
		}),
	)
	await event(
		'nogrpc',
		'Unhealthy',
		/^Readiness probe failed: timeout: failed to connect service "10\.[\d.]+:8000" within 1s/,
	)
})

test('hooks: postStart that fails starts the container again, preStop runs before TERM', {
	skip,
	timeout,
}, async () => {
	await lab.create(
		podObject('hooked', {
			containers: [
				{
					name: 'c',
					image: 'sleeper',
					lifecycle: { postStart: { exec: { command: ['sh', '-c', 'echo no; exit 3'] } } },
				},
			],
		}),
	)
	await event('hooked', 'FailedPostStartHook', /^PostStartHook failed: no$/)
	await lab.create(
		podObject('slow', {
			containers: [{ name: 'c', image: 'nginx', lifecycle: { preStop: { sleep: { seconds: 2 } } } }],
		}),
	)
	await lab.pod('slow')
	const begun = Date.now()
	await lab.client.delete(pods, 'default/slow')
	await lab.until(async () => ((await lab.client.find(pods, 'default/slow')) === undefined ? true : undefined))
	const took = Date.now() - begun
	assert.ok(took >= 1_900 && took < 5_000, `${took} ms`)
})
