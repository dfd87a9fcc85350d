// What every data plane of Services promises, with real packets: two nodes, pods, processes on the nodes (which is where
// hostNetwork pods are) and a client outside. One suite for all of them; what a mode cannot do it skips with a reason.

import { after, before, describe, it } from 'node:test'
import { type Case, trafficCases } from './services-cases.ts'
import { changeCases } from './services-changes.ts'
import type { MakePlanes } from './services-cluster.ts'
import { createWorld, type World } from './services-expect.ts'
import { reasonToSkip } from './services-world.ts'

const cases = { ...trafficCases, ...changeCases }

export type CaseName = keyof typeof cases

export interface ServicesSuite {
	/** The data planes of the mode on one node, in the order they are brought up. */
	readonly make: MakePlanes
	/** Why the case does not hold or cannot run in this mode, in a sentence; undefined: it is run. */
	skip?(name: CaseName): string | undefined
	/** Why nothing of it can run here. */
	readonly unusable?: string | false
}

/** Runs every case; one cluster for all of them, with the Services of the case alone. */
export function runServicesSuite(mode: string, suite: ServicesSuite): void {
	describe(`Services by ${mode}`, { skip: suite.unusable || reasonToSkip() }, () => {
		let world: World
		before(async () => {
			world = await createWorld(suite.make)
		})
		after(() => world?.remove())
		for (const [name, run] of Object.entries(cases) as [CaseName, Case][]) {
			it(name, { skip: suite.skip?.(name) ?? false }, (t) => run(world, t))
		}
	})
}
