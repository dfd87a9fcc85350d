// The promises of a Service data plane, one case each. `at(n)` is the ClusterIP of the case's Service number n.

import type { TestContext } from 'node:test'
import { at, expect, seenAs, service, type World } from './services-expect.ts'

export type Case = (world: World, t: TestContext) => Promise<void>

export const trafficCases = {
	async 'ClusterIP: every client, every endpoint'(world) {
		await world.bring([service({ name: 'web', n: 1, endpoints: ['p1b', 'p2b'] })])
		await expect(world, [
			{ from: 'p1a', to: at(1), gives: seenAs('p1a', 'p1b', 'p2b') },
			{ from: 'p2a', to: at(1), gives: seenAs('p2a', 'p1b', 'p2b') },
			{ from: 'node-1', to: at(1), gives: seenAs('node-1', 'p1b', 'p2b') },
			{ from: 'node-2', to: at(1), gives: seenAs('node-2', 'p1b', 'p2b') },
		])
	},

	async 'ClusterIP: a client outside is masqueraded'(world) {
		await world.bring([service({ name: 'web', n: 1, endpoints: ['p1b', 'p2b'] })])
		await expect(world, [{ from: 'outside', to: at(1), gives: seenAs('node-1', 'p1b', 'p2b') }])
	},

	async 'ClusterIP: hostNetwork endpoints'(world) {
		await world.bring([service({ name: 'host', n: 2, endpoints: ['node-2'] })])
		await expect(world, [
			{ from: 'p1a', to: at(2), gives: seenAs('p1a', 'node-2') },
			{ from: 'p2a', to: at(2), gives: seenAs('p2a', 'node-2') },
			{ from: 'node-1', to: at(2), gives: seenAs('node-1', 'node-2') },
			{ from: 'node-2', to: at(2), gives: seenAs('node-2', 'node-2') },
		])
	},

	async 'ClusterIP: a pod reaches itself'(world) {
		await world.bring([service({ name: 'self', n: 3, endpoints: ['p1a'] })])
		await expect(world, [{ from: 'p1a', to: at(3), gives: seenAs('node-1', 'p1a') }])
	},
} satisfies Record<string, Case>
