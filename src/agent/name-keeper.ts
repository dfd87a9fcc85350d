// The addresses of names outside that policies mean, as the cluster's DNS servers answer them: taken in before the pod
// hears the answer, held for as long as it holds, forgotten then. What is held is part of every node's model.

import type { Clock } from '../base/clock.ts'
import type { Ip } from '../base/ip.ts'
import { emptyTable } from '../base/table.ts'
import { type AnsweredName, holdMore, trim } from '../dataplane/dns/answered.ts'
import type { ResolvedNames } from '../model/resolved-names.ts'

export interface NameKeeper {
	/** What holds now. */
	readonly names: ResolvedNames
	/** Takes answers in; published when it returns, where they say something new. */
	learn(names: readonly AnsweredName[]): void
	stop(): void
}

/** Milliseconds until an address that outlived its answer, because connections use it, is looked at again. */
const lookAgain = 10_000

/**
 * `publish` gets what holds whenever that changes; an answer that only lasts longer changes nothing. `inUse`: which of the
 * addresses connections still go to; those stay, with the effect that new connections to them pass as well. It is for
 * data planes that ask established connections again: where those go on by themselves nobody needs it, and the address
 * goes with the answer, as the API asks. Bounded as AnswerMemory is.
 */
export function createNameKeeper(options: {
	readonly clock: Clock
	readonly publish: (names: ResolvedNames) => void
	readonly inUse?: (ips: readonly Ip[]) => Iterable<Ip>
}): NameKeeper {
	const { clock, publish } = options
	const held = new Map<string, Map<Ip, number>>()
	let names: ResolvedNames = emptyTable()
	/** When the next address is over, or some time before. */
	let due = Number.POSITIVE_INFINITY
	let cancel = () => {}

	function forget(): Set<string> {
		const now = clock.now()
		const over = new Set<Ip>()
		for (const ips of held.values()) for (const [ip, until] of ips) if (until <= now) over.add(ip)
		const used = new Set(over.size === 0 ? [] : (options.inUse?.([...over]) ?? []))
		const touched = new Set<string>()
		for (const [name, ips] of held) {
			for (const [ip, until] of ips) {
				if (until > now) continue
				touched.add(name)
				if (used.has(ip)) ips.set(ip, now + lookAgain)
				else ips.delete(ip)
			}
			if (ips.size === 0) held.delete(name)
		}
		return touched
	}

	function tell(touched: Iterable<string>): void {
		const before = names
		names = before.mutate((draft) => {
			for (const name of touched) {
				const list = [...(held.get(name)?.keys() ?? [])].sort()
				if (list.length === 0) draft.delete(name)
				else if (draft.get(name)?.join() !== list.join()) draft.set(name, list)
			}
		})
		if (names !== before) publish(names)
	}

	function wakeAt(time: number): void {
		if (time >= due) return
		due = time
		cancel()
		cancel = clock.after(Math.max(0, time - clock.now()), () => tell(lookAround()))
	}

	/** The names that lost something. Every name is looked at: only when something is over. */
	function lookAround(): Set<string> {
		const touched = forget()
		due = Number.POSITIVE_INFINITY
		cancel()
		let first = due
		for (const ips of held.values()) for (const until of ips.values()) first = Math.min(first, until)
		if (first < due) wakeAt(first)
		return touched
	}

	return {
		get names() {
			return names
		},
		learn(list) {
			const now = clock.now()
			const touched = now >= due ? lookAround() : new Set<string>()
			for (const { name, addresses } of list) {
				const ips = holdMore(held.get(name), addresses, now)
				held.delete(name)
				if (ips.size > 0) held.set(name, ips)
				touched.add(name)
				for (const until of ips.values()) wakeAt(until)
			}
			for (const name of trim(held)) touched.add(name)
			tell(touched)
		},
		stop: () => cancel(),
	}
}
