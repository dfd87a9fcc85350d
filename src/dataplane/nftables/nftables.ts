// The nftables data plane of one node: Services by a handful of maps and one element an endpoint. README.md has the
// packet's path; docs/decisions/services-nftables.md says why this layout.

import { isFailure } from '../../base/failure.ts'
import { familyOf, type Ip } from '../../base/ip.ts'
import type { NetlinkSocket } from '../../linux/netlink/socket.ts'
import { inNetns, inNetnsAt } from '../../linux/netns.ts'
import type { NftChange } from '../../linux/nft/change.ts'
import { diffPrograms } from '../../linux/nft/diff.ts'
import { emptyProgram, fromJson, type NftProgram, type NftProgramJson, toJson } from '../../linux/nft/program.ts'
import { readProgram } from '../../linux/nft/read.ts'
import { applyChanges, openNftSocket } from '../../linux/nft/transaction.ts'
import type { Outcome, ServiceDataplane } from '../dataplane.ts'
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
	let socket: NetlinkSocket | undefined
	let compiled: Compiled | undefined
	let nodeAddresses = options.nodeAddresses ?? []

	function kernel(): NetlinkSocket {
		if (socket !== undefined) return socket
		const { netns } = options
		if (netns === undefined) throw new Error('this nftables data plane has no namespace: it is for paper only')
		socket = typeof netns === 'string' ? inNetnsAt(netns, openNftSocket) : inNetns(netns, openNftSocket)
		return socket
	}

	return {
		compile(model, node) {
			compiled = compileProgram(model, node, compiled)
			nodeAddresses = options.nodeAddresses ?? model.nodes.get(node)?.addresses ?? []
			return compiled.program
		},
		diff: (have, want) => diffPrograms(have, want, { owns: (table) => table.name === tableName }),
		async apply(changes): Promise<Outcome> {
			try {
				applyChanges(kernel(), changes)
				if (remembersClients(compiled)) forgetClients(kernel(), forgottenBy(changes))
				return { ok: true }
			} catch (e) {
				if (!isFailure(e)) throw e
				return { ok: false, error: e, applied: typeof e.details.applied === 'number' ? e.details.applied : 0 }
			}
		},
		read: async () => readProgram(kernel()),
		empty: emptyProgram,
		toJson,
		fromJson: (json) => fromJson(json as NftProgramJson),
		evaluate: (program, packet, at) =>
			evaluate(program, packet, at, {
				addressType: (ip) => (nodeAddresses.includes(ip as Ip) ? 'local' : 'unicast'),
				masqueradeAddress: (p) => nodeAddresses.find((a) => familyOf(a) === familyOf(p.destination)),
			}),
		close() {
			socket?.close()
			socket = undefined
		},
	}
}

/** Without any Service with session affinity there is nothing to forget; not compiled here: there may be. */
function remembersClients(compiled: Compiled | undefined): boolean {
	if (compiled === undefined) return true
	return Object.values(compiled.families).some((f) => f.table?.sets.has(names.clients) === true)
}
