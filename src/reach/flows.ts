// Flows that were observed, one JSON object a line, as needs.

import { tryParseCidr, tryParseIp } from '../base/ip.ts'
import type { Origin } from '../model/origin.ts'
import type { PortProtocol } from './connections.ts'
import { hubbleFlow, isLostEvents, readHubble } from './hubble.ts'
import type { Need, NeedEnd } from './needs.ts'
import { merge } from './needs.ts'
import type { Party } from './parties.ts'

export interface FlowProblem {
	readonly line: number
	readonly text: string
}

export interface ReadFlows {
	readonly needs: readonly Need[]
	readonly problems: readonly FlowProblem[]
	/** Flows of workloads that the cluster does not have: by workload how many. Only logs have such. */
	readonly gone: ReadonlyMap<string, number>
	/** Lines that tell of flows nobody wrote down. */
	readonly lost: number
}

/** Most lines of one file. */
const limit = 1_000_000

/**
 * `{"source": END, "destination": END, "port": 8080, "protocol": "TCP"}`, where END is a workload as `podwire reach`
 * prints it (`shop/deploy/web`), `shop/web`, `{"namespace": "shop", "workload": "web", "kind": "Deployment"}`, an address,
 * a network, or `outside`. Empty lines and those of denied flows (`"verdict": "deny…"` or `"dropped"`) are left out.
 * Lines of `podwire observe -o jsonl` and of Hubble's exporter are read too.
 */
export function readFlows(text: string, file: string, parties: readonly Party[]): ReadFlows {
	const gone = new Map<string, number>()
	let lost = 0
	const names = new Map<string, Party[]>()
	for (const party of parties) {
		const plain = party.key
		const kind = party.kind.toLowerCase()
		for (const name of new Set([
			party.name,
			plain,
			`${party.namespace}/${kind}/${plain.slice(party.namespace.length + 1)}`,
		]))
			names.set(name, [...(names.get(name) ?? []), party])
	}
	const byWorkload = new Map<string, readonly Party[]>()
	for (const party of parties) byWorkload.set(party.key, [...(byWorkload.get(party.key) ?? []), party])
	const needs: Need[] = []
	const problems: FlowProblem[] = []
	const lines = text.split('\n')
	if (lines.length > limit)
		return { needs, problems: [{ line: limit + 1, text: `more than ${limit} lines` }], gone, lost }
	for (const [i, line] of lines.entries()) {
		if (line.trim() === '') continue
		const problem = (text: string) => problems.push({ line: i + 1, text })
		let flow: Record<string, unknown>
		try {
			const value: unknown = JSON.parse(line)
			if (typeof value !== 'object' || value === null || Array.isArray(value)) {
				problem('is no JSON object')
				continue
			}
			flow = value as Record<string, unknown>
		} catch {
			problem('is no JSON')
			continue
		}
		if (isLostEvents(flow)) {
			lost++
			continue
		}
		const because: Origin[] = [{ kind: 'Flow', key: `line ${i + 1}`, source: { file, line: i + 1 } }]
		const logged = hubbleFlow(flow)
		if (logged !== undefined) {
			const answer = readHubble(logged, byWorkload)
			if (answer === 'nothing') continue
			if ('problem' in answer) problem(answer.problem)
			else if ('gone' in answer) gone.set(answer.gone, (gone.get(answer.gone) ?? 0) + 1)
			else if (answer.flow.from.kind === 'workload' || answer.flow.to.kind === 'workload')
				needs.push({ ...answer.flow, because, why: 'observed' })
			continue
		}
		if (typeof flow.verdict === 'string' && /^(den|drop)/i.test(flow.verdict)) continue
		const protocol = String(flow.protocol ?? 'TCP').toUpperCase()
		const port = Number(flow.port ?? flow.destinationPort)
		if (protocol !== 'TCP' && protocol !== 'UDP' && protocol !== 'SCTP') {
			problem(`the protocol ${JSON.stringify(flow.protocol)} is none of TCP, UDP, SCTP`)
			continue
		}
		if (!Number.isInteger(port) || port < 1 || port > 65535) {
			problem(`the port ${JSON.stringify(flow.port ?? flow.destinationPort)} is no number from 1 to 65535`)
			continue
		}
		const from = endOf(flow.source, names)
		const to = endOf(flow.destination, names)
		if (typeof from === 'string') problem(`source ${from}`)
		else if (typeof to === 'string') problem(`destination ${to}`)
		else if (from.kind === 'workload' || to.kind === 'workload')
			needs.push({
				from,
				to,
				protocol: protocol as PortProtocol,
				port,
				because,
				why: 'observed',
			})
	}
	return { needs: merge(needs), problems, gone, lost }
}

function endOf(value: unknown, names: ReadonlyMap<string, readonly Party[]>): NeedEnd | string {
	if (typeof value === 'object' && value !== null) {
		const { namespace, workload, name, kind } = value as Record<string, unknown>
		const plain = `${String(namespace ?? 'default')}/${String(workload ?? name ?? '')}`
		const found = (names.get(plain) ?? []).filter((p) => kind === undefined || p.kind === kind)
		return only(found, plain)
	}
	if (typeof value !== 'string' || value === '') return 'is missing'
	if (value === 'outside') return { kind: 'outside', cidrs: ['0.0.0.0/0'] }
	const ip = tryParseIp(value)
	if (ip !== undefined) return { kind: 'outside', cidrs: [`${ip}/${ip.includes(':') ? 128 : 32}`] }
	const cidr = tryParseCidr(value)
	if (cidr !== undefined) return { kind: 'outside', cidrs: [cidr] }
	return only(names.get(value) ?? names.get(`default/${value}`) ?? [], value)
}

function only(found: readonly Party[], text: string): NeedEnd | string {
	if (found.length === 1) return { kind: 'workload', party: found[0]! }
	return found.length === 0
		? `${JSON.stringify(text)} is no workload of the cluster`
		: `${JSON.stringify(text)} is ${found.map((p) => p.name).join(' or ')}`
}
