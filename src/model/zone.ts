// The names of the cluster: which DNS records its Services, endpoints and pods have, and what a question finds.
// Rules: Kubernetes DNS-Based Service Discovery 1.1.0 (github.com/kubernetes/dns docs/specification.md), RFC 1034 §4.3.2,
// RFC 8020 (a name with names under it exists), RFC 6604 (the code of an answer that follows a CNAME).
// Names are lower case without the final dot.

import {
	type Cidr,
	cidrAddress,
	cidrContains,
	cidrLength,
	familyOf,
	type Ip,
	ipToBytes,
	tryParseIp,
} from '../base/ip.ts'
import { diffTables, emptyTable, type Table } from '../base/table.ts'
import { compareIps } from './address-order.ts'
import type { Endpoint, Namespace, NetworkConfig, NetworkModel, Service } from './network.ts'
import { defaultOrigin, type ObjectKey, type Origin } from './origin.ts'
import { share } from './share.ts'

export type RecordType = 'A' | 'AAAA' | 'SRV' | 'PTR' | 'CNAME' | 'TXT' | 'NS' | 'SOA'
/** Types that no name has are asked for, too. */
export type QuestionType = RecordType | 'ANY' | `TYPE${number}`

export type RecordData =
	| { readonly type: 'A' | 'AAAA'; readonly address: Ip }
	| { readonly type: 'CNAME' | 'PTR' | 'NS'; readonly target: string }
	| {
			readonly type: 'SRV'
			readonly priority: number
			readonly weight: number
			readonly port: number
			readonly target: string
	  }
	| { readonly type: 'TXT'; readonly texts: readonly string[] }
	| {
			readonly type: 'SOA'
			readonly primary: string
			readonly mailbox: string
			readonly serial: number
			readonly refresh: number
			readonly retry: number
			readonly expire: number
			readonly minimum: number
	  }

export type DnsRecord = RecordData & {
	readonly name: string
	/** Seconds. */
	readonly ttl: number
	readonly because: readonly Origin[]
}

/** One name. Without records it exists only because names under it do. */
export interface ZoneName {
	readonly records: readonly DnsRecord[]
	/** Who gave them (`Service default/web`), sorted: an address can have names in several Services. */
	readonly by: readonly { readonly owner: string; readonly records: readonly DnsRecord[] }[]
	/** How many need it on the way to their names; a count, because a namespace may have ten thousand. */
	readonly passing: number
}

/** Everything a name server of the cluster answers by itself. Plain data but for the tables. */
export interface Zone {
	/** `cluster.local` */
	readonly domain: string
	/** Reverse names inside these networks are ours: unknown addresses have no name. */
	readonly networks: readonly Cidr[]
	readonly names: Table<string, ZoneName>
	/** Services that have no address record now, and why: a headless Service without a ready endpoint. */
	readonly silent: Table<string, readonly Origin[]>
	/** What it was made from, to follow the difference. */
	readonly from: ZoneSource
}

/** What `lookup` needs. A zone that came over a wire lacks the rest. */
export interface ZoneData {
	readonly domain: string
	readonly networks: readonly Cidr[]
	readonly names: Table<string, { readonly records: readonly DnsRecord[] }>
	readonly silent?: Zone['silent']
	readonly from?: Pick<ZoneSource, 'addresses' | 'pods'>
}

interface ZoneSource {
	readonly config: NetworkConfig
	readonly services: Table<ObjectKey, Service>
	readonly namespaces: Table<string, Namespace>
	readonly addresses: NetworkModel['addresses']
	readonly pods: NetworkModel['pods']
}

/** Seconds. CoreDNS' own default; kubeadm sets 30. Short, because a pod's address dies with the pod. */
export const recordTtl = 5
export const schemaVersion = '1.1.0'

const soaTimes = { refresh: 7200, retry: 1800, expire: 86400 }

/**
 * The zone of a model. With `previous` only Services and namespaces that changed are looked at, and every name whose
 * records are the same stays the same object.
 */
export function zoneOf(model: NetworkModel, previous?: Zone): Zone {
	const from: ZoneSource = {
		config: model.config,
		services: model.services,
		namespaces: model.namespaces,
		addresses: model.addresses,
		pods: model.pods,
	}
	const { config } = model
	const keep = previous !== undefined && previous.from.config === config ? previous : undefined
	const domain = normalName(config.clusterDomain)
	let silent = keep?.silent ?? emptyTable<string, readonly Origin[]>()
	const names = (keep?.names ?? emptyTable<string, ZoneName>()).mutate((draft) => {
		const put = (
			owner: string,
			name: string,
			had: readonly DnsRecord[] | undefined,
			has: readonly DnsRecord[] | undefined,
		) => {
			const old = draft.get(name)
			const passing = (old?.passing ?? 0) + (has?.length === 0 ? 1 : 0) - (had?.length === 0 ? 1 : 0)
			let by = old?.by ?? []
			if (had !== undefined && had.length > 0) by = by.filter((b) => b.owner !== owner)
			if (has !== undefined && has.length > 0) {
				by =
					by.length === 0
						? [{ owner, records: has }]
						: [...by, { owner, records: has }].sort((a, b) => (a.owner < b.owner ? -1 : 1))
			}
			if (by.length === 0 && passing === 0) return draft.delete(name)
			const next = { records: by.length === 1 ? by[0]!.records : by.flatMap((b) => b.records), by, passing }
			if (old === undefined || share(old, next) !== old) draft.set(name, next)
		}
		const give = (owner: string, before: Part | undefined, after: Part | undefined) => {
			for (const [name, records] of after ?? []) put(owner, name, before?.get(name), records)
			for (const [name, records] of before ?? []) if (!after?.has(name)) put(owner, name, records, undefined)
		}
		if (keep === undefined) give('zone', undefined, domainPart(config, domain))
		diffTables(keep?.from.namespaces ?? emptyTable<string, Namespace>(), from.namespaces, (name, before, after) => {
			give(`Namespace ${name}`, before && namespacePart(name, domain), after && namespacePart(name, domain))
		})
		diffTables(keep?.from.services ?? emptyTable<ObjectKey, Service>(), from.services, (key, before, after) => {
			give(`Service ${key}`, before && servicePart(before, domain), after && servicePart(after, domain))
			if (before !== undefined) silent = silent.delete(serviceName(before, domain))
			const why = after && silence(after)
			if (after !== undefined && why !== undefined) silent = silent.set(serviceName(after, domain), why)
		})
	})
	const networks = share(keep?.networks, [...config.serviceCidrs, ...config.podCidrs])
	return { domain, networks, names, silent, from }
}

/** What one owner puts into the zone: records by name, none where a name is only on the way to others. */
type Part = ReadonlyMap<string, readonly DnsRecord[]>

function domainPart(config: NetworkConfig, domain: string): Part {
	const because = [defaultOrigin('the cluster domain')]
	const primary = `ns.dns.${domain}`
	const soa = { primary, mailbox: `hostmaster.${domain}`, serial: 1, ...soaTimes, minimum: recordTtl }
	const part = new Map<string, readonly DnsRecord[]>([
		[
			domain,
			[
				{ name: domain, type: 'SOA', ...soa, ttl: recordTtl, because },
				{ name: domain, type: 'NS', target: primary, ttl: recordTtl, because },
			],
		],
		[`svc.${domain}`, []],
		[`pod.${domain}`, []],
		[
			`dns-version.${domain}`,
			[
				{
					name: `dns-version.${domain}`,
					type: 'TXT',
					texts: [schemaVersion],
					ttl: recordTtl,
					because: [defaultOrigin('the version of the DNS schema')],
				},
			],
		],
	])
	if (config.dnsServiceIp !== undefined) {
		part.set(`dns.${domain}`, [])
		part.set(primary, [
			addressRecord(primary, config.dnsServiceIp, [defaultOrigin('the address of the cluster DNS Service')]),
		])
	}
	return part
}

function namespacePart(name: string, domain: string): Part {
	return new Map([
		[`${name}.svc.${domain}`, []],
		[`${name}.pod.${domain}`, []],
	])
}

function serviceName(service: Service, domain: string): string {
	return `${service.name}.${service.namespace}.svc.${domain}`
}

function servicePart(service: Service, domain: string): Part {
	const part = new Map<string, DnsRecord[]>()
	const add = (record: DnsRecord) => {
		const list = part.get(record.name)
		if (list === undefined) part.set(record.name, [record])
		else if (!list.some((r) => sameData(r, record))) list.push(record)
	}
	const name = serviceName(service, domain)
	if (service.type === 'ExternalName') {
		const target = normalName(service.externalName ?? '')
		if (target === '') return part
		const because = [service.fields?.externalName ?? service.origin]
		add({ name, type: 'CNAME', target, ttl: recordTtl, because })
	} else {
		for (const ip of service.clusterIps) {
			const because = [service.fields?.clusterIP ?? service.origin]
			add(addressRecord(name, ip, because))
			add({ name: reverseName(ip), type: 'PTR', target: name, ttl: recordTtl, because })
		}
		addEndpoints(service, name, add)
		if (service.headless) addEndpointPorts(service, name, add)
		else if (service.clusterIps.length > 0) {
			for (const port of service.ports) {
				const owner = port.name === '' ? undefined : `_${port.name}._${port.protocol}.${name}`.toLowerCase()
				if (owner === undefined) continue
				const data = { type: 'SRV' as const, priority: 0, weight: 100, port: port.port, target: name }
				add({ name: owner, ...data, ttl: recordTtl, because: [port.origin] })
			}
		}
		for (const { name: port, protocol } of service.ports) {
			const parent = `_${protocol.toLowerCase()}.${name}`
			if (port !== '' && part.has(`_${port.toLowerCase()}.${parent}`)) part.set(parent, [])
		}
	}
	// The namespace's own name exists with the first Service in it, also where no Namespace object was read.
	if (part.size > 0) part.set(`${service.namespace}.svc.${domain}`, [])
	return part
}

/**
 * Names of single endpoints. A headless Service has its own name at each of them, too, and they have it back (PTR).
 * Those of a Service with an address are an extension that the common implementation has as well.
 */
function addEndpoints(service: Service, name: string, add: (record: DnsRecord) => void): void {
	for (const endpoint of publishedAddresses(service)) {
		const because = endpointReasons(service, endpoint)
		const own = endpointName(endpoint, name)
		add(addressRecord(own, endpoint.ip, because))
		if (!service.headless) continue
		add(addressRecord(name, endpoint.ip, because))
		add({ name: reverseName(endpoint.ip), type: 'PTR', target: own, ttl: recordTtl, because })
	}
}

function addEndpointPorts(service: Service, name: string, add: (record: DnsRecord) => void): void {
	for (const port of service.ports) {
		if (port.name === '') continue
		const owner = `_${port.name}._${port.protocol}.${name}`.toLowerCase()
		for (const endpoint of port.endpoints) {
			if (!isPublished(service, endpoint)) continue
			const target = endpointName(endpoint, name)
			const data = { type: 'SRV' as const, priority: 0, weight: 100, port: endpoint.port, target }
			add({ name: owner, ...data, ttl: recordTtl, because: [port.origin, ...endpointReasons(service, endpoint)] })
		}
	}
}

function isPublished(service: Service, endpoint: Endpoint): boolean {
	return endpoint.ready || service.publishNotReadyAddresses
}

/** The endpoints that have names, each address once, in the order of addresses. */
function publishedAddresses(service: Service): Endpoint[] {
	const byIp = new Map<Ip, Endpoint>()
	for (const list of [...service.ports.map((p) => p.endpoints), service.addresses ?? []]) {
		for (const endpoint of list) {
			if (isPublished(service, endpoint) && !byIp.has(endpoint.ip)) byIp.set(endpoint.ip, endpoint)
		}
	}
	return [...byIp.values()].sort((a, b) => compareIps(a.ip, b.ip))
}

function endpointReasons(service: Service, endpoint: Endpoint): Origin[] {
	const publish = service.fields?.publishNotReadyAddresses ?? service.origin
	return [endpoint.origin, ...(endpoint.ready ? [] : [publish])]
}

/** `web-0.NAME`, or the address with dashes where the endpoint has no hostname: `10-244-1-3.NAME`. */
function endpointName(endpoint: Endpoint, serviceName: string): string {
	return `${endpoint.hostname?.toLowerCase() ?? dashedIp(endpoint.ip)}.${serviceName}`
}

export function dashedIp(ip: Ip): string {
	return ip.replaceAll(/[.:]/g, '-')
}

function silence(service: Service): readonly Origin[] | undefined {
	if (!service.headless) {
		if (service.type === 'ExternalName' || service.clusterIps.length > 0) return undefined
		return [service.fields?.clusterIP ?? service.origin, defaultOrigin('the Service has no address yet')]
	}
	if (publishedAddresses(service).length > 0) return undefined
	return [service.fields?.clusterIP ?? service.origin, defaultOrigin('the headless Service has no ready endpoint')]
}

function addressRecord(name: string, ip: Ip, because: readonly Origin[]): DnsRecord {
	return { name, type: familyOf(ip) === 4 ? 'A' : 'AAAA', address: ip, ttl: recordTtl, because }
}

function sameData(a: DnsRecord, b: DnsRecord): boolean {
	if (a.type !== b.type) return false
	if ('address' in a) return a.address === (b as typeof a).address
	if (a.type === 'SRV') return a.port === (b as typeof a).port && a.target === (b as typeof a).target
	if ('target' in a) return a.target === (b as typeof a).target
	return false
}

/** `3.1.244.10.in-addr.arpa`, or the 32 nibbles under ip6.arpa (RFC 3596 §2.5). */
export function reverseName(ip: Ip): string {
	if (familyOf(ip) === 4) return `${ip.split('.').reverse().join('.')}.in-addr.arpa`
	const nibbles = [...ipToBytes(ip)].flatMap((byte) => [(byte >> 4).toString(16), (byte & 15).toString(16)])
	return `${nibbles.reverse().join('.')}.ip6.arpa`
}

/** The address a whole reverse name spells, undefined for any other name. */
export function addressOfReverseName(name: string): Ip | undefined {
	if (name.endsWith('.in-addr.arpa')) return tryParseIp(name.slice(0, -13).split('.').reverse().join('.'))
	if (!/^([0-9a-f]\.){32}ip6\.arpa$/.test(name)) return undefined
	const digits = name.slice(0, 63).replaceAll('.', '').split('').reverse().join('')
	return tryParseIp(digits.replaceAll(/(....)(?!$)/g, '$1:'))
}

/** Lower case, without the final dot. */
export function normalName(name: string): string {
	const bare = name.endsWith('.') ? name.slice(0, -1) : name
	return bare.toLowerCase()
}

export interface ZoneAnswer {
	readonly rcode: 'NOERROR' | 'NXDOMAIN'
	/** CNAMEs on the way first, in order. Empty with NOERROR: the name exists and has no such record. */
	readonly records: readonly DnsRecord[]
	/** Why these records, or why none. */
	readonly because: readonly Origin[]
	/** The zone speaks for the name. Otherwise nothing is known here: ask elsewhere. */
	readonly authoritative: boolean
	/** A name outside the zone where the answer goes on: the question itself, or the target of the last CNAME. */
	readonly outside?: string
}

/** A chain of ExternalName Services longer than this is taken for a loop. */
const longestChain = 8

/** What the zone answers. `name` in any case, with or without the final dot. */
export function lookup(zone: ZoneData, name: string, type: QuestionType): ZoneAnswer {
	let at = normalName(name)
	if (!covers(zone, at)) {
		const because = [defaultOrigin(`"${at}" is outside the cluster domain "${zone.domain}"`)]
		return { rcode: 'NXDOMAIN', records: [], because, authoritative: false, outside: at }
	}
	const chain: DnsRecord[] = []
	const followed = (answer: Omit<ZoneAnswer, 'authoritative'>): ZoneAnswer =>
		chain.length === 0
			? { ...answer, authoritative: true }
			: {
					...answer,
					authoritative: true,
					records: [...chain, ...answer.records],
					because: [...chain.flatMap((r) => r.because), ...answer.because],
				}
	for (;;) {
		const records = recordsOf(zone, at)
		if (records === undefined) return followed({ rcode: 'NXDOMAIN', records: [], because: absence(zone, at) })
		const wanted = type === 'ANY' ? records : records.filter((r) => r.type === type)
		if (wanted.length > 0) {
			return followed({ rcode: 'NOERROR', records: wanted, because: unique(wanted.flatMap((r) => r.because)) })
		}
		const alias = records.find((r) => r.type === 'CNAME')
		if (alias === undefined || alias.type !== 'CNAME') {
			const because = [defaultOrigin(`"${at}" exists and has no ${type} record`)]
			return followed({ rcode: 'NOERROR', records: [], because })
		}
		if (chain.length === longestChain || chain.some((r) => r.name === alias.name)) {
			return followed({ rcode: 'NOERROR', records: [], because: [defaultOrigin(`"${at}" is an alias of itself`)] })
		}
		chain.push(alias)
		at = alias.target
		if (!covers(zone, at)) return followed({ rcode: 'NOERROR', records: [], because: [], outside: at })
	}
}

/** Whether the zone speaks for a (normal) name. */
export function covers(zone: ZoneData, name: string): boolean {
	if (name === zone.domain || name.endsWith(`.${zone.domain}`)) return true
	if (!name.endsWith('.arpa')) return false
	const ip = addressOfReverseName(name)
	if (ip === undefined) return zone.networks.some((network) => reaches(network, name))
	return zone.names.has(name) || zone.networks.some((network) => cidrContains(network, ip))
}

/** Whether a part of a reverse name lies inside the network: `244.10.in-addr.arpa` in 10.244.0.0/16. */
function reaches(network: Cidr, name: string): boolean {
	const [step, suffix] = familyOf(network) === 4 ? [8, '.in-addr.arpa'] : [4, '.ip6.arpa']
	if (!name.endsWith(suffix)) return false
	const labels = name.slice(0, -suffix.length).split('.')
	if (labels.length * step < cidrLength(network)) return false
	return reverseName(cidrAddress(network)).endsWith(
		`${labels.slice(-Math.floor(cidrLength(network) / step)).join('.')}${suffix}`,
	)
}

/** undefined: there is no such name. */
function recordsOf(zone: ZoneData, name: string): readonly DnsRecord[] | undefined {
	const known = zone.names.get(name)
	if (known !== undefined) return known.records
	if (name.endsWith('.arpa')) return addressOfReverseName(name) === undefined ? [] : undefined
	const pod = podAddress(zone, name)
	if (pod === undefined) return undefined
	const owner = zone.from?.addresses.get(pod.ip)
	const found = owner?.kind === 'pod' ? zone.from?.pods.get(owner.pod) : undefined
	const rule = defaultOrigin('a name under "pod" spells its address')
	return [addressRecord(name, pod.ip, found?.namespace === pod.namespace ? [found.origin, rule] : [rule])]
}

/** `10-244-1-3.default.pod.cluster.local`: any address, in a namespace that exists (specification §2.6). */
export function podAddress(zone: ZoneData, name: string): { readonly ip: Ip; readonly namespace: string } | undefined {
	const suffix = `.pod.${zone.domain}`
	if (!name.endsWith(suffix)) return undefined
	const [label = '', namespace = '', ...more] = name.slice(0, -suffix.length).split('.')
	if (more.length > 0 || !zone.names.has(`${namespace}${suffix}`)) return undefined
	const dashes = label.split('-').length - 1
	const dotted = dashes === 3 && !label.includes('--') ? tryParseIp(label.replaceAll('-', '.')) : undefined
	const ip = dotted ?? tryParseIp(label.replaceAll('-', ':'))
	return ip === undefined ? undefined : { ip, namespace }
}

function absence(zone: ZoneData, name: string): readonly Origin[] {
	const silent = zone.silent?.get(name)
	if (silent !== undefined) return silent
	const labels = name.split('.')
	for (let i = 1; i < labels.length; i++) {
		const parent = labels.slice(i).join('.')
		const why = zone.silent?.get(parent)
		if (why !== undefined) return why
		if (zone.names.has(parent)) return [defaultOrigin(`no name "${labels[i - 1]}" under "${parent}"`)]
	}
	return [defaultOrigin(`nothing has the name "${name}"`)]
}

function unique(origins: readonly Origin[]): readonly Origin[] {
	return [...new Set(origins)]
}
