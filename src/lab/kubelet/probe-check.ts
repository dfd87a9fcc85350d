// One check of a container by a probe or a lifecycle hook: httpGet, tcpSocket, grpc, exec, from inside the pod's
// network namespace. The texts are those the kubelet's users know.

import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { isFailure, messageOf } from '../../base/failure.ts'
import { type Ip, parseIp, tryParseIp } from '../../base/ip.ts'
import type { IntOrString } from '../../kube/objects/meta.ts'
import type { Container, HttpGetAction, Probe } from '../../kube/objects/pod.ts'
import type { CommandEnd } from './command.ts'
import { dialInside } from './dial.ts'

export interface CheckTarget {
	readonly netns: string
	readonly ip: Ip
	readonly container: Container
	/** A stand-in has no program of the image to ask and no certificate to show. */
	readonly isStandIn: boolean
	/** Runs a command as exec would. `timeout`: milliseconds. */
	run(command: readonly string[], timeout: number): Promise<CommandEnd>
}

export interface CheckResult {
	readonly ok: boolean
	/** Why not; for a success, what there is to say besides. */
	readonly text?: string
}

const userAgent = 'kube-probe/podwire'
const redirectLimit = 10
/** Bytes of a body that are read. */
const bodyLimit = 10 * 1024

/** Never rejects. `timeout`: milliseconds for the whole of it. */
export async function check(probe: Probe, target: CheckTarget, timeout: number): Promise<CheckResult> {
	try {
		if (probe.httpGet !== undefined) return await checkHttp(probe.httpGet, target, timeout)
		if (probe.tcpSocket !== undefined) {
			const { host, port } = placeOf(probe.tcpSocket, target)
			const text = `dial tcp ${hostPort(host, port)}`
			try {
				;(await dialInside(target.netns, addressOf(host), port, timeout)).destroy()
				return { ok: true }
			} catch (e) {
				return { ok: false, text: `${text}: ${connectText(e)}` }
			}
		}
		if (probe.grpc !== undefined) return await checkGrpc(probe.grpc, target, timeout)
		if (probe.exec !== undefined) return await checkExec(probe.exec.command ?? [], target, timeout)
	} catch (e) {
		return { ok: false, text: messageOf(e) }
	}
	// The real kubelet takes a probe without an action as an error of its own and the container as healthy.
	return { ok: true, text: 'the probe has no action' }
}

/** Why a check of this kind is not made against a stand-in but counts as passed; undefined where it is made. */
export function uncheckable(probe: Probe): string | undefined {
	if (probe.exec !== undefined) {
		return `exec ${JSON.stringify((probe.exec.command ?? []).join(' '))} needs the image, and nothing of it was pulled`
	}
	if (probe.httpGet?.scheme === 'HTTPS')
		return 'a stand-in has no certificate to speak TLS with; that its port opens is checked'
	return undefined
}

async function checkExec(command: readonly string[], target: CheckTarget, timeout: number): Promise<CheckResult> {
	if (target.isStandIn) return { ok: true }
	const { exitCode, output } = await target.run(command, timeout)
	if (exitCode === 0) return { ok: true }
	if (exitCode === undefined) {
		return {
			ok: false,
			text: `command timed out: ${JSON.stringify(command.join(' '))} timed out after ${timeout / 1000}s`,
		}
	}
	return { ok: false, text: output.trimEnd() === '' ? `command ended with exit code ${exitCode}` : output.trimEnd() }
}

async function checkHttp(action: HttpGetAction, target: CheckTarget, timeout: number): Promise<CheckResult> {
	const { host, port } = placeOf(action, target)
	const secure = action.scheme === 'HTTPS'
	if (secure && target.isStandIn) {
		;(await dialInside(target.netns, addressOf(host), port, timeout)).destroy()
		return { ok: true }
	}
	const deadline = Date.now() + timeout
	let path = action.path === undefined || action.path === '' ? '/' : action.path
	if (!path.startsWith('/')) path = `/${path}`
	const url = `${secure ? 'https' : 'http'}://${hostPort(host, port)}`
	const headers: Record<string, string | string[]> = {
		'user-agent': userAgent,
		accept: '*/*',
		host: hostPort(host, port),
		connection: 'close',
	}
	for (const { name, value } of action.httpHeaders ?? []) {
		const key = name.toLowerCase()
		const before = action.httpHeaders?.filter((h) => h.name.toLowerCase() === key) ?? []
		headers[key] = before.length > 1 && key !== 'host' ? before.map((h) => h.value) : value
	}
	for (let hop = 0; hop <= redirectLimit; hop++) {
		const answer = await getOnce({ path, headers, secure, host, port }, target, deadline - Date.now()).catch(
			(e: unknown) => `Get "${url}${path}": ${connectText(e, hostPort(host, port))}`,
		)
		if (typeof answer === 'string') return { ok: false, text: answer }
		const { status, location } = answer
		if (status >= 300 && status < 400 && location !== undefined) {
			const next = new URL(location, `${url}${path}`)
			// To another host it is not followed: that is not this container's health.
			if (next.origin !== new URL(url).origin) return { ok: true, text: `redirected to ${next.href}` }
			path = `${next.pathname}${next.search}`
			continue
		}
		if (status >= 200 && status < 400) return { ok: true }
		return { ok: false, text: `HTTP probe failed with statuscode: ${status}` }
	}
	return { ok: false, text: `Get "${url}${path}": stopped after ${redirectLimit} redirects` }
}

async function getOnce(
	request: {
		readonly path: string
		readonly headers: Readonly<Record<string, string | string[]>>
		readonly secure: boolean
		readonly host: string
		readonly port: number
	},
	target: CheckTarget,
	timeout: number,
): Promise<{ readonly status: number; readonly location: string | undefined }> {
	const started = Date.now()
	const socket = await dialInside(target.netns, addressOf(request.host), request.port, timeout)
	const { get } = await import('node:http')
	const connection: Socket = request.secure
		? (await import('node:tls')).connect({ socket, rejectUnauthorized: false })
		: socket
	return new Promise((resolve, reject) => {
		const asked = get(
			{
				path: request.path,
				headers: request.headers,
				createConnection: () => connection,
				setHost: false,
			},
			(response: IncomingMessage) => {
				let size = 0
				const done = () => {
					clearTimeout(cut)
					asked.destroy()
					resolve({ status: response.statusCode ?? 0, location: response.headers.location })
				}
				response.on('data', (chunk: Buffer) => {
					size += chunk.length
					if (size > bodyLimit) done()
				})
				response.once('end', done)
				response.once('error', reject)
			},
		)
		const cut = setTimeout(
			() => asked.destroy(new Error('context deadline exceeded (Client.Timeout exceeded while awaiting headers)')),
			Math.max(0, timeout - (Date.now() - started)),
		)
		asked.on('error', (e) => {
			clearTimeout(cut)
			socket.destroy()
			reject(e)
		})
	})
}

/** `HealthCheckResponse.ServingStatus` by number. */
const servingStatus = ['UNKNOWN', 'SERVING', 'NOT_SERVING', 'SERVICE_UNKNOWN']

async function checkGrpc(
	action: NonNullable<Probe['grpc']>,
	target: CheckTarget,
	timeout: number,
): Promise<CheckResult> {
	const place = hostPort(target.ip, action.port)
	const unreached = (why: string): CheckResult => ({
		ok: false,
		text: `timeout: failed to connect service "${place}" within ${timeout / 1000}s: ${why}`,
	})
	const started = Date.now()
	let socket: Socket
	try {
		socket = await dialInside(target.netns, target.ip, action.port, timeout)
	} catch (e) {
		return unreached(connectText(e))
	}
	const { connect } = await import('node:http2')
	const session = connect(`http://${place}`, { createConnection: () => socket })
	try {
		return await new Promise<CheckResult>((resolve) => {
			const cut = setTimeout(
				() => resolve(unreached('context deadline exceeded')),
				Math.max(0, timeout - (Date.now() - started)),
			)
			cut.unref()
			session.on('error', (e) => resolve(unreached(messageOf(e))))
			session.on('close', () => resolve(unreached('the connection ended')))
			const stream = session.request({
				':method': 'POST',
				':path': '/grpc.health.v1.Health/Check',
				'content-type': 'application/grpc',
				te: 'trailers',
				'user-agent': userAgent,
			})
			let body: Buffer = Buffer.alloc(0)
			let status: string | undefined
			let http = 0
			const heard = (headers: Readonly<Record<string, unknown>>) => {
				http = Number(headers[':status'] ?? http)
				if (headers['grpc-status'] !== undefined) status = String(headers['grpc-status'])
			}
			stream.on('response', heard)
			stream.on('trailers', heard)
			stream.on('data', (chunk: Buffer) => {
				if (body.length < bodyLimit) body = Buffer.concat([body, chunk])
			})
			stream.on('error', (e) => resolve(unreached(messageOf(e))))
			// Not at its end: trailers may come after that.
			stream.on('close', () => {
				clearTimeout(cut)
				resolve(grpcResult(http, status, body))
			})
			stream.end(healthRequest(action.service ?? ''))
		})
	} finally {
		session.destroy()
		socket.destroy()
	}
}

/** `body`: the messages of a Check's answer. Exported for its table of cases. */
export function grpcResult(http: number, status: string | undefined, body: Uint8Array): CheckResult {
	if (status === '12') {
		return {
			ok: false,
			text: 'error: this server does not implement the grpc health protocol (grpc.health.v1.Health)',
		}
	}
	if (status !== '0') {
		return { ok: false, text: `error: health rpc failed: grpc status ${status ?? 'missing'}, HTTP status ${http}` }
	}
	// Length-prefixed message: flag, four bytes of length; field 1, a varint below 128. Absent is zero.
	const message = body.subarray(5)
	const code = message[0] === 0x08 ? (message[1] ?? 0) : 0
	if (code === 1) return { ok: true }
	return { ok: false, text: `service unhealthy (responded with "${servingStatus[code] ?? code}")` }
}

/** HealthCheckRequest { service = 1 } as one uncompressed message. Exported for its test. */
export function healthRequest(service: string): Buffer {
	const name = Buffer.from(service)
	const lengths: number[] = []
	for (let rest = name.length; ; rest >>>= 7) {
		lengths.push(rest > 127 ? (rest & 127) | 128 : rest)
		if (rest <= 127) break
	}
	const message = name.length === 0 ? name : Buffer.concat([Buffer.from([0x0a, ...lengths]), name])
	const head = Buffer.alloc(5)
	head.writeUInt32BE(message.length, 1)
	return Buffer.concat([head, message])
}

/** The number of a port given by number or by the name the container declares. Throws an Error for a name it does not. */
export function portOf(port: IntOrString, container: Container): number {
	if (typeof port === 'number') return port
	const named = container.ports?.find((p) => p.name === port)
	if (named !== undefined) return named.containerPort
	if (/^\d+$/.test(port)) return Number(port)
	throw new Error(`couldn't find port: "${port}"`)
}

function placeOf(
	action: { readonly host?: string; readonly port: IntOrString },
	target: CheckTarget,
): { readonly host: string; readonly port: number } {
	const host = action.host === undefined || action.host === '' ? target.ip : action.host
	return { host, port: portOf(action.port, target.container) }
}

function addressOf(host: string): Ip {
	if (host === 'localhost') return parseIp('127.0.0.1')
	const ip = tryParseIp(host)
	if (ip === undefined) throw new Error(`lookup ${host}: a probe's host must be an address in this lab`)
	return ip
}

function hostPort(host: string, port: number): string {
	return host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`
}

function connectText(e: unknown, place?: string): string {
	const dial = place === undefined ? '' : `dial tcp ${place}: `
	if (isFailure(e, 'ECONNREFUSED')) return `${dial}connect: connection refused`
	if (isFailure(e, 'EHOSTUNREACH')) return `${dial}connect: no route to host`
	if (isFailure(e, 'ETIMEDOUT')) return `${dial}i/o timeout`
	return messageOf(e)
}
