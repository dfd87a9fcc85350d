// What names were answered with, and for how long that holds: what policies that name domains go by.

import type { Clock } from '../../base/clock.ts'
import type { Ip } from '../../base/ip.ts'
import { nameMatches } from '../../model/resolved-names.ts'
import { normalName } from '../../model/zone.ts'
import type { DnsMessage } from './wire.ts'

/** Plain data: it crosses sockets as JSON. */
export interface AnsweredName {
	/** Lower case, without the final dot. */
	readonly name: string
	/** `until`: milliseconds since the epoch. */
	readonly addresses: readonly { readonly ip: Ip; readonly until: number }[]
}

/** Who wants to know what pods are answered, before they are. */
export interface AnswerWatch {
	/** Whether the addresses of one of the names are of interest. */
	wants(names: readonly string[]): boolean
	/** Resolves when whoever wants to know does, or takes too long. undefined: nobody has to be waited for. */
	told(answer: DnsMessage): Promise<void> | undefined
}

/**
 * Milliseconds that an answer holds at least, whatever its TTL: between the answer and the first packet lies a program
 * that may be slow, and a first packet that is lost is sent again after 1, 3 and 7 s. The API asks that new connections
 * end with the TTL; under this floor they end somewhat later for names with a TTL of seconds.
 */
export const shortestHold = 10_000
/** Whatever the TTL says: a name that is in use is asked for again within a day. */
export const longestHold = 86_400_000

/**
 * The names that the addresses of an answer belong to: the one that was asked for, and those its CNAMEs lead to. Each holds
 * as long as the shortest TTL between it and the address. What the answer says besides (NPEP-133: one answer has the
 * whole chain, or it means nothing) is left aside: nobody asked for it.
 */
export function answeredNames(answer: DnsMessage, now: number): readonly AnsweredName[] {
	const question = answer.questions[0]
	if (question === undefined || answer.rcode !== 'NOERROR') return []
	const found: { readonly name: string; readonly ttls: number[] }[] = []
	for (let at = normalName(question.name); !found.some(({ name }) => name === at); ) {
		found.push({ name: at, ttls: [] })
		const records = answer.answers.filter((r) => normalName(r.name) === at)
		const addresses = records.flatMap((r) => ('address' in r ? [r] : []))
		if (addresses.length > 0)
			return found.map(({ name, ttls }) => ({
				name,
				addresses: addresses.map(({ address: ip, ttl }) => ({ ip, until: now + holdOf(Math.min(ttl, ...ttls)) })),
			}))
		const alias = records.find((r) => r.type === 'CNAME' && 'target' in r)
		if (alias === undefined || !('target' in alias) || alias.type !== 'CNAME') return []
		for (const { ttls } of found) ttls.push(alias.ttl)
		at = normalName(alias.target)
	}
	return []
}

function holdOf(ttl: number): number {
	return Math.min(longestHold, Math.max(shortestHold, ttl * 1000))
}

/** Names remembered of each kind, wanted and not: of more, those that were asked for least recently go. */
export const mostNames = 4096
/** Of one name; the API asks for 100. */
export const mostAddresses = 256

type Held = Map<Ip, number>

/**
 * What was answered and still holds, bounded. Names that nobody wants are remembered as well, apart: when a policy that
 * means them comes, the pods that asked before it need not ask again.
 */
export class AnswerMemory {
	readonly #clock: Clock
	#wanted: readonly string[] = []
	readonly #watched = new Map<string, Held>()
	readonly #others = new Map<string, Held>()

	constructor(clock: Clock) {
		this.#clock = clock
	}

	/** Names and `*.` with names, in place of those before; what is known of them. */
	watch(entries: readonly string[]): readonly AnsweredName[] {
		this.#wanted = entries
		for (const [from, to, isThere] of [
			[this.#others, this.#watched, true],
			[this.#watched, this.#others, false],
		] as const)
			for (const [name, held] of from) {
				if (this.wants([name]) !== isThere) continue
				from.delete(name)
				to.set(name, held)
			}
		return this.#list(this.#watched)
	}

	wants(names: readonly string[]): boolean {
		return this.#wanted.some((entry) => names.some((name) => nameMatches(entry, name)))
	}

	note(names: readonly AnsweredName[]): void {
		for (const { name, addresses } of names) {
			const place = this.wants([name]) ? this.#watched : this.#others
			const held = holdMore(place.get(name), addresses, this.#clock.now())
			place.delete(name)
			place.set(name, held)
			trim(place)
		}
	}

	/** Everything that still holds. */
	all(): readonly AnsweredName[] {
		return [...this.#list(this.#watched), ...this.#list(this.#others)]
	}

	#list(place: Map<string, Held>): AnsweredName[] {
		const now = this.#clock.now()
		return [...place].flatMap(([name, held]) => {
			const addresses = [...held].filter(([, until]) => until > now).map(([ip, until]) => ({ ip, until }))
			if (addresses.length === 0) place.delete(name)
			return addresses.length === 0 ? [] : [{ name, addresses }]
		})
	}
}

/** `held` with the answer's addresses, those that are over gone, at most as many as one name may have. */
export function holdMore(held: Held | undefined, addresses: AnsweredName['addresses'], now: number): Held {
	const all = new Map([...(held ?? [])].filter(([, until]) => until > now))
	for (const { ip, until } of addresses) if (until > now) all.set(ip, Math.max(until, all.get(ip) ?? 0))
	if (all.size <= mostAddresses) return all
	return new Map([...all].sort(([, a], [, b]) => b - a).slice(0, mostAddresses))
}

/** Takes out what was set least recently, and says what: whoever sets a name again deletes it first. */
export function trim(names: Map<string, unknown>): readonly string[] {
	const gone: string[] = []
	for (const name of names.keys()) {
		if (names.size <= mostNames) break
		names.delete(name)
		gone.push(name)
	}
	return gone
}
