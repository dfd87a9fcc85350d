// The durable side of the store: one SQLite file, one row an object. See docs/decisions/store.md.

import { Failure, messageOf } from '../base/failure.ts'

/** One object as it must be from now on; `bytes` undefined: it is gone. */
export interface JournalWrite {
	/** Never changes while the object lives: the revision it was created at. */
	readonly id: number
	readonly storage: string
	readonly key: string
	readonly revision: number
	readonly bytes: Uint8Array | undefined
}

export interface JournalRecord extends JournalWrite {
	readonly bytes: Uint8Array
}

/** What keeps a store's content beyond the process. */
export interface Journal {
	/** Everything kept; `revision` is the last one given out, also where its object is gone. */
	load(): { readonly revision: number; readonly records: Iterable<JournalRecord> }
	/**
	 * Keeps all of `writes` and `revision`, or nothing. When it returns, they survive a crash of the machine.
	 * Throws Failure: `InsufficientStorage` (no space), `StorageFailed` (input/output error).
	 */
	commit(writes: readonly JournalWrite[], revision: number): void
	close(): void
}

const format = 1

export interface JournalOptions {
	/** Bounds the file, as a full disk would. */
	readonly maxBytes?: number
	/** The log is written back into the file when it has so many pages; 1,000 unless said otherwise. */
	readonly checkpointPages?: number
}

/**
 * Opens (or creates) the journal in file `path`.
 * Throws Failure: `StoreBusy` (another process has it open), `StoreUnreadable` (damaged, or not ours).
 */
export async function openJournal(path: string, options: JournalOptions = {}): Promise<Journal> {
	const { DatabaseSync } = await import('node:sqlite')
	const cannot = (why: string, code: string, cause?: unknown) =>
		new Failure(code, `Cannot open the store "${path}": ${why}`, { path }, { cause })
	let db: InstanceType<typeof DatabaseSync>
	try {
		db = new DatabaseSync(path)
	} catch (cause) {
		throw cannot(messageOf(cause), 'StoreUnreadable', cause)
	}
	try {
		// One process owns the file: the lock is kept (and freed by the kernel when we die), and no shared memory is needed.
		db.exec('PRAGMA locking_mode = EXCLUSIVE')
		db.exec('PRAGMA journal_mode = WAL')
		// FULL: the log is synced at each commit, so a power cut loses nothing that was acknowledged.
		db.exec('PRAGMA synchronous = FULL')
		db.exec(`PRAGMA wal_autocheckpoint = ${options.checkpointPages ?? 1000}`)
		if (options.maxBytes !== undefined) {
			const page = (db.prepare('PRAGMA page_size').get() as { page_size: number }).page_size
			db.exec(`PRAGMA max_page_count = ${Math.max(4, Math.floor(options.maxBytes / page))}`)
		}
		db.exec(
			`BEGIN IMMEDIATE;
			CREATE TABLE IF NOT EXISTS objects (
				id INTEGER PRIMARY KEY, storage TEXT NOT NULL, key TEXT NOT NULL, revision INTEGER NOT NULL, value BLOB NOT NULL
			);
			CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
			INSERT OR IGNORE INTO facts VALUES ('format', ${format}), ('revision', 0);
			COMMIT`,
		)
		const have = (db.prepare("SELECT value FROM facts WHERE name = 'format'").get() as { value: number }).value
		if (have !== format) throw cannot(`it has format ${have}, this version reads format ${format}`, 'StoreUnreadable')
	} catch (cause) {
		db.close()
		if (cause instanceof Failure) throw cause
		const code = primaryCode(cause)
		if (code === sqlite.busy || code === sqlite.locked) {
			throw cannot('another process has it open', 'StoreBusy', cause)
		}
		throw cannot(messageOf(cause), 'StoreUnreadable', cause)
	}
	const put = db.prepare('INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?)')
	const remove = db.prepare('DELETE FROM objects WHERE id = ?')
	const setRevision = db.prepare("UPDATE facts SET value = ? WHERE name = 'revision'")
	const readRevision = db.prepare("SELECT value FROM facts WHERE name = 'revision'")
	// In the order of the file: to sort a hundred thousand objects would take as long again as to read them.
	const readObjects = db.prepare('SELECT id, storage, key, revision, value FROM objects')
	readObjects.setReturnArrays(true)
	return {
		load: () => ({
			revision: (readRevision.get() as { value: number }).value,
			records: recordsOf(readObjects.iterate() as Iterable<unknown> as Iterable<Columns>),
		}),
		commit(writes, revision) {
			// The last write of each object is enough.
			const last = new Map<number, JournalWrite>()
			for (const write of writes) last.set(write.id, write)
			try {
				db.exec('BEGIN IMMEDIATE')
				for (const w of last.values()) {
					if (w.bytes === undefined) remove.run(w.id)
					else put.run(w.id, w.storage, w.key, w.revision, w.bytes)
				}
				setRevision.run(revision)
				db.exec('COMMIT')
			} catch (cause) {
				// SQLite may have rolled back by itself.
				if (db.isTransaction) db.exec('ROLLBACK')
				const full = primaryCode(cause) === sqlite.full
				throw new Failure(
					full ? 'InsufficientStorage' : 'StorageFailed',
					`Cannot write to the store "${path}": ${full ? 'no space is left' : messageOf(cause)}; nothing was changed`,
					{ path },
					{ cause },
				)
			}
		},
		close: () => db.close(),
	}
}

type Columns = readonly [id: number, storage: string, key: string, revision: number, bytes: Uint8Array]

function* recordsOf(rows: Iterable<Columns>): Generator<JournalRecord, void, undefined> {
	for (const [id, storage, key, revision, bytes] of rows) yield { id, storage, key, revision, bytes }
}

/** Result codes, https://www.sqlite.org/rescode.html. */
const sqlite = { busy: 5, locked: 6, full: 13 } as const

function primaryCode(e: unknown): number {
	const code = (e as { errcode?: unknown }).errcode
	return typeof code === 'number' ? code & 0xff : 0
}
