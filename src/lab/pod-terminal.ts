// A program of the host inside a pod on a pseudo-terminal made here: a container with `tty`, and exec on a terminal.

import type { ChildProcess } from 'node:child_process'
import { closeSync } from 'node:fs'
import { ReadStream } from 'node:tty'
import { openPty, setWindowSize } from '../linux/pty.ts'
import { type PodProcessOptions, spawnInPod } from './pod-process.ts'
import type { ProgramRun } from './workloads/protocol.ts'

export interface PodTerminal {
	readonly child: ChildProcess
	/** The near end, to read and to write; destroying it hangs up on whoever holds the terminal. */
	readonly terminal: ReadStream
	/** Columns and rows; of no effect once the terminal is destroyed. */
	resize(size: { readonly width: number; readonly height: number }): void
}

/** Throws Failure as spawnInPod does, and Unavailable where there is no pseudo-terminal. */
export function spawnOnTerminal(run: ProgramRun, options: Omit<PodProcessOptions, 'stdio' | 'terminal'>): PodTerminal {
	const { master, slave } = openPty()
	try {
		const child = spawnInPod(
			{ ...run, env: { TERM: 'xterm', ...run.env } },
			{ ...options, terminal: true, stdio: [slave, slave, slave] },
		)
		const terminal = new ReadStream(master)
		return {
			child,
			terminal,
			resize(size) {
				if (!terminal.destroyed) setWindowSize(master, size)
			},
		}
	} catch (e) {
		closeSync(master)
		throw e
	} finally {
		closeSync(slave)
	}
}
