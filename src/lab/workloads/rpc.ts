// Calls over a unix socket, one JSON value a line: {id, call, argument} is answered by {id, answer}, {id, error} or,
// for a stream, {id, item}… and {id, answer: null}; {id, cancel: true} ends a stream; {event, …} is unasked.

import { createConnection, type Socket } from 'node:net'
import { Failure, isFailure, messageOf } from '../../base/failure.ts'

interface Message {
	readonly id?: number
	readonly call?: string
	readonly argument?: unknown
	readonly cancel?: true
	readonly answer?: unknown
	readonly item?: unknown
	readonly error?: { readonly code: string; readonly message: string; readonly details?: Record<string, unknown> }
}

/** Calls `each` with every complete line of the socket, parsed. A line that is no JSON ends the connection. */
function readLines(socket: Socket, each: (message: Message) => void): void {
	let rest = ''
	socket.setEncoding('utf8')
	socket.on('data', (chunk: string) => {
		const lines = (rest + chunk).split('\n')
		rest = lines.pop() as string
		for (const line of lines) {
			let message: Message
			try {
				message = JSON.parse(line) as Message
			} catch {
				socket.destroy(new Error(`not a JSON line: ${line.slice(0, 80)}`))
				return
			}
			each(message)
		}
	})
}

export interface RpcConnection {
	/** Sends an event to the other side. */
	send(event: object): void
}

export interface RpcHandlers {
	call(name: string, argument: unknown): unknown
	/** undefined where `name` is no stream. */
	stream(name: string, argument: unknown, signal: AbortSignal): AsyncIterable<unknown> | undefined
}

/** Serves calls on an accepted connection. */
export function serveRpc(socket: Socket, handlers: RpcHandlers): RpcConnection {
	const streams = new Map<number, AbortController>()
	const send = (message: object) => {
		if (socket.writable) socket.write(`${JSON.stringify(message)}\n`)
	}
	const sendError = (id: number | undefined, e: unknown) =>
		send({
			id,
			error: {
				code: isFailure(e) ? e.code : 'Internal',
				message: messageOf(e),
				...(isFailure(e) ? { details: e.details } : {}),
			},
		})

	async function serve(message: Message): Promise<void> {
		const id = message.id as number
		if (message.cancel === true) {
			streams.get(id)?.abort()
			return
		}
		try {
			const cancel = new AbortController()
			const items = handlers.stream(message.call as string, message.argument, cancel.signal)
			if (items === undefined) {
				send({ id, answer: (await handlers.call(message.call as string, message.argument)) ?? null })
				return
			}
			streams.set(id, cancel)
			try {
				for await (const item of items) {
					if (cancel.signal.aborted) break
					send({ id, item })
					// A slow reader holds the stream back, not this process's memory.
					if (socket.writableNeedDrain) await new Promise((resolve) => onceDrained(socket, resolve))
				}
			} finally {
				streams.delete(id)
			}
			send({ id, answer: null })
		} catch (e) {
			sendError(id, e)
		}
	}

	readLines(socket, (message) => void serve(message))
	socket.on('close', () => {
		for (const cancel of streams.values()) cancel.abort()
	})
	socket.on('error', () => {})
	return { send }
}

function onceDrained(socket: Socket, done: (value?: unknown) => void): void {
	const finish = () => {
		socket.off('drain', finish)
		socket.off('close', finish)
		done()
	}
	socket.on('drain', finish)
	socket.on('close', finish)
}

export interface RpcClient {
	call(name: string, argument: unknown): Promise<unknown>
	stream(name: string, argument: unknown, signal?: AbortSignal): AsyncIterable<unknown>
	onEvent(listener: (event: unknown) => void): void
	/** Resolves when the connection has ended, whoever ended it. */
	readonly closed: Promise<void>
	close(): void
}

/** Throws Failure Unavailable where nobody listens. */
export async function connectRpc(path: string): Promise<RpcClient> {
	const socket = createConnection(path)
	await new Promise<void>((resolve, reject) => {
		socket.once('connect', resolve)
		socket.once('error', (e) =>
			reject(new Failure('Unavailable', `Cannot reach ${JSON.stringify(path)}: ${e.message}`, { path })),
		)
	})
	const waiting = new Map<number, (message: Message) => void>()
	const listeners: ((event: unknown) => void)[] = []
	let next = 1
	const lost: Message = { error: { code: 'Unavailable', message: `The connection to ${JSON.stringify(path)} ended` } }
	readLines(socket, (message) => {
		if (message.id === undefined) for (const listener of listeners) listener(message)
		else waiting.get(message.id)?.(message)
	})
	socket.on('error', () => {})
	const closed = new Promise<void>((resolve) => {
		socket.on('close', () => {
			for (const answer of [...waiting.values()]) answer(lost)
			resolve()
		})
	})
	const failureOf = (error: NonNullable<Message['error']>) => new Failure(error.code, error.message, error.details)
	const post = (message: object) => {
		if (!socket.writable) throw failureOf(lost.error!)
		socket.write(`${JSON.stringify(message)}\n`)
	}

	return {
		call(name, argument) {
			const id = next++
			return new Promise((resolve, reject) => {
				waiting.set(id, (message) => {
					waiting.delete(id)
					if (message.error !== undefined) reject(failureOf(message.error))
					else resolve(message.answer)
				})
				try {
					post({ id, call: name, argument })
				} catch (e) {
					waiting.delete(id)
					reject(e)
				}
			})
		},
		async *stream(name, argument, signal) {
			const id = next++
			const queue: Message[] = []
			let wake: () => void = () => {}
			waiting.set(id, (message) => {
				queue.push(message)
				wake()
			})
			const cancel = () => {
				if (socket.writable) post({ id, cancel: true })
				wake()
			}
			signal?.addEventListener('abort', cancel, { once: true })
			try {
				post({ id, call: name, argument })
				for (;;) {
					const message = queue.shift()
					if (message === undefined) {
						if (signal?.aborted) return
						await new Promise<void>((resolve) => {
							wake = resolve
						})
						continue
					}
					if (message.error !== undefined) throw failureOf(message.error)
					if (!('item' in message)) return
					yield message.item
				}
			} finally {
				signal?.removeEventListener('abort', cancel)
				waiting.delete(id)
				if (socket.writable) post({ id, cancel: true })
			}
		},
		onEvent(listener) {
			listeners.push(listener)
		},
		closed,
		close() {
			socket.destroy()
		},
	}
}
