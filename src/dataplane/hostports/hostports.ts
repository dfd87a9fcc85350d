// The data plane for hostPort: what the portmap CNI plugin does, as a program of its own tables, beside any data plane
// for Services.

import { isFailure } from '../../base/failure.ts'
import { familyOf, type Ip } from '../../base/ip.ts'
import type { NetlinkSocket } from '../../linux/netlink/socket.ts'
import { inNetns, inNetnsAt } from '../../linux/netns.ts'
import type { NftChange } from '../../linux/nft/change.ts'
import { diffPrograms } from '../../linux/nft/diff.ts'
import { evaluateProgram } from '../../linux/nft/evaluate.ts'
import type { NftProgram } from '../../linux/nft/program.ts'
import { readProgram } from '../../linux/nft/read.ts'
import { applyChanges, openNftSocket } from '../../linux/nft/transaction.ts'
import { defaultOrigin } from '../../model/origin.ts'
import type { Dataplane, Outcome } from '../dataplane.ts'
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
	let socket: NetlinkSocket | undefined
	let compiled: Compiled | undefined
	let nodeAddresses: readonly Ip[] = []

	function kernel(): NetlinkSocket {
		if (socket !== undefined) return socket
		const { netns } = options
		if (netns === undefined) throw new Error('this hostports data plane has no namespace: it is for paper only')
		socket = typeof netns === 'string' ? inNetnsAt(netns, openNftSocket) : inNetns(netns, openNftSocket)
		return socket
	}

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
			try {
				applyChanges(kernel(), changes)
				return { ok: true }
			} catch (e) {
				if (!isFailure(e)) throw e
				return { ok: false, error: e, applied: typeof e.details.applied === 'number' ? e.details.applied : 0 }
			}
		},
		read: async () => readProgram(kernel(), (_, name) => name === tableName),
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
		close() {
			socket?.close()
			socket = undefined
		},
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
