// The nftables data plane of one node: Services by a handful of maps and one element an endpoint. README.md has the
// packet's path; docs/decisions/services-nftables.md says why this layout.

import { familyOf, type Ip } from '../../base/ip.ts'
import type { NftChange } from '../../linux/nft/change.ts'
import { diffPrograms } from '../../linux/nft/diff.ts'
import { emptyProgram, fromJson, type NftProgram, type NftProgramJson, toJson } from '../../linux/nft/program.ts'
import { applyChanges } from '../../linux/nft/transaction.ts'
import type { Outcome, ServiceDataplane } from '../dataplane.ts'
import { nftTables } from '../nft-tables.ts'
import { type Compiled, compileProgram } from './compile.ts'
import { evaluate } from './evaluate.ts'
import { forgetClients, forgottenBy } from './flush.ts'
import { names, tableName } from './layout.ts'

export interface NftablesOptions {
	/** The node's network namespace: its file or an open descriptor. Without it: paper only (compile, diff, evaluate). */
	readonly netns?: string | number
	/** What a masquerade on this node takes, where the model does not say. */
	readonly nodeAddresses?: readonly Ip[]
}

export type NftablesDataplane = ServiceDataplane<NftProgram, NftChange>

/** A node's Services. The socket is opened in the namespace at the first apply or read and stays there. */
export function createNftables(options: NftablesOptions = {}): NftablesDataplane {
	const tables = nftTables(options.netns, 'nftables data plane')
	let compiled: Compiled | undefined
	let nodeAddresses = options.nodeAddresses ?? []

	return {
		compile(model, node) {
			compiled = compileProgram(model, node, compiled)
			nodeAddresses = options.nodeAddresses ?? model.nodes.get(node)?.addresses ?? []
			return compiled.program
		},
		diff: (have, want) => diffPrograms(have, want, { owns: (table) => table.name === tableName }),
		async apply(changes): Promise<Outcome> {
			return tables.attempt((socket) => {
				applyChanges(socket, changes)
				if (remembersClients(compiled)) forgetClients(socket, forgottenBy(changes))
			})
		},
		read: async () => tables.read(),
		empty: emptyProgram,
		toJson,
		fromJson: (json) => fromJson(json as NftProgramJson),
		evaluate: (program, packet, at) =>
			evaluate(program, packet, at, {
				addressType: (ip) => (nodeAddresses.includes(ip as Ip) ? 'local' : 'unicast'),
				masqueradeAddress: (p) => nodeAddresses.find((a) => familyOf(a) === familyOf(p.destination)),
			}),
		close: () => tables.close(),
	}
}

/** Without any Service with session affinity there is nothing to forget; not compiled here: there may be. */
function remembersClients(compiled: Compiled | undefined): boolean {
	if (compiled === undefined) return true
	return Object.values(compiled.families).some((f) => f.table?.sets.has(names.clients) === true)
}
