// What the API server asks of a node for one pod: exec, attach, logs, port-forward.
// The listener speaks WebSocket and SPDY to the client; the lab gives the realisation.

import type { Duplex, Readable, Writable } from 'node:stream'

export interface ExecRequest {
	readonly namespace: string
	readonly pod: string
	readonly container?: string
	readonly command: readonly string[]
	readonly tty: boolean
	readonly stdin?: Readable
	readonly stdout?: Writable
	readonly stderr?: Writable
	/** Terminal sizes as they change. */
	readonly resize?: AsyncIterable<{ readonly width: number; readonly height: number }>
	readonly signal: AbortSignal
}

/** How a command ended; `error` is set when it could not be started (no such program, no such container). */
export interface ExecResult {
	readonly exitCode: number
	readonly error?: string
}

export interface LogRequest {
	readonly namespace: string
	readonly pod: string
	readonly container?: string
	readonly follow: boolean
	readonly previous: boolean
	readonly tailLines?: number
	readonly sinceSeconds?: number
	readonly sinceTime?: string
	readonly timestamps: boolean
	readonly limitBytes?: number
	readonly signal: AbortSignal
}

/** Throws Failure with code NotFound, BadRequest or Unavailable. */
export interface KubeletApi {
	exec(request: ExecRequest): Promise<ExecResult>
	/** Joins the container's main process. Absent: attach is refused. */
	attach?(request: Omit<ExecRequest, 'command'>): Promise<ExecResult>
	logs(request: LogRequest): AsyncIterable<Uint8Array>
	/** A byte stream to a TCP port inside the pod's network namespace; `ip`: its address, absent: its loopback. */
	dial(pod: {
		readonly namespace: string
		readonly pod: string
		readonly port: number
		readonly ip?: string
	}): Promise<Duplex>
}
