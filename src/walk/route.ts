// Where a node sends a packet. The pod network is plain routing: one address route for each pod of the node, one route
// to each other node's pod network by that node's address, no translation and no encapsulation.

import { type Cidr, cidrContains, cidrLength, familyOf, hostCidr, type Ip } from '../base/ip.ts'
import type { Packet } from '../base/packet.ts'
import { isProxied } from '../model/frontends.ts'
import { type NetworkModel, type Node, type Pod, podAddresses } from '../model/network.ts'
import { defaultOrigin, type Origin, objectOrigin } from '../model/origin.ts'
import type { StepWithReason } from './trace.ts'

/** The address pods use as their gateway: the node's end of their link answers for it. */
export const podGateway = '169.254.1.1' as Ip

export type Decision =
	/** A pod on this node. */
	| { readonly to: 'pod'; readonly pod: Pod; readonly destination: Cidr; readonly because: readonly Origin[] }
	/** One of the node's own addresses. */
	| { readonly to: 'self'; readonly because: readonly Origin[] }
	/** Another node, by its address; `via` undefined: that address itself is the destination. */
	| {
			readonly to: 'node'
			readonly node: Node
			readonly destination: Cidr
			readonly via?: Ip
			readonly because: readonly Origin[]
	  }
	/** The default route: out of the cluster. */
	| { readonly to: 'outside'; readonly because: readonly Origin[] }
	| {
			readonly to: 'nowhere'
			readonly disposition: 'unassigned-address' | 'no-route'
			/** reject: a route says "unreachable", and the sender hears it. */
			readonly how: 'reject' | 'drop'
			readonly because: readonly Origin[]
			readonly note: string
	  }

/** The route that `node` takes for `ip`. */
export function routeFrom(model: NetworkModel, node: Node, ip: Ip): Decision {
	if (node.addresses.includes(ip)) return { to: 'self', because: [node.origin] }
	const owner = model.addresses.get(ip)
	const pod = owner?.kind === 'pod' ? model.pods.get(owner.pod) : undefined
	const local = pod?.node === node.name ? pod : twin(model, node, ip, pod)
	if (local !== undefined) return { to: 'pod', pod: local, destination: hostCidr(ip), because: [local.origin] }

	const here = node.podCidrs.find((cidr) => cidrContains(cidr, ip))
	if (here !== undefined) {
		const because = [podCidrOrigin(node)]
		return pod === undefined
			? {
					to: 'nowhere',
					disposition: 'unassigned-address',
					how: 'reject',
					because,
					note: `no pod of node "${node.name}" has ${ip}`,
				}
			: {
					to: 'nowhere',
					disposition: 'no-route',
					how: 'reject',
					because: [pod.origin, ...because],
					note: `pod "${pod.key}" runs on ${pod.node === undefined ? 'no node' : `node "${pod.node}"`}, but its address lies in the pod network of node "${node.name}"`,
				}
	}
	const other = longestMatch(model, node, ip)
	if (other !== undefined) {
		const via = nodeAddress(other.node, ip)
		const because = [podCidrOrigin(other.node)]
		if (via !== undefined) return { to: 'node', node: other.node, destination: other.cidr, via, because }
		return {
			to: 'nowhere',
			disposition: 'no-route',
			how: 'drop',
			because: [other.node.origin],
			note: `node "${other.node.name}" has no address to route by`,
		}
	}
	if (owner?.kind === 'node') {
		const target = model.nodes.get(owner.node)
		if (target !== undefined) return { to: 'node', node: target, destination: hostCidr(ip), because: [target.origin] }
	}
	if (pod !== undefined) return withoutRoute(model, pod, ip)
	const inside = [...model.config.podCidrs, ...model.config.serviceCidrs].find((cidr) => cidrContains(cidr, ip))
	const service = owner?.kind === 'service' ? model.services.get(owner.service) : undefined
	if (service !== undefined && isProxied(service)) {
		return {
			to: 'nowhere',
			disposition: 'unassigned-address',
			how: 'reject',
			because: [service.fields?.clusterIP ?? service.origin],
			note: `${ip} is the ClusterIP of Service "${service.key}": a connection is translated once, and nobody has that address itself`,
		}
	}
	if (inside !== undefined) {
		return {
			to: 'nowhere',
			disposition: 'unassigned-address',
			how: 'drop',
			because: [defaultOrigin('cluster configuration')],
			note: `${ip} lies in the cluster's network ${inside}, and nobody has it`,
		}
	}
	return { to: 'outside', because: [defaultOrigin("the node's default route")] }
}

/** A pod of this node that has the address as well: the node's own route to it comes before all others. */
function twin(model: NetworkModel, node: Node, ip: Ip, owner: Pod | undefined): Pod | undefined {
	if (owner === undefined) return undefined
	let first: Pod | undefined
	for (const pod of model.pods.values()) {
		if (pod.node !== node.name || !podAddresses(pod).includes(ip)) continue
		if (first === undefined || pod.key < first.key) first = pod
	}
	return first
}

/** The node's own address of the family of `ip`. */
export function nodeAddress(node: Node, ip: Ip): Ip | undefined {
	return node.addresses.find((a) => familyOf(a) === familyOf(ip))
}

function podCidrOrigin(node: Node): Origin {
	return fieldOf(node.origin, 'Node', node.name, 'spec.podCIDR')
}

/** The origin of a field of an object whose own origin is known: the line stays that of the object. */
export function fieldOf(origin: Origin, kind: string, key: string, field: string): Origin {
	return objectOrigin(kind, key, field, 'default' in origin ? undefined : origin.source)
}

/** Of equal networks the node whose name sorts first: two nodes with one network are a finding of their own. */
function longestMatch(model: NetworkModel, from: Node, ip: Ip): { node: Node; cidr: Cidr } | undefined {
	let best: { node: Node; cidr: Cidr } | undefined
	for (const node of model.nodes.values()) {
		if (node.name === from.name) continue
		for (const cidr of node.podCidrs) {
			if (!cidrContains(cidr, ip)) continue
			const longer = best === undefined ? 1 : cidrLength(cidr) - cidrLength(best.cidr)
			if (longer > 0 || (longer === 0 && node.name < best!.node.name)) best = { node, cidr }
		}
	}
	return best
}

function withoutRoute(model: NetworkModel, pod: Pod, ip: Ip): Decision {
	const node = pod.node === undefined ? undefined : model.nodes.get(pod.node)
	if (node === undefined) {
		const note =
			pod.node === undefined
				? `pod "${pod.key}" is not scheduled to a node`
				: `node "${pod.node}" of pod "${pod.key}" does not exist`
		return { to: 'nowhere', disposition: 'no-route', how: 'drop', because: [pod.origin], note }
	}
	const note =
		node.podCidrs.length === 0
			? `node "${node.name}" has no spec.podCIDR, so no other node has a route to its pods`
			: `${ip} of pod "${pod.key}" lies outside of the pod network ${node.podCidrs.join(', ')} of its node "${node.name}"`
	return { to: 'nowhere', disposition: 'no-route', how: 'drop', because: [podCidrOrigin(node), pod.origin], note }
}

/** The one route every pod has. */
export function podDefaultRoute(model: NetworkModel, pod: Pod, packet: Packet): StepWithReason {
	return {
		step: 'route',
		destination: familyOf(packet.destination) === 4 ? '0.0.0.0/0' : '::/0',
		...(familyOf(packet.destination) === 4 ? { via: podGateway } : {}),
		device: 'eth0',
		mtu: model.config.mtu,
		because: [pod.origin],
	}
}

/** The step for a route that leads somewhere. */
export function routeStep(
	model: NetworkModel,
	decision: Exclude<Decision, { to: 'nowhere' }>,
	packet: Packet,
): StepWithReason {
	const { because } = decision
	const { mtu } = model.config
	switch (decision.to) {
		case 'pod':
			return {
				step: 'route',
				destination: decision.destination,
				device: `link of pod ${decision.pod.key}`,
				mtu,
				because,
			}
		case 'self':
			return { step: 'route', destination: hostCidr(packet.destination), device: 'lo', because }
		case 'node':
			return {
				step: 'route',
				destination: decision.destination,
				...(decision.via === undefined ? {} : { via: decision.via }),
				device: 'eth0',
				mtu,
				because,
			}
		case 'outside':
			return {
				step: 'route',
				destination: familyOf(packet.destination) === 4 ? '0.0.0.0/0' : '::/0',
				device: 'eth0',
				mtu,
				because,
			}
		default: {
			const never: never = decision
			throw new Error(`No such route: ${JSON.stringify(never)}`)
		}
	}
}
