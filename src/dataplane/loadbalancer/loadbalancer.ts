// The appliance before the cluster: what a cloud's load balancer does, as a program in the router's own tables.

import type { Ip } from '../../base/ip.ts'
import type { Hook, Packet } from '../../base/packet.ts'
import type { NftChange } from '../../linux/nft/change.ts'
import { diffPrograms } from '../../linux/nft/diff.ts'
import type { NftProgram } from '../../linux/nft/program.ts'
import { applyChanges } from '../../linux/nft/transaction.ts'
import type { NetworkModel } from '../../model/network.ts'
import type { Evaluated, Outcome } from '../dataplane.ts'
import { nftTables } from '../nft-tables.ts'
import { compileBalancer, type Health } from './compile.ts'
import { evaluateBalancer } from './evaluate.ts'
import { type Edge, tableName } from './layout.ts'

export type { Health } from './compile.ts'
export type { Edge } from './layout.ts'

export interface BalancerOptions {
	/** The router's namespace. Without it: paper only (compile, diff, evaluate). */
	readonly netns?: string
	readonly edge: Edge
	/** The router's own addresses: what a masqueraded packet gets. */
	readonly addresses: readonly Ip[]
}

export interface BalancerDataplane {
	compile(model: Pick<NetworkModel, 'services' | 'nodes'>, health: Health): NftProgram
	diff(have: NftProgram | undefined, want: NftProgram): readonly NftChange[]
	apply(changes: readonly NftChange[]): Promise<Outcome>
	read(): Promise<NftProgram>
	evaluate(program: NftProgram, packet: Packet, at: Hook): readonly Evaluated[]
	close(): void
}

export function createBalancer(options: BalancerOptions): BalancerDataplane {
	const tables = nftTables(options.netns, 'load balancer')
	let last: NftProgram | undefined

	return {
		compile(model, health) {
			last = compileBalancer(model, options.edge, health, last)
			return last
		},
		diff: (have, want) => diffPrograms(have, want, { owns: (table) => table.name === tableName }),
		async apply(changes) {
			return tables.attempt((socket) => applyChanges(socket, changes))
		},
		read: async () => tables.read(tableName),
		evaluate: (program, packet, at) => evaluateBalancer(program, packet, at, options.addresses),
		close: () => tables.close(),
	}
}
