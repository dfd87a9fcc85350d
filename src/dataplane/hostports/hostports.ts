// The data plane for hostPort: what the portmap CNI plugin does, as a program of its own tables, beside any data plane
// for Services.

import { familyOf, type Ip } from '../../base/ip.ts'
import type { NftChange } from '../../linux/nft/change.ts'
import { diffPrograms } from '../../linux/nft/diff.ts'
import { evaluateProgram } from '../../linux/nft/evaluate.ts'
import type { NftProgram } from '../../linux/nft/program.ts'
import { applyChanges } from '../../linux/nft/transaction.ts'
import { defaultOrigin } from '../../model/origin.ts'
import type { Dataplane, Outcome } from '../dataplane.ts'
import { nftTables } from '../nft-tables.ts'
import { parseOrigin } from '../origin.ts'
import { type Compiled, compileProgram } from './compile.ts'
import { tableName } from './layout.ts'

export interface HostportsOptions {
	/** The node's network namespace: its file or an open descriptor. Without it: paper only (compile, diff, evaluate). */
	readonly netns?: string | number
}

export interface HostportsDataplane extends Dataplane<NftProgram, NftChange> {
	close(): void
}

export function createHostports(options: HostportsOptions = {}): HostportsDataplane {
	const tables = nftTables(options.netns, 'hostports data plane')
	let compiled: Compiled | undefined
	let nodeAddresses: readonly Ip[] = []

	return {
		compile(model, node) {
			compiled = compileProgram(model, node, compiled)
			nodeAddresses = model.nodes.get(node)?.addresses ?? []
			return compiled.program
		},
		diff: (have, want) => [
			...emptied(have, want),
			...diffPrograms(have, want, { owns: (table) => table.name === tableName }),
		],
		async apply(changes): Promise<Outcome> {
			return tables.attempt((socket) => applyChanges(socket, changes))
		},
		read: async () => tables.read(tableName),
		evaluate: (program, packet, at) =>
			evaluateProgram(program, packet, at, {
				addressType: (ip) => (nodeAddresses.includes(ip as Ip) ? 'local' : 'unicast'),
				masqueradeAddress: (p) => nodeAddresses.find((a) => familyOf(a) === familyOf(p.destination)),
			}).map(({ rules, ...outcome }) => ({
				...outcome,
				rules: rules.map(({ found, ...hit }) => ({
					...hit,
					because: [...found.map((f) => f.element.comment), hit.comment]
						.flatMap((c) => (c === undefined ? [] : [parseOrigin(c) ?? defaultOrigin(c)]))
						.slice(0, 1),
				})),
			})),
		close: () => tables.close(),
	}
}

/** The elements of a table that goes, by name: who follows the changes sees what left. */
function emptied(have: NftProgram | undefined, want: NftProgram): NftChange[] {
	const changes: NftChange[] = []
	for (const [key, { family, name: table, sets }] of have?.tables ?? []) {
		if (table !== tableName || want.tables.has(key)) continue
		for (const { elements, handle: _, ...set } of sets.values()) {
			if (elements.size > 0) changes.push({ family, table, op: 'delete-elements', set, elements: [...elements] })
		}
	}
	return changes
}
