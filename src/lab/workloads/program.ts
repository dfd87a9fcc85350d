// One run of a host program as a container: its output is the log, TERM asks it to end, its PID namespace dies with it.

import type { ChildProcess } from 'node:child_process'
import { StringDecoder } from 'node:string_decoder'
import { firstChildOf, spawnInPod } from '../pod-process.ts'
import { spawnOnTerminal } from '../pod-terminal.ts'
import { type Console, createConsole, type Output } from './console.ts'
import type { Run } from './container.ts'
import { type ContainerLog, lineSplitter } from './log.ts'
import type { ProgramContainer, WorkloadPod } from './protocol.ts'

/** Milliseconds that output may still be on its way when the program has ended. */
const drainLimit = 200

/** Throws Failure where it cannot be started. */
export function startProgram(pod: WorkloadPod, container: ProgramContainer, log: ContainerLog, lab: string): Run {
	const { heard, flush } = intoLog(log)
	const keeps = container.stdin !== undefined
	const { child, console, end } = container.tty === true ? onTerminal() : piped()

	function piped() {
		const made = spawnInPod(container.run, {
			netns: pod.netns,
			lab,
			stdio: [container.stdin === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
			contained: true,
			...(container.stdin === undefined ? {} : { inForeground: true }),
		})
		return {
			child: made,
			end: () => {},
			console: createConsole({
				outputs: (['stdout', 'stderr'] as const).flatMap((stream) => {
					const from = made[stream]
					return from === null ? [] : [{ stream, from }]
				}),
				input: made.stdin ?? undefined,
				isTerminal: false,
				resize() {},
				keeps,
				heard,
			}),
		}
	}

	function onTerminal(): { child: ChildProcess; console: Console; end: () => void } {
		const inPod = { netns: pod.netns, lab, contained: true, inForeground: true }
		const { child: made, terminal, resize } = spawnOnTerminal(container.run, inPod)
		return {
			child: made,
			end: () => terminal.destroy(),
			console: createConsole({
				outputs: [{ stream: 'stdout', from: terminal }],
				input: container.stdin === undefined ? undefined : terminal,
				isTerminal: true,
				resize,
				keeps,
				heard,
			}),
		}
	}

	const exited = new Promise<{ exitCode: number; signal?: string; message?: string }>((resolve) => {
		child.once('error', (e) => resolve({ exitCode: 128, message: e.message }))
		child.once('exit', (code, signal) => resolve({ exitCode: code ?? 128 + 9, ...(signal === null ? {} : { signal }) }))
	})
	// What it wrote last is still on its way when it has ended.
	const ended = exited.then(async (how) => {
		await Promise.race([console.drained, new Promise((resolve) => setTimeout(resolve, drainLimit).unref())])
		end()
		flush()
		return how
	})
	const started = JSON.stringify(container.run)
	return {
		...(child.pid === undefined ? {} : { pid: child.pid }),
		ended,
		console,
		update: (next) => next.kind === 'program' && JSON.stringify(next.run) === started,
		async stop(grace) {
			const first = child.pid === undefined ? undefined : firstChildOf(child.pid)
			// In the foreground of a shell that waits, the program itself has to hear it.
			const inFront = container.stdin !== undefined || container.tty === true
			const hears = inFront && first !== undefined ? firstChildOf(first) : first
			if (grace > 0 && hears !== undefined) {
				try {
					process.kill(hears, 'SIGTERM')
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

function intoLog(log: ContainerLog): { heard(output: Output): void; flush(): void } {
	const of = (stream: Output['stream']) => ({
		lines: lineSplitter((line) => log.write(stream, line)),
		decoder: new StringDecoder('utf8'),
	})
	const ways = { stdout: of('stdout'), stderr: of('stderr') }
	return {
		heard({ stream, data }) {
			const { lines, decoder } = ways[stream]
			lines.push(decoder.write(data))
		},
		flush() {
			for (const { lines } of Object.values(ways)) lines.flush()
		},
	}
}
