// Who has each frontend that is no ClusterIP: several Services may claim an external address, a load balancer's address
// or a node port; the choice among them must not depend on the order in which they came.

import type { Ip } from '../../base/ip.ts'
import { diffTables, emptyTable, type Table } from '../../base/table.ts'
import { frontendKeyOf, frontendsOf } from '../frontends.ts'
import type { NetworkModel, Service } from '../network.ts'
import type { ObjectKey } from '../origin.ts'
import type { BuildInput } from './input.ts'

export interface FrontendClaim {
	readonly key: string
	readonly service: ObjectKey
	readonly kind: 'load-balancer' | 'external-ip' | 'node-port'
	/** The lowest has the frontend. */
	readonly rank: string
}

export interface BuiltFrontends {
	readonly frontends: Table<string, ObjectKey>
	/** By address; those of a node port by its key. Of one address sorted by rank. */
	readonly frontendClaims: Table<string, readonly FrontendClaim[]>
}

export function buildFrontends(input: BuildInput, parts: Pick<NetworkModel, 'services' | 'addresses'>): BuiltFrontends {
	const last = input.last?.parts
	const claimsBefore = input.last?.index.frontendClaims ?? emptyTable<string, readonly FrontendClaim[]>()
	let claims = claimsBefore
	const touched = new Set<string>()
	diffTables(last?.services ?? emptyTable<ObjectKey, Service>(), parts.services, (key, before, after) => {
		const from = claimsOf(before)
		const to = claimsOf(after)
		if (sameClaims(from, to)) return
		for (const place of new Set([...from, ...to].map(({ place }) => place))) {
			touched.add(place)
			const others = (claims.get(place) ?? []).filter((c) => c.service !== key)
			const list = [...others, ...to.filter((c) => c.place === place).map(({ claim }) => claim)]
			claims = list.length === 0 ? claims.delete(place) : claims.set(place, list.sort(compareClaims))
		}
	})
	// A ClusterIP is nobody else's frontend: addresses that became one, or are one no more.
	if (last !== undefined && claims.size > 0) {
		diffTables(last.addresses, parts.addresses, (ip, before, after) => {
			if ((before?.kind === 'service') !== (after?.kind === 'service') && claims.has(ip)) touched.add(ip)
		})
	}
	const frontends = (last?.frontends ?? emptyTable<string, ObjectKey>()).mutate((draft) => {
		for (const place of touched) {
			const winners = new Map<string, ObjectKey>()
			if (parts.addresses.get(place as Ip)?.kind !== 'service') {
				for (const { key, service } of claims.get(place) ?? []) if (!winners.has(key)) winners.set(key, service)
			}
			for (const { key } of claimsBefore.get(place) ?? []) if (!winners.has(key)) draft.delete(key)
			for (const [key, service] of winners) draft.set(key, service)
		}
	})
	return { frontends, frontendClaims: claims }
}

interface PlacedClaim {
	readonly place: string
	readonly claim: FrontendClaim
}

const noClaims: readonly PlacedClaim[] = []
/** Behind every time. */
const noTime = '9999'

/** An address the cluster gave (to a load balancer) before one a user just wrote, then the older Service, then by name. */
function claimsOf(service: Service | undefined): readonly PlacedClaim[] {
	if (service === undefined || (service.type === 'ClusterIP' && service.externalIps.length === 0)) return noClaims
	const list: PlacedClaim[] = []
	const age = `${service.created ?? noTime} ${service.key}`
	for (const port of service.ports) {
		for (const frontend of frontendsOf(service, port)) {
			const { kind, ip } = frontend
			if (kind === 'cluster-ip') continue
			const key = frontendKeyOf(frontend)
			const rank = `${kind === 'external-ip' ? 1 : 0} ${age}`
			list.push({ place: ip ?? key, claim: { key, service: service.key, kind, rank } })
		}
	}
	return list
}

function sameClaims(a: readonly PlacedClaim[], b: readonly PlacedClaim[]): boolean {
	return (
		a.length === b.length && a.every(({ claim }, i) => claim.key === b[i]!.claim.key && claim.rank === b[i]!.claim.rank)
	)
}

function compareClaims(a: FrontendClaim, b: FrontendClaim): number {
	return a.key < b.key ? -1 : a.key > b.key ? 1 : a.rank < b.rank ? -1 : a.rank > b.rank ? 1 : 0
}
