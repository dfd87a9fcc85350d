// What a user may choose of a lab's network beside its families: the networks of pods and Services, the domain, the node
// ports, and the switches of externalIPs. Chosen when the lab is made and kept with it: its addresses are from there.

import { readFileSync } from 'node:fs'
import { Failure } from '../base/failure.ts'
import {
	type Cidr,
	cidrAddress,
	cidrContains,
	cidrLength,
	familyOf,
	type IpFamily,
	parseCidr,
	tryParseCidr,
} from '../base/ip.ts'
import { keepLine } from './kept.ts'
import type { LabPaths } from './paths.ts'

export interface NetworkChoice {
	/** At most one of each family; of the other the default. */
	readonly podCidrs?: readonly Cidr[]
	readonly serviceCidrs?: readonly Cidr[]
	readonly clusterDomain?: string
	readonly nodePorts?: { readonly from: number; readonly to: number }
	/** kube-proxy's and kube-apiserver's gates that we know; absent: as Kubernetes has it by default. */
	readonly featureGates?: Readonly<Partial<Record<FeatureGate, boolean>>>
	/** kube-apiserver's plugins beyond those that are always on. */
	readonly admissionPlugins?: readonly AdmissionPlugin[]
}

/**
 * AllowServiceExternalIPs: since Kubernetes 1.36, on by default (off from 1.40, KEP-5707); before there is none, and
 * kube-proxy always minds externalIPs.
 */
export const featureGates = ['AllowServiceExternalIPs'] as const
export type FeatureGate = (typeof featureGates)[number]

/** Since Kubernetes 1.21; off by default. */
export const admissionPlugins = ['DenyServiceExternalIPs'] as const
export type AdmissionPlugin = (typeof admissionPlugins)[number]

/** Length of the mask of one node's share of the pods' network: what kube-controller-manager gives by default. */
export const nodeMasks = { 4: 24, 6: 64 } as const

/** `10.0.0.0/12` or one of each family with a comma between. Throws Failure InvalidNetwork. */
export function readCidrs(what: string, text: string): readonly Cidr[] {
	const cidrs = text.split(',').map((part) => {
		const cidr = tryParseCidr(part.trim())
		if (cidr === undefined) throw wrong(what, text, `${JSON.stringify(part.trim())} is no network such as 10.0.0.0/16`)
		return cidr
	})
	if (cidrs.length > 2 || (cidrs.length === 2 && familyOf(cidrs[0]!) === familyOf(cidrs[1]!)))
		throw wrong(what, text, 'there is at most one network of each IP family')
	return cidrs
}

/** `30000-32767`. Throws Failure InvalidNetwork. */
export function readNodePorts(text: string): { readonly from: number; readonly to: number } {
	const match = /^(\d{1,5})-(\d{1,5})$/.exec(text)
	const [from, to] = [Number(match?.[1]), Number(match?.[2])]
	if (match === null || from < 1 || to > 65535 || from > to)
		throw wrong('node ports', text, 'write the first and the last, such as 30000-32767')
	return { from, to }
}

/** A DNS-1123 subdomain, without a dot at its end. Throws Failure InvalidNetwork. */
export function readClusterDomain(text: string): string {
	const label = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/
	if (text.length > 200 || !text.split('.').every((part) => label.test(part)))
		throw wrong('cluster domain', text, 'it must be a DNS name of lower-case labels, such as cluster.local')
	return text
}

/** `AllowServiceExternalIPs=false`, several with commas between. Throws Failure InvalidNetwork. */
export function readFeatureGates(text: string): Readonly<Partial<Record<FeatureGate, boolean>>> {
	const gates: Partial<Record<FeatureGate, boolean>> = {}
	for (const part of text.split(',')) {
		const [name = '', value = ''] = part.trim().split('=')
		const gate = featureGates.find((known) => known === name)
		if (gate === undefined) throw wrong('feature gate', name, `known are ${featureGates.join(', ')}`)
		if (value !== 'true' && value !== 'false') throw wrong('feature gate', part.trim(), 'write NAME=true or NAME=false')
		gates[gate] = value === 'true'
	}
	return gates
}

/** Names with commas between. Throws Failure InvalidNetwork. */
export function readAdmissionPlugins(text: string): readonly AdmissionPlugin[] {
	return text.split(',').map((part) => {
		const plugin = admissionPlugins.find((known) => known === part.trim())
		if (plugin === undefined) throw wrong('admission plugin', part.trim(), `known are ${admissionPlugins.join(', ')}`)
		return plugin
	})
}

function wrong(what: string, text: string, why: string): Failure {
	return new Failure('InvalidNetwork', `Cannot use ${JSON.stringify(text)} as ${what}: ${why}`)
}

/** What is no lab's to give. */
const reserved: readonly (readonly [string, Cidr])[] = [
	["link-local addresses, as the pods' gateway has", parseCidr('169.254.0.0/16')],
	['link-local addresses', parseCidr('fe80::/10')],
	['loopback', parseCidr('127.0.0.0/8')],
	['multicast', parseCidr('224.0.0.0/4')],
	['multicast', parseCidr('ff00::/8')],
]

/** The networks of one family as they come out of a choice (ip-family.ts). */
interface Chosen {
	readonly family: IpFamily
	readonly pods: Cidr
	readonly services: Cidr
	readonly underlay: Cidr
	readonly outside: Cidr
}

/**
 * Kubernetes' own bounds (kube-controller-manager, kube-apiserver), families that the lab has, and that nothing overlaps.
 * Throws Failure InvalidNetwork.
 */
export function checkNetworks(asked: NetworkChoice, networks: readonly Chosen[], nodes: number): void {
	for (const cidr of [...(asked.podCidrs ?? []), ...(asked.serviceCidrs ?? [])]) {
		if (!networks.some(({ family }) => family === familyOf(cidr)))
			throw wrong('a network of the lab', cidr, `the lab has no IPv${familyOf(cidr)} (--ip-family)`)
	}
	const others = [...reserved]
	for (const { underlay, outside } of networks)
		others.push(['the network between nodes', underlay], ['the network outside', outside])
	const check = (what: string, cidr: Cidr) => {
		const other = others.find(([, other]) => overlap(cidr, other))
		if (other !== undefined) throw wrong(what, cidr, `it overlaps ${other[1]}, ${other[0]}`)
		others.push([what, cidr])
	}
	for (const { family, pods, services } of networks) {
		const share = nodeMasks[family]
		const bits = share - cidrLength(pods)
		if (bits < 0 || bits > 16 || 2 ** bits < nodes) {
			const needed = share - Math.ceil(Math.log2(nodes))
			const why = `each of ${nodes} nodes gets a /${share} of it: write one from /${share - 16} to /${needed}`
			throw wrong("the pods' network", pods, why)
		}
		check("the pods' network", pods)
		const [widest, narrowest] = family === 4 ? [12, 28] : [108, 124]
		if (cidrLength(services) < widest || cidrLength(services) > narrowest)
			throw wrong("the Services' network", services, `it must be from /${widest} to /${narrowest}`)
		check("the Services' network", services)
	}
}

function overlap(a: Cidr, b: Cidr): boolean {
	if (familyOf(a) !== familyOf(b)) return false
	const [wide, narrow] = cidrLength(a) <= cidrLength(b) ? [a, b] : [b, a]
	return cidrContains(wide, cidrAddress(narrow))
}

/** Empty where nothing was chosen. */
export function readNetworkChoice(paths: LabPaths): NetworkChoice {
	try {
		return JSON.parse(readFileSync(paths.network, 'utf8')) as NetworkChoice
	} catch {
		return {}
	}
}

/**
 * What the lab has from now on: what it had, else what is asked for. Throws Failure Immutable where something is asked
 * for that it has otherwise, CannotWrite.
 */
export function settleNetworkChoice(paths: LabPaths, isNew: boolean, asked: NetworkChoice): NetworkChoice {
	if (isNew) {
		keepLine(paths.network, JSON.stringify(asked))
		return asked
	}
	const kept = readNetworkChoice(paths)
	for (const field of Object.keys(asked) as (keyof NetworkChoice)[]) {
		if (JSON.stringify(asked[field]) === JSON.stringify(kept[field])) continue
		throw new Failure(
			'Immutable',
			`Cannot change ${names[field]} of lab ${JSON.stringify(paths.name)}: it was made with ${textOf(kept[field])}`,
		)
	}
	return kept
}

const names: Readonly<Record<keyof NetworkChoice, string>> = {
	podCidrs: "the pods' network",
	serviceCidrs: "the Services' network",
	clusterDomain: 'the cluster domain',
	nodePorts: 'the node ports',
	featureGates: 'feature gates',
	admissionPlugins: 'admission plugins',
}

function textOf(value: NetworkChoice[keyof NetworkChoice]): string {
	if (value === undefined) return 'the default'
	return typeof value === 'string' ? value : Array.isArray(value) ? value.join(',') : JSON.stringify(value)
}
