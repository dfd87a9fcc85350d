// The flows of a sample: every Service port from pods of several kinds and from a node, and the ways to miss.

import type { Ip } from '../../../src/base/ip.ts'
import type { NetworkModel, Pod, Service, ServicePort } from '../../../src/model/network.ts'
import type { Flow, FlowSource, Trace } from '../../../src/walk/trace.ts'
import { walk } from '../../../src/walk/walk.ts'
import type { Draw } from './draw.ts'
import { nodeNames, type Plan } from './plan.ts'

export interface Limits {
	/** Flows at most. */
	readonly flows: number
	/** Of them at most so many that should get no answer at all: each costs its timeout. */
	readonly silent: number
}

/** Whether some way of the flow should end in silence. */
export function mayBeSilent(model: NetworkModel, flow: Flow): boolean {
	return walk(model, flow).some((trace) => isSilent(trace))
}

/**
 * Whether the client hears nothing: the packet was dropped, or a router said "host unreachable" of a datagram, which
 * the kernel keeps from sockets that did not ask for it (ip(7), IP_RECVERR).
 */
export function isSilent(trace: Trace): boolean {
	return trace.hops.some((hop) =>
		hop.steps.some(
			(s) =>
				s.step === 'drop' &&
				(s.how === 'drop' ||
					(trace.flow.protocol === 'UDP' && ['unassigned-address', 'no-route'].includes(s.disposition))),
		),
	)
}

/**
 * Whether the client is a node whose packet is translated at its own output and has no way on from there: TCP takes the
 * refused route for a lost packet (tcp_connect heeds ECONNREFUSED alone) and goes on asking.
 */
export function mayGoUnheard(trace: Trace): boolean {
	const [hop] = trace.hops
	if (trace.flow.from.kind !== 'node' || trace.flow.protocol !== 'TCP' || hop === undefined) return false
	const translated = hop.steps.some((s) => s.step === 'endpoint')
	return (
		translated && hop.steps.some((s) => s.step === 'drop' && ['unassigned-address', 'no-route'].includes(s.disposition))
	)
}

export function drawFlows(draw: Draw, model: NetworkModel, plan: Plan, limits: Limits): Flow[] {
	const clients = [...model.pods]
		.map(([, pod]) => pod)
		.filter((p) => plan.namespaces.includes(p.namespace) && p.phase === 'Running' && p.ips.length > 0)
		.sort((x, y) => (x.key < y.key ? -1 : 1))
	const services = plan.services.flatMap((s) => model.services.get(`${s.namespace}/${s.name}`) ?? [])
	// One of each kind before the rest, so that a sample cut short by time has met them all.
	const kinds: Flow[][] = [between(draw, clients), ...nowhere(draw, model, clients).map((flow) => [flow])]
	const misses: Flow[] = []
	const rest: Flow[] = []
	for (const service of services) {
		const all = service.ports.flatMap((port) => flowsTo(draw, model, clients, service, port))
		misses.push(...missesOf(draw, clients, service))
		const first = draw.some(all, 1)
		// The second connection of a client goes where the first one went.
		kinds.push(service.sessionAffinity === undefined ? first : [...first, ...first])
		rest.push(...all)
	}
	kinds.push(misses)
	// However little time there is, these ends are met first.
	const pool = [...misses, ...kinds.flat(), ...between(draw, clients), ...rest]
	const ends = ['unknown-service-port', 'denied-', 'unassigned-address', 'no-endpoints', 'delivered', 'denied-']
	const first = ends.flatMap((end) =>
		draw.some(
			pool.filter((flow) => walk(model, flow).every((trace) => trace.disposition.startsWith(end))),
			1,
		),
	)
	const early = draw
		.some(kinds, kinds.length)
		.flatMap((kind) => (kind === misses ? draw.some(kind, 2) : kind.slice(0, 2)))
	const late = [...misses, ...kinds.flatMap((kind) => kind.slice(2)), ...rest]
	const chosen: Flow[] = []
	let silent = 0
	for (const flow of [...first, ...early, ...draw.some(late, late.length)]) {
		if (chosen.length >= limits.flows) break
		if (mayBeSilent(model, flow) && ++silent > limits.silent) continue
		chosen.push(flow)
	}
	return chosen
}

const fromPod = (pod: Pod): FlowSource => ({ kind: 'pod', pod: pod.key })

function flowsTo(
	draw: Draw,
	model: NetworkModel,
	clients: readonly Pod[],
	service: Service,
	port: ServicePort,
): Flow[] {
	const { protocol } = port
	const ip = service.clusterIps[0]
	const one = (): Pod => draw.of(clients)
	const near = clients.filter((p) => p.namespace === service.namespace && !p.hostNetwork)
	const flows: Flow[] = []
	// Names mean what they mean in the client's namespace; a headless Service has no other address.
	const target = ip === undefined ? numberOf(port) : port.port
	if (near.length > 0 && target !== undefined)
		flows.push({ from: fromPod(draw.of(near)), to: { name: service.name }, protocol, port: target })
	if (target !== undefined) {
		const far = clients.filter((p) => !p.hostNetwork)
		if (far.length > 0) {
			const name = `${service.name}.${service.namespace}${draw.percent(50) ? '' : '.svc.cluster.local.'}`
			flows.push({ from: fromPod(draw.of(far)), to: { name }, protocol, port: target })
		}
	}
	if (ip === undefined) return flows
	flows.unshift({ from: fromPod(one()), to: { ip }, protocol, port: port.port })
	flows.push({ from: fromPod(one()), to: { ip }, protocol, port: port.port })
	flows.push({ from: { kind: 'node', node: draw.of(nodeNames) }, to: { ip }, protocol, port: port.port })
	if (port.nodePort !== undefined) {
		const pod = one()
		// Under policy Local another node may choose an endpoint that answers a pod past it: the walk says that the answer is
		// lost, the rules of one node cannot.
		const near = service.externalTrafficPolicy === 'Local' ? pod.node : draw.of(nodeNames)
		const to = (node: string | undefined) => model.nodes.get(node ?? '')?.addresses[0] as Ip
		flows.unshift(
			{ from: fromPod(pod), to: { ip: to(near) }, protocol, port: port.nodePort },
			{
				from: { kind: 'node', node: draw.of(nodeNames) },
				to: { ip: to(draw.of(nodeNames)) },
				protocol,
				port: port.nodePort,
			},
		)
	}
	const itself = clients.filter((p) => port.endpoints.some((e) => e.ready && p.ips.includes(e.ip)))
	if (itself.length > 0) flows.push({ from: fromPod(draw.of(itself)), to: { ip }, protocol, port: port.port })
	return flows
}

/** Who asks a headless Service asks at the port its endpoints listen on. */
function numberOf(port: ServicePort): number | undefined {
	return port.endpoints[0]?.port ?? (typeof port.targetPort === 'number' ? port.targetPort : undefined)
}

function missesOf(draw: Draw, clients: readonly Pod[], service: Service): Flow[] {
	const ip = service.clusterIps[0]
	const port = service.ports[0]
	if (ip === undefined || port === undefined) return []
	const other = port.protocol === 'TCP' ? 'UDP' : 'TCP'
	const from: FlowSource = draw.percent(80) ? fromPod(draw.of(clients)) : { kind: 'node', node: draw.of(nodeNames) }
	return [
		{ from, to: { ip }, protocol: draw.of(['TCP', 'UDP']), port: 9 },
		{ from: fromPod(draw.of(clients)), to: { ip }, protocol: other, port: port.port },
	]
}

/** Pod to pod, on ports that are listened on and on one that is not. */
function between(draw: Draw, clients: readonly Pod[]): Flow[] {
	return Array.from({ length: 12 }, (_, i): Flow => {
		const to = draw.of(clients)
		const port = draw.of(to.ports)
		return {
			from: i % 4 === 3 ? { kind: 'node', node: draw.of(nodeNames) } : fromPod(draw.of(clients)),
			to: { ip: to.ips[0]! },
			protocol: port.protocol,
			port: i % 3 === 2 ? 9999 : port.port,
		}
	})
}

/** Addresses that nobody has: of the Service network, of a node's pods, of the pod network of no node. */
function nowhere(draw: Draw, model: NetworkModel, clients: readonly Pod[]): Flow[] {
	const free = (ip: string) => !model.addresses.has(ip as Ip)
	return [`10.96.${draw.between(1, 254)}.${draw.between(1, 254)}`, `10.244.${draw.below(3)}.251`, '10.244.200.7']
		.filter(free)
		.map((ip) => ({ from: fromPod(draw.of(clients)), to: { ip: ip as Ip }, protocol: 'TCP', port: 80 }))
}
