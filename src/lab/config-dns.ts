// The section `dns` of podwire.yaml: what the cluster's DNS servers answer of names outside of the cluster.

import { tryParseIp } from '../base/ip.ts'
import type { OutsideHost, OutsideNames } from '../dataplane/dns/outside.ts'

/** How the reader of podwire.yaml takes a document apart, and says what is wrong with it. */
export interface SectionReader {
	/** The fields of a mapping, unknown ones reported. */
	fields(node: unknown, path: string, known: readonly string[]): ReadonlyMap<string, unknown>
	/** The entries of a list; undefined where it is none. */
	items(node: unknown): readonly unknown[] | undefined
	/** Of a scalar; undefined of anything else. */
	value(node: unknown): unknown
	fault(node: unknown, what: string): void
}

const hostName = /^([a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([-a-z0-9_]{0,61}[a-z0-9_])?\.?$/i
/** Seconds; as the plugin hosts of CoreDNS would say 3600, which is longer than a lab is changed in. */
const defaultTtl = 30
const longestTtl = 0x7fff_ffff

export function readOutsideNames(node: unknown, { fields, items, value, fault }: SectionReader): OutsideNames {
	const list = (of: unknown, path: string, what: string): readonly unknown[] => {
		const found = items(of)
		if (found === undefined || found.length === 0) fault(of, `${path} must be a list of ${what} that is not empty`)
		return found ?? []
	}
	const ips = (of: unknown, path: string) =>
		list(of, path, 'addresses').flatMap((item, i) => {
			const ip = tryParseIp(String(value(item)))
			if (ip === undefined) fault(item, `${path}[${i}] must be an address such as 203.0.113.10`)
			return ip ?? []
		})
	const section = fields(node, 'dns', ['hosts', 'upstreams'])
	const hosts: OutsideHost[] = []
	const given = section.get('hosts')
	for (const [i, item] of (given === undefined ? [] : list(given, 'dns.hosts', 'hosts')).entries()) {
		const path = `dns.hosts[${i}]`
		const host = fields(item, path, ['names', 'addresses', 'ttl'])
		for (const name of ['names', 'addresses']) if (!host.has(name)) fault(item, `${path}.${name} is missing`)
		const ttl = host.has('ttl') ? value(host.get('ttl')) : defaultTtl
		if (!Number.isInteger(ttl) || (ttl as number) < 0 || (ttl as number) > longestTtl)
			fault(host.get('ttl'), `${path}.ttl must be a whole number of seconds`)
		const addresses = host.has('addresses') ? ips(host.get('addresses'), `${path}.addresses`) : []
		for (const [j, name] of (host.has('names') ? list(host.get('names'), `${path}.names`, 'names') : []).entries()) {
			const text = value(name)
			if (typeof text !== 'string' || !hostName.test(text))
				fault(name, `${path}.names[${j}] must be a name such as api.example.com`)
			else if (hosts.some((other) => other.name === text)) fault(name, `${path}.names[${j}] is given before, too`)
			else hosts.push({ name: text, addresses, ttl: ttl as number })
		}
	}
	const upstreams = section.get('upstreams')
	return { hosts, upstreams: upstreams === undefined ? [] : ips(upstreams, 'dns.upstreams') }
}
