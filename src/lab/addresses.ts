// The addresses of a lab, the same in every lab: each has network namespaces of its own.

import { type Cidr, cidrNth, type Ip, parseCidr } from '../base/ip.ts'

/** The network between nodes; the bridge itself has the first address, node i the one after its number. */
export const underlayCidr: Cidr = parseCidr('172.18.0.0/16')
export const underlayMtu = 1500
/** The router's interface to the nodes. */
export const underlayInterface = 'underlay0'
/** Name of a node's interface to the underlay. */
export const nodeInterface = 'eth0'

/** Pods. */
export const podCidr: Cidr = parseCidr('10.244.0.0/16')
export const podMtu = 1500
export const serviceCidr: Cidr = parseCidr('10.96.0.0/16')
export const clusterDomain = 'cluster.local'

/** A network beyond the underlay's router: clients that are not part of the cluster (RFC 5737, for documentation). */
export const outsideCidr: Cidr = parseCidr('203.0.113.0/24')
/** Where pools of load balancers may be, of each family: parts of the underlay without nodes. */
export const balancerRanges: readonly Cidr[] = [parseCidr('172.18.128.0/17'), parseCidr('fd00:172:18:0:255::/80')]
/** The pool, unless podwire.yaml names others. */
export const balancerCidr: Cidr = parseCidr('172.18.255.0/24')

/** Where pods reach the API server, on the underlay. */
export const apiPort = 6443

export function underlayIp(): Ip {
	return cidrNth(underlayCidr, 1n)
}

/** 172.18.0.2 for node 1. */
export function nodeIp(number: number): Ip {
	return cidrNth(underlayCidr, BigInt(number + 1))
}

/** 203.0.113.1: what a trace from `outside` begins with. */
export function outsideIp(): Ip {
	return cidrNth(outsideCidr, 1n)
}

/** The router's address on that side. */
export function outsideGateway(): Ip {
	return cidrNth(outsideCidr, 254n)
}
