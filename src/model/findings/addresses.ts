// Addresses that two own, that lie where nothing routes them, and networks that overlap.

import { type Cidr, cidrAddress, cidrContains, type Ip, tryParseIp } from '../../base/ip.ts'
import { compareIps } from '../address-order.ts'
import type { Finding } from '../finding.ts'
import { type AddressOwner, type Node, podAddresses } from '../network.ts'
import type { Origin } from '../origin.ts'
import { originOf } from '../state.ts'
import type { CheckInput } from './check.ts'

export function* checkAddresses(input: CheckInput): Iterable<Finding> {
	yield* checkClaims(input)
	yield* checkServiceAddresses(input)
	yield* checkNodes(input)
	yield* checkPodRoutes(input)
}

/** PW0008 (Services), PW0009 (pods), PW0010 (different kinds) */
function* checkClaims({ claims, model }: CheckInput): Iterable<Finding> {
	for (const [ip, owners] of claims) {
		if (owners.length < 2) continue
		const kinds = new Set(owners.map((o) => o.kind))
		const kind = kinds.size === 1 ? owners[0]!.kind : undefined
		const names = owners.map((o) => `${o.kind} "${ownerName(o)}"`).join(', ')
		yield {
			code: kind === 'service' ? 'PW0008' : kind === 'pod' ? 'PW0009' : 'PW0010',
			severity: 'error',
			text: `Address ${ip} belongs to ${owners.length}: ${names}. Only the first gets its traffic`,
			because: owners.flatMap((o) => ownerOrigin(model, o)),
		}
	}
}

function ownerName(owner: AddressOwner): string {
	return owner.kind === 'pod' ? owner.pod : owner.kind === 'node' ? owner.node : owner.service
}

function ownerOrigin(model: CheckInput['model'], owner: AddressOwner): Origin[] {
	const found =
		owner.kind === 'pod'
			? model.pods.get(owner.pod)?.origin
			: owner.kind === 'node'
				? model.nodes.get(owner.node)?.origin
				: (model.services.get(owner.service)?.fields?.clusterIP ?? model.services.get(owner.service)?.origin)
	return found === undefined ? [] : [found]
}

/** PW0011, and PW0020 for an address that cannot be read */
function* checkServiceAddresses({ model, state }: CheckInput): Iterable<Finding> {
	for (const service of model.services.values()) {
		for (const ip of service.clusterIps) {
			const networks = model.config.serviceCidrs.filter((c) => c.includes(':') === ip.includes(':'))
			if (networks.length === 0 || networks.some((cidr) => cidrContains(cidr, ip))) continue
			yield {
				code: 'PW0011',
				severity: 'warning',
				text: `Service "${service.key}" has ClusterIP ${ip}, outside of the Service network ${networks.join(', ')}`,
				because: [service.fields?.clusterIP ?? service.origin],
			}
		}
		const spec = state.services.get(service.key)?.spec
		const texts = spec?.clusterIPs ?? (spec?.clusterIP ? [spec.clusterIP] : [])
		for (const text of texts) {
			if (text === 'None' || text === '' || tryParseIp(text) !== undefined) continue
			yield {
				code: 'PW0020',
				severity: 'error',
				text: `Service "${service.key}" has the ClusterIP "${text}", which is no IP address: it is ignored`,
				because: [originOf(state, 'Service', service.key, 'spec.clusterIP')],
			}
		}
	}
}

/** PW0012 (no pod network), PW0013 (networks overlap) */
function* checkNodes({ model, state }: CheckInput): Iterable<Finding> {
	const used = new Set<string>()
	for (const pod of model.pods.values()) if (pod.node !== undefined && !pod.hostNetwork) used.add(pod.node)
	const networks: { cidr: Cidr; what: string; origin: Origin }[] = []
	for (const cidr of model.config.serviceCidrs)
		networks.push({ cidr, what: 'the Service network', origin: { default: 'cluster configuration' } })
	const nodes = [...model.nodes.values()].sort((a, b) => (a.name < b.name ? -1 : 1))
	for (const node of nodes) {
		const origin = originOf(state, 'Node', node.name, 'spec.podCIDR')
		if (node.podCidrs.length === 0 && used.has(node.name)) {
			yield {
				code: 'PW0012',
				severity: 'error',
				text: `Node "${node.name}" has no spec.podCIDR, so no other node has a route to its pods`,
				because: [origin],
			}
		}
		for (const cidr of node.podCidrs) {
			for (const other of networks) {
				if (!overlap(cidr, other.cidr)) continue
				yield {
					code: 'PW0013',
					severity: 'error',
					text: `Node "${node.name}" has the pod network ${cidr}, which overlaps ${other.cidr} of ${other.what}`,
					because: [origin, other.origin],
				}
			}
			networks.push({ cidr, what: `node "${node.name}"`, origin })
		}
	}
}

function overlap(a: Cidr, b: Cidr): boolean {
	return cidrContains(a, cidrAddress(b)) || cidrContains(b, cidrAddress(a))
}

/** PW0014 */
function* checkPodRoutes({ model }: CheckInput): Iterable<Finding> {
	for (const pod of model.pods.values()) {
		const node: Node | undefined = pod.node === undefined ? undefined : model.nodes.get(pod.node)
		if (node === undefined || node.podCidrs.length === 0) continue
		for (const ip of [...podAddresses(pod)].sort(compareIps)) {
			if (inOneOf(node.podCidrs, ip)) continue
			yield {
				code: 'PW0014',
				severity: 'error',
				text: `Pod "${pod.key}" has the address ${ip}, outside of its node "${node.name}"'s pod network ${node.podCidrs.join(', ')}: other nodes do not route it there`,
				because: [pod.origin, node.origin],
			}
		}
	}
}

function inOneOf(cidrs: readonly Cidr[], ip: Ip): boolean {
	return cidrs.some((cidr) => cidrContains(cidr, ip))
}
