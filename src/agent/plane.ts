// One data plane of one node, kept at what is wanted: the difference is taken against the last applied program in
// memory; reading back supplies it at the start and after a failure, and finds drift.

import type { Dataplane } from '../dataplane/dataplane.ts'

export interface Plane<Program> {
	readonly name: string
	/** Brings the node to `want`; the number of changes made. Throws what the data plane said; the next call reads back first. */
	bring(want: Program): Promise<number>
	/** Reads back and repairs what someone else changed since; how many changes that took. 0 before the first bring. */
	repair(): Promise<number>
	/** What is really installed. */
	read(): Promise<Program>
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
			if (!outcome.ok) throw outcome.error
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
