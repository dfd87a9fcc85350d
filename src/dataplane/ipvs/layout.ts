// kube-proxy's names of sets, chains and the device, and what each set is for. A set is of one family: those of IPv6 are
// called KUBE-6-…, cut to the kernel's 31 characters (kubernetes/kubernetes pkg/proxy/ipvs).

import type { IpFamily } from '../../base/ip.ts'
import type { SetHeader, SetType } from '../../linux/ipset/ipset.ts'
import { commonChains } from '../kube-chains.ts'

/** All addresses of Services are on it, so that the node takes their packets as its own. */
export const device = 'kube-ipvs0'

export const chains = {
	...commonChains,
	nodePort: 'KUBE-NODE-PORT',
	loadBalancer: 'KUBE-LOAD-BALANCER',
	sourceRanges: 'KUBE-SOURCE-RANGES-FIREWALL',
	ipvsFilter: 'KUBE-IPVS-FILTER',
	ipvsOutFilter: 'KUBE-IPVS-OUT-FILTER',
	/** Ours: Services without an endpoint on this node under policy Local. */
	noLocal: 'PODWIRE-NO-LOCAL',
} as const

const own: ReadonlySet<string> = new Set(Object.values(chains))
export const isOwnChain = (name: string): boolean => own.has(name)

interface Purpose {
	readonly name: string
	readonly type: SetType
	/** The comment of the rules that look into it; empty: kube-proxy writes none. */
	readonly comment: string
}

export const sets = {
	loopback: {
		name: 'KUBE-LOOP-BACK',
		type: 'hash:ip,port,ip',
		comment: 'Kubernetes endpoints dst ip:port, source ip for solving hairpin purpose',
	},
	clusterIp: {
		name: 'KUBE-CLUSTER-IP',
		type: 'hash:ip,port',
		comment: 'Kubernetes service cluster ip + port for masquerade purpose',
	},
	externalIp: {
		name: 'KUBE-EXTERNAL-IP',
		type: 'hash:ip,port',
		comment: 'Kubernetes service external ip + port for masquerade and filter purpose',
	},
	externalIpLocal: {
		name: 'KUBE-EXTERNAL-IP-LOCAL',
		type: 'hash:ip,port',
		comment: 'Kubernetes service external ip + port with externalTrafficPolicy=local',
	},
	loadBalancer: { name: 'KUBE-LOAD-BALANCER', type: 'hash:ip,port', comment: 'Kubernetes service lb portal' },
	loadBalancerLocal: {
		name: 'KUBE-LOAD-BALANCER-LOCAL',
		type: 'hash:ip,port',
		comment: 'Kubernetes service load balancer ip + port with externalTrafficPolicy=local',
	},
	loadBalancerFenced: {
		name: 'KUBE-LOAD-BALANCER-FW',
		type: 'hash:ip,port',
		comment: 'Kubernetes service load balancer ip + port for load balancer with sourceRange',
	},
	sourceIp: {
		name: 'KUBE-LOAD-BALANCER-SOURCE-IP',
		type: 'hash:ip,port,ip',
		comment: 'Kubernetes service load balancer ip + port + source IP for packet filter purpose',
	},
	sourceCidr: {
		name: 'KUBE-LOAD-BALANCER-SOURCE-CIDR',
		type: 'hash:ip,port,net',
		comment: 'Kubernetes service load balancer ip + port + source cidr for packet filter purpose',
	},
	nodePortTcp: {
		name: 'KUBE-NODE-PORT-TCP',
		type: 'bitmap:port',
		comment: 'Kubernetes nodeport TCP port for masquerade purpose',
	},
	nodePortLocalTcp: {
		name: 'KUBE-NODE-PORT-LOCAL-TCP',
		type: 'bitmap:port',
		comment: 'Kubernetes nodeport TCP port with externalTrafficPolicy=local',
	},
	nodePortUdp: {
		name: 'KUBE-NODE-PORT-UDP',
		type: 'bitmap:port',
		comment: 'Kubernetes nodeport UDP port for masquerade purpose',
	},
	nodePortLocalUdp: {
		name: 'KUBE-NODE-PORT-LOCAL-UDP',
		type: 'bitmap:port',
		comment: 'Kubernetes nodeport UDP port with externalTrafficPolicy=local',
	},
	nodePortSctp: {
		name: 'KUBE-NODE-PORT-SCTP-HASH',
		type: 'hash:ip,port',
		comment: "Kubernetes nodeport SCTP port for masquerade purpose with type 'hash ip:port'",
	},
	nodePortLocalSctp: {
		name: 'KUBE-NODE-PORT-LOCAL-SCTP-HASH',
		type: 'hash:ip,port',
		comment: "Kubernetes nodeport SCTP port with externalTrafficPolicy=local with type 'hash ip:port'",
	},
	healthCheck: {
		name: 'KUBE-HEALTH-CHECK-NODE-PORT',
		type: 'bitmap:port',
		comment: 'Kubernetes health check node port',
	},
	addresses: { name: 'KUBE-IPVS-IPS', type: 'hash:ip', comment: '' },
	/** Ours: a ClusterIP whose policy is Local and that nobody serves here. */
	noLocal: { name: 'PODWIRE-NO-LOCAL', type: 'hash:ip,port', comment: 'podwire: no endpoint on this node' },
	/** Ours: the same for external traffic, from outside only. */
	noLocalOutside: {
		name: 'PODWIRE-NO-LOCAL-OUTSIDE',
		type: 'hash:ip,port',
		comment: 'podwire: no endpoint on this node for clients outside',
	},
} as const satisfies Readonly<Record<string, Purpose>>

export type SetId = keyof typeof sets
export const setIds = Object.keys(sets) as SetId[]

export function setName(id: SetId, family: IpFamily): string {
	const { name } = sets[id]
	return family === 4 ? name : name.replace(/^(KUBE|PODWIRE)-/, '$1-6-').slice(0, 31)
}

export function setHeader(id: SetId, family: IpFamily): SetHeader {
	const { type } = sets[id]
	return { name: setName(id, family), type, ...(type === 'bitmap:port' ? {} : { family }) }
}

const byName = new Map<string, SetHeader>(
	setIds.flatMap((id) => ([4, 6] as const).map((family) => [setName(id, family), setHeader(id, family)] as const)),
)

/** How a set of ours is declared; undefined for others' sets. */
export function headerOf(name: string): SetHeader | undefined {
	return byName.get(name)
}
