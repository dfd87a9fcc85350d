// Loose reads of a Service's specification, shared by those who give it addresses, families and ports.

import type { StatusCause, UnknownObject } from '../../kube/objects/meta.ts'
import { isObject, type Json, type JsonObject } from '../../kube/schema/json.ts'

export type Family = 'IPv4' | 'IPv6'
export type Policy = 'SingleStack' | 'PreferDualStack' | 'RequireDualStack'
export type Fail = (...causes: StatusCause[]) => Error

/** What a headless Service has for an address. */
export const none = 'None'

export function specOf(service: UnknownObject): JsonObject {
	return isObject(service.spec) ? service.spec : {}
}

export function textOf(value: Json | undefined): string {
	return typeof value === 'string' ? value : ''
}

export function listOf(value: Json | undefined): readonly string[] {
	return Array.isArray(value) ? (value as readonly Json[]).filter((v) => typeof v === 'string') : []
}

export function typeOf(spec: JsonObject): string {
	return textOf(spec.type) || 'ClusterIP'
}

export function portsOf(spec: JsonObject): readonly JsonObject[] {
	return Array.isArray(spec.ports) ? (spec.ports as readonly Json[]).filter(isObject) : []
}

/** The addresses of a specification, `None` among them; those of one that has only the old field, too. */
export function clusterIpsOf(spec: JsonObject): readonly string[] {
	const ips = listOf(spec.clusterIPs)
	return ips.length > 0 ? ips : textOf(spec.clusterIP) === '' ? [] : [textOf(spec.clusterIP)]
}

/** The addresses a Service holds. */
export function addressesOf(service: UnknownObject): readonly string[] {
	const spec = specOf(service)
	return needsClusterIp(spec) ? clusterIpsOf(spec).filter((ip) => ip !== none) : []
}

/** The node ports a Service holds, that of its health check among them. */
export function nodePortsOf(service: UnknownObject): readonly number[] {
	const spec = specOf(service)
	const out = portsOf(spec)
		.map((port) => port.nodePort)
		.filter((port): port is number => typeof port === 'number' && port > 0)
	const health = spec.healthCheckNodePort
	if (typeof health === 'number' && health > 0) out.push(health)
	return out
}

export function needsClusterIp(spec: JsonObject): boolean {
	return typeOf(spec) !== 'ExternalName'
}

/** May have node ports. */
export function isExposed(spec: JsonObject): boolean {
	return typeOf(spec) === 'NodePort' || typeOf(spec) === 'LoadBalancer'
}

/** Gets node ports without asking for them. */
export function needsNodePorts(spec: JsonObject): boolean {
	const type = typeOf(spec)
	return type === 'NodePort' || (type === 'LoadBalancer' && spec.allocateLoadBalancerNodePorts !== false)
}

export function needsHealthPort(spec: JsonObject): boolean {
	return typeOf(spec) === 'LoadBalancer' && spec.externalTrafficPolicy === 'Local'
}

/** Traffic from outside may reach it by more than its cluster address. */
export function isReachable(spec: JsonObject): boolean {
	return isExposed(spec) || (typeOf(spec) === 'ClusterIP' && listOf(spec.externalIPs).length > 0)
}

export function sameList(a: readonly unknown[], b: readonly unknown[]): boolean {
	return a.length === b.length && a.every((value, i) => value === b[i])
}
