// What a lab may leave behind on its machine: processes, mounts, namespaces, files, and changes of the host's own
// network. Taken before and after, to be compared.

import { execFileSync } from 'node:child_process'
import { existsSync, readdirSync, readFileSync, readlinkSync, statSync } from 'node:fs'
import { join } from 'node:path'

export interface Leavings {
	/** `pid command line` of every process that was started for something in `folder`. */
	readonly processes: readonly string[]
	/** Mount points below `folder`, in this mount namespace. */
	readonly mounts: readonly string[]
	/** Files below `folder`. */
	readonly files: readonly string[]
}

export function leavingsIn(folder: string): Leavings {
	return { processes: processesOf(folder), mounts: mountsIn(folder), files: filesIn(folder) }
}

/** Processes whose command line or environment names the folder, but for this one and its like. */
export function processesOf(folder: string): readonly string[] {
	const found: string[] = []
	for (const entry of readdirSync('/proc')) {
		const pid = Number(entry)
		if (!Number.isInteger(pid) || pid === process.pid) continue
		try {
			const command = readFileSync(`/proc/${pid}/cmdline`, 'latin1')
			const environment = readFileSync(`/proc/${pid}/environ`, 'latin1')
			if (command.includes(folder) || environment.includes(`${folder}/`)) {
				found.push(`${pid} ${command.replaceAll('\0', ' ').slice(0, 160)}`)
			}
		} catch {
			// It has just ended, or may not be looked at.
		}
	}
	return found
}

export function mountsIn(folder: string): readonly string[] {
	return readFileSync('/proc/self/mountinfo', 'utf8')
		.split('\n')
		.map((line) => line.split(' ')[4] ?? '')
		.filter((point) => point.startsWith(`${folder}/`))
}

function filesIn(folder: string): readonly string[] {
	if (!existsSync(folder)) return []
	return (readdirSync(folder, { recursive: true }) as string[]).sort()
}

/** The inode of each persistent namespace of a lab, by its file's name. */
export function namespacesIn(folder: string): ReadonlyMap<string, number> {
	return new Map(readdirSync(folder).map((name) => [name, statSync(join(folder, name)).ino]))
}

/**
 * Which of these network namespaces a process or a mount that has to do with `folder` still holds. Others do not count:
 * the kernel gives the number of a namespace that is gone to the next one, whoever makes it.
 */
export function namespacesAlive(inodes: Iterable<number>, folder: string): readonly string[] {
	const wanted = new Set([...inodes].map((i) => `net:[${i}]`))
	const alive: string[] = []
	for (const line of readFileSync('/proc/self/mountinfo', 'utf8').split('\n')) {
		const [, , , name = '', point = ''] = line.split(' ')
		if (wanted.has(name) && point.startsWith(`${folder}/`)) alive.push(`mount ${point} of ${name}`)
	}
	for (const found of processesOf(folder)) {
		const pid = found.split(' ', 1)[0]
		try {
			const name = readlinkSync(`/proc/${pid}/ns/net`)
			if (wanted.has(name)) alive.push(`process ${found} in ${name}`)
		} catch {
			// It has just ended.
		}
	}
	return alive
}

/** The host's own links, addresses, routes and rules. */
export function hostNetwork(): string {
	return [
		['ip', ['-o', 'link']],
		['ip', ['-o', 'addr']],
		['ip', ['route', 'show', 'table', 'all']],
		['nft', ['list', 'ruleset']],
	]
		.map(
			([program, args]) => `$ ${program} ${(args as string[]).join(' ')}\n${hear(program as string, args as string[])}`,
		)
		.join('\n')
}

function hear(program: string, args: readonly string[]): string {
	try {
		// Lifetimes count down by themselves.
		return execFileSync(program, args, { encoding: 'utf8' }).replace(/(valid|preferred)_lft \S+|expires \S+/g, '')
	} catch (e) {
		return (e as Error).message
	}
}
