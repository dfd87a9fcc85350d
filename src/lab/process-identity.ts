// Which process a pid means: a pid alone is reused, a pid with its start time is not (proc(5), stat field 22).

import { readdirSync, readFileSync } from 'node:fs'

export interface ProcessIdentity {
	readonly pid: number
	/** Clock ticks since boot at which the process started. */
	readonly startTime: string
}

interface Stat {
	readonly state: string
	readonly session: number
	readonly startTime: string
}

function readStat(pid: number): Stat | undefined {
	try {
		const text = readFileSync(`/proc/${pid}/stat`, 'latin1')
		// The command name is in parentheses and may hold anything; the fields begin after the last one.
		const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
		return { state: fields[0] as string, session: Number(fields[3]), startTime: fields[19] as string }
	} catch {
		return undefined
	}
}

/** undefined where no such process is. */
export function identifyProcess(pid: number): ProcessIdentity | undefined {
	const stat = readStat(pid)
	return stat === undefined ? undefined : { pid, startTime: stat.startTime }
}

/** True while that very process lives; a zombie is dead. */
export function isAlive(process: ProcessIdentity): boolean {
	const stat = readStat(process.pid)
	return stat !== undefined && stat.startTime === process.startTime && stat.state !== 'Z' && stat.state !== 'X'
}

/** Sends a signal to that very process, never to one that got its pid later. True when it was there. */
export function signalProcess(target: ProcessIdentity, signal: NodeJS.Signals): boolean {
	if (!isAlive(target)) return false
	try {
		process.kill(target.pid, signal)
		return true
	} catch {
		return false
	}
}

/**
 * The processes whose environment carries `name=value`: those that a lab started, and their children, whatever
 * became of their parents. The caller itself is left out.
 */
export function findMarkedProcesses(name: string, value: string): readonly ProcessIdentity[] {
	const mark = `\0${name}=${value}\0`
	const found: ProcessIdentity[] = []
	for (const entry of readdirSync('/proc')) {
		const pid = Number(entry)
		if (!Number.isInteger(pid) || pid === process.pid) continue
		const before = identifyProcess(pid)
		if (before === undefined) continue
		try {
			if (!`\0${readFileSync(`/proc/${pid}/environ`, 'latin1')}`.includes(mark)) continue
		} catch {
			continue
		}
		found.push(before)
	}
	return found
}

/** Waits until none of them lives, at most `milliseconds`; those that still live. */
export async function waitForEnd(
	processes: readonly ProcessIdentity[],
	milliseconds: number,
): Promise<readonly ProcessIdentity[]> {
	const until = Date.now() + milliseconds
	let living = processes.filter(isAlive)
	while (living.length > 0 && Date.now() < until) {
		await new Promise((resolve) => setTimeout(resolve, 5))
		living = living.filter(isAlive)
	}
	return living
}
