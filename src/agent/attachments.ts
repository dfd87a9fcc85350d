// The durable record of each pod's wiring: what CNI ADD acknowledged is found again after kill -9, and a restart
// rebuilds every pod the same way. One SQLite file for the nodes of a process: atomic, and written row by row.

import { createHash } from 'node:crypto'
import { DatabaseSync } from 'node:sqlite'
import { Failure, messageOf } from '../base/failure.ts'
import type { Ip } from '../base/ip.ts'
import type { NodeName } from '../model/network.ts'
import type { ObjectKey } from '../model/origin.ts'

export interface AttachmentRecord {
	readonly uid: string
	readonly pod: ObjectKey
	readonly node: NodeName
	readonly ips: readonly Ip[]
	/** Path of the pod's persistent network namespace. */
	readonly namespace: string
	/** Name of the node's end of the pod's veth; at most 15 bytes (IFNAMSIZ). */
	readonly hostInterface: string
	readonly mtu: number
}

export interface AttachmentStore {
	all(): readonly AttachmentRecord[]
	/** Durable against the death of this process once it returns. Throws Failure CannotWrite (disk full). */
	put(record: AttachmentRecord): void
	delete(uid: string): void
	close(): void
}

/** Opens or makes the file; `:memory:` keeps it in memory. Throws Failure CannotRead where it is no such file. */
export function openAttachments(path: string): AttachmentStore {
	let db: DatabaseSync
	try {
		db = new DatabaseSync(path)
		// WAL with NORMAL: a commit survives the process; a power cut may lose the last ones, but then the kernel's
		// namespaces are gone too and the pods' own statuses say which addresses they had.
		db.exec(`
			pragma journal_mode = wal;
			pragma synchronous = normal;
			create table if not exists attachment (
				uid text primary key, pod text not null, node text not null, ips text not null,
				namespace text not null, host_interface text not null, mtu integer not null
			) strict, without rowid;
		`)
	} catch (e) {
		throw new Failure('CannotRead', `Cannot open the record of attachments ${JSON.stringify(path)}: ${messageOf(e)}`, {
			path,
		})
	}
	const insert = db.prepare('insert or replace into attachment values (?, ?, ?, ?, ?, ?, ?)')
	const remove = db.prepare('delete from attachment where uid = ?')
	const write = (what: string, run: () => void) => {
		try {
			run()
		} catch (e) {
			throw new Failure('CannotWrite', `Cannot record ${what} in ${JSON.stringify(path)}: ${messageOf(e)}`, { path })
		}
	}
	return {
		all() {
			return db
				.prepare('select * from attachment order by uid')
				.all()
				.map((row) => ({
					uid: row.uid as string,
					pod: row.pod as string,
					node: row.node as string,
					ips: (row.ips as string).split(' ') as Ip[],
					namespace: row.namespace as string,
					hostInterface: row.host_interface as string,
					mtu: row.mtu as number,
				}))
		},
		put(record) {
			write(`the attachment of pod "${record.pod}"`, () =>
				insert.run(
					record.uid,
					record.pod,
					record.node,
					record.ips.join(' '),
					record.namespace,
					record.hostInterface,
					record.mtu,
				),
			)
		},
		delete(uid) {
			write(`that pod ${uid} is detached`, () => remove.run(uid))
		},
		close() {
			db.close()
		},
	}
}

/** The node's end of a pod's veth: `pw` and 12 hexadecimal digits of the uid's SHA-256, the same for ever. */
export function hostInterfaceOf(uid: string): string {
	return `pw${createHash('sha256').update(uid).digest('hex').slice(0, 12)}`
}
