// A kernel trace names rules by their handles, not the map elements they looked up. The elements are found by evaluating
// the same rules for the traced packet, and taking the outcome that really happened.

import type { Hook, Packet } from '../base/packet.ts'
import { evaluateProgram, type NftHit, type NftOutcome, NotEvaluable } from '../linux/nft/evaluate.ts'
import type { NftProgram } from '../linux/nft/program.ts'
import type { TraceMessage } from '../linux/nftrace.ts'

/** What one packet met at one hook. */
interface Visit {
	readonly hook: Hook
	readonly packet: Packet
	readonly rules: string[]
}

/**
 * Hits with their elements, by hitKey, for the first packet of a connection (state new). `deviceOf` names interfaces
 * by index; `happened`: whether a packet looks as the flow really did after translation. Rules that cannot be
 * evaluated, or come out otherwise than traced, are left out.
 */
export function hitsOfTrace(
	program: NftProgram,
	messages: readonly TraceMessage[],
	deviceOf: (index: number) => string | undefined,
	happened: (packet: Packet) => boolean,
): ReadonlyMap<string, NftHit> {
	const hits = new Map<string, NftHit>()
	for (const visit of visitsOf(program, messages, deviceOf)) {
		const traced = visit.rules.join()
		const same = outcomesOf(program, visit).find((o) => o.rules.map(hitKey).join() === traced && happened(o.packet))
		for (const hit of same?.rules ?? []) hits.set(hitKey(hit), hit)
	}
	return hits
}

/** Whether the sender's address is the node's own is not in a trace: what was met tells which of both it was. */
function outcomesOf(program: NftProgram, { packet, hook }: Visit): NftOutcome[] {
	return (['local', 'unicast'] as const).flatMap((type) => {
		try {
			return evaluateProgram(program, packet, hook, {
				addressType: (ip) => (ip === packet.source ? type : undefined),
			})
		} catch (e) {
			if (e instanceof NotEvaluable) return []
			throw e
		}
	})
}

export function hitKey(at: Pick<NftHit, 'family' | 'table' | 'chain' | 'handle'>): string {
	return `${at.family} ${at.table} ${at.chain} ${at.handle}`
}

function visitsOf(
	program: NftProgram,
	messages: readonly TraceMessage[],
	deviceOf: (index: number) => string | undefined,
): Visit[] {
	const visits: Visit[] = []
	for (const message of messages) {
		const { packet, inIndex, outIndex } = message
		if (packet !== undefined) {
			// The first message of a base chain has the packet; several base chains share a hook.
			const hook = program.tables.get(`${message.family} ${message.table}`)?.chains.get(message.chain)?.base?.hook
			if (hook === undefined || hook === 'ingress') return visits
			const inInterface = inIndex === undefined ? undefined : deviceOf(inIndex)
			const outInterface = outIndex === undefined ? undefined : deviceOf(outIndex)
			if (visits.at(-1)?.hook !== hook) {
				visits.push({
					hook,
					rules: [],
					packet: {
						protocol: packet.protocol === 6 ? 'TCP' : 'UDP',
						source: packet.source,
						sourcePort: packet.sourcePort,
						destination: packet.destination,
						destinationPort: packet.destinationPort,
						state: 'new',
						mark: message.mark,
						...(inInterface === undefined ? {} : { inInterface }),
						...(outInterface === undefined ? {} : { outInterface }),
					},
				})
			}
		}
		if (message.kind === 'rule') visits.at(-1)?.rules.push(hitKey(message))
	}
	return visits
}
