// The server on sockets: bodies too large, clients that go, requests that are none, certificates.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { createServer, request as httpRequest } from 'node:http'
import { request as httpsRequest } from 'node:https'
import { connect as connectTcp, createServer as createTcpServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { systemClock } from '../base/clock.ts'
import { isFailure } from '../base/failure.ts'
import type { Status } from '../kube/objects/meta.ts'
import { ensureCertificates } from './certificates.ts'
import { listen, serve } from './listen.ts'
import { admin, createApiServer } from './server.ts'
import { createStore } from './store.ts'

type Scope = { after(f: () => unknown): void }

function directory(t: Scope): string {
	const path = mkdtempSync(join(tmpdir(), 'podwire-listen-'))
	t.after(() => rmSync(path, { recursive: true, force: true }))
	return path
}

async function start(t: Scope) {
	const server = await createApiServer({ store: createStore(), clock: systemClock })
	t.after(() => server.close())
	return server
}

async function overSocket(t: Scope, prefix = '') {
	const server = await start(t)
	const http = createServer()
	serve(http, () => admin, server, prefix)
	const path = join(directory(t), 'control.sock')
	http.listen(path)
	await once(http, 'listening')
	t.after(() => {
		http.close()
		http.closeAllConnections()
	})
	const ask = (method: string, url: string, body?: Buffer | string, headers: Record<string, string> = {}) =>
		new Promise<{ status: number; body: string; headers: Record<string, unknown> }>((resolve, reject) => {
			const r = httpRequest({ socketPath: path, method, path: url, headers }, (response) => {
				let text = ''
				response.setEncoding('utf8')
				response.on('data', (chunk: string) => (text += chunk))
				response.on('end', () => resolve({ status: response.statusCode ?? 0, body: text, headers: response.headers }))
			})
			r.on('error', reject)
			r.end(body)
		})
	return { server, path, ask }
}

test('a prefix is cut off; other paths are not served', async (t) => {
	const { ask } = await overSocket(t, '/kube')
	assert.equal((await ask('GET', '/kube/healthz')).body, 'ok')
	const got = await ask('GET', '/kube/api/v1/namespaces/default?x=1')
	assert.deepEqual([got.status, got.headers['content-type']], [200, 'application/json'])
	for (const path of ['/healthz', '/kubernetes', '/']) assert.equal((await ask('GET', path)).status, 404, path)
	const made = await ask('POST', '/kube/api/v1/namespaces', JSON.stringify({ metadata: { name: 'made' } }), {
		'content-type': 'application/json',
	})
	assert.equal(made.status, 201)
	const head = await ask('HEAD', '/kube/api/v1/namespaces/made')
	assert.deepEqual([head.status, head.body], [200, ''])
})

test('fifty megabytes are refused in words, and the next request is answered', async (t) => {
	const { ask } = await overSocket(t)
	const answer = await ask('POST', '/api/v1/namespaces', Buffer.alloc(50 * 1024 * 1024, 'x'), {
		'content-type': 'application/json',
	})
	const status = JSON.parse(answer.body) as Status
	assert.deepEqual([answer.status, status.reason], [413, 'RequestEntityTooLarge'])
	assert.match(status.message ?? '', /limit is 3145728/)
	assert.equal((await ask('GET', '/readyz')).body, 'ok')
})

test('methods and requests that are none', async (t) => {
	const { ask, path } = await overSocket(t)
	assert.equal((await ask('TRACE', '/api')).status, 400)
	assert.equal((await ask('OPTIONS', '/api/v1/pods')).status, 405)
	const raw = (bytes: string) =>
		new Promise<string>((resolve) => {
			const socket = connectTcp(path)
			let text = ''
			socket.on('data', (chunk) => (text += chunk))
			socket.on('error', () => {})
			socket.on('close', () => resolve(text))
			socket.end(bytes)
		})
	assert.match(await raw('nonsense\r\n\r\n'), /^HTTP\/1\.1 400 /)
	assert.match(
		await raw('GET http://elsewhere/api HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n'),
		/^HTTP\/1\.1 400 /,
	)
	await raw('POST /api/v1/namespaces HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"half')
	await raw('GET /api/v1/pods?watch=true HTTP/1.1\r\nhost: x\r\nupgrade: soup\r\nconnection: upgrade\r\n\r\n')
	assert.equal((await ask('GET', '/readyz')).body, 'ok')
})

test('a watch is seen to begin, its events come at once, and it ends with its client', async (t) => {
	const { server, ask, path } = await overSocket(t)
	const client = httpRequest({
		socketPath: path,
		path: `/api/v1/configmaps?watch=true&resourceVersion=${server.api.store.revision}`,
	})
	client.end()
	const [response] = (await once(client, 'response')) as [import('node:http').IncomingMessage]
	assert.equal(server.api.watches.count, 1)
	await ask('POST', '/api/v1/namespaces/default/configmaps', JSON.stringify({ metadata: { name: 'seen' } }), {
		'content-type': 'application/json',
	})
	const [chunk] = (await once(response, 'data')) as [Buffer]
	assert.match(chunk.toString(), /^\{"type":"ADDED",.*"seen".*\}\n$/)
	response.on('error', () => {})
	client.on('error', () => {})
	client.destroy()
	while (server.api.watches.count > 0) await new Promise((resolve) => setImmediate(resolve))
})

test('certificates: kept, private, made anew when they are damaged or lack a name', async (t) => {
	const path = join(directory(t), 'pki')
	const now = Date.now()
	const first = await ensureCertificates(path, { now })
	assert.equal(statSync(path).mode & 0o777, 0o700)
	for (const name of ['ca', 'server', 'admin']) assert.equal(statSync(join(path, `${name}.key`)).mode & 0o777, 0o600)
	assert.deepEqual(await ensureCertificates(path, { now }), first)
	const more = await ensureCertificates(path, { now, addresses: ['172.18.0.1'], names: ['lab.test'] })
	assert.deepEqual([more.authority, more.admin], [first.authority, first.admin])
	assert.notEqual(more.server.certificate, first.server.certificate)
	// A key torn from its certificate, as a crash between the two writes leaves it.
	writeFileSync(join(path, 'admin.key'), readFileSync(join(path, 'server.key')))
	const mended = await ensureCertificates(path, { now, addresses: ['172.18.0.1'], names: ['lab.test'] })
	assert.deepEqual([mended.authority, mended.server], [more.authority, more.server])
	assert.notEqual(mended.admin.certificate, first.admin.certificate)
	const later = await ensureCertificates(path, { now: now + 350 * 86_400_000 })
	assert.deepEqual(later.authority, first.authority)
	assert.notEqual(later.server.certificate, mended.server.certificate)
	const file = join(path, 'ca.crt')
	await assert.rejects(
		ensureCertificates(join(file, 'pki'), { now }),
		(e) => isFailure(e, 'CertificatesFailed') && e.message.includes(file),
	)
})

test('who shows no certificate, or a foreign one', async (t) => {
	const server = await start(t)
	const certificates = await ensureCertificates(directory(t), { now: Date.now() })
	const foreign = await ensureCertificates(directory(t), { now: Date.now() })
	const listener = await listen(server, { certificates })
	t.after(() => listener.close())
	const ask = (path: string, options: object) =>
		new Promise<number>((resolve, reject) => {
			const r = httpsRequest(
				{
					host: '127.0.0.1',
					port: listener.port,
					path,
					ca: certificates.authority.certificate,
					agent: false,
					...options,
				},
				(response) => {
					response.resume()
					response.on('end', () => resolve(response.statusCode ?? 0))
				},
			)
			r.on('error', reject)
			r.end()
		})
	const own = { cert: certificates.admin.certificate, key: certificates.admin.key }
	const other = { cert: foreign.admin.certificate, key: foreign.admin.key }
	assert.equal(await ask('/api/v1/pods', own), 200)
	assert.equal(await ask('/api/v1/pods', {}), 403)
	assert.equal(await ask('/readyz', {}), 200)
	assert.equal(await ask('/api/v1/pods', other), 401)
	assert.equal(await ask('/api/v1/pods', { headers: { authorization: 'Bearer made-up' } }), 401)
	// The server's own certificate names no admin.
	assert.equal(await ask('/api/v1/pods', { cert: certificates.server.certificate, key: certificates.server.key }), 401)
})

const child = `
import { ensureCertificates } from './src/apiserver/certificates.ts'
import { listen } from './src/apiserver/listen.ts'
import { createApiServer } from './src/apiserver/server.ts'
import { createStore } from './src/apiserver/store.ts'
import { systemClock } from './src/base/clock.ts'
const server = await createApiServer({ store: createStore(), clock: systemClock })
const listener = await listen(server, { certificates: await ensureCertificates(process.argv[1], { now: Date.now() }), fd: 3 })
console.log(listener.port)
`

test('a listening socket handed in by its number', async (t) => {
	const pki = directory(t)
	const { authority, admin: user } = await ensureCertificates(pki, { now: Date.now() })
	const opened = createTcpServer().listen(0, '127.0.0.1')
	await once(opened, 'listening')
	const { port } = opened.address() as { port: number }
	const { fd } = (opened as unknown as { _handle: { fd: number } })._handle
	const args = ['--disable-warning=ExperimentalWarning', '--input-type=module-typescript', '-e', child, pki]
	const cwd = new URL('../..', import.meta.url).pathname
	const server = spawn(process.execPath, args, { cwd, stdio: ['ignore', 'pipe', 'inherit', fd] })
	t.after(() => server.kill('SIGKILL'))
	// The socket lives on in the child.
	opened.close()
	const [said] = (await once(server.stdout!, 'data')) as [Buffer]
	assert.equal(Number(said.toString()), port)
	const r = httpsRequest({
		host: '127.0.0.1',
		port,
		path: '/api',
		ca: authority.certificate,
		cert: user.certificate,
		key: user.key,
		agent: false,
	})
	r.end()
	const [response] = (await once(r, 'response')) as [import('node:http').IncomingMessage]
	response.resume()
	assert.equal(response.statusCode, 200)
})

test('a port that is taken', async (t) => {
	const server = await start(t)
	const certificates = await ensureCertificates(directory(t), { now: Date.now() })
	const first = await listen(server, { certificates })
	t.after(() => first.close())
	await assert.rejects(
		listen(server, { certificates, port: first.port }),
		(e) => isFailure(e, 'CannotListen') && e.message.includes(`127.0.0.1:${first.port}`),
	)
})
