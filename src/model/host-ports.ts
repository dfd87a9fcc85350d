// Ports of a node that lead to a pod of it (`hostPort`, `hostIP`), with the meaning the portmap CNI plugin gives them:
// any address of the node unless one is named; readiness plays no part; not 127.0.0.0/8, which never leaves a namespace.

import { familyOf, type Ip } from '../base/ip.ts'
import type { Protocol } from '../base/packet.ts'
import { type ContainerPort, type NetworkModel, type Node, type Pod, podAddresses } from './network.ts'

/** One container port asked for at a node's address family. */
export interface HostPort {
	readonly pod: Pod
	readonly port: ContainerPort
	readonly protocol: Exclude<Protocol, 'ICMP'>
	readonly number: number
	/** Undefined: every address of the family that is local to the node. */
	readonly at: Ip | undefined
	/** Where it leads. */
	readonly to: { readonly ip: Ip; readonly port: number }
}

/** What the pod asks of its node; nothing while it has no address, or none any more. */
export function hostPortsOf(pod: Pod): HostPort[] {
	const asked: HostPort[] = []
	for (const port of pod.ports) {
		const { hostPort: number, hostIp, protocol } = port
		if (number === undefined || protocol === 'ICMP') continue
		const families = new Set<4 | 6>()
		for (const ip of podAddresses(pod)) {
			const family = familyOf(ip)
			// The first address of a family is the pod's; a hostIP of the other family cannot lead to it.
			if (families.has(family) || (hostIp !== undefined && familyOf(hostIp) !== family)) continue
			families.add(family)
			const at = hostIp === '0.0.0.0' || hostIp === '::' ? undefined : hostIp
			asked.push({ pod, port, protocol, number, at, to: { ip, port: port.port } })
		}
	}
	return asked
}

/**
 * Of several that ask for the same, who gets it comes first: pods that stay before those that go, then by name. The
 * scheduler keeps this from happening; a pod bound by hand (spec.nodeName) can still ask for what is taken.
 */
export function compareHostPorts(a: HostPort, b: HostPort): number {
	if (a.pod.terminating !== b.pod.terminating) return a.pod.terminating ? 1 : -1
	if (a.pod.key !== b.pod.key) return a.pod.key < b.pod.key ? -1 : 1
	return a.port.container < b.port.container ? -1 : a.port.container > b.port.container ? 1 : a.to.port - b.to.port
}

/** Whether both cannot be had on one node: a port on all addresses takes it on each. */
export function clash(a: HostPort, b: HostPort): boolean {
	return (
		a.number === b.number &&
		a.protocol === b.protocol &&
		familyOf(a.to.ip) === familyOf(b.to.ip) &&
		(a.at === undefined || b.at === undefined || a.at === b.at)
	)
}

/** Who answers at the node's `ip` and `number`: a port on that very address before one on all of them. */
export function hostPortAt(
	model: NetworkModel,
	node: Node,
	ip: Ip,
	protocol: Protocol,
	number: number,
): HostPort | undefined {
	if (!node.addresses.includes(ip)) return undefined
	let found: HostPort | undefined
	for (const pod of model.pods.values()) {
		if (pod.node !== node.name || !pod.ports.some((p) => p.hostPort === number)) continue
		for (const asked of hostPortsOf(pod)) {
			if (asked.number !== number || asked.protocol !== protocol || familyOf(asked.to.ip) !== familyOf(ip)) continue
			if (asked.at !== undefined && asked.at !== ip) continue
			if (found === undefined || before(asked, found)) found = asked
		}
	}
	return found
}

function before(a: HostPort, b: HostPort): boolean {
	if ((a.at === undefined) !== (b.at === undefined)) return a.at !== undefined
	return compareHostPorts(a, b) < 0
}
