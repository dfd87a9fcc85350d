// Kernel settings of the namespace the calling thread is in: /proc/sys/net shows the opener's own namespace,
// so read and write inside netns.inNetns.

import { readFileSync, writeFileSync } from 'node:fs'
import { Failure } from '../base/failure.ts'

/**
 * The file of a setting. Dots part the levels, as in sysctl(8); where a level itself has a dot (interface
 * `eth0.100`) write the name with slashes: `net/ipv4/conf/eth0.100/forwarding`.
 */
export function sysctlPath(name: string): string {
	const levels = name.includes('/') ? name.split('/') : name.split('.')
	if (levels.some((level) => level === '' || level === '.' || level === '..')) {
		throw new Error(`${JSON.stringify(name)} is not the name of a kernel setting`)
	}
	return `/proc/sys/${levels.join('/')}`
}

/** The value without its line end. Throws Failure ENOENT where the kernel has no such setting. */
export function readSysctl(name: string): string {
	try {
		return readFileSync(sysctlPath(name), 'utf8').trim()
	} catch (e) {
		throw refused(e, `read kernel setting ${JSON.stringify(name)}`)
	}
}

/** Throws Failure: ENOENT (no such setting), EACCES or EROFS (no right), EINVAL (not a value it takes). */
export function writeSysctl(name: string, value: string): void {
	try {
		writeFileSync(sysctlPath(name), value, { flag: 'r+' })
	} catch (e) {
		throw refused(e, `set kernel setting ${JSON.stringify(name)} to ${JSON.stringify(value)}`)
	}
}

function refused(e: unknown, action: string): unknown {
	const code = (e as NodeJS.ErrnoException).code
	return code === undefined ? e : new Failure(code, `Cannot ${action}: ${(e as Error).message}`, {}, { cause: e })
}
