// The law itself: for one flow, should and would allow the same ways with the same chances, and did took one of them
// and ended as that way ends. Beside it the server's own word: which pod answered, and whom it saw.

import type { NodeAgentApi, ProbeResult } from '../../../src/agent/protocol.ts'
import type { Ip } from '../../../src/base/ip.ts'
import type { Protocol } from '../../../src/base/packet.ts'
import type { Pod } from '../../../src/kube/objects/pod.ts'
import type { TraceReport } from '../../../src/trace/report.ts'
import { traceFlow } from '../../../src/trace/run.ts'
import { traceText } from '../../../src/trace/text.ts'
import { type Path, pointAt } from '../../../src/trace/witness.ts'
import type { Flow, Trace } from '../../../src/walk/trace.ts'
import { walk } from '../../../src/walk/walk.ts'
import { isSilent, mayBeSilent, mayGoUnheard } from './flows.ts'
import type { Snapshot } from './world.ts'

export interface Verdict {
	readonly flow: Flow
	/** What is wrong, empty where the law holds. */
	readonly complaints: readonly string[]
	readonly report: TraceReport
	/** How it ended: `delivered`, `refused by the server`, a disposition. */
	readonly end: string
}

/** Milliseconds without an answer that count as silence, where silence is what should be. */
const shortTimeout = 250
const longTimeout = 3_000

const greeting = Buffer.from('GET / HTTP/1.1\r\nHost: law\r\nConnection: close\r\n\r\n').toString('base64')

interface Case {
	readonly snapshot: Snapshot
	readonly flow: Flow
	readonly report: TraceReport
	readonly probe: ProbeResult | undefined
	/** Where the packet was sent: the flow's address, or what the client was told that its name means. */
	readonly destination: Ip | undefined
	complain(text: string): void
}

export async function judge(agent: NodeAgentApi, snapshot: Snapshot, flow: Flow): Promise<Verdict> {
	const { model } = snapshot
	let probe: ProbeResult | undefined
	const listening: NodeAgentApi = {
		read: (node) => agent.read(node),
		// Stand-ins speak when they are spoken to: without a word of ours the probe would wait for theirs.
		probe: async (request) => (probe = await agent.probe({ payload: greeting, ...request })),
	}
	const report = await traceFlow({
		question: { from: fromText(flow), to: toText(flow) },
		flow,
		model,
		agent: listening,
		probe: true,
		timeout: mayBeSilent(model, flow) ? shortTimeout : longTimeout,
		policyEnforced: true,
	})
	const complaints: string[] = []
	const name = pointAt(pathsOf(report.did)[0], 'name')?.result
	const complain = (text: string) => void complaints.push(text)
	const destination = 'ip' in flow.to ? flow.to.ip : (name as Ip | undefined)
	const own: Case = { snapshot, flow, report, probe, destination, complain }
	// A name that the world outside is asked for has no answer either: the lab has no servers there.
	const nameless = pathsOf(report.should).every(
		(p) => p.disposition === 'no-such-name' || pointAt(p, 'name')?.result === 'forwarded',
	)
	if (!nameless) compareWays(own)
	const end = nameless ? compareNothing(own) : compareEnd(own)
	if (report.disagreement !== undefined && end !== 'refused by the server')
		complain(`trace: disagreement at ${report.disagreement.stage}: ${report.disagreement.text}`)
	return { flow, complaints, report, end }
}

function pathsOf(testimony: TraceReport['should']): readonly Path[] {
	return 'paths' in testimony ? testimony.paths : []
}

/** `address:port` that a path is translated to; undefined: it is not. */
function endpointOf(path: Path | undefined): string | undefined {
	const result = pointAt(path, 'service')?.result
	return result === 'reject' || result === 'drop' ? undefined : result
}

/** What of a path must be the same: the endpoint, the nodes on the way, the end. */
function wayOf(path: Path, owned: boolean): string {
	const endpoint = endpointOf(path) ?? 'untranslated'
	if (path.delivered) return `${endpoint} over ${pointAt(path, 'route')?.result} is delivered`
	// Where nobody has the address, which rule or router does away with the packet is the same to all.
	const how = endpointOf(path) === undefined && owned ? ` (${pointAt(path, 'service')?.result})` : ''
	return `${endpoint} is not delivered${how}`
}

function weigh(paths: readonly Path[], owned: boolean): ReadonlyMap<string, number> {
	const ways = new Map<string, number>()
	const total = paths.reduce((sum, p) => sum + p.chance, 0)
	for (const path of paths) ways.set(wayOf(path, owned), (ways.get(wayOf(path, owned)) ?? 0) + path.chance / total)
	return ways
}

/** The paths of the model to the address that was asked for. */
function shouldOf({ report, flow, destination }: Case): readonly Path[] {
	const all = pathsOf(report.should)
	return 'ip' in flow.to ? all : all.filter((p) => pointAt(p, 'name')?.result === destination)
}

function compareWays(own: Case): void {
	const { report, snapshot, destination, complain } = own
	if ('silent' in report.would) {
		complain(`would is silent: ${report.would.silent}`)
		return
	}
	if (report.would.missing.length > 0) complain(`would could not see: ${report.would.missing.join('; ')}`)
	const should = shouldOf(own)
	const owned = destination !== undefined && snapshot.model.addresses.has(destination)
	const [expected, found] = [weigh(should, owned), weigh(report.would.paths, owned)]
	const list = (ways: ReadonlyMap<string, number>) =>
		[...ways]
			.map(([way, chance]) => `    ${way}, ${(100 * chance).toFixed(2)} %`)
			.sort()
			.join('\n')
	// The endpoint that the rules remember of a client must be one of those possible.
	const [only] = found.keys()
	const remembered = should.every((p) => p.sticky === true) && found.size === 1 && expected.has(only ?? '')
	if (list(expected) !== list(found) && !remembered)
		complain(`the rules would do\n${list(found)}\n  and should do\n${list(expected)}`)
	const taken = endpointOf(pathsOf(report.did)[0])
	if (taken !== undefined && !report.would.paths.some((p) => endpointOf(p) === taken))
		complain(`did: went to ${taken}, where the rules would not have sent it`)
}

/** A name that means nothing: there is no packet but the question, and no rule to ask. */
function compareNothing({ report, complain }: Case): string {
	if ('paths' in report.would) complain('would: there is something to ask the rules about')
	const did = pathsOf(report.did)[0]?.disposition
	if (did !== 'no-such-name') complain(`did: ${did ?? 'nothing'}; should: no-such-name`)
	return 'no-such-name'
}

/** How the real packet ended, against the way it took. */
function compareEnd(own: Case): string {
	const { report, complain, probe, flow } = own
	if ('silent' in report.did) {
		complain(`did is silent: ${report.did.silent}`)
		return 'silent'
	}
	if (report.did.missing.length > 0) complain(`did could not see: ${report.did.missing.join('; ')}`)
	const did = report.did.paths[0]
	const way = wayTaken(own, did)
	if (did === undefined || way === undefined) {
		complain(`did: ${did?.disposition ?? 'nothing'}; none of the ways it should take`)
		return 'elsewhere'
	}
	if (did.delivered) {
		if (!way.delivered) complain(`did: delivered; should: ${way.disposition}`)
		else {
			const [want, have] = [pointAt(way, 'route')?.result, pointAt(did, 'route')?.result]
			if (have !== undefined && want !== have) complain(`did: crossed ${have}; should: ${want}`)
			compareServer(own, way)
		}
		return 'delivered'
	}
	const outcome = probe?.outcome ?? did.disposition
	if (way.delivered) {
		const at = serverOf(own, way)
		if (listeners(own, at).length > 0) complain(`did: ${outcome} (${probe?.errno}) although a server listens at ${at}`)
		else if (outcome !== 'refused') complain(`did: ${outcome} where nobody listens, instead of a refusal`)
		const local = own.snapshot.model.addresses.get(at.split(':')[0] as Ip)?.kind === 'node'
		if (endpointOf(did) !== endpointOf(way) && !local) complain(`did: does not show that the packet went to ${at}`)
		return 'refused by the server'
	}
	const trace = traceOf(own, way)
	const silent = trace === undefined || isSilent(trace)
	// Of a datagram that its own rules drop, the sender hears that it was not sent.
	const kept = flow.protocol === 'UDP' && probe?.errno === 'EPERM'
	const unheard = trace !== undefined && mayGoUnheard(trace) && outcome === 'timeout'
	const fits = silent ? outcome === 'timeout' || kept : outcome === 'refused' || outcome === 'unreachable' || unheard
	const want = silent ? 'silence' : 'a refusal'
	if (!fits) complain(`did: ${outcome} (${probe?.errno ?? 'no error'}); should: ${want}, ${way.disposition}`)
	return way.disposition
}

/** The model's path that the packet took. */
function wayTaken(own: Case, did: Path | undefined): Path | undefined {
	const should = shouldOf(own)
	const endpoint = endpointOf(did)
	const same = should.filter((p) => endpointOf(p) === endpoint)
	if (same.length > 0 || did?.delivered !== false || endpoint !== undefined) return same[0]
	// Translated to where there is no route, or to the node itself: no interface shows where the packet was sent.
	return should.find((p) => !p.delivered || listeners(own, serverOf(own, p)).length === 0)
}

/** `address:port` that a path leads to. */
function serverOf({ destination, flow }: Case, path: Path): string {
	return endpointOf(path) ?? `${destination}:${flow.port}`
}

function listeners({ snapshot, flow }: Case, at: string): readonly Pod[] {
	const [ip, port] = at.split(':')
	return snapshot.pods.filter((p) => p.status?.podIP === ip && listensOn(p, Number(port), flow.protocol))
}

function listensOn(pod: Pod, port: number, protocol: Protocol): boolean {
	return (pod.spec?.containers ?? []).some((c) =>
		(c.ports ?? []).some((p) => p.containerPort === port && (p.protocol ?? 'TCP') === protocol),
	)
}

/** The walk's trace behind a path. */
function traceOf({ snapshot, flow, destination }: Case, path: Path): Trace | undefined {
	return walk(snapshot.model, flow).find((trace) => {
		const steps = trace.hops.flatMap((h) => h.steps)
		const resolved = steps.find((s) => s.step === 'resolve')
		const endpoint = steps.find((s) => s.step === 'endpoint')
		return (
			(resolved === undefined || resolved.address === destination) &&
			(endpoint === undefined ? undefined : `${endpoint.ip}:${endpoint.port}`) === endpointOf(path)
		)
	})
}

/** What the stand-in said of itself and of its client. */
function compareServer(own: Case, way: Path): void {
	const { probe, complain } = own
	const text = probe?.answer ?? ''
	const line = text.startsWith('HTTP/') ? text.split('\r\n\r\n')[1] : text.split('\n')[0]
	let answer: { pod?: string; namespace?: string; client?: string; port?: number }
	try {
		answer = JSON.parse(line ?? '')
	} catch {
		complain(`the server did not say who it is: ${JSON.stringify(text.slice(0, 200))}`)
		return
	}
	const at = serverOf(own, way)
	const who = `${answer.namespace}/${answer.pod}:${answer.port}`
	const expected = listeners(own, at).map(
		(p) => `${p.metadata.namespace}/${p.metadata.name}:${at.slice(at.indexOf(':') + 1)}`,
	)
	if (!expected.includes(who)) complain(`${who} answered; ${at} is ${expected.join(', ') || 'nobody'}`)
	const steps = traceOf(own, way)?.hops.flatMap((h) => h.steps) ?? []
	const masquerade = steps.find((s) => s.step === 'translate' && s.what === 'source')
	const source = masquerade?.step === 'translate' ? masquerade.after.source : probe?.source.ip
	const seen = answer.client?.slice(0, answer.client.lastIndexOf(':'))
	if (seen !== source) complain(`the server saw ${seen}; should: ${source}`)
}

function fromText({ from }: Flow): string {
	return from.kind === 'pod' ? `pod/${from.pod}` : from.kind === 'node' ? `node/${from.node}` : from.ip
}

function toText(flow: Flow): string {
	return `${'ip' in flow.to ? flow.to.ip : flow.to.name}:${flow.protocol.toLowerCase()}/${flow.port}`
}

/** For the message of a failure. */
export function verdictText({ complaints, report }: Verdict): string {
	const { from, to } = report.question
	const trace = traceText(report, { wide: true, paint: (_, text) => text })
	return `${from} → ${to}\n  ${complaints.join('\n  ')}\n${trace.replace(/^/gm, '  | ')}`
}
