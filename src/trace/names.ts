// Name resolution as it really happens: the pod's own queries, in the resolver's order, sent from inside the pod.

import type { NodeAgentApi, ProbeRequest } from '../agent/protocol.ts'
import { familyOf, type Ip, type IpFamily } from '../base/ip.ts'
import { decodeMessage, encodeQuery } from '../dataplane/dns/wire.ts'
import { queries } from '../model/names.ts'
import type { NetworkModel, NodeName } from '../model/network.ts'
import type { Answered } from './did.ts'

export interface NamesInput {
	readonly agent: NodeAgentApi
	readonly model: NetworkModel
	readonly from: ProbeRequest['from']
	readonly name: string
	readonly nodes: readonly NodeName[]
	readonly timeout: number
}

/**
 * undefined where the source has no resolver of its own (a node). Asked is for the families the source has addresses of,
 * as getaddrinfo(3) does with AI_ADDRCONFIG; the first IPv6 address is taken before the first IPv4 one, as glibc sorts.
 */
export async function askNames(input: NamesInput): Promise<Answered | undefined> {
	const { model, from, name } = input
	const pod = 'pod' in from ? model.pods.get(from.pod) : undefined
	const server = pod?.dns.nameservers[0]
	if (pod === undefined || server === undefined) return undefined
	const families = ([6, 4] as const).filter((family) => pod.ips.some((ip) => familyOf(ip) === family))
	const asked: Answered['queries'][number][] = []
	for (const candidate of queries(name, pod.dns)) {
		const found: Ip[] = []
		let last = false
		for (const family of families) {
			const answer = await ask(input, server, candidate, family)
			found.push(...answer.addresses)
			last ||= answer.last
			asked.push({
				name: families.length === 1 ? candidate : `${candidate} ${typeOf(family)}`,
				answer: answer.addresses.length > 0 ? answer.addresses.join(', ') : answer.result,
				milliseconds: answer.milliseconds,
			})
			// A server that is silent is not asked again.
			if (answer.silent !== undefined) return { name, address: found[0], queries: asked, server, silent: answer.silent }
		}
		if (found[0] !== undefined) return { name, address: found[0], queries: asked, server }
		if (last) break
	}
	return { name, address: undefined, queries: asked, server }
}

const typeOf = (family: IpFamily) => (family === 6 ? 'AAAA' : 'A')

interface Answer {
	readonly addresses: readonly Ip[]
	/** The response code, or what came of the probe. */
	readonly result: string
	readonly milliseconds: number
	/** Nothing came back: what happened instead. */
	readonly silent?: NonNullable<Answered['silent']>
	/** The resolver does not go on with its search list after such an answer. */
	readonly last: boolean
}

async function ask(input: NamesInput, server: Ip, name: string, family: IpFamily): Promise<Answer> {
	const { agent, from, nodes, timeout } = input
	const type = typeOf(family)
	const { outcome, answerBytes, elapsed } = await agent.probe({
		from,
		to: server,
		port: 53,
		protocol: 'UDP',
		nodes,
		timeout,
		payload: Buffer.from(encodeQuery(name, type)).toString('base64'),
		observe: false,
	})
	if (outcome !== 'connected' || answerBytes === undefined) {
		const silent = outcome === 'connected' ? 'error' : outcome
		return { addresses: [], result: silent, milliseconds: elapsed, silent, last: true }
	}
	const message = decodeMessage(Buffer.from(answerBytes, 'base64'))
	return {
		addresses: message.answers.flatMap((r) => (r.type === type && 'address' in r ? [r.address] : [])),
		result: message.rcode,
		milliseconds: elapsed,
		last: message.rcode !== 'NXDOMAIN' && message.rcode !== 'NOERROR',
	}
}
