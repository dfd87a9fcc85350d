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
	let cancel = () => {}

	function forget(): void {
		const now = clock.now()
		const over = new Set<Ip>()
		for (const ips of held.values()) for (const [ip, until] of ips) if (until <= now) over.add(ip)
		const used = new Set(over.size === 0 ? [] : (options.inUse?.([...over]) ?? []))
		for (const [name, ips] of held) {
			for (const [ip, until] of ips) {
				if (until > now) continue
				if (used.has(ip)) ips.set(ip, now + lookAgain)
				else ips.delete(ip)
			}
			if (ips.size === 0) held.delete(name)
		}
	}

	function tell(): void {
		const before = names
		names = before.mutate((draft) => {
			for (const name of before.keys()) if (!held.has(name)) draft.delete(name)
			for (const [name, ips] of held) {
				const list = [...ips.keys()].sort()
				if (draft.get(name)?.join() !== list.join()) draft.set(name, list)
			}
		})
		if (names !== before) publish(names)
	}

	function schedule(): void {
		cancel()
		let first = Number.POSITIVE_INFINITY
		for (const ips of held.values()) for (const until of ips.values()) first = Math.min(first, until)
		cancel =
			first === Number.POSITIVE_INFINITY
				? () => {}
				: clock.after(Math.max(0, first - clock.now()), () => {
						forget()
						tell()
						schedule()
					})
	}

	return {
		get names() {
			return names
		},
		learn(list) {
			if (list.length === 0) return
			forget()
			for (const { name, addresses } of list) {
				const ips = holdMore(held.get(name), addresses, clock.now())
				held.delete(name)
				if (ips.size > 0) held.set(name, ips)
			}
			trim(held)
			tell()
			schedule()
		},
		stop: () => cancel(),
	}
}
