// What this user may do on this machine: use the kernel as root, inside a user namespace, or not at all.

import { spawnSync } from 'node:child_process'

export interface Rights {
	readonly rights: 'root' | 'user namespace' | 'none'
	/** Why it is none, one sentence. */
	readonly why?: string
}

/** How a process enters new namespaces in which it may change the network. */
export const userNamespaceCommand = ['unshare', '-U', '-r', '-n', '-m', '--propagation', 'private', '--'] as const

/** Tries, with a process that ends at once. */
export function findRights(): Rights {
	if (process.platform !== 'linux') {
		return { rights: 'none', why: `the kernel data plane needs Linux, this is ${process.platform}` }
	}
	const attempts: string[] = []
	if (process.getuid?.() === 0) {
		// Also back into the namespaces it is in: root of a user namespace alone may leave the host's and not return.
		const attempt =
			tryCommand('unshare', ['-n', '-m', '--propagation', 'private', 'true']) ??
			tryCommand('nsenter', ['--net=/proc/self/ns/net', '--mount=/proc/self/ns/mnt', 'true'])
		if (attempt === undefined) return { rights: 'root' }
		attempts.push(`as root: ${attempt}`)
	}
	const [command, ...args] = userNamespaceCommand
	const attempt = tryCommand(command, [...args, 'true'])
	if (attempt === undefined) return { rights: 'user namespace' }
	attempts.push(`in a user namespace: ${attempt}`)
	return { rights: 'none', why: `this user may not make network namespaces (${attempts.join('; ')})` }
}

/** undefined when it works, else why not. */
function tryCommand(command: string, args: readonly string[]): string | undefined {
	const result = spawnSync(command, args, { encoding: 'utf8', timeout: 10_000 })
	if (result.error !== undefined) {
		return (result.error as NodeJS.ErrnoException).code === 'ENOENT'
			? `${command} is not installed`
			: result.error.message
	}
	return result.status === 0 ? undefined : result.stderr.trim() || `${command} ended with ${result.status}`
}
