// Events live one hour, as in a real cluster (--event-ttl).

import type { Api } from './api.ts'

const hour = 3600_000
const every = 60_000

/** The returned function ends it. */
export function keepEventsShort(api: Api): () => void {
	const sweep = () => {
		const oldest = api.clock.now() - hour
		for (const entry of api.store.list('events')) {
			const { object } = entry
			const seen = object.lastTimestamp || object.eventTime || object.metadata.creationTimestamp
			if (typeof seen !== 'string' || Date.parse(seen) >= oldest) continue
			const now = api.store.current('events', entry.key)
			// A full disk refuses this too; the next sweep tries again.
			if (now !== undefined) api.store.remove(now).kept.catch(() => {})
		}
		cancel = api.clock.after(every, sweep)
	}
	let cancel = api.clock.after(every, sweep)
	return () => cancel()
}
