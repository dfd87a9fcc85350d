// Events as the controllers of a cluster write them: what happened to an object, counted when it happens again.
// Cheap: nobody waits for an event, the queue is bounded, and one object gets only so many (the limits of client-go:
// from the 11th similar event in ten minutes on they are combined, 25 at once and then one in five minutes).

import type { Clock } from '../base/clock.ts'
import { isNotFound } from '../kube/answer.ts'
import type { KubeClient } from '../kube/client.ts'
import { events } from '../kube/kinds.ts'
import type { Event } from '../kube/objects/core.ts'
import type { KubeObject } from '../kube/objects/meta.ts'
import { timestamp } from './conditions.ts'

export interface EventRecorder {
	/** Notes an event about `object`; never waits, never fails. `component` is who says so. */
	record(component: string, object: KubeObject, type: 'Normal' | 'Warning', reason: string, message: string): void
}

export interface RecorderOptions {
	readonly clock: Clock
	readonly signal: AbortSignal
	/** Events waiting to be written at most; the oldest are dropped. */
	readonly most?: number
}

const similarWindow = 600_000
const mostSimilar = 10
const burst = 25
const refill = 300_000
/** Events written at the same time. */
const atOnce = 16
/** Objects remembered for counting. */
const remembered = 4096

interface Note {
	readonly component: string
	readonly object: KubeObject
	readonly type: 'Normal' | 'Warning'
	readonly reason: string
	readonly message: string
	readonly at: number
}

interface Written {
	readonly key: string
	readonly name: string
	count: number
}

interface Similar {
	since: number
	last: number
	readonly messages: Set<string>
}

interface Budget {
	tokens: number
	at: number
}

export function createEventRecorder(client: KubeClient, options: RecorderOptions): EventRecorder {
	const { clock, signal, most = 10_000 } = options
	const waiting: Note[] = []
	const written = new Map<string, Written>()
	const similar = new Map<string, Similar>()
	const budgets = new Map<string, Budget>()
	let writing = false
	let serial = 0

	const spend = (note: Note): boolean => {
		const key = `${note.component} ${note.object.metadata.uid}`
		const budget = remember(budgets, key, () => ({ tokens: burst, at: note.at }))
		budget.tokens = Math.min(burst, budget.tokens + (note.at - budget.at) / refill)
		budget.at = note.at
		if (budget.tokens < 1) return false
		budget.tokens--
		return true
	}

	/** The message to count under: its own, or the combined one when an object says too many alike. */
	const combine = (note: Note, group: string): { readonly identity: string; readonly message: string } => {
		const entry = remember(similar, group, () => ({ since: note.at, last: note.at, messages: new Set<string>() }))
		if (note.at - entry.last > similarWindow) entry.messages.clear()
		entry.last = note.at
		if (entry.messages.size < mostSimilar) entry.messages.add(note.message)
		if (entry.messages.has(note.message)) return { identity: `${group} ${note.message}`, message: note.message }
		return { identity: group, message: `(combined from similar events): ${note.message}` }
	}

	const write = async (note: Note): Promise<void> => {
		const { object, type, reason, component } = note
		const group = [component, object.metadata.uid, type, reason].join(' ')
		const { identity, message } = combine(note, group)
		if (!spend(note)) return
		const time = timestamp(note.at)
		const before = written.get(identity)
		if (before !== undefined) {
			before.count++
			try {
				await client.patch(events, before.key, { count: before.count, lastTimestamp: time, message })
				return
			} catch (e) {
				if (!isNotFound(e)) throw e
				written.delete(identity)
			}
		}
		const { namespace, name, uid, resourceVersion } = object.metadata
		const where = namespace ?? 'default'
		const suffix = (BigInt(note.at) * 1_000_000n + BigInt(serial++ % 1_000_000)).toString(16)
		const event: Event = {
			apiVersion: 'v1',
			kind: 'Event',
			metadata: { name: `${name}.${suffix}`, namespace: where },
			involvedObject: {
				kind: object.kind,
				...(namespace === undefined ? {} : { namespace }),
				name,
				...(uid === undefined ? {} : { uid }),
				apiVersion: object.apiVersion,
				...(resourceVersion === undefined ? {} : { resourceVersion }),
			},
			reason,
			message,
			source: { component },
			firstTimestamp: time,
			lastTimestamp: time,
			count: 1,
			type,
			eventTime: null,
			reportingComponent: component,
			reportingInstance: '',
		}
		remember(written, identity, () => ({ key: `${where}/${event.metadata.name}`, name: event.metadata.name, count: 1 }))
		await client.create(events, event)
	}

	/**
	 * The next notes to write at once, each of another object: those of one object stay in order, and one commit keeps
	 * them all.
	 */
	const take = (): Note[] => {
		const objects = new Set<unknown>()
		let count = 0
		for (const { object } of waiting) {
			const { uid } = object.metadata
			if (count >= atOnce || objects.has(uid)) break
			objects.add(uid)
			count++
		}
		return waiting.splice(0, count)
	}

	const drain = async (): Promise<void> => {
		writing = true
		try {
			while (waiting.length > 0 && !signal.aborted) {
				// An event that cannot be written (its namespace is going) is no loss.
				await Promise.allSettled(take().map(write))
			}
		} finally {
			writing = false
		}
	}

	return {
		record(component, object, type, reason, message) {
			if (signal.aborted) return
			if (waiting.length >= most) waiting.shift()
			waiting.push({ component, object, type, reason, message, at: clock.now() })
			if (!writing) void drain()
		},
	}
}

/** The entry under `key`, made when absent; the map forgets its oldest entries. */
function remember<V>(map: Map<string, V>, key: string, make: () => V): V {
	let entry = map.get(key)
	if (entry === undefined) {
		map.set(key, (entry = make()))
		if (map.size > remembered) map.delete(map.keys().next().value!)
	}
	return entry
}
