// What the daemon says while it works: kept for those who ask later, streamed to those who listen.

import type { LabEvent, LabPhase } from './status.ts'

export interface LabEvents {
	readonly phase: LabPhase
	setPhase(phase: LabPhase): void
	progress(text: string): void
	warning(text: string): void
	/** What was said so far, then what comes, until `signal` aborts or `end`. */
	follow(signal: AbortSignal): AsyncIterable<LabEvent>
	/** Nothing more will be said. */
	end(): void
}

/** Warnings repeat for as long as the trouble lasts; the list of what was said must not grow with it. */
const kept = 1000

export function createLabEvents(log: (text: string) => void): LabEvents {
	const said: LabEvent[] = []
	let dropped = 0
	let phase: LabPhase = 'starting'
	let ended = false
	let next = Promise.withResolvers<void>()

	function say(event: LabEvent): void {
		said.push(event)
		if (said.length > kept) {
			said.shift()
			dropped++
		}
		log(`${event.at} ${event.event} ${event.event === 'phase' ? event.phase : event.text}`)
		next.resolve()
		next = Promise.withResolvers()
	}
	const at = () => new Date().toISOString()
	return {
		get phase() {
			return phase
		},
		setPhase(now) {
			phase = now
			say({ event: 'phase', phase: now, at: at() })
		},
		progress: (text) => say({ event: 'progress', text, at: at() }),
		warning: (text) => say({ event: 'warning', text, at: at() }),
		async *follow(signal) {
			const aborted = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
			let position = dropped
			while (!signal.aborted) {
				position = Math.max(position, dropped)
				const event = said[position - dropped]
				if (event !== undefined) {
					position++
					yield event
				} else if (ended) return
				else await Promise.race([next.promise, aborted])
			}
		},
		end() {
			ended = true
			next.resolve()
		},
	}
}
