// Name resolution as it really happens: the pod's own queries, in the resolver's order, sent from inside the pod.

import type { NodeAgentApi, ProbeRequest } from '../agent/protocol.ts'
import type { Ip } from '../base/ip.ts'
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

/** undefined where the source has no resolver of its own (a node). The first address of the first answer is taken, as a client does. */
export async function askNames(input: NamesInput): Promise<Answered | undefined> {
	const { agent, model, from, name, nodes, timeout } = input
	const dns = 'pod' in from ? model.pods.get(from.pod)?.dns : undefined
	const server = dns?.nameservers[0]
	if (dns === undefined || server === undefined) return undefined
	const asked: Answered['queries'][number][] = []
	for (const candidate of queries(name, dns)) {
		const payload = Buffer.from(encodeQuery(candidate, 'A')).toString('base64')
		const result = await agent.probe({
			from,
			to: server,
			port: 53,
			protocol: 'UDP',
			nodes,
			timeout,
			payload,
			observe: false,
		})
		if (result.outcome !== 'connected' || result.answerBytes === undefined) {
			asked.push({ name: candidate, answer: result.outcome, milliseconds: result.elapsed })
			break
		}
		const message = decodeMessage(Buffer.from(result.answerBytes, 'base64'))
		const addresses = message.answers.flatMap((r) => (r.type === 'A' ? [r.address] : []))
		asked.push({
			name: candidate,
			answer: addresses.length > 0 ? addresses.join(', ') : message.rcode,
			milliseconds: result.elapsed,
		})
		const first: Ip | undefined = addresses[0]
		if (first !== undefined) return { name, address: first, queries: asked, server }
		if (message.rcode !== 'NXDOMAIN' && message.rcode !== 'NOERROR') break
	}
	return { name, address: undefined, queries: asked, server }
}
