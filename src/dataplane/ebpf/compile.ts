// Model to program, incrementally: only Services that changed, or whose addresses changed hands, are looked at. The
// result depends on the model and the namespaces alone, not on what was compiled before.

import { familyOf, type Ip } from '../../base/ip.ts'
import { emptyTable, type Table, tableOf } from '../../base/table.ts'
import { tagsOf } from '../../linux/bpf/assemble.ts'
import type { AttachType } from '../../linux/bpf/system.ts'
import {
	changedServices,
	type Frontend,
	frontendKeyOf,
	frontendsOf,
	isProxied,
	nodePortIps,
	ownsFrontend,
	sameNode,
	treat,
} from '../../model/frontends.ts'
import {
	type NetworkModel,
	type Node,
	type NodeName,
	podAddresses,
	type Service,
	type ServicePort,
} from '../../model/network.ts'
import { originComment } from '../origin.ts'
import { codes } from './code.ts'
import { isSocketProtocol, mostEndpoints } from './layout.ts'
import {
	type Address,
	type EbpfFrontend,
	type EbpfNamespace,
	type EbpfProgram,
	emptyProgram,
	frontendKey,
	sameFrontend,
	sortAddresses,
} from './program.ts'

type Model = Pick<NetworkModel, 'config' | 'services' | 'addresses' | 'frontends'>

interface Vantage {
	/** Who asks, as far as the choice of endpoints depends on it. */
	readonly pod: Parameters<typeof treat>[3]
	readonly addresses: readonly Ip[]
	readonly nodePortIps: readonly Ip[]
}

export interface Compiled {
	readonly model: Model
	readonly node: Node | undefined
	readonly vantage: Vantage
	readonly program: EbpfProgram
	readonly frontends: Table<string, EbpfFrontend>
}

/** A namespace of the node, as the agent knows it; the node's own has no addresses. */
export interface SocketNamespace {
	readonly path: string
	readonly ips: readonly Ip[]
}

let attached: Table<AttachType, string> | undefined

/** What this version of the code attaches. The newer kernels' form of tags; read gives the same name to the older one. */
export function attachedCode(): Table<AttachType, string> {
	return (attached ??= tableOf(
		Object.entries(codes).map(([type, code]) => [type as AttachType, tagsOf(code)[0] as string]),
	))
}

/** `namespaces` undefined: on paper, where they follow from the model. `nodePath`: which of them is the node's own. */
export function compileProgram(
	model: NetworkModel,
	name: NodeName,
	namespaces: Iterable<SocketNamespace> | undefined,
	nodePath: string,
	previous: Compiled | undefined,
): Compiled {
	const node = model.nodes.get(name)
	const keep =
		previous !== undefined && previous.model.config === model.config && sameNode(previous.node, node)
			? previous
			: undefined
	const vantage = keep?.vantage ?? vantageOf(model, name)
	const frontends = changeServices(keep, model, vantage)
	const { config, services, addresses, frontends: owners } = model
	const compiled = { model: { config, services, addresses, frontends: owners }, node, vantage, frontends }
	if (frontends.size === 0) return { ...compiled, program: emptyProgram }
	const places = changeNamespaces(
		keep?.program.namespaces ?? emptyTable(),
		namespaces ?? namespacesOnPaper(model, name, nodePath),
		nodePath,
		vantage,
	)
	const program =
		keep !== undefined && keep.program.namespaces === places && keep.program.frontends === frontends
			? keep.program
			: { attached: attachedCode(), namespaces: places, frontends }
	return { ...compiled, program }
}

function vantageOf(model: NetworkModel, name: NodeName): Vantage {
	const node = model.nodes.get(name)
	return {
		pod: { place: 'pod', node: name, ...(node?.zone === undefined ? {} : { zone: node.zone }) },
		addresses: node?.addresses ?? [],
		nodePortIps: node === undefined ? [] : nodePortIps(model, node),
	}
}

function changeServices(keep: Compiled | undefined, model: Model, vantage: Vantage): Table<string, EbpfFrontend> {
	const before = keep?.model
	const changed = changedServices(before, model, vantage)
	const have = keep?.frontends ?? emptyTable<string, EbpfFrontend>()
	if (changed.size === 0) return have
	return have.mutate((draft) => {
		// First everything that goes, then everything that comes: an address may move from one Service to another.
		const gone = new Set<string>()
		for (const { before: service } of changed.values()) {
			if (service === undefined) continue
			contribute(service, vantage, before ?? model, (one) => {
				gone.add(frontendKey(one))
			})
		}
		const put = (one: EbpfFrontend) => {
			const key = frontendKey(one)
			gone.delete(key)
			const old = draft.get(key)
			if (old === undefined || !sameFrontend(old, one)) draft.set(key, one)
		}
		for (const { now } of changed.values()) if (now !== undefined) contribute(now, vantage, model, put)
		for (const key of gone) draft.delete(key)
	})
}

/** Calls `emit` for the frontends of one Service that sockets can be led away from; all others are for the packet rules. */
function contribute(
	service: Service,
	vantage: Vantage,
	owners: Pick<NetworkModel, 'addresses' | 'frontends'>,
	emit: (frontend: EbpfFrontend) => void,
): void {
	if (!isProxied(service)) return
	for (const port of service.ports) {
		if (!isSocketProtocol(port.protocol)) continue
		for (const frontend of frontendsOf(service, port)) {
			// Whether a client is admitted depends on its packet's source, which a socket may not have yet.
			if (frontend.sourceRanges !== undefined || !ownsFrontend(owners, service, frontend)) continue
			const compile = (ip: Ip) => {
				const one = compileFrontend(service, port, frontend, ip, vantage)
				if (one !== undefined) emit(one)
			}
			if (frontend.ip !== undefined) compile(frontend.ip)
			else for (const ip of nodePortAddresses(frontend, vantage, owners)) compile(ip)
		}
	}
}

/** A node port answers at each of the node's addresses, unless the port of that address is somebody's by itself. */
function nodePortAddresses(
	frontend: Frontend,
	vantage: Vantage,
	owners: Pick<NetworkModel, 'addresses' | 'frontends'>,
): readonly Ip[] {
	return vantage.nodePortIps.filter(
		(ip) =>
			familyOf(ip) === frontend.family &&
			owners.addresses.get(ip)?.kind !== 'service' &&
			!owners.frontends.has(frontendKeyOf({ ...frontend, ip })),
	)
}

const noMembers: readonly Address[] = []

/** undefined: nobody serves, and the packet rules say no in the way that is due. */
function compileFrontend(
	service: Service,
	port: ServicePort,
	frontend: Frontend,
	ip: Ip,
	vantage: Vantage,
): EbpfFrontend | undefined {
	// A process of the node sends from the node's address whether it is masqueraded or not, and its endpoints are a pod's.
	const { serving, masquerade } = treat(service, port, frontend, vantage.pod)
	const { endpoints } = serving
	if (endpoints.length === 0 || endpoints.length > mostEndpoints) return undefined
	const protocol = port.protocol as EbpfFrontend['protocol']
	const affinity = service.sessionAffinity
	const members: Address[] = []
	for (const { ip, port, node } of endpoints) {
		if (protocol === 'UDP' || affinity !== undefined) members.push({ ip, port })
		const perhapsHere = node === undefined || node === vantage.pod.node
		if (perhapsHere && !vantage.addresses.includes(ip) && !members.some((m) => m.port === 0 && m.ip === ip))
			members.push({ ip, port: 0 })
	}
	return {
		ip,
		port: frontend.port,
		protocol,
		endpoints,
		...(affinity === undefined ? {} : { affinity }),
		...(masquerade === undefined ? {} : { nodeOnly: true }),
		members: members.length === 0 ? noMembers : sortAddresses(members),
		comment: originComment(frontend.origin),
	}
}

function changeNamespaces(
	have: Table<string, EbpfNamespace>,
	given: Iterable<SocketNamespace>,
	nodePath: string,
	vantage: Vantage,
): Table<string, EbpfNamespace> {
	return have.mutate((draft) => {
		const gone = new Set(have.keys())
		for (const { path, ips } of given) {
			gone.delete(path)
			const place = path === nodePath ? 'node' : 'pod'
			const own = place === 'node' ? vantage.addresses : ips
			const old = draft.get(path)
			// Asked of every pod at every change: nothing is made where nothing changed.
			if (old?.place !== place || !isPrimary(old.ips, own)) draft.set(path, { path, place, ips: primary(own) })
		}
		for (const path of gone) draft.delete(path)
	})
}

/** Whether `some` are the primary ones of `all`. */
function isPrimary(some: readonly Ip[], all: readonly Ip[]): boolean {
	const four = all.find(isFour)
	const six = all.find(isSix)
	let i = 0
	if (four !== undefined && some[i++] !== four) return false
	if (six !== undefined && some[i++] !== six) return false
	return some.length === i
}

const isFour = (ip: Ip) => familyOf(ip) === 4
const isSix = (ip: Ip) => familyOf(ip) === 6

/** The first of each family, IPv4 first. */
function primary(ips: readonly Ip[]): readonly Ip[] {
	return [ips.find(isFour), ips.find(isSix)].filter((ip) => ip !== undefined)
}

function* namespacesOnPaper(model: NetworkModel, node: NodeName, nodePath: string): Iterable<SocketNamespace> {
	yield { path: nodePath, ips: [] }
	for (const pod of model.pods.values()) {
		const ips = podAddresses(pod)
		if (pod.node === node && ips.length > 0) yield { path: `pod ${pod.key}`, ips }
	}
}
