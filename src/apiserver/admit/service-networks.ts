// The networks that Services have their addresses of: those the server was started with, and those of ServiceCIDR
// objects (KEP-1880), and which of their addresses are given out (KEP-3070: the lowest to those who ask by name).

import {
	type Cidr,
	cidrAddress,
	cidrContains,
	cidrNth,
	cidrSize,
	familyOf,
	type Ip,
	tryParseCidr,
} from '../../base/ip.ts'
import type { UnknownObject } from '../../kube/objects/meta.ts'
import { isObject, type Json } from '../../kube/schema/json.ts'
import type { Store } from '../store.ts'
import { type Family, listOf } from './service-spec.ts'

export const cidrStorage = 'servicecidrs.networking.k8s.io'

export interface ServiceNetwork {
	readonly cidr: Cidr
	readonly family: Family
	/** Offsets of the first and last address given out. */
	readonly first: bigint
	readonly last: bigint
	/** The first offset that is given out to those who ask for none. */
	readonly dynamic: bigint
}

export function networkOf(cidr: Cidr): ServiceNetwork {
	const size = cidrSize(cidr)
	const v4 = familyOf(cidr) === 4
	// Not the network address, and in IPv4 not the broadcast address.
	const last = v4 ? size - 2n : size - 1n
	// The lowest min(max(16, size/16), 256) are left to those who ask for an address by name.
	const sixteenth = size / 16n
	const band = sixteenth < 16n ? 16n : sixteenth > 256n ? 256n : sixteenth
	return { cidr, family: v4 ? 'IPv4' : 'IPv6', first: 1n, last, dynamic: size <= 16n ? 1n : band + 1n }
}

/** May the address be a Service's? */
export function isOf({ cidr, family }: ServiceNetwork, ip: Ip): boolean {
	if (!cidrContains(cidr, ip) || ip === cidrAddress(cidr)) return false
	return family !== 'IPv4' || ip !== cidrNth(cidr, cidrSize(cidr) - 1n)
}

/** The networks of a ServiceCIDR object; those that are none are left out. */
export function cidrsOf(object: UnknownObject): readonly Cidr[] {
	const spec = isObject(object.spec) ? object.spec : {}
	return listOf(spec.cidrs as Json | undefined).flatMap((text) => tryParseCidr(text) ?? [])
}

/** The server's own networks first, then those of objects that are not being deleted, each once. */
export function serviceNetworks(store: Store, own: readonly Cidr[]): () => readonly ServiceNetwork[] {
	const first = own.map(networkOf)
	return () => {
		const out = [...first]
		for (const { object } of store.list(cidrStorage)) {
			if (object.metadata.deletionTimestamp !== undefined) continue
			for (const cidr of cidrsOf(object)) if (!out.some((n) => n.cidr === cidr)) out.push(networkOf(cidr))
		}
		return out
	}
}
