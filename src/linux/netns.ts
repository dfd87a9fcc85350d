// Network namespaces: create them as files that outlive the process, enter them for the length of one synchronous
// call. Only the calling thread moves (libuv's pool never does), so there is never an await between there and back.
// Inside a user namespace (`unshare -Urnm`) all of it works the same.

import { closeSync, fstatSync, lstatSync, openSync, readFileSync, unlinkSync } from 'node:fs'
import { Failure, isFailure } from '../base/failure.ts'
import { CLONE_NEWNET, MNT_DETACH, MS_BIND, mount, setns, umount2, unshare } from './syscalls.ts'

// thread-self, not self: also right in a Worker.
const ownPath = '/proc/thread-self/ns/net'

// The namespace this thread is in. A Worker has its own copy of this module, as it has its own namespace.
let home: number | undefined
let current: number | undefined

/** A descriptor of the namespace this thread was started in. Kept open for ever; do not close it. */
export function ownNetns(): number {
	if (home === undefined) {
		home = openSync(ownPath, 'r')
		current = home
	}
	return home
}

/**
 * A new network namespace bound to the file `path` (created, must not exist; its folder must). It lives until
 * deleteNetns, whatever becomes of the process. `inside` runs in it before this thread comes back: cheaper than
 * entering again to open a socket. Throws Failure EEXIST, EPERM, ENOSPC, …; nothing is left behind then.
 */
export function createNetns<T = undefined>(path: string, inside?: () => T): T {
	const back = here()
	try {
		closeSync(openSync(path, 'wx', 0o444))
	} catch (e) {
		// A file without a namespace is what a process left that was killed between the two steps: it is taken over.
		if ((e as NodeJS.ErrnoException).code !== 'EEXIST' || isNetns(path) || !isEmptyFile(path)) {
			throw fileFailure(e, `create network namespace ${JSON.stringify(path)}`)
		}
	}
	let mounted = false
	try {
		unshare(CLONE_NEWNET)
		try {
			mount(ownPath, path, 'none', MS_BIND)
			mounted = true
			return finished(inside?.() as T)
		} finally {
			comeBack(back)
		}
	} catch (e) {
		if (mounted) umount2(path, MNT_DETACH)
		unlinkSync(path)
		if (!mounted && isFailure(e)) {
			throw new Failure(e.code, `Cannot create network namespace ${JSON.stringify(path)}: ${e.message}`, e.details)
		}
		throw e
	}
}

/** A new namespace without a name: alive as long as the returned descriptor (or a socket made in it) is open. */
export function createAnonymousNetns(): number {
	const back = here()
	unshare(CLONE_NEWNET)
	try {
		return openSync(ownPath, 'r')
	} finally {
		comeBack(back)
	}
}

/** A descriptor to enter the namespace with; the caller closes it. */
export function openNetns(path: string): number {
	try {
		return openSync(path, 'r')
	} catch (e) {
		throw fileFailure(e, `open network namespace ${JSON.stringify(path)}`)
	}
}

/**
 * Runs `fn` with this thread inside the namespace and returns its result. `fn` must be synchronous: a promise is
 * refused (an Error, our bug). Sockets made inside stay there; a child spawned inside is born there. May be nested.
 */
export function inNetns<T>(fd: number, fn: () => T): T {
	const back = here()
	if (fd === back) return finished(fn())
	setns(fd, CLONE_NEWNET)
	current = fd
	try {
		return finished(fn())
	} finally {
		comeBack(back)
	}
}

/** As inNetns for a namespace named by its file. */
export function inNetnsAt<T>(path: string, fn: () => T): T {
	const fd = openNetns(path)
	try {
		return inNetns(fd, fn)
	} finally {
		closeSync(fd)
	}
}

/**
 * Unbinds the namespace from its file and removes the file. The kernel takes links and rules away later, by itself,
 * once no process and no socket is left inside (veth pairs of 1,000 pods: 0.4 s). Absent: nothing to do.
 */
export function deleteNetns(path: string): void {
	try {
		umount2(path, MNT_DETACH)
	} catch (e) {
		// EINVAL: a file without a namespace, left by a crash between the two steps of creation.
		if (isFailure(e, 'ENOENT')) return
		if (!isFailure(e, 'EINVAL')) throw e
	}
	try {
		unlinkSync(path)
	} catch (e) {
		if ((e as NodeJS.ErrnoException).code !== 'ENOENT') {
			throw fileFailure(e, `remove network namespace file ${JSON.stringify(path)}`)
		}
	}
}

/** The kernel's number of a namespace: equal for two descriptors of the same one. */
export function netnsNumber(fd: number): number {
	return fstatSync(fd).ino
}

/** Whether a namespace is bound to the file (not: whether the file exists). */
export function isNetns(path: string): boolean {
	const target = path.replace(/[ \t\n\\]/g, (c) => `\\${c.charCodeAt(0).toString(8).padStart(3, '0')}`)
	return readFileSync('/proc/thread-self/mountinfo', 'utf8').includes(` ${target} `)
}

function isEmptyFile(path: string): boolean {
	const found = lstatSync(path)
	return found.isFile() && found.size === 0
}

function here(): number {
	ownNetns()
	return current as number
}

function comeBack(fd: number): void {
	try {
		setns(fd, CLONE_NEWNET)
		current = fd
	} catch (e) {
		// The thread is in a namespace nobody asked for: every later call would act on the wrong network.
		process.stderr.write(`podwire: cannot return from a network namespace: ${(e as Error).message}\n`)
		process.abort()
	}
}

function finished<T>(value: T): T {
	if (typeof (value as { then?: unknown } | undefined | null)?.then === 'function') {
		throw new Error('a function run inside a network namespace must be synchronous, this one returned a promise')
	}
	return value
}

function fileFailure(e: unknown, action: string): Failure {
	const code = (e as NodeJS.ErrnoException).code ?? 'EIO'
	return new Failure(code, `Cannot ${action}: ${(e as Error).message}`, {}, { cause: e })
}
