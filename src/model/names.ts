// Names inside a pod: what the kubelet writes into /etc/resolv.conf, and what the C library then asks.
// Rules: Kubernetes "DNS for Services and Pods" (dnsPolicy, dnsConfig), resolv.conf(5), glibc's res_nsearch.

import type { Ip } from '../base/ip.ts'
import type { ResolverConfig } from './network.ts'

export type DnsPolicy = 'ClusterFirst' | 'ClusterFirstWithHostNet' | 'Default' | 'None'

export interface DnsRequest {
	readonly namespace: string
	readonly policy: DnsPolicy
	readonly hostNetwork: boolean
	/** The pod's dnsConfig, merged into what the policy gives. */
	readonly config?: Partial<ResolverConfig>
}

export interface ClusterDns {
	/** `cluster.local` */
	readonly clusterDomain: string
	readonly dnsServiceIp?: Ip
	readonly nodeDns?: ResolverConfig
}

/** Limits of resolv.conf that the kubelet keeps: three servers (MAXNS), 32 search domains of 2048 characters in all. */
const limits = { nameservers: 3, searches: 32, characters: 2048 }
const nothing: ResolverConfig = { nameservers: [], searches: [], options: [] }

/**
 * The resolver configuration of a pod.
 *
 * ClusterFirst of a hostNetwork pod means Default; so does either cluster policy where no cluster DNS Service exists.
 * Cluster policies put the namespace's search domains before those of the node, and `ndots:5`.
 */
export function podDns(request: DnsRequest, cluster: ClusterDns): ResolverConfig {
	const base = inherited(request, cluster)
	const more = request.config ?? {}
	const options = new Map(base.options.map((o) => [o.name, o]))
	for (const option of more.options ?? []) options.set(option.name, option)
	return {
		nameservers: [...new Set([...base.nameservers, ...(more.nameservers ?? [])])].slice(0, limits.nameservers),
		searches: fitSearches([...new Set([...base.searches, ...(more.searches ?? [])])]),
		options: [...options.values()],
	}
}

/** The policy that is in force, which is not always the one that is written. */
export function effectivePolicy(request: DnsRequest, cluster: ClusterDns): DnsPolicy {
	if (request.policy === 'ClusterFirst' && request.hostNetwork) return 'Default'
	if (request.policy.startsWith('ClusterFirst') && cluster.dnsServiceIp === undefined) return 'Default'
	return request.policy
}

function inherited(request: DnsRequest, cluster: ClusterDns): ResolverConfig {
	const node = cluster.nodeDns ?? nothing
	const policy = effectivePolicy(request, cluster)
	switch (policy) {
		case 'None':
			return nothing
		case 'Default':
			return node
		case 'ClusterFirst':
		case 'ClusterFirstWithHostNet': {
			const domain = cluster.clusterDomain
			return {
				nameservers: cluster.dnsServiceIp === undefined ? [] : [cluster.dnsServiceIp],
				searches: [`${request.namespace}.svc.${domain}`, `svc.${domain}`, domain, ...node.searches],
				options: [{ name: 'ndots', value: '5' }],
			}
		}
		default: {
			const never: never = policy
			throw new Error(`No such dnsPolicy: ${never}`)
		}
	}
}

function fitSearches(searches: readonly string[]): readonly string[] {
	const kept: string[] = []
	let characters = 0
	for (const search of searches) {
		characters += search.length + (kept.length > 0 ? 1 : 0)
		if (kept.length === limits.searches || characters > limits.characters) break
		kept.push(search)
	}
	return kept
}

/** The text of /etc/resolv.conf, in the order in which container runtimes write it: search, nameserver, options. */
export function resolvConf(dns: ResolverConfig): string {
	const lines: string[] = []
	if (dns.searches.length > 0) lines.push(`search ${dns.searches.join(' ')}`)
	for (const server of dns.nameservers) lines.push(`nameserver ${server}`)
	if (dns.options.length > 0) {
		lines.push(`options ${dns.options.map((o) => (o.value === undefined ? o.name : `${o.name}:${o.value}`)).join(' ')}`)
	}
	return lines.map((line) => `${line}\n`).join('')
}

/**
 * The absolute names (with the final dot) that glibc asks for `name`, in order; it stops at the first with an answer.
 *
 * A final dot: that name only. At least `ndots` dots: as it is, then with each search domain. Fewer: the search
 * domains first. (musl does the same, but asks all servers at once and does not go on after a server's failure.)
 */
export function queries(name: string, dns: ResolverConfig): readonly string[] {
	if (name.endsWith('.')) return [name]
	const asIs = `${name}.`
	const searched = dns.searches.map((domain) => {
		const bare = domain.replace(/^\.+|\.+$/g, '')
		return bare === '' ? asIs : `${name}.${bare}.`
	})
	const dots = name.split('.').length - 1
	const ordered = dots >= ndots(dns) ? [asIs, ...searched] : [...searched, asIs]
	// A name longer than 253 characters (255 octets on the wire, RFC 1035 §3.1) is never sent.
	return [...new Set(ordered)].filter((n) => n.length <= 254)
}

/** 1 unless set; glibc caps it at 15 (RES_MAXNDOTS). */
export function ndots(dns: ResolverConfig): number {
	const value = dns.options.findLast((o) => o.name === 'ndots')?.value
	if (value === undefined || !/^\d+$/.test(value)) return 1
	return Math.min(15, Number(value))
}
