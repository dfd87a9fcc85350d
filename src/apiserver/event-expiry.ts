// Events live one hour, as in a real cluster (--event-ttl).

import type { Api } from './api.ts'
import type { Entry } from './store.ts'

const hour = 3600_000
const every = 60_000

/** The returned function ends it. */
export function keepEventsShort(api: Api): () => void {
	/** Looked into once: there may be many. */
	const seenAt = new WeakMap<Entry, number>()
	const sweep = () => {
		const oldest = api.clock.now() - hour
		for (const entry of api.store.list('events')) {
			let seen = seenAt.get(entry)
			if (seen === undefined) seenAt.set(entry, (seen = lastSeen(entry)))
			// Without a date that can be read it stays.
			if (!(seen < oldest)) continue
			const now = api.store.current('events', entry.key)
			// A full disk refuses this too; the next sweep tries again.
			if (now !== undefined) api.store.remove(now).kept.catch(() => {})
		}
		cancel = api.clock.after(every, sweep)
	}
	let cancel = api.clock.after(every, sweep)
	return () => cancel()
}

function lastSeen({ object }: Entry): number {
	const seen = object.lastTimestamp || object.eventTime || object.metadata.creationTimestamp
	return typeof seen === 'string' ? Date.parse(seen) : Number.NaN
}
