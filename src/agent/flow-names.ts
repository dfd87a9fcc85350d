// Who is behind an address, a rule and a frontend, as the model of the moment knows it. Answers about pods are shared
// between flows: what is remembered of a thousand flows of one pod is one description of the pod.

import type { Ip } from '../base/ip.ts'
import type { Protocol } from '../base/packet.ts'
import { diffTables } from '../base/table.ts'
import { parseOrigin } from '../dataplane/origin.ts'
import { tableName } from '../dataplane/policy/layout.ts'
import type { LogPrefix } from '../dataplane/policy/log.ts'
import { type NftProgram, tableKey } from '../linux/nft/program.ts'
import { findFrontend } from '../model/frontends.ts'
import type { AddressOwner, NetworkModel, NodeName, Pod } from '../model/network.ts'
import { defaultOrigin, type Origin } from '../model/origin.ts'
import { selecting } from '../model/policy.ts'
import type { FlowDetails, FlowEnd } from './flow-event.ts'

export interface NamedEnd {
	readonly end: FlowEnd
	readonly pod?: Pod
	/** `node/node-1`, `svc/shop/web`. */
	readonly name?: string
}

export interface NamedRule {
	readonly because: readonly Origin[]
	readonly rule: NonNullable<FlowDetails['rule']>
}

/** Of one pod at most so many, of so many characters: a flow is no place for essays. */
const labelLimit = 24
const labelLength = 190
/** Addresses given back, and how long (ms) they are still known by: events come a moment after the facts. */
const departedLimit = 2_000
const departedTime = 30_000
const rulesLimit = 2_000

const world: NamedEnd = { end: { labels: ['reserved:world'] } }

export class FlowNames {
	readonly #node: NodeName
	#model: NetworkModel | undefined
	#program: NftProgram | undefined
	readonly #ends = new WeakMap<Pod, NamedEnd>()
	readonly #departed = new Map<Ip, { readonly pod: Pod; readonly until: number }>()
	readonly #rules = new Map<string, NamedRule>()

	constructor(node: NodeName) {
		this.#node = node
	}

	/** `now`: milliseconds. Cost: what changed. */
	update(model: NetworkModel, program: NftProgram, now: number): void {
		const before = this.#model
		if (before !== undefined && before.addresses !== model.addresses) {
			diffTables<Ip, AddressOwner>(before.addresses, model.addresses, (ip, a, b) => {
				if (b !== undefined) this.#departed.delete(ip)
				else if (a?.kind === 'pod') {
					const pod = before.pods.get(a.pod)
					if (pod !== undefined) this.#departed.set(ip, { pod, until: now + departedTime })
				}
			})
			for (const [ip, { until }] of this.#departed) {
				if (until > now && this.#departed.size <= departedLimit) break
				this.#departed.delete(ip)
			}
		}
		if (program !== this.#program || before?.policies !== model.policies) this.#rules.clear()
		this.#model = model
		this.#program = program
	}

	endOf(ip: Ip): NamedEnd {
		const owner = this.#model?.addresses.get(ip)
		switch (owner?.kind) {
			case 'pod': {
				const pod = this.#model?.pods.get(owner.pod)
				return pod === undefined ? world : this.#podEnd(pod)
			}
			case 'node':
				return {
					end: { labels: [owner.node === this.#node ? 'reserved:host' : 'reserved:remote-node'] },
					name: `node/${owner.node}`,
				}
			case 'service':
				return { end: { labels: [] }, name: `svc/${owner.service}` }
			case undefined: {
				const departed = this.#departed.get(ip)
				return departed === undefined ? world : this.#podEnd(departed.pod)
			}
			default:
				return owner satisfies never
		}
	}

	isLocal({ pod }: NamedEnd): boolean {
		return pod !== undefined && pod.node === this.#node
	}

	/** The Service that a client asks by this address and port on this node. */
	serviceAt(to: { readonly ip: Ip; readonly protocol: Protocol; readonly port: number }): FlowService | undefined {
		const model = this.#model
		if (model === undefined) return undefined
		const found = findFrontend(model, model.nodes.get(this.#node) ?? { addresses: [] }, to)
		return found === undefined ? undefined : { name: found.service.name, namespace: found.service.namespace }
	}

	/** What the prefix of a log names: the whole comment of the rule, and the objects in it, with file and line. */
	ruleOf(prefix: LogPrefix, family: 'ip' | 'ip6', subject: Pod | undefined): NamedRule {
		const id = `${family} ${prefix.verdict} ${prefix.chain} ${prefix.comment}`
		const known = this.#rules.get(id)
		if (known !== undefined) return known
		const chain = this.#program?.tables.get(tableKey(family, tableName))?.chains.get(prefix.chain)
		const start = prefix.comment.replace(/\.\.\.$/, '')
		const comment = chain?.rules.findLast((r) => r.comment?.startsWith(start))?.comment ?? prefix.comment
		const named: NamedRule = {
			because: this.#originsOf(comment, prefix, subject),
			rule: { table: `${family} ${tableName}`, chain: prefix.chain, ...(comment === '' ? {} : { comment }) },
		}
		if (this.#rules.size >= rulesLimit) this.#rules.clear()
		this.#rules.set(id, named)
		return named
	}

	#originsOf(comment: string, prefix: LogPrefix, subject: Pod | undefined): readonly Origin[] {
		const model = this.#model
		const one = parseOrigin(comment)
		if (one !== undefined) {
			// A long path may have had no room in the comment.
			const whole = 'key' in one && one.field === undefined ? model?.policies.get(one.key)?.origin : undefined
			return [whole ?? one]
		}
		const keys = /^NetworkPolicy (.+)$/.exec(comment)?.[1]
		if (keys === undefined || model === undefined) return [defaultOrigin(comment)]
		if (!keys.endsWith('...'))
			return keys.split(', ').map((key) => model.policies.get(key)?.origin ?? { kind: 'NetworkPolicy', key })
		// More of them than a comment has room for: they are those that select the pod.
		const selected = subject === undefined ? [] : selecting(model.policies.values(), subject, prefix.direction)
		const deciding = selected.filter((p) => prefix.verdict === 'audit' || p.audit === undefined)
		return deciding.length === 0 ? [defaultOrigin(comment)] : deciding.map((p) => p.origin)
	}

	#podEnd(pod: Pod): NamedEnd {
		const known = this.#ends.get(pod)
		if (known !== undefined) return known
		const labels = Object.entries(pod.labels)
			.slice(0, labelLimit)
			.map(([name, value]) => `k8s:${name}=${value}`.slice(0, labelLength))
		const end: NamedEnd = {
			pod,
			end: {
				namespace: pod.namespace,
				pod_name: pod.name,
				labels: [...labels, `k8s:io.kubernetes.pod.namespace=${pod.namespace}`],
				workloads: [workloadOf(pod)],
			},
		}
		this.#ends.set(pod, end)
		return end
	}
}

/** A ReplicaSet that a Deployment made carries the hash of its template in its name. */
function workloadOf({ owner, labels }: Pod): { readonly name: string; readonly kind: string } {
	const name = owner.key.slice(owner.key.indexOf('/') + 1)
	const hash = `-${labels['pod-template-hash'] ?? ''}`
	if (owner.kind !== 'ReplicaSet' || hash === '-' || !name.endsWith(hash)) return { name, kind: owner.kind }
	return { name: name.slice(0, -hash.length), kind: 'Deployment' }
}

export interface FlowService {
	readonly name: string
	readonly namespace: string
}
