// One data plane of one node, kept at what is wanted: the difference is taken against the last applied program in
// memory; reading back supplies it at the start and after a failure, and finds drift.

import type { Dataplane } from '../dataplane/dataplane.ts'

export interface Plane<Program> {
	readonly name: string
	/** Brings the node to `want`; the number of changes made. Throws PlaneFailure; the next call reads back first. */
	bring(want: Program): Promise<number>
	/** Reads back and repairs what someone else changed since; how many changes that took. 0 before the first bring. */
	repair(): Promise<number>
	/** What is really installed. */
	read(): Promise<Program>
}

/** A transaction that was refused, whole or in part. */
export class PlaneFailure<Change> extends Error {
	/** Those not in force; the others are, where `partial`. */
	readonly changes: readonly Change[]
	readonly partial: boolean
	constructor(error: Error, changes: readonly Change[], partial: boolean) {
		super(error.message, { cause: error })
		this.changes = changes
		this.partial = partial
	}
}

export function createPlane<Program, Change>(
	name: string,
	dataplane: Pick<Dataplane<Program, Change>, 'diff' | 'apply' | 'read'>,
): Plane<Program> {
	let have: Program | undefined
	let known = false
	let wanted: Program | undefined

	async function change(want: Program): Promise<number> {
		const changes = dataplane.diff(have, want)
		if (changes.length > 0) {
			known = false
			const outcome = await dataplane.apply(changes)
			if (!outcome.ok) {
				const { failed } = outcome
				throw new PlaneFailure(outcome.error, failed?.map((i) => changes[i]!) ?? changes, failed !== undefined)
			}
		}
		have = want
		known = true
		return changes.length
	}
	return {
		name,
		async bring(want) {
			wanted = want
			if (!known) have = await dataplane.read()
			else if (want === have) return 0
			return change(want)
		},
		async repair() {
			if (wanted === undefined) return 0
			have = await dataplane.read()
			return change(wanted)
		},
		read: () => dataplane.read(),
	}
}
