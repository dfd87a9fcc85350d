// Running programs as a user does: spawn, wait, look at exit code and both streams.

import { spawn, spawnSync } from 'node:child_process'
import { join } from 'node:path'

export const root = join(import.meta.dirname, '../../..')

export interface Ran {
	/** 128 + the signal's number where a signal ended it, as a shell says it. */
	readonly code: number
	readonly stdout: string
	readonly stderr: string
	readonly seconds: number
	/** For an assertion's message: the command, its code, and all it said. */
	readonly text: string
}

export interface RunOptions {
	readonly env?: Readonly<Record<string, string | undefined>>
	readonly input?: string | Uint8Array
	/** Milliseconds until it is killed; 60 seconds. */
	readonly timeout?: number
	readonly cwd?: string
}

export interface Running {
	readonly pid: number
	/** What it has said so far on stdout. */
	stdout(): string
	stderr(): string
	kill(signal?: NodeJS.Signals): void
	readonly done: Promise<Ran>
}

export function start(command: string, args: readonly string[], options: RunOptions = {}): Running {
	const begun = performance.now()
	const child = spawn(command, args, {
		cwd: options.cwd ?? root,
		env: { ...process.env, ...options.env },
		stdio: [options.input === undefined ? 'ignore' : 'pipe', 'pipe', 'pipe'],
	})
	let stdout = ''
	let stderr = ''
	child.stdout?.setEncoding('utf8').on('data', (text: string) => {
		stdout += text
	})
	child.stderr?.setEncoding('utf8').on('data', (text: string) => {
		stderr += text
	})
	// A program that ends early closes the pipe; that is its right.
	child.stdin?.on('error', () => {})
	child.stdin?.end(options.input)
	const timer = setTimeout(() => child.kill('SIGKILL'), options.timeout ?? 60_000)
	const done = new Promise<Ran>((resolve, reject) => {
		child.once('error', reject)
		child.once('close', (code, signal) => {
			clearTimeout(timer)
			const seconds = (performance.now() - begun) / 1000
			const ended = code ?? 128 + (signal === 'SIGKILL' ? 9 : 15)
			const line = [command, ...args].map((a) => (/[\s'"]/.test(a) ? JSON.stringify(a) : a)).join(' ')
			const text = `$ ${line}\nexit ${signal ?? code} after ${seconds.toFixed(2)} s\nstdout: ${clip(stdout)}\nstderr: ${clip(stderr)}`
			resolve({ code: ended, stdout, stderr, seconds, text })
		})
	})
	return {
		pid: child.pid ?? 0,
		stdout: () => stdout,
		stderr: () => stderr,
		kill: (signal = 'SIGTERM') => void child.kill(signal),
		done,
	}
}

export function run(command: string, args: readonly string[], options: RunOptions = {}): Promise<Ran> {
	return start(command, args, options).done
}

export function have(program: string): boolean {
	return spawnSync('sh', ['-c', `command -v ${program}`], { stdio: 'ignore' }).status === 0
}

function clip(text: string): string {
	return text.length > 6000 ? `${text.slice(0, 3000)}\n…\n${text.slice(-3000)}` : text
}

/** Looks until `look` answers something, at most `milliseconds`; each look is a look at the world, not a sleep. */
export async function until<T>(
	what: string,
	look: () => Promise<T | undefined | false> | T | undefined | false,
	milliseconds = 15_000,
): Promise<T> {
	const end = performance.now() + milliseconds
	let last: unknown
	for (;;) {
		try {
			const seen = await look()
			if (seen !== undefined && seen !== false) return seen
			last = seen
		} catch (e) {
			last = e
		}
		if (performance.now() > end) {
			throw new Error(`not within ${milliseconds} ms: ${what}${last instanceof Error ? ` (${last.message})` : ''}`)
		}
		await new Promise((resolve) => setTimeout(resolve, 25))
	}
}
