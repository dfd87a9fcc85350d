// All checks of a configuration, in one list. Each reads the built network and the objects behind it.

import type { Table } from '../../base/table.ts'
import type { FrontendClaim } from '../builders/frontends.ts'
import type { ModelParts } from '../builders/input.ts'
import type { Finding } from '../finding.ts'
import type { AddressOwner } from '../network.ts'
import type { ObjectKey } from '../origin.ts'
import type { ClusterState } from '../state.ts'
import { checkAddresses } from './addresses.ts'
import { checkDistribution } from './distribution.ts'
import { checkFrontends } from './frontends.ts'
import { checkHostPorts } from './host-ports.ts'
import { indexPods, type PodIndex } from './pod-index.ts'
import { checkPolicies } from './policies.ts'
import { checkServices } from './services.ts'
import { checkSlices } from './slices.ts'
import { checkTiers } from './tiers.ts'

export interface CheckInput {
	readonly state: ClusterState
	readonly model: ModelParts
	/** Everyone who says an address is theirs, the owner first. */
	readonly claims: Table<string, readonly AddressOwner[]>
	/** Everyone who says a frontend is theirs, the owner of each first. */
	readonly frontendClaims: Table<string, readonly FrontendClaim[]>
	readonly slicesByService: Table<ObjectKey, readonly ObjectKey[]>
	readonly pods: PodIndex
}

const checks: readonly ((input: CheckInput) => Iterable<Finding>)[] = [
	checkServices,
	checkSlices,
	checkAddresses,
	checkPolicies,
	checkTiers,
	checkHostPorts,
	checkFrontends,
	checkDistribution,
]

/** Sorted by code, then text, so that the order does not depend on the order of events. */
export function check(input: Omit<CheckInput, 'pods'>): readonly Finding[] {
	const whole: CheckInput = { ...input, pods: indexPods(input.model.pods.values()) }
	const findings = checks.flatMap((f) => [...f(whole)])
	return findings.sort((a, b) => (a.code === b.code ? (a.text < b.text ? -1 : 1) : a.code < b.code ? -1 : 1))
}
