// One flow asked of the three witnesses, and their comparison as a report.

import type { BalancerPrograms, NodeAgentApi, NodePrograms, ProbeRequest } from '../agent/protocol.ts'
import { messageOf } from '../base/failure.ts'
import { type Ip, tryParseIp } from '../base/ip.ts'
import { balancedAt } from '../model/load-balancer.ts'
import type { NetworkModel, NodeName } from '../model/network.ts'
import type { Origin } from '../model/origin.ts'
import type { PolicyProfile } from '../model/policy-profile.ts'
import type { Flow, Trace } from '../walk/trace.ts'
import { walk } from '../walk/walk.ts'
import { compare } from './compare.ts'
import { type Answered, pathOfProbe, unansweredPath } from './did.ts'
import { askNames } from './names.ts'
import { proxyEvaluators } from './node-rules.ts'
import type { TraceReport } from './report.ts'
import { pathsOfTraces } from './should.ts'
import { type Path, pointAt, type Testimony } from './witness.ts'
import { nodesBehind, pathsOfPrograms } from './would.ts'

export interface TraceInput {
	readonly question: { readonly from: string; readonly to: string }
	readonly flow: Flow
	readonly model: NetworkModel
	/** Absent: there are no nodes to ask (manifests alone, or a cluster without our agents); the text says which. */
	readonly agent: NodeAgentApi | { readonly absent: string }
	/** Send a real packet. */
	readonly probe: boolean
	/** Milliseconds until a packet without an answer counts as dropped. */
	readonly timeout: number
	readonly policyEnforced: boolean
	/** How to read what the API of policies leaves open: manifests alone, for another cluster. */
	readonly policyProfile?: PolicyProfile
}

/** Asks all witnesses that can be heard. Never throws for what a witness cannot say: the testimony says why. */
export async function traceFlow(input: TraceInput): Promise<TraceReport> {
	const { flow, model, agent, question } = input
	const traces = walk(model, flow, {
		policyEnforced: input.policyEnforced,
		// The same program carries the tiers.
		tiersEnforced: input.policyEnforced,
		explain: true,
		...(input.policyProfile === undefined ? {} : { policyProfile: input.policyProfile }),
	})
	const should: Testimony = { paths: pathsOfTraces(traces), missing: [] }
	let would: Testimony
	let did: Testimony
	if ('absent' in agent) {
		would = { silent: agent.absent }
		did = { silent: agent.absent }
	} else {
		const nodes = nodesOf(model, flow, traces)
		const asking = input.probe ? askName(input, agent, nodes) : undefined
		// The rules are asked for the address the packet will be sent to.
		const answered = await asking?.catch(() => undefined)
		const destination = tryParseIp(answered?.address ?? '') ?? destinationOf(flow, should.paths)
		const server = destination === undefined ? unheardServer(model, flow, traces) : undefined
		would =
			server === undefined
				? await askPrograms(input, agent, nodes, destination)
				: await askAboutServer(input, agent, nodes, server)
		did = asking ? await askPacket(input, agent, nodes, asking) : { silent: 'no packet was sent (--no-probe)' }
	}
	const comparison = compare(should, would, did)
	return {
		apiVersion: 'podwire.dev/v1alpha1',
		kind: 'Trace',
		question,
		flow,
		verdict: comparison.verdict,
		disposition: comparison.disposition,
		headline: comparison.headline,
		...(comparison.disagreement === undefined ? {} : { disagreement: comparison.disagreement }),
		stages: comparison.rows,
		should,
		would,
		did,
		findings:
			comparison.verdict === 'delivered' && comparison.disagreement === undefined ? [] : findingsOf(model, traces),
	}
}

/** The nodes a flow may touch: those of its traces, and where it starts. */
function nodesOf(model: NetworkModel, flow: Flow, traces: readonly Trace[]): readonly NodeName[] {
	const nodes = new Set<NodeName>()
	if (flow.from.kind === 'node') nodes.add(flow.from.node)
	const start = flow.from.kind === 'pod' ? model.pods.get(flow.from.pod)?.node : undefined
	if (start !== undefined) nodes.add(start)
	for (const trace of traces)
		for (const hop of [...trace.hops, ...trace.reply]) if (hop.node !== undefined) nodes.add(hop.node)
	return [...nodes]
}

function destinationOf(flow: Flow, paths: readonly Path[]): Ip | undefined {
	if ('ip' in flow.to) return flow.to.ip
	for (const path of paths) {
		const ip = tryParseIp(pointAt(path, 'name')?.result ?? '')
		if (ip !== undefined) return ip
	}
	return undefined
}

/** The name server that the flow's questions do not reach, as the manifests say; undefined where they do. */
function unheardServer({ pods }: NetworkModel, { from }: Flow, traces: readonly Trace[]): Ip | undefined {
	const unheard = ({ hops }: Trace) =>
		hops.some(({ steps }) => steps.some((s) => s.step === 'query' && s.answer === 'no-answer'))
	if (from.kind !== 'pod' || traces.length === 0 || !traces.every(unheard)) return undefined
	return pods.get(from.pod)?.dns.nameservers[0]
}

/** What the rules do with the question itself, where it is lost: told as what becomes of the name. */
async function askAboutServer(
	input: TraceInput,
	agent: NodeAgentApi,
	nodes: readonly NodeName[],
	server: Ip,
): Promise<Testimony> {
	const flow: Flow = { from: input.flow.from, to: { ip: server }, protocol: 'UDP', port: 53 }
	const asked = await askPrograms({ ...input, flow }, agent, nodes, server)
	if ('silent' in asked) return asked
	const paths = asked.paths.flatMap((path): Path[] => {
		const last = path.points.at(-1)
		if (path.delivered || last === undefined) return []
		const text = `the question to ${server} port 53/UDP: ${last.text}`
		return [{ ...path, points: [{ ...last, stage: 'name', result: 'drop', text }] }]
	})
	if (paths.length < asked.paths.length)
		return { silent: `the name leads to no address, though the rules let questions to ${server} through` }
	return { paths, missing: asked.missing }
}

async function askPrograms(
	input: TraceInput,
	agent: NodeAgentApi,
	nodes: readonly NodeName[],
	destination: Ip | undefined,
): Promise<Testimony> {
	if (destination === undefined) return { silent: 'the name leads to no address, so no rule is met' }
	const programs = new Map<NodeName, NodePrograms>()
	const missing: string[] = []
	const { flow, model } = input
	let balancer: BalancerPrograms | undefined
	const outside = flow.from.kind === 'outside'
	if (outside && agent.readBalancer === undefined)
		return { silent: 'what stands before the nodes is not on this machine' }
	if (agent.readBalancer !== undefined && (outside || balancedAt(model, destination).length > 0)) {
		try {
			balancer = await agent.readBalancer()
		} catch (e) {
			return { silent: messageOf(e) }
		}
	}
	const before = { flow, destination, model, ...(balancer === undefined ? {} : { balancer }) }
	const failed = new Set<NodeName>()
	const read = async (wanted: Iterable<NodeName>) => {
		await Promise.all(
			[...wanted].map(async (node) => {
				try {
					programs.set(node, await agent.read(node))
				} catch (e) {
					failed.add(node)
					missing.push(`the programs of ${node}: ${messageOf(e)}`)
				}
			}),
		)
	}
	await read(new Set([...nodes, ...nodesBehind(before)]))
	try {
		for (;;) {
			const proxies = await proxyEvaluators(programs)
			const needed = new Set<NodeName>()
			const needs = (node: NodeName) => !failed.has(node) && needed.add(node)
			const paths = pathsOfPrograms({ ...before, programs, proxies, needs })
			// The rules lead where the manifests do not: each node is asked once, so this ends.
			if (needed.size > 0) await read(needed)
			else return paths.length === 0 ? { silent: missing.join('; ') || 'the source is on no node' } : { paths, missing }
		}
	} catch (e) {
		return { silent: messageOf(e) }
	}
}

function senderOf(flow: Flow): ProbeRequest['from'] | undefined {
	if (flow.from.kind === 'outside') return { outside: true }
	return flow.from.kind === 'pod' ? { pod: flow.from.pod } : { node: flow.from.node }
}

/** undefined: the flow has an address, or its source asks nobody. */
async function askName(
	{ flow, model, timeout }: TraceInput,
	agent: NodeAgentApi,
	nodes: readonly NodeName[],
): Promise<Answered | undefined> {
	const from = senderOf(flow)
	// Outside, nobody knows the cluster's names.
	if (!('name' in flow.to) || from === undefined || 'outside' in from) return undefined
	return askNames({ agent, model, from, name: flow.to.name, nodes, timeout })
}

async function askPacket(
	input: TraceInput,
	agent: NodeAgentApi,
	nodes: readonly NodeName[],
	asking: Promise<Answered | undefined>,
): Promise<Testimony> {
	const { flow, model, timeout } = input
	const from = senderOf(flow)
	if (from === undefined) return { silent: 'a packet can be sent from a pod or a node only' }
	if (flow.protocol === 'ICMP') return { silent: 'no ICMP packet is sent' }
	try {
		const answered = await asking
		const destination = 'ip' in flow.to ? flow.to.ip : answered?.address
		if (destination === undefined) return { paths: [unansweredPath(answered, flow)], missing: [] }
		const probe = await agent.probe({
			from,
			to: destination as Ip,
			port: flow.port,
			protocol: flow.protocol,
			nodes,
			timeout,
		})
		return { paths: [pathOfProbe(probe, flow, model, answered)], missing: probe.missing }
	} catch (e) {
		return { silent: messageOf(e) }
	}
}

/** The configuration faults that name an object of this flow. */
function findingsOf(model: NetworkModel, traces: readonly Trace[]): TraceReport['findings'] {
	const touched = new Set<string>()
	const touch = (origin: Origin) => {
		if ('kind' in origin) touched.add(`${origin.kind} ${origin.key}`)
	}
	for (const trace of traces) {
		for (const hop of trace.hops) for (const step of hop.steps) for (const origin of step.because) touch(origin)
	}
	return model.findings.filter(
		(f) => f.severity !== 'info' && f.because.some((o) => 'kind' in o && touched.has(`${o.kind} ${o.key}`)),
	)
}
