// A host program run inside a pod to its end, for a probe or a lifecycle hook: its exit code and the begin of what it said.

import { messageOf } from '../../base/failure.ts'
import { spawnInPod } from '../pod-process.ts'
import type { ProgramRun } from '../workloads/protocol.ts'

export interface CommandEnd {
	/** undefined: it did not end in time and was killed. */
	readonly exitCode: number | undefined
	readonly output: string
}

/** Bytes of output kept, as the kubelet keeps of a probe's. */
const outputLimit = 10 * 1024

/** Never rejects: what cannot be started ends with 127. `timeout`: milliseconds. */
export function runToEnd(
	run: ProgramRun,
	options: { readonly netns: string; readonly lab: string; readonly timeout: number },
): Promise<CommandEnd> {
	return new Promise((resolve) => {
		let output = ''
		try {
			const child = spawnInPod(run, {
				netns: options.netns,
				lab: options.lab,
				contained: true,
				stdio: ['ignore', 'pipe', 'pipe'],
			})
			let late = false
			const cut = setTimeout(() => {
				late = true
				child.kill('SIGKILL')
			}, options.timeout)
			for (const stream of [child.stdout, child.stderr]) {
				stream?.setEncoding('utf8')
				stream?.on('data', (chunk: string) => {
					if (output.length < outputLimit) output = (output + chunk).slice(0, outputLimit)
				})
			}
			const end = (exitCode: number | undefined) => {
				clearTimeout(cut)
				resolve({ exitCode, output })
			}
			child.once('error', (e) => {
				output += e.message
				end(127)
			})
			child.once('close', (code) => end(late ? undefined : (code ?? 137)))
		} catch (e) {
			resolve({ exitCode: 127, output: messageOf(e) })
		}
	})
}
