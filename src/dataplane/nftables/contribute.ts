// The elements one Service puts into the sets. A pure function of the Service and the node: taking a Service out again
// is asking for the same elements.

import { familyOf, type Ip } from '../../base/ip.ts'
import { bareElement, type NftElement } from '../../linux/nft/program.ts'
import { servingEndpoints } from '../../model/endpoints.ts'
import type { AddressOwner, NodeName, Service, ServicePort } from '../../model/network.ts'
import { originComment } from '../origin.ts'
import { affinitySet, endpointsOf, type Family, largestClass, names, pickChain } from './layout.ts'

/** The node the program is for. */
export interface Vantage {
	readonly node: NodeName
	readonly zone?: string
}

export type Emit = (family: Family, set: string, key: string, element: NftElement) => void

/** Calls `emit` for every element. `ownerOf`: of several Services that claim one address only the owner gets it. */
export function contribute(
	service: Service,
	vantage: Vantage,
	ownerOf: (ip: Ip) => AddressOwner | undefined,
	emit: Emit,
): void {
	for (let i = 0; i < service.clusterIps.length; i++) {
		const ip = service.clusterIps[i] as Ip
		const owner = ownerOf(ip)
		if (owner !== undefined && (owner.kind !== 'service' || owner.service !== service.key)) continue
		const family: Family = familyOf(ip) === 4 ? 'ip' : 'ip6'
		emit(family, names.clusterIps, ip, { comment: originComment(service.fields?.clusterIP ?? service.origin) })
		for (const port of service.ports) contributePort(service, port, ip, family, vantage, emit)
	}
}

/** As nft writes them. */
const protocolNames = { TCP: 'tcp', UDP: 'udp', SCTP: 'sctp' } as const

function contributePort(
	service: Service,
	port: ServicePort,
	ip: Ip,
	family: Family,
	vantage: Vantage,
	emit: Emit,
): void {
	if (port.protocol === 'ICMP') return
	const frontend = `${ip} . ${protocolNames[port.protocol]} . ${port.port}`
	const comment = originComment(port.origin)
	const { endpoints, none } = servingEndpoints(service, port, {
		node: vantage.node,
		...(vantage.zone === undefined ? {} : { zone: vantage.zone }),
		traffic: 'internal',
		family: familyOf(ip),
	})
	if (none !== undefined) {
		emit(family, none === 'drop' ? names.noLocalEndpoints : names.noEndpoints, frontend, { comment })
		return
	}
	const count = endpoints.length
	const map = endpointsOf(count)
	for (let slot = 0; slot < count; slot++) {
		const endpoint = endpoints[slot] as (typeof endpoints)[number]
		const data = `${endpoint.ip} . ${endpoint.port}`
		const key = count === 1 ? frontend : `${frontend} . ${slot}`
		// One comment a frontend: a third of the memory of one an element, and the first slot is always there to ask.
		emit(family, map, key, slot === 0 ? { data, comment } : { data })
	}
	if (count > largestClass) emit(family, names.countMany, frontend, { data: `goto ${pickChain(count)}`, comment })
	if (service.sessionAffinity !== undefined) emit(family, affinitySet(service.sessionAffinity), frontend, bareElement)
}
