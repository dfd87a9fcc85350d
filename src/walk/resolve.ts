// Name resolution, question by question, as the pod's C library asks: first whether the questions reach the server at
// all (a policy that forgets DNS is the commonest fault), then the search list until a name is found.

import { familyOf, type Ip } from '../base/ip.ts'
import { queries } from '../model/names.ts'
import type { NetworkModel, Pod, PodDns, ResolverConfig } from '../model/network.ts'
import { defaultOrigin, type Origin } from '../model/origin.ts'
import { lookup, normalName, type Zone, type ZoneAnswer, zoneOf } from '../model/zone.ts'
import type { Flow, StepWithReason, Trace } from './trace.ts'
import { lost, type Start, stepAt, type Walk, type Way } from './way.ts'

/** Either the addresses the client may take, each with its chance on the way, or traces that end before any packet. */
export type Resolved =
	| { readonly kind: 'choices'; readonly choices: readonly { readonly way: Way; readonly ip: Ip }[] }
	| { readonly kind: 'traces'; readonly traces: readonly Trace[] }

const nodeResolver = defaultOrigin('the resolver of the node, which does not ask the cluster DNS')
const lately = defaultOrigin("the cluster's DNS server has answered so, and the answer still holds")
const outsideResolver = defaultOrigin('names of the cluster are known inside of it only')

/** The name of the flow, from where it starts. `walkTo` walks the questions themselves to the server. */
export function resolve(w: Walk, start: Start, begin: Way, walkTo: (flow: Flow) => readonly Trace[]): Resolved {
	const { model, flow } = w
	const name = 'name' in flow.to ? flow.to.name : ''
	const dns = resolverOf(model, flow.from.kind === 'outside' ? undefined : start.pod, flow.from.kind === 'outside')
	const server = reachableServer(w, dns, walkTo)
	const names = queries(name, dns)
	if (server.kind === 'none') {
		const asked = stepAt(
			begin,
			start.place,
			query(names[0] ?? name, 'no-answer', [], [dns.origin], 'the resolver names no server'),
		)
		return {
			kind: 'traces',
			traces: [lost(w, asked, start.place, 'no-such-name', 'drop', [dns.origin], `"${name}" cannot be resolved here`)],
		}
	}
	if (server.kind === 'unreachable') {
		const { trace } = server
		const note = `the question to ${server.ip} port 53/UDP does not arrive: ${trace.disposition}`
		const asked = stepAt(begin, start.place, query(names[0] ?? name, 'no-answer', [], [dns.origin], note))
		const { hops } = trace.hops.reduce((way, hop) => stepAt(way, hop, ...hop.steps), asked)
		return { kind: 'traces', traces: [{ flow, hops, reply: trace.reply, disposition: trace.disposition, chance: 1 }] }
	}
	const zone = w.options.zone ?? zoneOf(model)
	let way = begin
	let note = server.note
	for (const asked of names) {
		const answer = answeredLately(model, server.cluster ? ask(zone, asked) : askElsewhere(zone, asked), server.cluster)
		if (answer.kind === 'forwarded') {
			const text = `"${answer.outside}" is answered outside of the cluster: its address is not known here`
			const end = query(
				asked,
				'forwarded',
				[],
				[dns.origin, ...answer.because],
				[note, text].filter((t) => t !== undefined).join('\n'),
			)
			const { hops } = stepAt(way, start.place, end)
			return { kind: 'traces', traces: [{ flow, hops, reply: [], disposition: 'left-cluster', chance: 1 }] }
		}
		way = stepAt(way, start.place, query(asked, answer.kind, answer.addresses, [dns.origin, ...answer.because], note))
		note = undefined
		if (answer.kind !== 'found') continue
		const usable = choose(answer.addresses, sourcesOf(start, flow.from.kind === 'outside' ? flow.from.ip : undefined))
		return {
			kind: 'choices',
			choices: usable.map((ip) => ({
				ip,
				way: stepAt({ ...way, chance: way.chance / usable.length }, start.place, {
					step: 'resolve',
					name: asked,
					address: ip,
					because: answer.because,
					...noteOf(usable, answer.addresses),
				}),
			})),
		}
	}
	return {
		kind: 'traces',
		traces: [
			lost(
				w,
				way,
				start.place,
				'no-such-name',
				'drop',
				[dns.origin],
				`no name of the search list exists for "${name}"`,
			),
		],
	}
}

function query(
	name: string,
	answer: 'found' | 'no-such-name' | 'no-data' | 'forwarded' | 'no-answer',
	addresses: readonly Ip[],
	because: readonly Origin[],
	note?: string,
): StepWithReason {
	return { step: 'query', name, answer, addresses, because, ...(note === undefined ? {} : { note }) }
}

function resolverOf(model: NetworkModel, pod: Pod | undefined, outside: boolean): PodDns {
	if (pod !== undefined) return pod.dns
	const none: ResolverConfig = { nameservers: [], searches: [], options: [] }
	if (outside) return { ...none, origin: outsideResolver }
	return { ...(model.config.nodeDns ?? none), origin: nodeResolver }
}

type Server =
	| { readonly kind: 'none' }
	| { readonly kind: 'unreachable'; readonly ip: Ip; readonly trace: Trace }
	/** `cluster`: it is the cluster's own DNS Service. */
	| { readonly kind: 'server'; readonly ip: Ip; readonly cluster: boolean; readonly note?: string }

/** The first server that questions reach: the resolver turns to the next when one does not answer. */
function reachableServer(w: Walk, dns: PodDns, walkTo: (flow: Flow) => readonly Trace[]): Server {
	const { model, flow } = w
	let failed: Server | undefined
	for (const ip of dns.nameservers) {
		const traces = walkTo({ from: flow.from, to: { ip }, protocol: 'UDP', port: 53 })
		const good = traces.filter((t) => t.disposition === 'delivered' || t.disposition === 'left-cluster')
		const bad = traces.find((t) => !good.includes(t))
		if (good.length === 0) {
			failed ??= { kind: 'unreachable', ip, trace: bad! }
			continue
		}
		const notes = [
			...(failed === undefined
				? []
				: [`the first server does not answer: ${dns.nameservers[0]}; after a timeout ${ip} is asked`]),
			...(bad === undefined
				? []
				: [`${traces.length - good.length} of ${traces.length} ways to the server ${ip} fail: ${bad.disposition}`]),
		]
		return {
			kind: 'server',
			ip,
			cluster: ip === model.config.dnsServiceIp,
			...(notes.length === 0 ? {} : { note: notes.join('\n') }),
		}
	}
	return failed ?? { kind: 'none' }
}

type Found =
	| {
			readonly kind: 'found' | 'no-such-name' | 'no-data'
			readonly addresses: readonly Ip[]
			readonly because: readonly Origin[]
	  }
	| {
			readonly kind: 'forwarded'
			readonly outside: string
			readonly addresses: readonly Ip[]
			readonly because: readonly Origin[]
	  }

/** Both questions of getaddrinfo(3): A and AAAA. */
function ask(zone: Zone, name: string): Found {
	const answers: readonly ZoneAnswer[] = [lookup(zone, name, 'A'), lookup(zone, name, 'AAAA')]
	const telling = answers.filter((a) => a.records.some((r) => 'address' in r))
	const reasons = [...new Set((telling.length > 0 ? telling : answers.slice(0, 1)).flatMap((a) => a.because))]
	const addresses = answers.flatMap((a) => a.records.flatMap((r) => ('address' in r ? [r.address] : [])))
	const outside = answers.find((a) => a.outside !== undefined)?.outside
	if (addresses.length > 0) return { kind: 'found', addresses, because: reasons }
	if (outside !== undefined) return elsewhere(outside, reasons)
	const exists = answers.some((a) => a.rcode === 'NOERROR')
	return { kind: exists ? 'no-data' : 'no-such-name', addresses, because: reasons }
}

/** What servers outside say of a name is known where the cluster's DNS server has asked them lately. */
function answeredLately(model: NetworkModel, answer: Found, cluster: boolean): Found {
	if (answer.kind !== 'forwarded' || !cluster) return answer
	const addresses = model.resolvedNames?.get(normalName(answer.outside))
	if (addresses === undefined) return answer
	return { kind: 'found', addresses, because: [...answer.because, lately] }
}

/** A server that is not the cluster's knows none of its names. */
function askElsewhere(zone: Zone, name: string): Found {
	const answer = lookup(zone, name, 'A')
	const because = [defaultOrigin('the server is not the cluster DNS')]
	return answer.authoritative
		? { kind: 'no-such-name', addresses: [], because }
		: elsewhere(answer.outside ?? name, because)
}

/** A name of one label, or under "svc", is asked of the world's servers only by mistake: no such top-level domain has addresses. */
function elsewhere(name: string, because: readonly Origin[]): Found {
	const labels = name.replace(/\.$/, '').split('.')
	if (labels.length > 1 && labels.at(-1) !== 'svc') return { kind: 'forwarded', outside: name, addresses: [], because }
	const none = defaultOrigin(`no server outside of the cluster has addresses for "${name.replace(/\.$/, '')}"`)
	return { kind: 'no-such-name', addresses: [], because: [...because, none] }
}

function noteOf(usable: readonly Ip[], all: readonly Ip[]): { readonly note?: string } {
	const notes = usable.length === 1 ? [] : [`one of ${usable.length} addresses`]
	const private6 = usable[0] !== undefined && /^f[cd]/.test(usable[0]) && familyOf(usable[0]) === 6
	if (private6 && all.some((ip) => familyOf(ip) === 4))
		notes.push('glibc takes a unique local IPv6 address before IPv4; musl and Go, by RFC 6724, after it')
	return notes.length === 0 ? {} : { note: notes.join('\n') }
}

/**
 * The addresses a client would try first: of a family it has an address of itself, IPv6 before IPv4 where it has both, as
 * glibc sorts them: its table is that of RFC 3484, where unique local addresses rank like global ones, while RFC 6724
 * puts them after IPv4. Servers rotate the order of equals, so each is as likely. All where it has none: the walk then
 * says so.
 */
function choose(addresses: readonly Ip[], sources: readonly Ip[]): readonly Ip[] {
	for (const family of [6, 4] as const) {
		if (!sources.some((ip) => familyOf(ip) === family)) continue
		const usable = addresses.filter((ip) => familyOf(ip) === family)
		if (usable.length > 0) return usable
	}
	return addresses
}

function sourcesOf(start: Start, outside: Ip | undefined): readonly Ip[] {
	if (outside !== undefined) return [outside]
	if (start.pod !== undefined && !start.pod.hostNetwork) return start.pod.ips
	return start.node?.addresses ?? []
}
