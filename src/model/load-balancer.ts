// Who takes a connection that comes from outside of the cluster to the address of a load balancer: the appliance before
// the cluster, which hands it to the node port of a healthy node, or one elected node, which gets it as it is.
// Rules: the service controller of k8s.io/cloud-provider (which nodes), KEP-1143 (label), KEP-1669 (health of Local),
// MetalLB's layer-2 mode (one node an address, every node alone knows which).

import { cidrContains, familyOf, type Ip } from '../base/ip.ts'
import type { Protocol } from '../base/packet.ts'
import { excludeFromLoadBalancersLabel } from './labels.ts'
import type { NetworkModel, Node, NodeName, Service, ServicePort } from './network.ts'
import { nodeHealth } from './node-health.ts'
import { defaultOrigin, type ObjectKey, type Origin, objectOrigin } from './origin.ts'

export type Balanced =
	/** Layer 2: `node` answers for the address on the nodes' network; packets arrive there unchanged. */
	| { readonly kind: 'announce'; readonly node: NodeName; readonly because: readonly Origin[] }
	/**
	 * The appliance changes the destination to one of `targets`, each as likely as the others, and keeps the source.
	 * No target: it refuses (TCP reset, ICMP port unreachable).
	 */
	| { readonly kind: 'forward'; readonly targets: readonly BalancerTarget[]; readonly because: readonly Origin[] }
	/** The appliance drops it: the client is outside of the source ranges. */
	| { readonly kind: 'drop'; readonly because: readonly Origin[] }

export interface BalancerTarget {
	readonly node: NodeName
	readonly ip: Ip
	readonly port: number
	readonly because: readonly Origin[]
}

/** Where the client is: `nodes` is the network between the nodes, pods included. */
export type BalancerSide = 'outside' | 'nodes'

const healthy = defaultOrigin('the load balancer takes every node that is ready')
const elected = defaultOrigin('elected by a hash of the address and the names of the nodes that may announce it')

/**
 * Who takes a new connection of `client` (undefined: any client, source ranges are not looked at) to an address that a
 * load balancer of ours has. Undefined: nobody answers for the address or the port there.
 */
export function balance(
	model: Pick<NetworkModel, 'services' | 'nodes'>,
	ip: Ip,
	protocol: Protocol,
	port: number,
	client?: Ip,
	side: BalancerSide = 'outside',
): Balanced | undefined {
	const holders = balancedAt(model, ip)
	const way = wayOf(holders)
	if (way === 'announce') {
		const open = holders.filter((service) => isReachable(service, side))
		const node = open.length === 0 ? undefined : electNode(model, ip, holders)
		return node === undefined ? undefined : { kind: 'announce', node: node.name, because: [...whyHere(open), elected] }
	}
	const found = findPort(holders, protocol, port)
	if (found === undefined || found.port.nodePort === undefined || !isReachable(found.service, side)) return undefined
	const { service } = found
	const ranges = service.loadBalancer?.sourceRanges.filter((cidr) => familyOf(cidr) === familyOf(ip)) ?? []
	if (client !== undefined && ranges.length > 0 && !ranges.some((cidr) => cidrContains(cidr, client))) {
		return { kind: 'drop', because: [service.fields?.loadBalancerSourceRanges ?? service.origin] }
	}
	const because = [found.port.origin, ...whyHere([service])]
	return { kind: 'forward', targets: targetsOf(model, service, found.port.nodePort, ip), because }
}

/** The Services whose load balancer is ours and has the address, in the order in which they get a port that two have. */
export function balancedAt(model: Pick<NetworkModel, 'services'>, ip: Ip): readonly Service[] {
	const found: Service[] = []
	for (const service of model.services.values()) {
		if (service.loadBalancer?.by !== undefined && service.loadBalancer.ingress.some((i) => i.ip === ip))
			found.push(service)
	}
	return found.sort(byAge)
}

/**
 * The older first, then by key: as nodes decide who has a frontend that two claim. Two that share an address have no port
 * in common but for the moment in which one of them changes, until the controller has taken the address from it.
 */
export function byAge(a: Pick<Service, 'key' | 'created'>, b: Pick<Service, 'key' | 'created'>): number {
	const [first, second] = [a.created ?? noTime, b.created ?? noTime]
	if (first !== second) return first < second ? -1 : 1
	return a.key < b.key ? -1 : 1
}

/** Behind every time. */
const noTime = '9999'

/**
 * How traffic comes to an address. The appliance needs a node port for each port it hands on; a Service without
 * (allocateLoadBalancerNodePorts: false) gets its packets as they are, as with layer 2.
 */
export function wayOf(holders: readonly Service[]): 'announce' | 'forward' {
	const announced = (service: Service) =>
		service.loadBalancer?.by === 'layer-2' || service.ports.some((port) => port.nodePort === undefined)
	return holders.length > 0 && holders.every(announced) ? 'announce' : 'forward'
}

/** Whether clients there may use the load balancer of the Service: those outside may not where it is internal. */
export function isReachable(service: Service, side: BalancerSide): boolean {
	return side === 'nodes' || service.loadBalancer?.internal === undefined
}

/** Whether load balancers hand anything to the node, whatever the Service. `because` where not. */
export function takesPart(node: Node): { readonly takes: boolean; readonly because: readonly Origin[] } {
	if (!node.ready) return { takes: false, because: [objectOrigin('Node', node.name, 'status.conditions')] }
	if (node.leaving) return { takes: false, because: [node.origin] }
	if (node.labels[excludeFromLoadBalancersLabel] !== undefined) {
		return {
			takes: false,
			because: [objectOrigin('Node', node.name, `metadata.labels.${excludeFromLoadBalancersLabel}`)],
		}
	}
	return { takes: true, because: [healthy] }
}

/** Whether the node's health check of the Service passes: it has a ready endpoint, or the policy asks for none. */
export function servesExternally(service: Service, node: NodeName): boolean {
	return service.externalTrafficPolicy === 'Cluster' || nodeHealth(service, node).localEndpoints > 0
}

/** The nodes the appliance hands connections of the Service to, by name. A node without an address of the family is none. */
export function targetsOf(
	model: Pick<NetworkModel, 'nodes'>,
	service: Service,
	nodePort: number,
	ip: Ip,
): readonly BalancerTarget[] {
	const targets: BalancerTarget[] = []
	for (const node of byName(model.nodes.values())) {
		const address = node.addresses.find((a) => familyOf(a) === familyOf(ip))
		if (address === undefined || !takesPart(node).takes || !servesExternally(service, node.name)) continue
		targets.push({ node: node.name, ip: address, port: nodePort, because: [whyNode(service)] })
	}
	return targets
}

/**
 * The node that answers for the address: of those that may, the one with the highest hash. So it moves only when its
 * node leaves, or when one comes that is higher; with policy Local only nodes with an endpoint may.
 */
export function electNode(
	model: Pick<NetworkModel, 'nodes'>,
	ip: Ip,
	holders: readonly Service[],
	passes: (service: ObjectKey, node: NodeName) => boolean = () => true,
): Node | undefined {
	const able = [...model.nodes.values()].filter((node) => takesPart(node).takes)
	const count = (node: Node) =>
		holders.filter((service) => servesExternally(service, node.name) && passes(service.key, node.name)).length
	// Services that share an address serve on the same nodes or on all; where they do not, most count.
	const most = Math.max(0, ...able.map(count))
	if (most === 0) return undefined
	let best: Node | undefined
	let highest = -1
	for (const node of byName(able.filter((each) => count(each) === most))) {
		const score = hash(`${ip} ${node.name}`)
		if (score > highest) {
			best = node
			highest = score
		}
	}
	return best
}

/** The first Service that the appliance can hand the port on for. */
function findPort(
	holders: readonly Service[],
	protocol: Protocol,
	number: number,
): { readonly service: Service; readonly port: ServicePort } | undefined {
	for (const service of holders) {
		for (const port of service.ports) {
			if (port.protocol === protocol && port.port === number && port.nodePort !== undefined) return { service, port }
		}
	}
	return undefined
}

function whyHere(services: readonly Service[]): readonly Origin[] {
	return services.map(
		(service) => service.fields?.loadBalancerClass ?? service.fields?.type ?? objectOrigin('Service', service.key),
	)
}

function whyNode(service: Service): Origin {
	return service.externalTrafficPolicy === 'Local'
		? (service.fields?.externalTrafficPolicy ?? objectOrigin('Service', service.key, 'spec.externalTrafficPolicy'))
		: healthy
}

function byName(nodes: Iterable<Node>): Node[] {
	return [...nodes].sort((a, b) => (a.name < b.name ? -1 : 1))
}

/** FNV-1a with a finish that spreads names which differ in their last letter only (murmur3's). 32 bits, unsigned. */
function hash(text: string): number {
	let h = 0x811c9dc5
	for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193)
	h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
	h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
	return (h ^ (h >>> 16)) >>> 0
}
