// exec and port-forward over WebSocket, as clients other than kubectl speak it too.

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { createServer, get, type IncomingMessage, type Server } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { after, before, describe, test } from 'node:test'
import { WebSocket } from 'ws'
import { createFakeKubelet } from '../../test/fixtures/kubelet.ts'
import { systemClock } from '../base/clock.ts'
import { createKubeClient } from '../kube/client.ts'
import { pods } from '../kube/kinds.ts'
import type { Status } from '../kube/objects/meta.ts'
import type { Pod } from '../kube/objects/pod.ts'
import { serve } from './listen.ts'
import { type ApiServer, admin, anonymous, createApiServer } from './server.ts'
import { createStore } from './store.ts'

const kubelet = createFakeKubelet()
let server: ApiServer
let http: Server
let user = admin

before(async () => {
	server = await createApiServer({ store: createStore(), clock: systemClock, kubelet })
	http = createServer()
	serve(http, () => user, server, '/kube')
	http.listen(0, '127.0.0.1')
	await once(http, 'listening')
	const client = createKubeClient(server.transport)
	await client.create(pods, {
		metadata: { name: 'p', namespace: 'default' },
		spec: { nodeName: 'n', containers: [{ name: 'c', image: 'x' }] },
	} as unknown as Pod)
	await client.create(pods, {
		metadata: { name: 'homeless', namespace: 'default' },
		spec: { containers: [{ name: 'c', image: 'x' }] },
	} as unknown as Pod)
})
after(async () => {
	server.close()
	http.close()
	http.closeAllConnections()
})

const url = (path: string) =>
	`ws://127.0.0.1:${(http.address() as AddressInfo).port}/kube/api/v1/namespaces/default/pods/${path}`

/** A connection that keeps the bytes of each channel. */
function connect(path: string, protocols: string[]) {
	const socket = new WebSocket(url(path), protocols)
	const channels = new Map<number, Buffer[]>()
	socket.on('message', (data: Buffer) => {
		const list = channels.get(data[0]!)
		if (list === undefined) channels.set(data[0]!, [data.subarray(1)])
		else list.push(data.subarray(1))
	})
	const closed = once(socket, 'close')
	closed.catch(() => {})
	return {
		socket,
		channels,
		text: (channel: number) => Buffer.concat(channels.get(channel) ?? []).toString(),
		opened: once(socket, 'open'),
		closed,
		send: (channel: number, data: Buffer | string = '') =>
			socket.send(Buffer.concat([Buffer.from([channel]), Buffer.from(data)])),
	}
}

/** The Status an upgrade is refused with. */
async function refusal(path: string, protocols = ['v5.channel.k8s.io']): Promise<[number | undefined, Status]> {
	const socket = new WebSocket(url(path), protocols)
	socket.on('error', () => {})
	const [, response] = (await once(socket, 'unexpected-response')) as [unknown, IncomingMessage]
	let body = ''
	for await (const chunk of response) body += chunk
	return [response.statusCode, JSON.parse(body) as Status]
}

const exec = (name: string, ...command: string[]) =>
	`${name}/exec?${command.map((c) => `command=${encodeURIComponent(c)}`).join('&')}&stdin=true&stdout=true&stderr=true`

describe('exec', () => {
	for (const protocol of ['v5.channel.k8s.io', 'v4.channel.k8s.io']) {
		test(`${protocol}: output, errors and the exit code travel`, async () => {
			const c = connect(exec('p', 'exit', '7'), [protocol, 'channel.k8s.io'])
			const [code] = await c.closed
			assert.equal(c.socket.protocol, protocol)
			assert.equal(code, 1000)
			assert.equal(c.text(2), 'leaving with 7\n')
			// The first message only says that it has begun.
			assert.equal(c.channels.get(1)?.[0]?.length, 0)
			const status = JSON.parse(c.text(3)) as Status
			assert.deepEqual(
				[status.status, status.reason, status.details?.causes],
				['Failure', 'NonZeroExitCode', [{ reason: 'ExitCode', message: '7' }]],
			)
		})
	}

	test('v5 ends the input alone, and the rest goes on', async () => {
		const c = connect(exec('p', 'count'), ['v5.channel.k8s.io'])
		await c.opened
		c.send(0, 'x'.repeat(100_000))
		c.send(0, 'yz')
		c.send(255, Buffer.from([0]))
		await c.closed
		assert.equal(c.text(1), '100002\n')
		assert.deepEqual((JSON.parse(c.text(3)) as Status).status, 'Success')
	})

	test('the size of the terminal, also when the client asks for stderr with it', async () => {
		const c = connect(`${exec('p', 'size')}&tty=true`, ['v5.channel.k8s.io'])
		await c.opened
		c.send(4, 'not json')
		c.send(4, JSON.stringify({ Width: 120, Height: 40 }))
		await c.closed
		assert.equal(c.text(1), '120x40\n')
		assert.equal(c.channels.has(2), false)
	})

	test('a client that goes ends the command', async () => {
		const c = connect(exec('p', 'wait'), ['v5.channel.k8s.io'])
		await c.opened
		c.socket.terminate()
		await c.closed
		while (kubelet.running.size > 0) await new Promise((resolve) => setImmediate(resolve))
	})

	test('a slow reader holds the command up, not the server', async () => {
		const c = connect(exec('p', 'flood', '64'), ['v5.channel.k8s.io'])
		await c.opened
		c.socket.pause()
		const before = process.memoryUsage().arrayBuffers
		for (let i = 0; i < 200; i++) await new Promise((resolve) => setImmediate(resolve))
		// The kernel's buffers of both ends lie between: a few megabytes at most are ours.
		assert.ok(process.memoryUsage().arrayBuffers - before < 16 * 1024 * 1024)
		assert.equal(kubelet.running.size, 1)
		c.socket.resume()
		await c.closed
		assert.equal(
			c.channels.get(1)?.reduce((sum, b) => sum + b.length, 0),
			64 * 1024 * 1024,
		)
	})

	test('what cannot be run is refused before the connection changes', async () => {
		const cases: [string, number, RegExp][] = [
			[exec('nobody', 'echo'), 404, /pods "nobody" not found/],
			[exec('homeless', 'echo'), 400, /pod homeless does not have a host assigned/],
			[`${exec('p', 'echo')}&container=d`, 400, /container d is not valid for pod p/],
			['p/exec?stdout=true', 400, /at least 1 command/],
			['p/exec?command=echo', 400, /at least 1 of stdin, stdout, stderr/],
			['p/attach?stdout=true', 501, /attach is not served/],
			['p/log', 400, /cannot be upgraded/],
			['p/portforward', 400, /at least 1 port/],
			['p/portforward?ports=abc', 400, /not a port number/],
		]
		for (const [path, code, text] of cases) {
			const [status, body] = await refusal(path)
			assert.equal(status, code, path)
			assert.match(body.message ?? '', text)
		}
		assert.match(
			(await refusal(exec('p', 'echo'), ['base64.channel.k8s.io']))[1].message ?? '',
			/none of the protocols/,
		)
		user = anonymous
		assert.equal((await refusal(exec('p', 'echo')))[0], 403)
		user = admin
	})
})

describe('port-forward', () => {
	test('a tunnel for SPDY is accepted by its name, which is no token', async () => {
		const protocol = 'SPDY/3.1+portforward.k8s.io'
		const request = get(url('p/portforward').replace('ws:', 'http:'), {
			headers: {
				connection: 'Upgrade',
				upgrade: 'websocket',
				'sec-websocket-key': randomBytes(16).toString('base64'),
				'sec-websocket-version': '13',
				'sec-websocket-protocol': protocol,
			},
		})
		const [response, socket] = (await once(request, 'upgrade')) as [IncomingMessage, Socket]
		assert.equal(response.statusCode, 101)
		assert.equal(response.headers['sec-websocket-protocol'], protocol)
		socket.destroy()
	})

	test('carries bytes to each port, and says which fails', async () => {
		const c = connect('p/portforward?ports=8080&ports=1', ['v4.channel.k8s.io'])
		await c.opened
		c.send(0, 'hello')
		while (c.text(0).length < 7 || c.text(3).length < 3) await new Promise((resolve) => setImmediate(resolve))
		assert.deepEqual(c.channels.get(0)?.[0], Buffer.from([0x90, 0x1f]))
		assert.deepEqual(c.channels.get(2)?.[0], Buffer.from([1, 0]))
		assert.equal(c.text(0).slice(2), 'hello')
		while (!/refused/.test(c.text(3))) await new Promise((resolve) => setImmediate(resolve))
		c.socket.close()
		await c.closed
	})
})
