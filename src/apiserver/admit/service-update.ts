// What an update of a Service that leaves things out, or that changes its type, means: what was allocated is carried
// over, what the new type has no use for and the client did not touch is dropped.
// Rules: registry/core/service/strategy.go (dropTypeDependentFields), storage/storage.go (patchAllocatedValues,
// normalizeClusterIPs).

import type { Json, JsonObject } from '../../kube/schema/json.ts'
import {
	clusterIpsOf,
	isExposed,
	isReachable,
	listOf,
	needsClusterIp,
	needsHealthPort,
	needsNodePorts,
	portsOf,
	sameList,
	textOf,
	typeOf,
} from './service-spec.ts'

type Draft = Record<string, Json | undefined>

/** The specification with what the one before says about it. */
export function carryOver(spec: JsonObject, old: JsonObject): JsonObject {
	const next: Draft = { ...spec }
	carryAddresses(next, old)
	carryPorts(next, old)
	dropUnused(next, old)
	return next
}

function carryAddresses(next: Draft, old: JsonObject): void {
	if (!needsClusterIp(old) || !needsClusterIp(next)) return
	if (textOf(next.clusterIP) === '') next.clusterIP = old.clusterIP
	const given = listOf(next.clusterIPs)
	if (given.length === 0 && next.clusterIP === old.clusterIP) next.clusterIPs = old.clusterIPs
	// Who changes the one means the other, too.
	else if (given.length === 0 || (next.clusterIP !== old.clusterIP && sameList(given, listOf(old.clusterIPs))))
		next.clusterIPs = [next.clusterIP as string]
}

function carryPorts(next: Draft, old: JsonObject): void {
	if (needsHealthPort(next) && needsHealthPort(old) && !next.healthCheckNodePort) {
		if (old.healthCheckNodePort !== undefined) next.healthCheckNodePort = old.healthCheckNodePort
	}
	if (!needsNodePorts(next) || !needsNodePorts(old) || portsOf(next).length === 0) return
	// A port is the same port when its name is; those without one are one.
	const had = new Map(portsOf(old).map((port) => [textOf(port.name), port.nodePort]))
	const before = new Set(had.values())
	const used = new Set(portsOf(next).flatMap((port) => (before.has(port.nodePort) ? [port.nodePort] : [])))
	next.ports = portsOf(next).map((port) => {
		if (port.nodePort !== undefined && port.nodePort !== 0) return port
		const nodePort = had.get(textOf(port.name))
		if (nodePort === undefined || nodePort === 0 || used.has(nodePort)) return port
		used.add(nodePort)
		return { ...port, nodePort }
	})
}

function dropUnused(next: Draft, old: JsonObject): void {
	const same = (field: string) => next[field] === old[field]
	if (needsClusterIp(old) && !needsClusterIp(next)) {
		if (sameList(clusterIpsOf(next), clusterIpsOf(old))) {
			delete next.clusterIP
			delete next.clusterIPs
		}
		if (sameList(listOf(next.ipFamilies), listOf(old.ipFamilies))) delete next.ipFamilies
		if (same('ipFamilyPolicy')) delete next.ipFamilyPolicy
	}
	if (isExposed(old) && !isExposed(next) && sameList(numbersOf(next), numbersOf(old)) && portsOf(next).length > 0)
		next.ports = portsOf(next).map(({ nodePort: _, ...port }) => port)
	if (needsHealthPort(old) && !needsHealthPort(next) && same('healthCheckNodePort')) delete next.healthCheckNodePort
	if (typeOf(old) === 'LoadBalancer' && typeOf(next) !== 'LoadBalancer') {
		if (same('allocateLoadBalancerNodePorts')) delete next.allocateLoadBalancerNodePorts
		if (same('loadBalancerClass')) delete next.loadBalancerClass
	}
	if (isReachable(old) && !isReachable(next) && same('externalTrafficPolicy')) delete next.externalTrafficPolicy
}

/** The node ports of a specification, each once, sorted. */
function numbersOf(spec: JsonObject): readonly number[] {
	const numbers = portsOf(spec).flatMap((port) => (typeof port.nodePort === 'number' ? [port.nodePort] : []))
	return [...new Set(numbers)].sort((a, b) => a - b)
}
