// WebSockets through pods/proxy and services/proxy, nodes/proxy, and warnings of what is deprecated.

import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { after, before, test } from 'node:test'
import { WebSocket, WebSocketServer } from 'ws'
import { createFakeKubelet } from '../../../test/fixtures/kubelet.ts'
import { systemClock } from '../../base/clock.ts'
import { createKubeClient } from '../../kube/client.ts'
import { endpointSlices, nodes, pods, services } from '../../kube/kinds.ts'
import { serve } from '../listen.ts'
import { type ApiServer, admin, createApiServer } from '../server.ts'
import { createStore } from '../store.ts'

let server: ApiServer
let http: Server
let pod: Server
let user = admin
const asked: IncomingMessage[] = []

before(async () => {
	pod = createServer((_, response) => response.writeHead(403).end('no'))
	const sockets = new WebSocketServer({ noServer: true })
	pod.on('upgrade', (request: IncomingMessage, socket, head) => {
		asked.push(request)
		if (request.url?.startsWith('/closed'))
			return void socket.end('HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno')
		sockets.handleUpgrade(request, socket, head, (ws) => {
			ws.on('message', (data, binary) => ws.send(data, { binary }))
		})
	})
	pod.listen(0, '127.0.0.1')
	await once(pod, 'listening')
	const port = (pod.address() as AddressInfo).port
	const dial = async () => connect(port, '127.0.0.1')
	server = await createApiServer({
		store: createStore(),
		clock: systemClock,
		kubelet: { ...createFakeKubelet(), dial },
	})
	http = createServer()
	serve(http, () => user, server)
	http.listen(0, '127.0.0.1')
	await once(http, 'listening')
	const client = createKubeClient(server.transport)
	await client.create(nodes, { metadata: { name: 'n' } })
	await client.create(pods, {
		metadata: { name: 'p', namespace: 'default' },
		spec: { nodeName: 'n', containers: [{ name: 'c', image: 'x', ports: [{ containerPort: 80 }] }] },
	} as never)
	const status = { podIP: '10.244.0.9', podIPs: [{ ip: '10.244.0.9' }] }
	await client.patch(pods, 'default/p', { status }, { subresource: 'status' })
	await client.create(services, {
		metadata: { name: 's', namespace: 'default' },
		spec: { ports: [{ port: 80, protocol: 'TCP' }] },
	} as never)
	await client.create(endpointSlices, {
		metadata: { name: 's-1', namespace: 'default', labels: { 'kubernetes.io/service-name': 's' } },
		addressType: 'IPv4',
		endpoints: [{ addresses: ['10.244.0.9'], conditions: { ready: true }, targetRef: { kind: 'Pod', name: 'p' } }],
		ports: [{ port: 80 }],
	} as never)
})
after(() => {
	server.close()
	for (const one of [http, pod]) {
		one.close()
		one.closeAllConnections()
	}
})

const base = () => `127.0.0.1:${(http.address() as AddressInfo).port}/api/v1`
const open = (path: string, protocols: string[] = [], headers: Record<string, string> = {}) =>
	new WebSocket(`ws://${base()}/namespaces/default/${path}`, protocols, { headers })

for (const path of ['pods/p/proxy/chat?room=1', 'services/s/proxy/chat?room=1', 'pods/p:80/proxy/chat?room=1'])
	test(`a WebSocket through ${path}`, async () => {
		const socket = open(path, ['base64url.bearer.authorization.k8s.io.YWJj', 'chat'], {
			authorization: 'Bearer abc',
			'x-own': 'kept',
		})
		await once(socket, 'open')
		const large = 'y'.repeat(1024 * 1024)
		socket.send('hello')
		assert.equal(String((await once(socket, 'message'))[0]), 'hello')
		socket.send(large)
		assert.equal(String((await once(socket, 'message'))[0]).length, large.length)
		socket.close()
		const { url, headers } = asked.at(-1)!
		assert.equal(url, '/chat?room=1')
		assert.equal(headers.authorization, undefined)
		assert.equal(headers['sec-websocket-protocol'], 'chat')
		assert.equal(headers['x-own'], 'kept')
		assert.equal(headers.host, '10.244.0.9:80')
	})

test('what the pod refuses is refused, and the connection ends', async () => {
	const [, response] = (await once(open('pods/p/proxy/closed'), 'unexpected-response')) as [unknown, IncomingMessage]
	assert.equal(response.statusCode, 403)
	response.destroy()
})

test('who may not, and what is not there', async () => {
	const codeOf = async (path: string) => {
		const [, response] = (await once(open(path), 'unexpected-response')) as [unknown, IncomingMessage]
		response.destroy()
		return response.statusCode
	}
	assert.equal(await codeOf('pods/nothing/proxy/'), 404)
	assert.equal(await codeOf('services/s:9/proxy/'), 503)
	user = { name: 'jane', groups: ['system:authenticated'] }
	assert.equal(await codeOf('pods/p/proxy/chat'), 403)
	user = admin
})

test('nodes/proxy: pods and health, a reason for the rest', async () => {
	const ask = async (path: string) => {
		const response = await fetch(`http://${base()}/nodes/${path}`)
		return { code: response.status, body: await response.text() }
	}
	const list = JSON.parse((await ask('n/proxy/pods')).body) as { kind: string; items: { metadata: { name: string } }[] }
	assert.deepEqual([list.kind, list.items.map((p) => p.metadata.name)], ['PodList', ['p']])
	assert.equal((await ask('n/proxy/healthz')).code, 503)
	assert.equal((await ask('nothing/proxy/healthz')).code, 404)
	const stats = await ask('n/proxy/stats/summary')
	assert.equal(stats.code, 501)
	assert.match(stats.body, /have no kubelet/)
})

test('a deprecated version says so, whatever is asked of it', async () => {
	const warned = async (path: string, init?: RequestInit) => {
		const response = await fetch(`http://${base()}/namespaces/default/${path}`, init)
		await response.body?.cancel()
		return response.headers.get('warning')
	}
	const warning = /^299 - "v1 Endpoints is deprecated in v1\.33\+; use discovery\.k8s\.io\/v1 EndpointSlice"$/
	for (const path of ['endpoints', 'endpoints?watch=true&timeoutSeconds=1'])
		assert.match((await warned(path)) ?? '', warning)
	const body = JSON.stringify({ metadata: { name: 'e' } })
	const headers = { 'content-type': 'application/json' }
	assert.match((await warned('endpoints', { method: 'POST', body, headers })) ?? '', warning)
	assert.match((await warned('endpoints/e', { method: 'DELETE' })) ?? '', warning)
	assert.equal(await warned('services'), null)
})
