// `podwire observe`: the flows of a lab, live from its nodes' kernels: what is allowed, what is denied, and by whom.

import {
	type FlowEvent,
	type FlowMessage,
	type FlowVerdict,
	flowPorts,
	flowProtocol,
	isLost,
} from '../agent/flow-event.ts'
import { type EndSelector, type FlowFilter, parseEnd } from '../agent/flow-filter.ts'
import { isFailure } from '../base/failure.ts'
import { logRate } from '../dataplane/policy/log.ts'
import { labClient } from '../lab/client.ts'
import { listLabs } from '../lab/start.ts'
import { originText } from '../model/origin.ts'
import { CommandError, exit } from './exit.ts'
import { findLab } from './lab.ts'
import { type CommonOptions, readCount, readDuration } from './options.ts'
import { type Colour, formatOf, paint, printDocument, type Style, styleFor } from './output.ts'

export interface ObserveOptions extends CommonOptions {
	readonly namespace?: string
	readonly from?: string
	readonly to?: string
	readonly pod?: string
	readonly node?: string
	readonly verdict?: string
	readonly port?: string
	readonly protocol?: string
	readonly since?: string
	readonly last?: string
	readonly follow?: boolean
	readonly ended?: boolean
	readonly kubeconfig?: string
	readonly context?: string
}

/** `jsonpb` is Hubble's word for lines of JSON. */
const formats = ['compact', 'wide', 'json', 'jsonl', 'jsonpb', 'yaml'] as const

/** As many as Hubble shows where nobody says how many. */
const defaultLast = 20

/** Exit codes: 0 done, also without a flow; 2 usage; 3 no kernel to ask, or the lab ended under the question. */
export async function observe(options: ObserveOptions): Promise<number> {
	const format = formatOf(options.output, formats)
	refuseLive(options)
	const follow = options.follow === true
	if (follow && (format === 'json' || format === 'yaml'))
		throw new CommandError(
			exit.usage,
			`-o ${format} is one document and cannot follow`,
			'use -o jsonl: a document a line',
		)
	const filter = readFilter(options, Date.now())
	const last =
		options.last !== undefined
			? readCount('--last', options.last, { min: 0, max: 1_000_000, fallback: 0 })
			: options.since !== undefined
				? undefined
				: follow
					? 0
					: defaultLast
	const lab = await findLab(options.name)
	if (lab.dataplane === 'paper') {
		const why = lab.whyPaper === undefined ? '' : `: ${lab.whyPaper}`
		throw new CommandError(exit.unknown, `Lab ${JSON.stringify(lab.name)} is on paper, where nothing flows${why}`)
	}
	const abort = new AbortController()
	const interrupted = () => abort.abort()
	for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, interrupted)
	// Whoever reads us has seen enough (`| head`).
	process.stdout.on('error', interrupted)
	const style = styleFor(process.stdout, options.color)
	const collected: FlowMessage[] = []
	let told = 0
	try {
		const query = { filter, follow, ...(last === undefined ? {} : { last }) }
		if (follow && options.quiet !== true && process.stderr.isTTY)
			process.stderr.write('podwire: listening; allowed and denied connections are shown as they are made\n')
		for await (const message of labClient(lab.name).flows(query, abort.signal)) {
			if (!isLost(message)) told++
			if (format === 'json' || format === 'yaml') collected.push(message)
			else if (format === 'jsonl' || format === 'jsonpb') await write(`${JSON.stringify(message)}\n`)
			else if (!isLost(message)) await write(`${flowLine(message, { wide: format === 'wide', style })}\n`)
			else if (options.quiet !== true) process.stderr.write(`podwire: ${lostText(message)}\n`)
		}
	} catch (e) {
		if (isFailure(e, 'Unavailable')) throw new CommandError(exit.unknown, e.message)
		throw e
	} finally {
		for (const signal of ['SIGINT', 'SIGTERM'] as const) process.off(signal, interrupted)
	}
	if (follow && !abort.signal.aborted && (await hasCrashed(lab.name)))
		throw new CommandError(
			exit.unknown,
			`Lab ${JSON.stringify(lab.name)} ended without podwire down: what its nodes do from now on is not told`,
			`podwire up --name ${lab.name} goes on with it`,
		)
	if (format === 'json' || format === 'yaml') {
		printDocument(format, {
			apiVersion: 'podwire.dev/v1alpha1',
			kind: 'FlowList',
			items: collected.filter((m) => !isLost(m)),
			lost: collected.filter(isLost),
		})
	}
	if (told === 0 && !follow && options.quiet !== true && process.stderr.isTTY)
		process.stderr.write(
			'podwire: no flow yet; denied ones are always remembered, allowed ones while somebody observes: podwire observe -f\n',
		)
	return exit.ok

	async function write(text: string): Promise<void> {
		if (process.stdout.write(text)) return
		await new Promise<void>((resolve) => {
			process.stdout.once('drain', resolve)
			abort.signal.addEventListener('abort', () => resolve(), { once: true })
		})
	}
}

/** On a live cluster nobody reads the kernels of the nodes for us: the agent runs in labs only. */
function refuseLive({ kubeconfig, context, name }: ObserveOptions): void {
	if (name !== undefined || (kubeconfig === undefined && context === undefined)) return
	const which = context === undefined ? `The cluster of ${kubeconfig}` : `Context ${JSON.stringify(context)}`
	throw new CommandError(
		exit.unknown,
		`${which} has no podwire agent on its nodes: there is no kernel to ask for flows`,
		'podwire observe asks the agents of a lab; podwire trace and podwire reach answer from the API of a live cluster',
	)
}

/** Whether a lab that ended was killed. One that goes in good order is without a daemon only for a moment. */
async function hasCrashed(name: string): Promise<boolean> {
	let crashed = 0
	for (const end = Date.now() + 15_000; Date.now() < end; ) {
		const phase = (await listLabs()).find((l) => l.name === name)?.phase
		if (phase === undefined) return false
		crashed = phase === 'crashed' ? crashed + 1 : 0
		if (crashed > 15) return true
		await new Promise((resolve) => setTimeout(resolve, 200))
	}
	return false
}

const verdicts: Readonly<Record<string, FlowVerdict>> = {
	dropped: 'DROPPED',
	denied: 'DROPPED',
	forwarded: 'FORWARDED',
	allowed: 'FORWARDED',
	audit: 'AUDIT',
	audited: 'AUDIT',
}

/** `now`: milliseconds since the epoch, for --since. */
export function readFilter(options: ObserveOptions, now: number): FlowFilter {
	const { namespace, pod, node } = options
	const from = readEnd('--from', options.from, namespace)
	const to = readEnd('--to', options.to, namespace)
	const chosen = options.verdict?.split(',').map((word) => {
		const verdict = verdicts[word.trim().toLowerCase()]
		if (verdict === undefined)
			throw new CommandError(exit.usage, `Unknown verdict ${JSON.stringify(word)}`, 'use dropped, forwarded or audit')
		return verdict
	})
	return {
		...(namespace === undefined ? {} : { namespace }),
		...(pod === undefined ? {} : { pod }),
		...(node === undefined ? {} : { node }),
		...(from === undefined ? {} : { from }),
		...(to === undefined ? {} : { to }),
		...(chosen === undefined ? {} : { verdicts: chosen }),
		...(options.port === undefined
			? {}
			: { port: readCount('--port', options.port, { min: 1, max: 65_535, fallback: 0 }) }),
		...(options.protocol === undefined ? {} : { protocol: readProtocol(options.protocol) }),
		...(options.since === undefined ? {} : { since: now - readDuration(options.since, 0) }),
		...(options.ended === true ? { ended: true } : {}),
	}
}

function readEnd(flag: string, text: string | undefined, namespace: string | undefined): EndSelector | undefined {
	if (text === undefined) return undefined
	try {
		return parseEnd(text, namespace)
	} catch (e) {
		if (isFailure(e)) throw new CommandError(exit.usage, `${flag}: ${e.message}`)
		throw e
	}
}

function readProtocol(text: string): 'TCP' | 'UDP' | 'SCTP' | 'ICMP' {
	const name = text.toUpperCase()
	if (name === 'TCP' || name === 'UDP' || name === 'SCTP' || name === 'ICMP') return name
	throw new CommandError(exit.usage, `Unknown protocol ${JSON.stringify(text)}`, 'use tcp, udp, sctp or icmp')
}

const colours: Readonly<Record<FlowVerdict, Colour>> = { FORWARDED: 'green', DROPPED: 'red', AUDIT: 'yellow' }

/**
 * `04:12:09.123 shop/web-1:43210 -> shop/db-0:5432 DROPPED ingress TCP POLICY_DENIED by NetworkPolicy shop/db (db.yaml:3)`.
 * wide: the day, addresses, workloads, node, flags and the rule of the kernel as well.
 */
export function flowLine(event: FlowEvent, { wide, style }: { readonly wide: boolean; readonly style: Style }): string {
	const { flow, podwire } = event
	const ports = flowPorts(flow)
	const protocol = flowProtocol(flow)
	const verdict = podwire.event === 'end' ? 'ENDED' : flow.verdict
	const service = flow.destination_service
	const words = [
		wide ? event.time : event.time.slice(11, 23),
		endText(event, 'source', ports?.source_port, wide),
		'->',
		endText(event, 'destination', ports?.destination_port, wide),
		...(service === undefined ? [] : [`(svc ${service.namespace}/${service.name}:${podwire.asked?.port ?? ''})`]),
		paint(style, colours[flow.verdict], verdict),
		flow.traffic_direction === 'TRAFFIC_DIRECTION_UNKNOWN' ? 'passing' : flow.traffic_direction.toLowerCase(),
		wide ? flow.Summary : protocol,
	]
	if (flow.drop_reason_desc !== undefined) words.push(flow.drop_reason_desc)
	else if (flow.verdict === 'AUDIT') words.push('would be denied')
	if (podwire.because.length > 0) words.push(`by ${podwire.because.map(originText).join(', ')}`)
	const { counted } = podwire
	if (counted !== undefined) {
		const { original, reply } = counted
		words.push(`${original.packets}+${reply.packets} packets, ${original.bytes}+${reply.bytes} bytes`)
	}
	if (wide) {
		words.push(`on ${event.node_name}`)
		if (podwire.repeats !== undefined) words.push(`again ${podwire.repeats} times`)
		if (podwire.rule !== undefined) words.push(`by ${podwire.rule.table} ${podwire.rule.chain}`)
	}
	return words.join(' ')
}

function endText(
	{ flow, podwire }: FlowEvent,
	side: 'source' | 'destination',
	port: number | undefined,
	wide: boolean,
): string {
	const end = flow[side]
	const address = flow.IP[side]
	const bare = end.pod_name === undefined ? podwire[side] : `${end.namespace}/${end.pod_name}`
	const withPort = port === undefined ? '' : `:${port}`
	if (bare === undefined) return `${address.includes(':') && port !== undefined ? `[${address}]` : address}${withPort}`
	if (!wide) return `${bare}${withPort}`
	const workload = end.workloads?.map((w) => `${w.kind} ${w.name}`).join()
	return `${bare}${withPort} [${address}${workload === undefined ? '' : `, ${workload}`}]`
}

function lostText({ lost_events, node_name }: Extract<FlowMessage, { readonly lost_events: unknown }>): string {
	const { source, num_events_lost: count } = lost_events
	const flows = count === 1 ? '1 flow' : `${count} flows`
	switch (source) {
		case 'NETLINK_SOCKET':
			return `${flows} of node ${node_name} lost: the kernel's buffer was full`
		case 'RATE_LIMIT':
			return `${count} more packets of node ${node_name} were denied (or on trial) and not logged: a rule tells of ${logRate.rate} a second`
		case 'AGENT_RESTART':
			return `${count} packets of node ${node_name} were denied before its agent came, and are not remembered`
		case 'RING_BUFFER':
			return `${flows} of node ${node_name} are no longer remembered`
		case 'OBSERVER_QUEUE':
			return `${flows} not shown: they came faster than they were read`
		default:
			return source satisfies never
	}
}
