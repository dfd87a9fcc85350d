// exec, attach, cp and port-forward with real kubectl: a new one (WebSocket) and an old one (SPDY/3.1).

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer as createHttpServer } from 'node:http'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { ensureCertificates } from '../../src/apiserver/certificates.ts'
import { type Listener, listen } from '../../src/apiserver/listen.ts'
import { type ApiServer, createApiServer } from '../../src/apiserver/server.ts'
import { createStore } from '../../src/apiserver/store.ts'
import { systemClock } from '../../src/base/clock.ts'
import { createKubeClient } from '../../src/kube/client.ts'
import { pods } from '../../src/kube/kinds.ts'
import type { Pod } from '../../src/kube/objects/pod.ts'
import { createHostKubelet, type HostKubelet } from '../fixtures/host-kubelet.ts'
import { carriedTool } from '../tools.ts'

const hash = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex')
const tick = () => new Promise((resolve) => setTimeout(resolve, 5))

for (const minor of [35, 29]) {
	describe(`kubectl 1.${minor}`, { timeout: 120_000 }, () => {
		const home = mkdtempSync(join(tmpdir(), 'podwire-stream-'))
		const inside = join(home, 'container')
		mkdirSync(inside)
		const faults: unknown[] = []
		let kubelet: HostKubelet
		let kubectl = ''
		let server: ApiServer
		let listener: Listener

		before(async () => {
			kubectl = await carriedTool('kubectl', minor)
			kubelet = createHostKubelet(inside)
			server = await createApiServer({
				store: createStore(),
				clock: systemClock,
				kubelet,
				onFault: (e) => faults.push(e),
			})
			const { authority, admin, server: own } = await ensureCertificates(join(home, 'pki'), { now: Date.now() })
			listener = await listen(server, { certificates: { authority, admin, server: own } })
			const client = createKubeClient(server.transport)
			await client.create(pods, {
				metadata: { name: 'web', namespace: 'default' },
				spec: { nodeName: 'n', containers: [{ name: 'c', image: 'x', stdin: true }] },
			} as unknown as Pod)
			await client.patch(
				pods,
				'default/web',
				{
					status: {
						phase: 'Running',
						podIP: '127.0.0.1',
						containerStatuses: [
							{ name: 'c', image: 'x', imageID: '', ready: true, restartCount: 0, state: { running: {} } },
						],
					},
				},
				{ subresource: 'status' },
			)
			const data = (text: string) => Buffer.from(text).toString('base64')
			writeFileSync(
				join(home, 'config'),
				JSON.stringify({
					apiVersion: 'v1',
					kind: 'Config',
					clusters: [
						{
							name: 'c',
							cluster: {
								server: `https://127.0.0.1:${listener.port}`,
								'certificate-authority-data': data(authority.certificate),
							},
						},
					],
					users: [
						{
							name: 'u',
							user: { 'client-certificate-data': data(admin.certificate), 'client-key-data': data(admin.key) },
						},
					],
					contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
					'current-context': 'x',
				}),
				{ mode: 0o600 },
			)
		})
		after(async () => {
			server?.close()
			await listener?.close()
			rmSync(home, { recursive: true, force: true })
			assert.deepEqual(faults, [])
		})

		function start(args: readonly string[], input?: Buffer | string) {
			const child = spawn(kubectl, args, {
				cwd: home,
				env: { PATH: process.env.PATH ?? '', HOME: home, KUBECONFIG: join(home, 'config') },
			})
			const out: Buffer[] = []
			const err: Buffer[] = []
			child.stdout.on('data', (chunk: Buffer) => out.push(chunk))
			child.stderr.on('data', (chunk: Buffer) => err.push(chunk))
			child.stdin.on('error', () => {})
			if (input !== undefined) child.stdin.end(input)
			const done = once(child, 'close').then(([code]) => ({
				code: code as number | null,
				out: Buffer.concat(out),
				err: Buffer.concat(err).toString(),
			}))
			return { child, done, out: () => Buffer.concat(out).toString(), err: () => Buffer.concat(err).toString() }
		}
		const run = (args: readonly string[], input: Buffer | string = '') => start(args, input).done

		test('exec: both outputs, input, exit codes, a program that is not there', async () => {
			const { code, out, err } = await run(['exec', '-i', 'web', '--', 'sh', '-c', 'cat; echo no >&2; exit 42'], 'yes')
			assert.deepEqual([code, out.toString()], [42, 'yes'])
			assert.match(err, /^no\n/)
			assert.equal((await run(['exec', 'web', '--', 'true'])).code, 0)
			const absent = await run(['exec', 'web', '--', 'no-such-program'])
			assert.notEqual(absent.code, 0)
			assert.match(absent.err, /no-such-program/)
			assert.match((await run(['exec', 'nobody', '--', 'true'])).err, /pods "nobody" not found/)
		})

		test('exec: 20 MB in and out, unchanged', async () => {
			const bytes = randomBytes(20 * 1024 * 1024)
			const { code, out, err } = await run(['exec', '-i', 'web', '--', 'cat'], bytes)
			assert.deepEqual([code, err], [0, ''])
			assert.equal(hash(out), hash(bytes))
		})

		test('exec: a client that is killed ends its command, also one that reads nothing', async () => {
			for (const input of [undefined, Buffer.alloc(8 * 1024 * 1024)]) {
				const { child, done } = start(['exec', '-i', 'web', '--', 'sleep', '300'], input)
				while (kubelet.running.size === 0) await tick()
				for (let i = 0; i < 50; i++) await tick()
				child.kill('SIGKILL')
				await done
				while (kubelet.running.size > 0) await tick()
			}
		})

		test('attach: joins what runs and hears how it ends', async () => {
			const { code, out, err } = await run(['attach', '-i', 'web', '-c', 'c'], 'some input\n')
			assert.equal(out.toString(), 'attached\nsome input\n', err)
			assert.equal(code, 3)
		})

		test('cp: a folder in, and out again', async () => {
			const bytes = randomBytes(3 * 1024 * 1024)
			mkdirSync(join(home, 'there/deep'), { recursive: true })
			writeFileSync(join(home, 'there/deep/file'), bytes)
			writeFileSync(join(home, 'there/name with space'), 'x')
			const into = await run(['cp', 'there', `web:${inside}/in`])
			assert.equal(into.code, 0, into.err)
			assert.equal(hash(readFileSync(join(inside, 'in/deep/file'))), hash(bytes))
			const back = await run(['cp', `web:${inside}/in`, 'back'])
			assert.equal(back.code, 0, back.err)
			assert.equal(hash(readFileSync(join(home, 'back/deep/file'))), hash(bytes))
			assert.equal(readFileSync(join(home, 'back/name with space'), 'utf8'), 'x')
		})

		/** A TCP server in "the pod". */
		async function serverIn(each: (socket: Socket) => void) {
			const tcp = createServer({ allowHalfOpen: true }, (socket) => {
				socket.on('error', () => {})
				each(socket)
			})
			tcp.listen(0, '127.0.0.1')
			await once(tcp, 'listening')
			return { port: (tcp.address() as AddressInfo).port, close: () => tcp.close() }
		}
		async function forward(port: number) {
			const running = start(['port-forward', 'web', `:${port}`])
			let local: RegExpExecArray | null = null
			while (local === null) {
				await tick()
				local = /127\.0\.0\.1:(\d+) ->/.exec(running.out())
				assert.equal(running.child.exitCode, null, running.err())
			}
			return { ...running, local: Number(local[1]) }
		}
		async function exchange(port: number, bytes: Buffer): Promise<Buffer> {
			const socket = connect({ host: '127.0.0.1', port, allowHalfOpen: true })
			socket.end(bytes)
			const parts: Buffer[] = []
			for await (const chunk of socket) parts.push(chunk as Buffer)
			return Buffer.concat(parts)
		}

		test('port-forward: many connections, 20 MB, the ends of both sides', async () => {
			const echo = await serverIn((socket) => socket.pipe(socket))
			const { child, done, local } = await forward(echo.port)
			const bytes = randomBytes(20 * 1024 * 1024)
			assert.equal(hash(await exchange(local, bytes)), hash(bytes))
			const answers = await Promise.all(
				Array.from({ length: 50 }, (_, i) => exchange(local, Buffer.from(`hello ${i}`))),
			)
			assert.deepEqual(
				answers.map(String),
				Array.from({ length: 50 }, (_, i) => `hello ${i}`),
			)
			child.kill()
			await done
			echo.close()
		})

		test('port-forward: a server that ends first; a killed client closes what it had open', async () => {
			const open = new Set<Socket>()
			const greeting = await serverIn((socket) => {
				open.add(socket)
				socket.on('close', () => open.delete(socket))
				socket.on('end', () => socket.end())
				socket.resume()
				socket.write('hello')
				if (open.size === 1) socket.end()
			})
			const { child, done, local } = await forward(greeting.port)
			const first = connect({ host: '127.0.0.1', port: local })
			const [chunk] = (await once(first, 'data')) as [Buffer]
			assert.equal(chunk.toString(), 'hello')
			await once(first, 'close')
			while (open.size > 0) await tick()
			open.add(first)
			const second = connect({ host: '127.0.0.1', port: local })
			second.on('error', () => {})
			await once(second, 'data')
			assert.equal(open.size, 2)
			child.kill('SIGKILL')
			await done
			while (open.size > 1) await tick()
			greeting.close()
		})

		test('port-forward: what listens to nothing is said', async () => {
			const gone = await serverIn(() => {})
			gone.close()
			const { child, done, local, err } = await forward(gone.port)
			await exchange(local, Buffer.from('x')).catch(() => {})
			while (!/error forwarding port/.test(err())) await tick()
			assert.match(err(), new RegExp(`error forwarding port ${gone.port} to pod web: .*ECONNREFUSED`))
			child.kill()
			await done
		})

		test('pods/proxy: methods, 20 MB both ways as they stream, redirections', async () => {
			const http = createHttpServer((request, response) => {
				if (request.url === '/go') response.writeHead(302, { location: '/there?x' }).end()
				else {
					response.writeHead(request.method === 'DELETE' ? 404 : 200, { 'x-method': request.method })
					request.pipe(response)
				}
			})
			http.listen(0, '127.0.0.1')
			await once(http, 'listening')
			const proxy = start(['proxy', '--port=0'])
			while (!/127\.0\.0\.1:\d+/.test(proxy.out())) await tick()
			const path = `/api/v1/namespaces/default/pods/web:${(http.address() as AddressInfo).port}/proxy`
			const base = `http://${/127\.0\.0\.1:\d+/.exec(proxy.out())![0]}${path}`
			const body = randomBytes(20 * 1024 * 1024)
			const answer = await fetch(`${base}/echo`, { method: 'POST', body })
			assert.equal(answer.headers.get('x-method'), 'POST')
			assert.equal(hash(Buffer.from(await answer.arrayBuffer())), hash(body))
			for (const method of ['PUT', 'PATCH', 'DELETE', 'OPTIONS', 'HEAD']) {
				const { status, headers } = await fetch(`${base}/x`, { method })
				assert.deepEqual([status, headers.get('x-method')], [method === 'DELETE' ? 404 : 200, method])
			}
			const moved = await fetch(`${base}/go`, { redirect: 'manual' })
			assert.deepEqual([moved.status, moved.headers.get('location')], [302, `${path}/there?x`])
			assert.equal((await fetch(base, { redirect: 'manual' })).headers.get('location'), `${path}/`)
			proxy.child.kill()
			await proxy.done
			http.close()
			http.closeAllConnections()
		})
	})
}
