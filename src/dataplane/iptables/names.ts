// kube-proxy's names of chains and comments: who knows them from a real cluster finds the same ones here. A chain of a
// Service port ends in 16 characters of base32(sha256(`namespace/name:port` + protocol)), one of an endpoint likewise
// with the endpoint's address appended (kubernetes/kubernetes pkg/proxy/iptables).

import { hash } from 'node:crypto'
import { familyOf, type Ip } from '../../base/ip.ts'
import type { Protocol } from '../../base/packet.ts'
import { commonChains } from '../kube-chains.ts'

/** Chains that are there whatever the Services are. */
export const chains = {
	...commonChains,
	externalServices: 'KUBE-EXTERNAL-SERVICES',
	nodePorts: 'KUBE-NODEPORTS',
	canary: 'KUBE-PROXY-CANARY',
	/** Ours: with `unserved`, what kube-proxy's iptables mode leaves undone (docs/decisions/services-iptables.md). */
	clusterIps: 'PODWIRE-CLUSTER-IPS',
} as const

const fixed: ReadonlySet<string> = new Set(Object.values(chains))
const ofServices = /^KUBE-(?:SVC|SVL|SEP|FW|EXT)-[A-Z2-7]{16}$/

/** Chains this data plane makes; the kubelet's own (KUBE-FIREWALL, KUBE-KUBELET-CANARY) are not. */
export function isOwnChain(name: string): boolean {
	return fixed.has(name) || ofServices.test(name)
}

export interface PortNames {
	/** `default/web:http`; without a name of the port `default/web`. */
	readonly title: string
	/** Endpoints for traffic policy Cluster. */
	readonly cluster: string
	/** Endpoints for traffic policy Local. */
	readonly local: string
	/** Traffic from outside: node ports, external and load balancer addresses. */
	readonly external: string
	/** Source ranges of a load balancer. */
	readonly firewall: string
}

export function namesOf(service: string, port: string, protocol: Protocol): PortNames {
	const title = port === '' ? service : `${service}:${port}`
	const id = shortHash(`${title}${protocol.toLowerCase()}`)
	return {
		title,
		cluster: `KUBE-SVC-${id}`,
		local: `KUBE-SVL-${id}`,
		external: `KUBE-EXT-${id}`,
		firewall: `KUBE-FW-${id}`,
	}
}

/** `10.244.1.2:8080`, `[fd00::2]:8080` */
export function endpointText(ip: Ip, port: number): string {
	return familyOf(ip) === 6 ? `[${ip}]:${port}` : `${ip}:${port}`
}

export function endpointChain(title: string, protocol: Protocol, endpoint: string): string {
	return `KUBE-SEP-${shortHash(`${title}${protocol.toLowerCase()}${endpoint}`)}`
}

const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567'

/** 16 characters of base32: the first 80 bits of the hash. */
function shortHash(text: string): string {
	const digest = hash('sha256', text, 'buffer')
	let out = ''
	let bits = 0
	let count = 0
	for (let i = 0; i < 10; i++) {
		bits = (bits << 8) | (digest[i] as number)
		count += 8
		while (count >= 5) {
			count -= 5
			out += alphabet[(bits >> count) & 31]
		}
		bits &= 31
	}
	return out
}

/** The Service port a comment of kube-proxy's is about: `default/web:http`. */
export function titleIn(comment: string): string | undefined {
	const match = /(?:^|\s)([a-z0-9][-a-z0-9.]*\/[a-z0-9][-a-z0-9.]*(?::[a-z0-9][-a-z0-9]*)?)(?=\s|$)/.exec(comment)
	return match?.[1]
}
