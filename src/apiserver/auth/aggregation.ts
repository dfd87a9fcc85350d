// ClusterRoles that gather the rules of others, by labels: `admin`, `edit`, `view`, and those of users. Their rules are
// written whenever a role that they gather changes. Source: kubernetes.io/docs/reference/access-authn-authz/rbac,
// "Aggregated ClusterRoles".

import { isNotFound } from '../../kube/answer.ts'
import { createKubeClient } from '../../kube/client.ts'
import type { Kind } from '../../kube/kinds.ts'
import { resourceOf } from '../../kube/resources.ts'
import { type Json, sameJson } from '../../kube/schema/json.ts'
import { matches, type Selector, selectorOf } from '../../kube/selector.ts'
import type { Transport } from '../../kube/transport.ts'
import type { Store } from '../store.ts'
import { type Role, rbacGroup, storages } from './rbac.ts'
import type { Rule } from './rules.ts'

export const clusterRoles: Kind<Role> = resourceOf(`${rbacGroup}/v1`, 'ClusterRole')

export interface Aggregation {
	/** Resolves when every gathering role has the rules it should have, as far as is known now. */
	settle(): Promise<void>
	close(): void
}

const mostPasses = 50

/** Keeps the gathering roles until it is closed. */
export function startAggregation(store: Store, transport: Transport, onFailure: (error: unknown) => void): Aggregation {
	const client = createKubeClient(transport, {
		fieldManager: 'clusterrole-aggregation-controller',
		userAgent: 'clusterrole-aggregation-controller',
	})
	let running: Promise<void> | undefined
	let again = false
	let closed = false

	const allRoles = () => [...store.list(storages.clusterRoles)].map((entry) => entry.object as unknown as Role)

	async function run(): Promise<void> {
		// Roles that gather one another in a circle could hand their rules on for ever.
		for (let pass = 0; pass < mostPasses && !closed; pass++) {
			again = false
			// One after another: each sees what the one before was given.
			for (const { metadata, aggregationRule } of allRoles())
				if (aggregationRule !== undefined) await gather(metadata.name)
			if (!again) break
		}
	}

	async function gather(name: string): Promise<void> {
		const all = allRoles()
		const role = all.find((one) => one.metadata.name === name)
		if (role === undefined || closed) return
		const rules = gathered(role, all)
		if (sameJson((role.rules ?? []) as unknown as Json, rules as unknown as Json)) return
		try {
			await client.apply(clusterRoles, { metadata: { name }, rules } as unknown as Role, { force: true })
		} catch (e) {
			// It was deleted meanwhile, or cannot be kept: the next change of a role brings the next attempt.
			if (!isNotFound(e)) onFailure(e)
		}
	}

	function stir(): void {
		if (closed) return
		again = true
		running ??= run()
			.catch(onFailure)
			.finally(() => {
				running = undefined
			})
	}

	const stop = store.subscribe(storages.clusterRoles, stir)
	return {
		async settle() {
			stir()
			while (running !== undefined) await running
		},
		close() {
			closed = true
			stop()
		},
	}
}

/** The rules of all roles that one of the selectors names, in the order of their names, each rule once. */
export function gathered(role: Role, all: readonly Role[]): readonly Rule[] {
	const selectors: readonly Selector[] = (role.aggregationRule?.clusterRoleSelectors ?? []).map((s) => selectorOf(s))
	const out = new Map<string, Rule>()
	const byName = [...all].sort((a, b) => (a.metadata.name < b.metadata.name ? -1 : 1))
	for (const selector of selectors) {
		for (const other of byName) {
			if (other.metadata.name === role.metadata.name || !matches(selector, other.metadata.labels)) continue
			for (const rule of other.rules ?? []) {
				const key = JSON.stringify(rule)
				if (!out.has(key)) out.set(key, rule)
			}
		}
	}
	return [...out.values()]
}
