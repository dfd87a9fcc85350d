// The flows of all nodes as one: what is remembered, in the order of time, then what comes.

import type { Clock } from '../base/clock.ts'
import type { FlowEvent, FlowMessage, LostEvents } from './flow-event.ts'
import { type FlowFilter, matchesFlow } from './flow-filter.ts'
import type { FlowReader } from './flows.ts'

export interface FlowQuery {
	readonly filter: FlowFilter
	/** Of what is remembered only the newest so many; undefined: all of it. */
	readonly last?: number
	readonly follow: boolean
}

/** Messages that wait for an observer who reads slowly; what comes then is counted only. */
const queueLimit = 10_000

/** Ends after what is remembered, or (follow) when `signal` aborts. */
export async function* observeFlows(
	readers: readonly FlowReader[],
	query: FlowQuery,
	clock: Clock,
	signal: AbortSignal,
): AsyncIterable<FlowMessage> {
	const { filter } = query
	const queue: FlowMessage[] = []
	let unread = 0
	let wake = Promise.withResolvers<void>()
	const wanted = (message: FlowMessage) =>
		'flow' in message
			? matchesFlow(filter, message)
			: filter.node === undefined || message.node_name === '' || message.node_name === filter.node
	const stop: (() => void)[] = []
	const aborted = () => wake.resolve()
	/** What happened, and no flow tells of. Asked before the reader tells us what comes. */
	const untold = (reader: FlowReader): LostEvents[] => {
		const counts = [
			['RING_BUFFER', query.last === undefined ? reader.recent().overwritten : 0],
			['AGENT_RESTART', query.last === undefined ? reader.missed : 0],
			['RATE_LIMIT', reader.unlogged()],
		] as const
		return counts.flatMap(([source, count]) => (count > 0 ? [lostEvents(source, count, reader.node)] : []))
	}
	const lostEvents = (source: LostEvents['lost_events']['source'], count: number, node: string): LostEvents => ({
		lost_events: { source, num_events_lost: count },
		node_name: node,
		time: new Date(clock.now()).toISOString(),
	})
	signal.addEventListener('abort', aborted, { once: true })
	try {
		const past = remembered(readers, query)
		const lost = query.last === 0 ? [] : readers.flatMap(untold).filter(wanted)
		if (query.follow) {
			for (const reader of readers) {
				stop.push(
					reader.watch((message) => {
						if (!wanted(message)) return
						if (queue.length < queueLimit) queue.push(message)
						else unread++
						wake.resolve()
					}),
				)
			}
		}
		yield* lost
		yield* past
		while (query.follow && !signal.aborted) {
			const message = queue.shift()
			if (message !== undefined) {
				yield message
				continue
			}
			if (unread > 0) {
				const lost = unread
				unread = 0
				yield lostEvents('OBSERVER_QUEUE', lost, '')
				continue
			}
			await wake.promise
			wake = Promise.withResolvers()
		}
	} finally {
		signal.removeEventListener('abort', aborted)
		for (const end of stop) end()
	}
}

function remembered(readers: readonly FlowReader[], { filter, last }: FlowQuery): FlowEvent[] {
	const found: FlowEvent[] = []
	for (const reader of readers)
		for (const event of reader.recent().events) if (matchesFlow(filter, event)) found.push(event)
	found.sort((a, b) => (a.time < b.time ? -1 : a.time > b.time ? 1 : 0))
	return last === undefined ? found : last === 0 ? [] : found.slice(-last)
}
