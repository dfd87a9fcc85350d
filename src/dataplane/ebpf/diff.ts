// The difference of two programs: few changes, each with everything of its kind, since the kernel takes many elements in
// one call.

import { diffTables } from '../../base/table.ts'
import type { AttachType } from '../../linux/bpf/system.ts'
import {
	type EbpfFrontend,
	type EbpfNamespace,
	type EbpfProgram,
	emptyProgram,
	sameFrontend,
	sameNamespace,
} from './program.ts'

export type EbpfChange =
	/** In order: elements that readers need come before those that lead there, and go after them. */
	| {
			readonly change: 'frontends'
			readonly put: readonly { readonly before?: EbpfFrontend; readonly after: EbpfFrontend }[]
			readonly drop: readonly EbpfFrontend[]
	  }
	| { readonly change: 'namespaces'; readonly put: readonly EbpfNamespace[]; readonly drop: readonly string[] }
	/** Loads and attaches, or replaces what is attached there. Last, so that programs never see half-filled maps. */
	| { readonly change: 'attach'; readonly types: readonly AttachType[] }
	/** Takes every program and every map away. */
	| { readonly change: 'detach' }

export function diffPrograms(have: EbpfProgram | undefined, want: EbpfProgram): readonly EbpfChange[] {
	const from = have ?? emptyProgram
	if (want.attached.size === 0) {
		const nothing = from.attached.size === 0 && from.namespaces.size === 0 && from.frontends.size === 0
		return nothing ? [] : [{ change: 'detach' }]
	}
	const changes: EbpfChange[] = []
	const put: { before?: EbpfFrontend; after: EbpfFrontend }[] = []
	const drop: EbpfFrontend[] = []
	diffTables(from.frontends, want.frontends, (_, before, after) => {
		if (after === undefined) drop.push(before as EbpfFrontend)
		else if (before === undefined) put.push({ after })
		else if (!sameFrontend(before, after)) put.push({ before, after })
	})
	if (put.length > 0 || drop.length > 0) changes.push({ change: 'frontends', put, drop })
	const come: EbpfNamespace[] = []
	const go: string[] = []
	diffTables(from.namespaces, want.namespaces, (path, before, after) => {
		if (after === undefined) go.push(path)
		else if (before === undefined || !sameNamespace(before, after)) come.push(after)
	})
	if (come.length > 0 || go.length > 0) changes.push({ change: 'namespaces', put: come, drop: go })
	const types: AttachType[] = []
	diffTables(from.attached, want.attached, (type, before, after) => {
		if (before !== after && after !== undefined) types.push(type)
	})
	if (types.length > 0) changes.push({ change: 'attach', types })
	return changes
}
