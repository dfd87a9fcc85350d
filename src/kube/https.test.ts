import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import http, { type IncomingMessage, type ServerResponse } from 'node:http'
import https from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { isFailure } from '../base/failure.ts'
import { isNotFound } from './answer.ts'
import { createKubeClient } from './client.ts'
import { transportOf } from './https.ts'
import { namespaces, pods } from './kinds.ts'
import type { ClusterAccess } from './kubeconfig.ts'

const bare: ClusterAccess = { context: 'test', server: '', namespace: 'default', insecure: false }

async function serve(
	t: TestContext,
	handle: (request: IncomingMessage, response: ServerResponse, body: string) => void,
	tls?: https.ServerOptions,
): Promise<{ port: number; connections: () => number }> {
	let connections = 0
	const listener = (request: IncomingMessage, response: ServerResponse) => {
		let body = ''
		request.on('data', (chunk) => {
			body += chunk
		})
		request.on('end', () => handle(request, response, body))
	}
	const server = tls === undefined ? http.createServer(listener) : https.createServer(tls, listener)
	server.on(tls === undefined ? 'connection' : 'secureConnection', () => connections++)
	await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
	t.after(() => {
		server.closeAllConnections()
		server.close()
	})
	return { port: (server.address() as AddressInfo).port, connections: () => connections }
}

test('requests, bodies, errors and kept connections', async (t) => {
	const seen: string[] = []
	const { port, connections } = await serve(t, (request, response, body) => {
		seen.push(
			`${request.method} ${request.url} ${request.headers.authorization} ${request.headers['impersonate-group']} ${body}`,
		)
		response.setHeader('content-type', 'application/json')
		if (request.url?.endsWith('/gone')) {
			response.statusCode = 404
			response.end('{"kind":"Status","reason":"NotFound","message":"pods \\"gone\\" not found"}')
		} else response.end('{"metadata":{"name":"x"}}')
	})
	const transport = transportOf({
		...bare,
		server: `http://127.0.0.1:${port}/base`,
		token: 'secret',
		impersonate: { user: 'jane', groups: ['a', 'b'] },
	})
	t.after(() => transport.close())
	const client = createKubeClient(transport)
	assert.equal((await client.get(pods, 'default/x')).metadata.name, 'x')
	await client.create(namespaces, { metadata: { name: 'ünï' } })
	await assert.rejects(client.get(pods, 'default/gone'), isNotFound)
	assert.deepEqual(seen, [
		'GET /base/api/v1/namespaces/default/pods/x Bearer secret a, b ',
		'POST /base/api/v1/namespaces?fieldManager=podwire Bearer secret a, b {"metadata":{"name":"ünï"},"apiVersion":"v1","kind":"Namespace"}',
		'GET /base/api/v1/namespaces/default/pods/gone Bearer secret a, b ',
	])
	assert.equal(connections(), 1)
})

test('a watch streams, and ends when it is aborted', async (t) => {
	let closed = false
	const { port } = await serve(t, (_request, response) => {
		response.write('{"type":"ADDED","object":{"metadata":{"name":"one"}}}\n{"type":"ADD')
		setImmediate(() => response.write('ED","object":{"metadata":{"name":"two"}}}\n'))
		response.on('close', () => {
			closed = true
		})
	})
	const transport = transportOf({ ...bare, server: `http://127.0.0.1:${port}` })
	t.after(() => transport.close())
	const ending = new AbortController()
	const names: string[] = []
	for await (const event of createKubeClient(transport).watch(pods, { signal: ending.signal })) {
		names.push(event.object.metadata.name)
		if (names.length === 2) ending.abort()
	}
	assert.deepEqual(names, ['one', 'two'])
	while (!closed) await new Promise((resolve) => setImmediate(resolve))
})

test('a server that is not there, or hangs up, is Unreachable', async (t) => {
	const { port } = await serve(t, (request) => request.socket.destroy())
	const table: [string, RegExp][] = [
		['http://127.0.0.1:1', /^Cannot reach http:\/\/127.0.0.1:1 \(context "test"\): connection refused/],
		[`http://127.0.0.1:${port}`, /the connection was reset|socket hang up/],
	]
	for (const [server, why] of table) {
		await assert.rejects(createKubeClient(transportOf({ ...bare, server })).get(pods, 'a/b'), (e) => {
			assert.ok(isFailure(e, 'Unreachable'))
			assert.match(e.message, why)
			return true
		})
	}
})

test('TLS: both sides prove who they are', async (t) => {
	const root = mkdtempSync(join(tmpdir(), 'tls-'))
	t.after(() => rmSync(root, { recursive: true }))
	const file = (name: string) => join(root, name)
	const openssl = (...args: string[]) => execFileSync('openssl', args, { cwd: root, stdio: 'pipe' })
	const issue = (name: string, ...extra: string[]) => {
		openssl(
			'req',
			'-newkey',
			'ec',
			'-pkeyopt',
			'ec_paramgen_curve:P-256',
			'-nodes',
			'-keyout',
			`${name}.key`,
			'-out',
			`${name}.csr`,
			'-subj',
			`/CN=${name}`,
		)
		writeFileSync(file(`${name}.ext`), extra.join('\n'))
		openssl(
			'x509',
			'-req',
			'-in',
			`${name}.csr`,
			'-CA',
			'ca.pem',
			'-CAkey',
			'ca.key',
			'-CAcreateserial',
			'-days',
			'2',
			'-extfile',
			`${name}.ext`,
			'-out',
			`${name}.pem`,
		)
		return { cert: readFileSync(file(`${name}.pem`), 'utf8'), key: readFileSync(file(`${name}.key`), 'utf8') }
	}
	try {
		openssl(
			'req',
			'-x509',
			'-newkey',
			'ec',
			'-pkeyopt',
			'ec_paramgen_curve:P-256',
			'-nodes',
			'-keyout',
			'ca.key',
			'-out',
			'ca.pem',
			'-days',
			'2',
			'-subj',
			'/CN=ca',
		)
	} catch {
		return t.skip('openssl is not installed')
	}
	const ca = readFileSync(file('ca.pem'), 'utf8')
	const server = issue('server', 'subjectAltName=DNS:api.example')
	const client = issue('jane', 'extendedKeyUsage=clientAuth')
	const { port } = await serve(
		t,
		(request, response) => {
			const { subject } = (request.socket as import('node:tls').TLSSocket).getPeerCertificate()
			response.end(JSON.stringify({ metadata: { name: subject?.CN ?? 'nobody' } }))
		},
		{ ...server, ca, requestCert: true, rejectUnauthorized: false },
	)
	const ask = async (access: Partial<ClusterAccess>) => {
		const transport = transportOf({ ...bare, server: `https://127.0.0.1:${port}`, ...access })
		t.after(() => transport.close())
		return (await createKubeClient(transport).get(pods, 'a/b')).metadata.name
	}
	const entry = { clientCertificate: client.cert, clientKey: client.key }
	assert.equal(await ask({ certificateAuthority: ca, serverName: 'api.example', ...entry }), 'jane')
	assert.equal(await ask({ insecure: true }), 'nobody')
	await assert.rejects(ask({ certificateAuthority: ca }), /its certificate is for another name/)
	await assert.rejects(ask({ serverName: 'api.example' }), /not signed by the context's certificate authority/)
})
