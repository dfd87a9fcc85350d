// Pseudo-terminals by the master's ioctls (man 4 pts, man 2 ioctl_tty).

import { closeSync, constants, openSync } from 'node:fs'
import { Failure, messageOf } from '../base/failure.ts'
import { ioctl } from './syscalls.ts'

const TIOCSPTLCK = 0x40045431
const TIOCGPTN = 0x80045430
const TIOCSWINSZ = 0x5414

export interface Pty {
	/** Descriptor of the master; the caller closes both. */
	readonly master: number
	/** Descriptor of the terminal itself, for a child's standard streams. */
	readonly slave: number
}

/** Throws Failure where the system has no pseudo-terminals left, or none at all. */
export function openPty(): Pty {
	let master: number | undefined
	try {
		master = openSync('/dev/ptmx', constants.O_RDWR | constants.O_NOCTTY)
		ioctl(master, TIOCSPTLCK, Buffer.allocUnsafeSlow(4).fill(0))
		const number = Buffer.allocUnsafeSlow(4).fill(0)
		ioctl(master, TIOCGPTN, number)
		return { master, slave: openSync(`/dev/pts/${number.readUInt32LE(0)}`, constants.O_RDWR | constants.O_NOCTTY) }
	} catch (e) {
		if (master !== undefined) closeSync(master)
		throw new Failure('Unavailable', `Cannot open a pseudo-terminal: ${messageOf(e)}`, {}, { cause: e })
	}
}

export function setWindowSize(fd: number, size: { readonly width: number; readonly height: number }): void {
	const bytes = Buffer.allocUnsafeSlow(8).fill(0)
	bytes.writeUInt16LE(size.height & 0xffff, 0)
	bytes.writeUInt16LE(size.width & 0xffff, 2)
	ioctl(fd, TIOCSWINSZ, bytes)
}
