// exec on a terminal: a pseudo-terminal made here, the program in a session of its own on its far end.

import type { ExecRequest, ExecResult } from '../../apiserver/kubelet.ts'
import { spawnOnTerminal } from '../pod-terminal.ts'
import type { ProgramRun } from '../workloads/protocol.ts'
import { signalNumber } from './exec.ts'

export async function runOnTerminal(
	run: ProgramRun,
	netns: string,
	lab: string,
	request: ExecRequest,
): Promise<ExecResult> {
	const { child, terminal, resize } = spawnOnTerminal(run, { netns, lab, contained: false })
	const end = () => {
		try {
			// The session's leader; closing the master hangs up on the rest.
			if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
		} catch {
			// It has ended.
		}
		terminal.destroy()
	}
	request.signal.addEventListener('abort', end, { once: true })
	if (request.signal.aborted) end()

	const drained = new Promise<void>((resolve) => {
		terminal.on('data', (chunk: Buffer) => {
			if (request.stdout?.write(chunk) === false) {
				terminal.pause()
				request.stdout.once('drain', () => terminal.resume())
			}
		})
		// EIO is how a master says that nobody holds the terminal any more.
		terminal.on('error', () => resolve())
		terminal.on('close', () => resolve())
	})
	request.stdin?.on('data', (chunk: Buffer) => terminal.write(chunk))
	request.stdin?.on('error', () => {})
	void followSize()

	const result = await new Promise<ExecResult>((resolve) => {
		child.once('error', (e) => resolve({ exitCode: 127, error: e.message }))
		child.once('exit', (code, signal) => resolve({ exitCode: code ?? 128 + signalNumber(signal) }))
	})
	// What the program wrote last is still on its way; a background job that keeps the terminal is not waited for.
	await Promise.race([drained, new Promise((resolve) => setTimeout(resolve, 200))])
	request.signal.removeEventListener('abort', end)
	terminal.destroy()
	return result

	async function followSize(): Promise<void> {
		if (request.resize === undefined) return
		for await (const size of request.resize) {
			if (terminal.destroyed) return
			resize(size)
		}
	}
}
