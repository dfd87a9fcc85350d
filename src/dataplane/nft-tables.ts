// The nftables of one network namespace as every data plane that writes tables uses them: a socket that is opened there
// at the first need and stays, a transaction that says what was reached, a reading back.

import { isFailure } from '../base/failure.ts'
import type { NetlinkSocket } from '../linux/netlink/socket.ts'
import { inNetns, inNetnsAt } from '../linux/netns.ts'
import type { NftProgram } from '../linux/nft/program.ts'
import { readProgram } from '../linux/nft/read.ts'
import { openNftSocket } from '../linux/nft/transaction.ts'
import type { Outcome } from './dataplane.ts'

export interface NftTables {
	/** Runs `work`, usually one transaction; what the kernel refuses is the outcome. Throws what is no Failure. */
	attempt(work: (socket: NetlinkSocket) => void): Outcome
	/** Every table of the namespace, or those of one name. */
	read(name?: string): NftProgram
	close(): void
}

/** `netns`: the namespace's file or an open descriptor; without it anything but close is an Error. `what`: whose tables. */
export function nftTables(netns: string | number | undefined, what: string): NftTables {
	let socket: NetlinkSocket | undefined

	function kernel(): NetlinkSocket {
		if (socket !== undefined) return socket
		if (netns === undefined) throw new Error(`this ${what} has no namespace: it is for paper only`)
		socket = typeof netns === 'string' ? inNetnsAt(netns, openNftSocket) : inNetns(netns, openNftSocket)
		return socket
	}
	return {
		attempt(work) {
			try {
				work(kernel())
				return { ok: true }
			} catch (e) {
				if (!isFailure(e)) throw e
				return { ok: false, error: e, applied: typeof e.details.applied === 'number' ? e.details.applied : 0 }
			}
		},
		read: (name) => readProgram(kernel(), name === undefined ? undefined : (_, table) => table === name),
		close() {
			socket?.close()
			socket = undefined
		},
	}
}
