// Which rules each class is subject to. Classes with the same rules share one profile, and with it one row of answers.

import type { Direction } from '../model/policy.ts'
import type { EndClass } from './classes.ts'
import type { CompiledPolicy } from './compile.ts'
import type { Profile } from './profile.ts'

const directions = ['ingress', 'egress'] as const

export class Profiles {
	readonly #known: Record<Direction, Map<string, Profile>> = { ingress: new Map(), egress: new Map() }
	// Two fields: this is what every answer is looked up in.
	readonly #ingress: Profile[] = []
	readonly #egress: Profile[] = []
	readonly #keys: Record<Direction, string[]> = { ingress: [], egress: [] }

	/** Number of different rule lists, both directions. */
	get size(): number {
		return this.#known.ingress.size + this.#known.egress.size
	}

	of(direction: Direction, id: number): Profile {
		return (direction === 'ingress' ? this.#ingress : this.#egress)[id]!
	}

	*all(): Iterable<Profile> {
		for (const direction of directions) yield* this.#known[direction].values()
	}

	/** `selecting`: the NetworkPolicies that select the class, by key; `tiers`: those of the tiers, in their order. */
	assign(end: EndClass, selecting: readonly CompiledPolicy[], tiers: readonly CompiledPolicy[]): void {
		for (const direction of directions) {
			const isolating = selecting.filter((policy) => policy[direction] !== undefined)
			const admin = tiers.filter((t) => t.tier === 'Admin')
			const baseline = tiers.filter((t) => t.tier === 'Baseline')
			const policies = [...admin, ...isolating, ...baseline]
			const rulesOf = (list: readonly CompiledPolicy[]) => list.flatMap((policy) => policy[direction] ?? [])
			const named = direction === 'ingress' && rulesOf(policies).some((rule) => rule.names.length > 0)
			const key = `${policies.map((p) => p.serial).join()}${named ? ` ${end.portsId}` : ''}`
			const known = this.#known[direction]
			const assigned = direction === 'ingress' ? this.#ingress : this.#egress
			const old = assigned[end.id]
			if (old !== undefined) {
				const oldKey = this.#keys[direction][end.id]!
				if (oldKey === key) continue
				if (--old.users === 0) known.delete(oldKey)
			}
			let profile = known.get(key)
			if (profile === undefined) {
				profile = {
					admin: rulesOf(admin),
					rules: isolating.length === 0 ? undefined : rulesOf(isolating),
					trial: isolating.length > 0 && isolating.every((policy) => policy.audit),
					baseline: rulesOf(baseline),
					policies,
					destination: named ? end : undefined,
					open: policies.every((policy) => policy.tier !== undefined && policy[direction]?.length === 0),
					asksNamespaces: rulesOf(policies).some((rule) =>
						rule.peers?.some((peer) => peer.matchers.some((m) => m.kind === 'namespaces')),
					),
					users: 0,
					row: undefined,
					pieces: undefined,
				}
				known.set(key, profile)
			}
			profile.users++
			assigned[end.id] = profile
			this.#keys[direction][end.id] = key
		}
	}
}
