// How a person names the two ends of a flow: `deploy/web`, `svc/api:http`, `web.shop`, `10.244.1.7:80`, `outside`.
// The grammar is that of the command line (docs); what it finds becomes one Flow or several.

import { Failure } from '../base/failure.ts'
import { familyOf, type Ip, tryParseIp } from '../base/ip.ts'
import type { Protocol } from '../base/packet.ts'
import { nearNames } from '../model/findings/nearest.ts'
import { nodePortIps, servicesAt } from '../model/frontends.ts'
import type { NetworkModel, Node, Pod, Service } from '../model/network.ts'
import { type PortText, parseTarget } from './endpoint-text.ts'
import { portOf } from './port.ts'
import type { Flow, FlowSource } from './trace.ts'

export interface FlowRequest {
	readonly from: string
	/** With `:PORT` and `/PATH` where the protocol has them. */
	readonly to: string
	/** Where names without a namespace are looked up. */
	readonly namespace: string
	/** Of a port that does not say: TCP, or the protocol of the Service port with that number. */
	readonly protocol?: Protocol
	/** From every pod of a workload instead of the first. */
	readonly allPods?: boolean
}

export interface FlowPlan {
	readonly flows: readonly Flow[]
	readonly from: Target
	readonly to: Target
	/** The HTTP path that followed the port. */
	readonly path?: string
}

/** What one end of a flow turned out to be. */
export type Target =
	| { readonly kind: 'pod'; readonly pod: Pod }
	/** `pods` by name, never empty. */
	| { readonly kind: 'workload'; readonly owner: Pod['owner']; readonly pods: readonly Pod[] }
	| { readonly kind: 'service'; readonly service: Service }
	| { readonly kind: 'node'; readonly node: Node }
	| { readonly kind: 'ip'; readonly ip: Ip }
	| { readonly kind: 'name'; readonly name: string }
	| { readonly kind: 'outside' }

/** Stand for any host outside of the cluster (RFC 5737 and RFC 3849, for documentation). */
export const outsideIp = '203.0.113.1' as Ip
export const outsideIp6 = '2001:db8:113::1' as Ip

/**
 * The flows a person means. Throws Failure: InvalidEndpoint (not the grammar), UnknownEndpoint (with near names),
 * AmbiguousEndpoint (with the choices), MissingPort, UnknownPort (with those there are), NoAddress.
 */
export function planFlows(model: NetworkModel, request: FlowRequest): FlowPlan {
	const fromText = parseTarget(request.from, 'from')
	const toText = parseTarget(request.to, 'to')
	if (fromText.port !== undefined) {
		throw new Failure('InvalidEndpoint', `Cannot read source "${request.from}": a source has no port`)
	}
	const from = find(
		model,
		fromText.kind,
		fromText.name,
		fromText.namespace ?? request.namespace,
		request.from,
		'source',
	)
	const sources = sourcesOf(model, from, request)
	// A name without a namespace means what it would mean to the client: its own namespace.
	const home = from.kind === 'pod' ? from.pod.namespace : from.kind === 'workload' ? from.pods[0]?.namespace : undefined
	const namespace = toText.namespace ?? home ?? request.namespace
	const to = find(model, toText.kind, toText.name, namespace, request.to, 'destination')
	const flows = sources.flatMap((source) => destinationsOf(model, source, to, toText.port, request)).map(inOneFamily)
	return { flows, from, to, ...(toText.path === undefined ? {} : { path: toText.path }) }
}

function sourcesOf(model: NetworkModel, target: Target, request: FlowRequest): FlowSource[] {
	switch (target.kind) {
		case 'pod':
			return [{ kind: 'pod', pod: target.pod.key }]
		case 'workload': {
			// A pod that runs says more than one that waits; of equals the first by name.
			const first = target.pods.find((pod) => pod.phase === 'Running' && pod.ips.length > 0) ?? target.pods[0]!
			return (request.allPods === true ? target.pods : [first]).map((pod) => ({ kind: 'pod', pod: pod.key }))
		}
		case 'node':
			return [{ kind: 'node', node: target.node.name }]
		case 'outside':
			return [{ kind: 'outside', ip: outsideIp }]
		case 'ip': {
			const owner = model.addresses.get(target.ip)
			if (owner?.kind === 'pod') return [{ kind: 'pod', pod: owner.pod }]
			if (owner?.kind === 'node') return [{ kind: 'node', node: owner.node }]
			if (owner?.kind === 'service') throw startsNothing(request.from, owner.service)
			const behind = owner === undefined ? servicesAt(model, target.ip)[0] : undefined
			if (behind !== undefined) throw startsNothing(request.from, behind.key)
			return [{ kind: 'outside', ip: target.ip }]
		}
		case 'service':
			throw startsNothing(request.from, target.service.key)
		case 'name':
			throw new Failure(
				'InvalidEndpoint',
				`Cannot start at "${request.from}": a DNS name starts no connection; name a pod, a workload, a node or an address`,
			)
		default: {
			const never: never = target
			throw new Error(`No such target: ${JSON.stringify(never)}`)
		}
	}
}

/** The host outside has an address of either family: it sends from that of its destination's. */
function inOneFamily(flow: Flow): Flow {
	const { from, to } = flow
	if (from.kind !== 'outside' || from.ip !== outsideIp || !('ip' in to) || familyOf(to.ip) === 4) return flow
	return { ...flow, from: { ...from, ip: outsideIp6 } }
}

function startsNothing(text: string, service: string): Failure {
	return new Failure(
		'InvalidEndpoint',
		`Cannot start at "${text}": Service "${service}" starts no connection; name a pod or workload behind it`,
	)
}

function destinationsOf(
	model: NetworkModel,
	from: FlowSource,
	target: Target,
	port: PortText | undefined,
	request: FlowRequest,
): Flow[] {
	const namespace = from.kind === 'pod' ? (model.pods.get(from.pod)?.namespace ?? request.namespace) : request.namespace
	const chosen = portOf(model, target, port, namespace, request)
	const flow = (to: Flow['to']): Flow => ({ from, to, ...chosen })
	switch (target.kind) {
		case 'pod':
			return [flow({ ip: addressOf(target.pod) })]
		case 'workload': {
			const ready = target.pods.filter((pod) => pod.ips.length > 0)
			return (ready.length === 0 ? target.pods : ready).map((pod) => flow({ ip: addressOf(pod) }))
		}
		case 'service': {
			const clients = from.kind !== 'outside' ? [] : from.ip === outsideIp ? [outsideIp, outsideIp6] : [from.ip]
			const entry = clients.map((ip) => entryFor(model, ip, target.service, chosen)).find((e) => e !== undefined)
			return [entry === undefined ? flow(serviceAddress(model, from, target.service)) : { from, ...entry }]
		}
		case 'node': {
			const ip = target.node.addresses[0]
			if (ip === undefined)
				throw new Failure('NoAddress', `Cannot trace to node "${target.node.name}": it has no InternalIP`)
			return [flow({ ip })]
		}
		case 'ip':
			return [flow({ ip: target.ip })]
		case 'name':
			return [flow({ name: target.name })]
		case 'outside':
			return [flow({ ip: hasOnly6(model, from) ? outsideIp6 : outsideIp })]
		default: {
			const never: never = target
			throw new Error(`No such target: ${JSON.stringify(never)}`)
		}
	}
}

function hasOnly6(model: NetworkModel, from: FlowSource): boolean {
	const ips =
		from.kind === 'pod'
			? model.pods.get(from.pod)?.ips
			: from.kind === 'node'
				? model.nodes.get(from.node)?.addresses
				: [from.ip]
	return ips !== undefined && ips.length > 0 && ips.every((ip) => familyOf(ip) === 6)
}

function addressOf(pod: Pod): Ip {
	const ip = pod.ips[0]
	if (ip === undefined) {
		const why = pod.node === undefined ? 'it is not scheduled to a node' : `it is ${pod.phase} on node "${pod.node}"`
		throw new Failure('NoAddress', `Cannot trace to pod "${pod.key}": it has no address, ${why}`)
	}
	return ip
}

/**
 * A pod asks for a Service as its program would: by name, without the namespace where that is its own. Who has no
 * cluster DNS uses the ClusterIP.
 */
function serviceAddress(model: NetworkModel, from: FlowSource, service: Service): Flow['to'] {
	const pod = from.kind === 'pod' ? model.pods.get(from.pod) : undefined
	const dns = model.config.dnsServiceIp
	const asks = pod !== undefined && dns !== undefined && pod.dns.nameservers.includes(dns)
	const ip = service.clusterIps[0]
	if (!asks && ip !== undefined) return { ip }
	return { name: pod?.namespace === service.namespace ? service.name : `${service.name}.${service.namespace}` }
}

/** Where a client outside asks for a Service: its load balancer, else the node port of a node that is ready. */
function entryFor(
	model: NetworkModel,
	client: Ip,
	service: Service,
	wanted: Pick<Flow, 'protocol' | 'port'>,
): Omit<Flow, 'from'> | undefined {
	const ofFamily = (ip: Ip | undefined): ip is Ip => ip !== undefined && familyOf(ip) === familyOf(client)
	const balancer = service.loadBalancer?.ingress.map((i) => i.ip).find(ofFamily)
	if (balancer !== undefined) return { to: { ip: balancer }, ...wanted }
	const port = service.ports.find((p) => p.port === wanted.port && p.protocol === wanted.protocol)?.nodePort
	if (port === undefined) return undefined
	for (const node of [...model.nodes.values()].sort((a, b) => (a.name < b.name ? -1 : 1))) {
		const ip = node.ready ? nodePortIps(model, node).find(ofFamily) : undefined
		if (ip !== undefined) return { to: { ip }, protocol: wanted.protocol, port }
	}
	return undefined
}

type End = 'source' | 'destination'

function find(
	model: NetworkModel,
	kind: string | undefined,
	name: string,
	namespace: string,
	text: string,
	end: End,
): Target {
	switch (kind) {
		case undefined:
			return findBare(model, name, namespace, text, end)
		case 'Pod': {
			const pod = model.pods.get(`${namespace}/${name}`)
			if (pod === undefined) throw unknown(text, 'pod', `${namespace}/${name}`, podKeys(model))
			return { kind: 'pod', pod }
		}
		case 'Service': {
			const service = model.services.get(`${namespace}/${name}`)
			if (service === undefined) throw unknown(text, 'Service', `${namespace}/${name}`, model.services.keys())
			return { kind: 'service', service }
		}
		case 'Node': {
			const node = model.nodes.get(name)
			if (node === undefined) throw unknown(text, 'node', name, model.nodes.keys())
			return { kind: 'node', node }
		}
		default: {
			const found = workloads(model).get(`${kind} ${namespace}/${name}`)
			if (found !== undefined) return found
			const names = [...workloads(model).values()].filter((w) => w.owner.kind === kind).map((w) => w.owner.key)
			throw unknown(text, `${kind} with a pod`, `${namespace}/${name}`, names)
		}
	}
}

/** An address, `outside`, then what has the name in the namespace; `NAME.NAMESPACE`; else a DNS name. */
function findBare(model: NetworkModel, name: string, namespace: string, text: string, end: End): Target {
	const ip = tryParseIp(name)
	if (ip !== undefined) return { kind: 'ip', ip }
	if (name === 'outside') return { kind: 'outside' }
	const here = findNamed(model, name, namespace, text, end)
	if (here !== undefined) return here
	const dot = name.lastIndexOf('.')
	if (dot < 0) throw unknown(text, 'pod, workload or Service', `${namespace}/${name}`, allKeys(model))
	const [first, place] = [name.slice(0, dot), name.slice(dot + 1)]
	if (first.includes('.') || !hasNamespace(model, place)) return { kind: 'name', name }
	const there = findNamed(model, first, place, text, end)
	if (there !== undefined) return there
	throw unknown(text, 'pod, workload or Service', `${place}/${first}`, allKeys(model))
}

/**
 * A pod, else a workload, else a Service. Where a flow goes to, the Service comes before the workload: they mostly share
 * a name, and what a client means by `cartservice:7070` is the name it asks DNS for.
 */
function findNamed(model: NetworkModel, name: string, namespace: string, text: string, end: End): Target | undefined {
	const key = `${namespace}/${name}`
	const pod = model.pods.get(key)
	if (pod !== undefined) return { kind: 'pod', pod }
	const service = model.services.get(key)
	if (service !== undefined && end === 'destination') return { kind: 'service', service }
	const owners = [...workloads(model).values()].filter((w) => w.owner.key === key)
	if (owners.length > 1) {
		const choices = owners.map((w) => `${w.owner.kind.toLowerCase()}/${name}`).sort()
		throw new Failure('AmbiguousEndpoint', `Cannot tell what "${text}" means: ${choices.join(', ')}`, { choices })
	}
	if (owners[0] !== undefined) return owners[0]
	return service === undefined ? undefined : { kind: 'service', service }
}

function workloads(model: NetworkModel): Map<string, Extract<Target, { kind: 'workload' }>> {
	const found = new Map<string, { kind: 'workload'; owner: Pod['owner']; pods: Pod[] }>()
	for (const pod of [...model.pods.values()].sort((a, b) => (a.key < b.key ? -1 : 1))) {
		if (pod.owner.kind === 'Pod') continue
		const id = `${pod.owner.kind} ${pod.owner.key}`
		const workload = found.get(id)
		if (workload === undefined) found.set(id, { kind: 'workload', owner: pod.owner, pods: [pod] })
		else workload.pods.push(pod)
	}
	return found
}

function hasNamespace(model: NetworkModel, name: string): boolean {
	if (model.namespaces.has(name)) return true
	for (const pod of model.pods.values()) if (pod.namespace === name) return true
	for (const service of model.services.values()) if (service.namespace === name) return true
	return false
}

function podKeys(model: NetworkModel): string[] {
	return [...model.pods.keys()]
}

function allKeys(model: NetworkModel): string[] {
	return [...podKeys(model), ...[...workloads(model).values()].map((w) => w.owner.key), ...model.services.keys()]
}

function unknown(text: string, what: string, key: string, names: Iterable<string>): Failure {
	const near = nearest(key, [...names])
	const hint = near.length === 0 ? '' : `; did you mean ${near.map((n) => `"${n}"`).join(' or ')}?`
	return new Failure('UnknownEndpoint', `Cannot find "${text}": there is no ${what} "${key}"${hint}`, { near })
}

/** The same name in another namespace first, then names like it, those of the same namespace before others. */
function nearest(key: string, keys: readonly string[]): string[] {
	const nameOf = (k: string) => k.slice(k.indexOf('/') + 1)
	const elsewhere = keys.filter((k) => k !== key && nameOf(k) === nameOf(key)).sort()
	const home = key.slice(0, key.indexOf('/') + 1)
	const like = nearNames(nameOf(key), keys.map(nameOf)).flatMap((name) => {
		const same = keys.filter((k) => nameOf(k) === name).sort()
		return same.includes(`${home}${name}`) ? [`${home}${name}`] : same
	})
	return [...new Set([...elsewhere, ...like])].slice(0, 3)
}
