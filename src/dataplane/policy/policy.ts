// The data plane for NetworkPolicy: one table a family, a chain for each group of pods that the same policies select, a
// set for each peer. README.md has the packet's path; docs/decisions/policy.md says why this layout.

import type { Ip } from '../../base/ip.ts'
import type { Hook, Packet } from '../../base/packet.ts'
import { emptyTable, type Table } from '../../base/table.ts'
import type { NftChange } from '../../linux/nft/change.ts'
import { diffPrograms } from '../../linux/nft/diff.ts'
import { type EvaluationContext, evaluateProgram } from '../../linux/nft/evaluate.ts'
import type { NftProgram } from '../../linux/nft/program.ts'
import { applyChanges } from '../../linux/nft/transaction.ts'
import { defaultOrigin } from '../../model/origin.ts'
import type { Dataplane, Evaluated, Outcome } from '../dataplane.ts'
import { nftTables } from '../nft-tables.ts'
import { parseOrigin } from '../origin.ts'
import { type LocalPod, PolicyCompiler } from './compile.ts'
import { type PolicyConfig, tableName } from './layout.ts'

/** `cutEstablished` and `profile` may be others from one compilation to the next. */
export interface PolicyOptions extends PolicyConfig {
	/** The node's network namespace: its file or an open descriptor. Without it: paper only (compile, diff, evaluate). */
	readonly netns?: string | number
	/** The pods wired on this node, by uid. Without it: those the model knows the addresses of. */
	readonly local?: () => Table<string, LocalPod>
}

export interface PolicyDataplane extends Dataplane<NftProgram, NftChange> {
	close(): void
}

export function createPolicy(options: PolicyOptions = {}): PolicyDataplane {
	const tables = nftTables(options.netns, 'policy data plane')
	let compiler: PolicyCompiler | undefined
	/** What `compiler` was made for. */
	let meant = ''
	let nodeAddresses: readonly Ip[] = []

	return {
		compile(model, node) {
			const now = JSON.stringify([options.cutEstablished === true, options.profile ?? null])
			const current = compiler?.node === node && meant === now ? compiler : new PolicyCompiler(node, options)
			compiler = undefined
			meant = now
			const program = current.update(model, options.local?.() ?? emptyTable())
			compiler = current
			nodeAddresses = model.nodes.get(node)?.addresses ?? []
			return program
		},
		diff: (have, want) => diffPrograms(have, want, { owns: (table) => table.name === tableName }),
		async apply(changes): Promise<Outcome> {
			let applied = 0
			const outcome = tables.attempt((socket) => {
				for (const part of inParts(changes)) applied += applyChanges(socket, part).transactions
			})
			return outcome.ok ? outcome : { ...outcome, applied: applied + outcome.applied }
		},
		read: async () => tables.read(tableName),
		evaluate: (program, packet, at) =>
			evaluate(program, packet, at, {
				addressType: (ip) => (nodeAddresses.includes(ip as Ip) ? 'local' : 'unicast'),
			}),
		close: () => tables.close(),
	}
}

function evaluate(program: NftProgram, packet: Packet, at: Hook, context: EvaluationContext): Evaluated[] {
	return evaluateProgram(program, packet, at, context).map(({ rules, ...outcome }) => ({
		...outcome,
		rules: rules.map(({ found, ...hit }) => ({
			...hit,
			// What a rule says of itself; that it was reached because of a pod, its chain says.
			because: [hit.comment, ...found.map((f) => f.element.comment)]
				.flatMap((c) => (c === undefined ? [] : [parseOrigin(c) ?? defaultOrigin(c)]))
				.slice(0, 1),
		})),
	}))
}

/** More elements than one transaction may have to be cut for, without privileges. */
const manyElements = 20_000

/**
 * What nobody asks for yet (new tables, new sets and their contents, new chains and their rules) is in force before what
 * leads to it, for two reasons. The kernel chooses the generation of the rules when a packet enters a hook, but that of a
 * map's elements when it is looked up: a packet that was on its way when one transaction brought a chain and the
 * element that jumps there would find the chain as it was before, empty, and pass. And a transaction too large for the
 * socket is cut in several, between which a chain could be in force without its rules.
 */
function inParts(changes: readonly NftChange[]): (readonly NftChange[])[] {
	const size = changes.reduce((n, c) => n + (c.op === 'add-elements' ? c.elements.length : 0), 0)
	const place = (c: NftChange, name: string) => `${c.family} ${c.table} ${name}`
	const sets = new Set(changes.flatMap((c) => (c.op === 'add-set' ? [place(c, c.set.name)] : [])))
	const chains = new Set(
		changes.flatMap((c) => (c.op === 'add-chain' && c.chain.base === undefined ? [place(c, c.chain.name)] : [])),
	)
	if (chains.size === 0 && size < manyElements) return [changes]
	// A table that is replaced is so in one instant.
	if (changes.some((c) => c.op === 'delete-table')) return [changes]
	const isFirst = (c: NftChange) =>
		c.op === 'add-table' ||
		c.op === 'add-set' ||
		(c.op === 'add-elements' && c.set.data === undefined && sets.has(place(c, c.set.name))) ||
		(c.op === 'add-chain' && c.chain.base === undefined) ||
		(c.op === 'add-rule' && chains.has(place(c, c.chain)))
	return [changes.filter(isFirst), changes.filter((c) => !isFirst(c))]
}
