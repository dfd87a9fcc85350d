// One run of a host program as a container: its output is the log, TERM asks it to end, its PID namespace dies with it.

import { firstChildOf, spawnInPod } from '../pod-process.ts'
import type { Run } from './container.ts'
import { type ContainerLog, lineSplitter } from './log.ts'
import type { ProgramContainer, WorkloadPod } from './protocol.ts'

/** Throws Failure where it cannot be started. */
export function startProgram(pod: WorkloadPod, container: ProgramContainer, log: ContainerLog, lab: string): Run {
	const child = spawnInPod(container.run, {
		netns: pod.netns,
		lab,
		stdio: ['ignore', 'pipe', 'pipe'],
		contained: true,
	})
	for (const stream of ['stdout', 'stderr'] as const) {
		const lines = lineSplitter((line) => log.write(stream, line))
		child[stream]?.setEncoding('utf8')
		child[stream]?.on('data', (chunk: string) => lines.push(chunk))
		child[stream]?.on('close', () => lines.flush())
	}
	const ended = new Promise<{ exitCode: number; signal?: string; message?: string }>((resolve) => {
		child.once('error', (e) => resolve({ exitCode: 128, message: e.message }))
		child.once('exit', (code, signal) => resolve({ exitCode: code ?? 128 + 9, ...(signal === null ? {} : { signal }) }))
	})
	const started = JSON.stringify(container.run)
	return {
		...(child.pid === undefined ? {} : { pid: child.pid }),
		ended,
		update: (next) => next.kind === 'program' && JSON.stringify(next.run) === started,
		async stop(grace) {
			const first = child.pid === undefined ? undefined : firstChildOf(child.pid)
			if (grace > 0 && first !== undefined) {
				try {
					process.kill(first, 'SIGTERM')
				} catch {
					// It ended just now.
				}
			} else child.kill('SIGKILL')
			const cut = setTimeout(() => child.kill('SIGKILL'), grace)
			await ended
			clearTimeout(cut)
		},
	}
}
