// Host ports that lead nowhere: two pods of a node that ask for one, addresses the node does not have.

import { tryParseIp } from '../../base/ip.ts'
import type { Finding } from '../finding.ts'
import { clash, compareHostPorts, type HostPort, hostPortsOf } from '../host-ports.ts'
import type { NodeName } from '../network.ts'
import { originOf } from '../state.ts'
import type { CheckInput } from './check.ts'

export function* checkHostPorts(input: CheckInput): Iterable<Finding> {
	const byNode = new Map<NodeName, HostPort[]>()
	for (const pod of input.model.pods.values()) {
		if (pod.node === undefined || !pod.ports.some((p) => p.hostPort !== undefined)) continue
		const list = byNode.get(pod.node)
		if (list === undefined) byNode.set(pod.node, hostPortsOf(pod))
		else list.push(...hostPortsOf(pod))
	}
	for (const [node, asked] of byNode) {
		yield* checkClashes(node, asked.sort(compareHostPorts))
		yield* checkHostIps(input, node, asked)
	}
	yield* checkReadable(input)
}

/** PW0021. A pod that goes and the one that takes its place are no clash. */
function* checkClashes(node: NodeName, asked: readonly HostPort[]): Iterable<Finding> {
	const staying = asked.filter((a) => !a.pod.terminating)
	for (const [i, late] of staying.entries()) {
		const first = staying.slice(0, i).find((a) => a.pod !== late.pod && clash(a, late))
		if (first === undefined) continue
		const says = first.at === late.at ? `only "${first.pod.key}" gets it` : 'the one with the hostIP gets that address'
		yield {
			code: 'PW0021',
			severity: 'error',
			text: `Pods "${first.pod.key}" and "${late.pod.key}" both ask for hostPort ${late.number}/${late.protocol} on node "${node}": ${says}`,
			because: [first.port.origin, late.port.origin],
		}
	}
}

/** PW0022 */
function* checkHostIps({ model }: CheckInput, node: NodeName, asked: readonly HostPort[]): Iterable<Finding> {
	const addresses = model.nodes.get(node)?.addresses
	if (addresses === undefined) return
	for (const { at, number, protocol, pod, port } of asked) {
		if (at === undefined || addresses.includes(at)) continue
		const loopback = at.startsWith('127.') || at === '::1'
		yield {
			code: 'PW0022',
			severity: 'warning',
			text: loopback
				? `Pod "${pod.key}" asks for hostPort ${number}/${protocol} on ${at}: what is sent from a loopback address never leaves its namespace, so nobody reaches it`
				: `Pod "${pod.key}" asks for hostPort ${number}/${protocol} on ${at}, which is no address of node "${node}" (${addresses.join(', ')})`,
			because: [port.origin],
		}
	}
}

/** PW0020 */
function* checkReadable({ state }: CheckInput): Iterable<Finding> {
	for (const [key, pod] of state.pods) {
		for (const [i, container] of (pod.spec?.containers ?? []).entries()) {
			for (const [j, { hostIP }] of (container.ports ?? []).entries()) {
				if (!hostIP || tryParseIp(hostIP) !== undefined) continue
				const field = `spec.containers[${i}].ports[${j}].hostIP`
				yield {
					code: 'PW0020',
					severity: 'error',
					text: `Pod "${key}" has hostIP ${JSON.stringify(hostIP)}, which is no IP address; its hostPort is left out`,
					because: [originOf(state, 'Pod', key, field)],
				}
			}
		}
	}
}
