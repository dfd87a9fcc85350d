// A pod sends from its own IPv6 addresses only. For IPv4 the kernel has a setting (rp_filter); for IPv6 it is a rule that
// asks the routing table the same: does the way back to the source lead through the interface the packet came in by? One
// question a packet, however many pods there are.

import { type Cidr, familyOf, type Ip } from '../../base/ip.ts'
import type { Hook, Packet } from '../../base/packet.ts'
import { tableOf } from '../../base/table.ts'
import { addresses, count, decide, matchPrefix } from '../../linux/nft/build.ts'
import type { NftChange } from '../../linux/nft/change.ts'
import { diffPrograms } from '../../linux/nft/diff.ts'
import { evaluateProgram } from '../../linux/nft/evaluate.ts'
import type { Expression } from '../../linux/nft/expr/expression.ts'
import { emptyProgram, type NftProgram, type NftRule, tableKey } from '../../linux/nft/program.ts'
import { applyChanges } from '../../linux/nft/transaction.ts'
import type { NetworkModel } from '../../model/network.ts'
import { defaultOrigin } from '../../model/origin.ts'
import type { Dataplane } from '../dataplane.ts'
import { nftTables } from '../nft-tables.ts'

/** `ip6 podwire-links`; on nodes whose pods have IPv6. */
export const tableName = 'podwire-links'

/** How the names of the nodes' ends of pods' links begin (`hostInterfaceOf` of the agent). */
export const linkPrefix = 'pw'

export const foreignSource = 'a pod sends from its own addresses only'

/** Before connection tracking: what is dropped leaves no trace. */
const raw = -300

const rules: readonly NftRule[] = [
	{
		// Neighbours on the link itself; no other host ever sees such an address.
		expressions: [...matchPrefix(addresses('ip6').saddr, 'fe80::/10' as Cidr), decide('return')],
		comment: 'link-local addresses',
	},
	{
		expressions: [...fromPods(), ...noWayBack(), count, decide('drop')],
		comment: foreignSource,
	},
]

const program: NftProgram = {
	tables: tableOf([
		[
			tableKey('ip6', tableName),
			{
				family: 'ip6',
				name: tableName,
				comment: 'sources of pods; written by podwire, changes are undone',
				chains: tableOf([
					[
						'sources',
						{ name: 'sources', base: { type: 'filter', hook: 'prerouting', priority: raw, policy: 'accept' }, rules },
					],
				]),
				sets: tableOf([]),
			},
		],
	]),
}

/** `iifname "pw*"` */
function fromPods(): Expression[] {
	return [
		{ kind: 'meta', key: 'iifname', to: 0 },
		{ kind: 'cmp', op: 'eq', from: 0, value: Buffer.from(linkPrefix, 'latin1').toString('hex') },
	]
}

/** `fib saddr . iif oif missing` */
function noWayBack(): Expression[] {
	return [
		{ kind: 'fib', result: 'oif', by: ['saddr', 'iif'], present: true, to: 0 },
		{ kind: 'cmp', op: 'eq', from: 0, value: '00' },
	]
}

export interface Sources extends Dataplane<NftProgram, NftChange> {
	close(): void
}

/** `netns`: the node's network namespace. Without it: paper only (compile, diff, evaluate). */
export function createSources(options: { readonly netns?: string | number } = {}): Sources {
	const tables = nftTables(options.netns, 'links data plane')
	return {
		compile: (model, node) => (hasSix(model, node) ? program : emptyProgram),
		diff: (have, want) => diffPrograms(have, want, { owns: (table) => table.name === tableName }),
		apply: async (changes) => tables.attempt((socket) => applyChanges(socket, changes)),
		read: async () => tables.read(tableName),
		/** Throws NotEvaluable for IPv6 packets of pods: which way leads back the wiring knows (`wayBack` of the context). */
		evaluate: (have: NftProgram, packet: Packet, at: Hook) =>
			evaluateProgram(have, packet, at, {}).map(({ rules, ...outcome }) => ({
				...outcome,
				rules: rules.map(({ found: _, ...hit }) => ({
					...hit,
					because: hit.comment === undefined ? [] : [defaultOrigin(hit.comment)],
				})),
			})),
		close: () => tables.close(),
	}
}

function hasSix(model: Pick<NetworkModel, 'nodes' | 'config'>, name: string): boolean {
	const node = model.nodes.get(name)
	const six = (address: Ip | Cidr) => familyOf(address) === 6
	return (node?.podCidrs ?? []).some(six)
}
