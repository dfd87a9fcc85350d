// The address families of a lab: IPv4, IPv6 or both, and what that makes of its networks and addresses. Chosen when the
// lab is made and kept with it: pods, Services and nodes have their addresses from then on.

import { existsSync, readFileSync } from 'node:fs'
import { Failure } from '../base/failure.ts'
import { type Cidr, cidrNth, familyOf, type Ip, type IpFamily, parseCidr } from '../base/ip.ts'
import type { ClusterConfig } from '../model/state.ts'
import {
	balancerCidr,
	clusterDomain,
	nodeIp,
	outsideCidr,
	outsideGateway,
	outsideIp,
	podCidr,
	podMtu,
	serviceCidr,
	underlayCidr,
	underlayIp,
} from './addresses.ts'
import { keepLine } from './kept.ts'
import { type NetworkChoice, nodeMasks } from './network-choice.ts'
import type { LabPaths } from './paths.ts'

/** As kind's `networking.ipFamily`. Of a dual lab IPv4 is the primary family. */
export type LabIpFamily = 'ipv4' | 'ipv6' | 'dual'

export const labIpFamilies: readonly LabIpFamily[] = ['ipv4', 'ipv6', 'dual']
export const defaultIpFamily: LabIpFamily = 'ipv4'

/** The networks of one family. */
export interface FamilyNetworks {
	readonly family: IpFamily
	/** Between nodes. */
	readonly underlay: Cidr
	readonly router: Ip
	nodeIp(number: number): Ip
	readonly pods: Cidr
	/** Length of the mask of one node's share. */
	readonly nodeMask: number
	readonly services: Cidr
	/** ClusterIP of the cluster DNS. */
	readonly dns: Ip
	/** Beyond the router: a client that is no part of the cluster, and the router's address there. */
	readonly outside: Cidr
	readonly outsideIp: Ip
	readonly outsideGateway: Ip
	/** Load balancers' addresses, unless podwire.yaml names others. */
	readonly balancers: Cidr
}

/** Of a Service network: as kubeadm does. */
const dnsOffset = 10n

const four: FamilyNetworks = {
	family: 4,
	underlay: underlayCidr,
	router: underlayIp(),
	nodeIp,
	pods: podCidr,
	nodeMask: nodeMasks[4],
	services: serviceCidr,
	dns: cidrNth(serviceCidr, dnsOffset),
	outside: outsideCidr,
	outsideIp: outsideIp(),
	outsideGateway: outsideGateway(),
	balancers: balancerCidr,
}

const underlay6 = parseCidr('fd00:172:18::/64')
const services6 = parseCidr('fd00:10:96::/112')
/** RFC 3849, for documentation. */
const outside6 = parseCidr('2001:db8:113::/64')

const six: FamilyNetworks = {
	family: 6,
	underlay: underlay6,
	router: cidrNth(underlay6, 1n),
	nodeIp: (number) => cidrNth(underlay6, BigInt(number + 1)),
	pods: parseCidr('fd00:10:244::/56'),
	nodeMask: nodeMasks[6],
	services: services6,
	dns: cidrNth(services6, dnsOffset),
	outside: outside6,
	outsideIp: cidrNth(outside6, 1n),
	outsideGateway: cidrNth(outside6, 254n),
	balancers: parseCidr('fd00:172:18:0:255::/112'),
}

/** The networks of each family the lab has, the primary one first. */
export function networksOf(choice: LabIpFamily, own: NetworkChoice = {}): readonly FamilyNetworks[] {
	return familiesOf(choice).map((networks) => {
		const { family } = networks
		const pods = own.podCidrs?.find((cidr) => familyOf(cidr) === family) ?? networks.pods
		const services = own.serviceCidrs?.find((cidr) => familyOf(cidr) === family) ?? networks.services
		return { ...networks, pods, services, dns: cidrNth(services, dnsOffset) }
	})
}

function familiesOf(choice: LabIpFamily): readonly FamilyNetworks[] {
	switch (choice) {
		case 'ipv4':
			return [four]
		case 'ipv6':
			return [six]
		case 'dual':
			return [four, six]
		default: {
			const never: never = choice
			throw new Error(`No such IP family: ${never}`)
		}
	}
}

/** What no object of a lab says about its network. */
export function clusterConfigOf(choice: LabIpFamily, own: NetworkChoice = {}): ClusterConfig {
	const networks = networksOf(choice, own)
	return {
		clusterDomain: own.clusterDomain ?? clusterDomain,
		podCidrs: networks.map((n) => n.pods),
		serviceCidrs: networks.map((n) => n.services),
		mtu: podMtu,
		dnsService: 'kube-system/kube-dns',
		dnsServiceIp: networks[0]!.dns,
		routerIps: networks.map((n) => n.router),
		...(own.featureGates?.AllowServiceExternalIPs === false ? { ignoreExternalIps: true as const } : {}),
	}
}

/** 0.0.0.0/0 or ::/0. */
export function everywhere(family: IpFamily): Cidr {
	return parseCidr(family === 4 ? '0.0.0.0/0' : '::/0')
}

export function isLabIpFamily(text: string): text is LabIpFamily {
	return (labIpFamilies as readonly string[]).includes(text)
}

/** undefined: a new lab. */
export function readIpFamily(paths: LabPaths): LabIpFamily | undefined {
	// Until there is a node nothing has an address.
	if (!existsSync(paths.nodes)) return undefined
	try {
		const text = readFileSync(paths.ipFamily, 'utf8').trim()
		if (isLabIpFamily(text)) return text
	} catch {
		// Made before there was a choice.
	}
	return defaultIpFamily
}

/**
 * The families the lab has from now on: those it had, else `asked`, else IPv4. Throws Failure Immutable where `asked` is
 * not what it has, CannotWrite.
 */
export function settleIpFamily(paths: LabPaths, asked: LabIpFamily | undefined): LabIpFamily {
	const kept = readIpFamily(paths)
	if (kept !== undefined) {
		if (asked === undefined || asked === kept) return kept
		throw new Failure(
			'Immutable',
			`Cannot make lab ${JSON.stringify(paths.name)} ${asked}: it is ${kept}, and its pods, Services and nodes have their addresses from that`,
		)
	}
	const chosen = asked ?? defaultIpFamily
	keepLine(paths.ipFamily, chosen)
	return chosen
}
