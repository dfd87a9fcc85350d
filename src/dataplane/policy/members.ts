// What the rules of policies look addresses up in: one set for each distinct peer, whoever names it. Its name says what
// is in it (a digest), so that the same peer in another policy, on another node or after a restart has the same set.

import { createHash } from 'node:crypto'
import { cidrContains, type Ip } from '../../base/ip.ts'
import { protocols } from '../../linux/nft/datatype.ts'
import { namespaceNameLabel } from '../../model/labels.ts'
import type { LabelSelector, NetworkModel, Pod } from '../../model/network.ts'
import { selectorMatches, selectorText } from '../../model/selector.ts'
import type { Block } from './blocks.ts'

/** Pods, and for a named port the port that each of them has under the name. */
export interface Membership {
	/** Name of the set. */
	readonly name: string
	readonly comment: string
	/** Only pods of this namespace; undefined: of the namespaces that `namespaces` selects, of all without it. */
	readonly scope?: string
	readonly namespaces?: LabelSelector
	/** Undefined: all pods. */
	readonly pods?: LabelSelector
	/** Only those whose address is in one of them. */
	readonly blocks?: readonly Block[]
	readonly port?: { readonly name: string; readonly protocol: 'TCP' | 'UDP' | 'SCTP' }
}

type Description = Omit<Membership, 'name' | 'comment'>

export function digest(value: unknown): string {
	return createHash('sha256').update(JSON.stringify(value)).digest('hex').slice(0, 12)
}

export function membershipOf(description: Description): Membership {
	const { scope, blocks, port } = description
	const namespaces = canonical(description.namespaces)
	const pods = canonical(description.pods)
	const id = [scope ?? null, namespaces ?? null, pods ?? null, blocks ?? null, port ?? null]
	const who =
		blocks !== undefined
			? `pods in ${blocks.map((b) => b.cidr).join(', ')}`
			: `pods ${pods === undefined ? 'everything' : selectorText(pods)}`
	const where =
		scope !== undefined
			? ` of namespace ${scope}`
			: namespaces === undefined
				? ''
				: ` of namespaces ${selectorText(namespaces)}`
	const what = port === undefined ? '' : `, port ${port.protocol}/${port.name}`
	return {
		...(scope === undefined ? {} : { scope }),
		...(namespaces === undefined ? {} : { namespaces }),
		...(pods === undefined ? {} : { pods }),
		...(blocks === undefined ? {} : { blocks }),
		...(port === undefined ? {} : { port }),
		name: `${port === undefined ? 'pods' : 'named'}-${digest(id)}`,
		comment: clip(`${who}${where}${what}`),
	}
}

/** A comment in the kernel has 127 bytes; whoever compares what is there with what is wanted compares the clipped text. */
export function clip(text: string): string {
	const plain = text.replaceAll('"', "'")
	if (Buffer.byteLength(plain) <= 127) return plain
	let short = plain.slice(0, 124)
	while (Buffer.byteLength(short) > 124) short = short.slice(0, -1)
	return `${short}...`
}

/** In one form whatever the order of its labels; undefined where it selects everything. */
function canonical(selector: LabelSelector | undefined): LabelSelector | undefined {
	if (selector === undefined) return undefined
	const { matchLabels, matchExpressions } = selector
	const labels = Object.entries(matchLabels).sort(([a], [b]) => (a < b ? -1 : 1))
	if (labels.length === 0 && matchExpressions.length === 0) return undefined
	return {
		matchLabels: Object.fromEntries(labels),
		matchExpressions: matchExpressions.map(({ key, operator, values }) => ({ key, operator, values })),
	}
}

/** The elements that the pod at `ip` has in the set: none where it is not selected. */
export function keysOf(m: Membership, model: Pick<NetworkModel, 'namespaces'>, pod: Pod, ip: Ip): readonly string[] {
	if (!selects(m, model, pod, ip)) return []
	const { port } = m
	if (port === undefined) return [ip]
	const keys = new Set<string>()
	for (const each of pod.ports) {
		if (each.name === port.name && each.protocol === port.protocol)
			keys.add(`${ip} . ${protocolName(port.protocol)} . ${each.port}`)
	}
	return [...keys]
}

function selects(m: Membership, model: Pick<NetworkModel, 'namespaces'>, pod: Pod, ip: Ip): boolean {
	if (m.scope !== undefined && pod.namespace !== m.scope) return false
	if (m.pods !== undefined && !selectorMatches(m.pods, pod.labels)) return false
	if (m.namespaces !== undefined) {
		const labels = model.namespaces.get(pod.namespace)?.labels ?? { [namespaceNameLabel]: pod.namespace }
		if (!selectorMatches(m.namespaces, labels)) return false
	}
	return m.blocks === undefined || m.blocks.some((block) => inBlock(block, ip))
}

function inBlock({ cidr, except }: Block, ip: Ip): boolean {
	return cidrContains(cidr, ip) && !except.some((hole) => cidrContains(hole, ip))
}

/** As nft writes it. */
export function protocolName(protocol: 'TCP' | 'UDP' | 'SCTP'): 'tcp' | 'udp' | 'sctp' {
	return protocol.toLowerCase() as 'tcp' | 'udp' | 'sctp'
}

export function protocolNumber(protocol: 'TCP' | 'UDP' | 'SCTP'): number {
	return protocols[protocolName(protocol)]
}

/** Memberships by what a pod must have to be in them, so that a pod is compared with those only. */
export class MembershipIndex<M extends Membership> {
	readonly #buckets = new Map<string, Set<M>>()

	add(m: M): void {
		const key = bucketOf(m)
		const bucket = this.#buckets.get(key)
		if (bucket === undefined) this.#buckets.set(key, new Set([m]))
		else bucket.add(m)
	}

	delete(m: M): void {
		const key = bucketOf(m)
		const bucket = this.#buckets.get(key)
		if (bucket?.delete(m) === true && bucket.size === 0) this.#buckets.delete(key)
	}

	/** Those that may select the pod: all that do are among them. */
	*candidates(pod: Pod): Iterable<M> {
		const labels = ['', ...Object.entries(pod.labels).map(([key, value]) => `${key}=${value}`)]
		for (const scope of ['*', pod.namespace])
			for (const label of labels) yield* this.#buckets.get(`${scope} ${label}`) ?? []
	}
}

/** No namespace is called `*`; a label has no space. */
function bucketOf({ scope, pods }: Membership): string {
	const [first] = Object.entries(pods?.matchLabels ?? {})
	return `${scope ?? '*'} ${first === undefined ? '' : `${first[0]}=${first[1]}`}`
}
