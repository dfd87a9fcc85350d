// The daemon's side of the workloads process: find it again or start it, and call it.

import { spawn } from 'node:child_process'
import { closeSync, openSync, rmSync } from 'node:fs'
import { extname, join } from 'node:path'
import { Failure, isFailure } from '../../base/failure.ts'
import type { LabPaths } from '../paths.ts'
import { labMark } from '../pod-process.ts'
import type { WorkloadCalls, WorkloadEvent, WorkloadStreams } from './protocol.ts'
import { connectRpc, type RpcClient } from './rpc.ts'

export interface WorkloadsClient {
	/** Of the workloads process. */
	readonly pid: number
	call<Name extends keyof WorkloadCalls>(
		name: Name,
		argument: WorkloadCalls[Name]['argument'],
	): Promise<WorkloadCalls[Name]['answer']>
	stream<Name extends keyof WorkloadStreams>(
		name: Name,
		argument: WorkloadStreams[Name]['argument'],
		signal?: AbortSignal,
	): AsyncIterable<WorkloadStreams[Name]['item']>
	onEvent(listener: (event: WorkloadEvent) => void): void
	readonly closed: Promise<void>
	close(): void
}

/** The running process of this lab, or undefined. */
export async function findWorkloads(paths: LabPaths): Promise<WorkloadsClient | undefined> {
	try {
		return await toClient(await connectRpc(paths.workloadsSocket))
	} catch (e) {
		if (isFailure(e, 'Unavailable')) return undefined
		throw e
	}
}

/** Starts the process in the caller's own namespaces and waits until it answers. Throws Failure Unavailable. */
export async function startWorkloads(paths: LabPaths): Promise<WorkloadsClient> {
	rmSync(paths.workloadsSocket, { force: true })
	const log = openSync(paths.workloadsLog, 'a', 0o600)
	const main = join(import.meta.dirname, `main${extname(import.meta.filename)}`)
	const child = spawn(process.execPath, [...process.execArgv, main, JSON.stringify(paths)], {
		detached: true,
		// The fourth is written to when the socket answers.
		stdio: ['ignore', log, log, 'pipe'],
		env: { ...process.env, [labMark]: paths.runtime },
		cwd: '/',
	})
	closeSync(log)
	await new Promise<void>((resolve, reject) => {
		child.once('error', reject)
		child.once('exit', (code, signal) =>
			reject(
				new Failure(
					'Unavailable',
					`Cannot start the workloads process: it ended with ${signal ?? code}; its log is ${paths.workloadsLog}`,
				),
			),
		)
		child.stdio[3]?.once('data', () => resolve())
	})
	child.stdio[3]?.destroy()
	child.removeAllListeners()
	child.unref()
	return toClient(await connectRpc(paths.workloadsSocket))
}

async function toClient(rpc: RpcClient): Promise<WorkloadsClient> {
	const hello = (await rpc.call('hello', null)) as WorkloadCalls['hello']['answer']
	return {
		pid: hello.pid,
		call: (name, argument) => rpc.call(name, argument) as never,
		stream: (name, argument, signal) => rpc.stream(name, argument, signal) as never,
		onEvent: (listener) => rpc.onEvent((event) => listener(event as WorkloadEvent)),
		closed: rpc.closed,
		close: () => rpc.close(),
	}
}
