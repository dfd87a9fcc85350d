// Where programs are installed: the kernel of one namespace, or (fake.ts) a memory that behaves like it.

import type { NftChange } from './change.ts'
import type { NftProgram } from './program.ts'
import { readProgram } from './read.ts'
import { applyChanges, type NftReceipt, openNftSocket } from './transaction.ts'

export interface NftKernel {
	/** All or nothing. Throws Failure with the kernel's errno name as code. */
	apply(changes: readonly NftChange[]): NftReceipt
	read(): NftProgram
	close(): void
}

/** The kernel of the calling thread's namespace; it stays that one's. */
export function openKernel(): NftKernel {
	const socket = openNftSocket()
	return {
		apply: (changes) => applyChanges(socket, changes),
		read: () => readProgram(socket),
		close: () => socket.close(),
	}
}
