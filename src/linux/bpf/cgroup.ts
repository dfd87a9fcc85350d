// The root of the control groups of version 2, where programs see every process of this machine (or of this container).

import { openSync, readFileSync } from 'node:fs'
import { Failure } from '../../base/failure.ts'
import { mountDetached } from '../syscalls.ts'

/**
 * Where it is mounted: /sys/fs/cgroup, or /sys/fs/cgroup/unified beside version 1. Of several mounts the one of the root,
 * not of a group below. undefined: nowhere. Source: proc(5), mountinfo.
 */
export function findCgroup2(mounts = readFileSync('/proc/self/mountinfo', 'utf8')): string | undefined {
	const found: { readonly root: string; readonly path: string }[] = []
	for (const line of mounts.split('\n')) {
		const [fields = '', more = ''] = line.split(' - ')
		if (!more.startsWith('cgroup2 ')) continue
		const [, , , root = '', path = ''] = fields.split(' ')
		found.push({
			root,
			path: path.replace(/\\([0-7]{3})/g, (_, octal) => String.fromCharCode(Number.parseInt(octal, 8))),
		})
	}
	return (found.find((mount) => mount.root === '/') ?? found[0])?.path
}

/**
 * A descriptor of the root to attach programs to; the caller closes it. Where it is mounted nowhere, a mount that no
 * path leads to. Throws Failure where the kernel has none, or refuses.
 */
export function openCgroup2(): number {
	const path = findCgroup2()
	if (path === undefined) return mountDetached('cgroup2')
	try {
		return openSync(path, 'r')
	} catch (e) {
		const code = (e as NodeJS.ErrnoException).code ?? 'EIO'
		throw new Failure(code, `Cannot open the control groups: ${(e as Error).message}`, {}, { cause: e })
	}
}
