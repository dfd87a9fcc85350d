// The node ports of a Service: those asked for, and free ones where none is (KEP-3668: the lowest are left to those who
// ask by number). A number is one Service's, whatever the protocol.

import type { Json, JsonObject } from '../../kube/schema/json.ts'
import { cause, refuse } from '../status.ts'
import type { StoreIndex } from '../store.ts'
import { pick } from './pick.ts'
import { type Fail, isExposed, needsHealthPort, needsNodePorts, portsOf, textOf } from './service-spec.ts'

export interface PortRange {
	readonly from: number
	readonly to: number
}

export interface PortContext {
	readonly ports: StoreIndex
	readonly range: PortRange
	readonly key: string
	readonly random: () => number
	readonly fail: Fail
}

/** The specification with its node ports; `old` is what it was. Throws what `fail` makes. */
export function withNodePorts(spec: JsonObject, old: JsonObject | undefined, context: PortContext): JsonObject {
	const { fail, range } = context
	// What is not exposed keeps what it says: the checks refuse it.
	if (!isExposed(spec)) return spec
	const wants = needsNodePorts(spec)
	const had = new Set(old === undefined ? [] : portsOf(old).map((p) => p.nodePort))
	/** nodePort → protocols that use it in this Service. */
	const used = new Map<number, Set<string>>()
	const use = (port: number, protocol: string) => {
		const protocols = used.get(port)
		if (protocols === undefined) used.set(port, new Set([protocol]))
		else protocols.add(protocol)
	}
	const protocolOf = (port: JsonObject) => textOf(port.protocol) || 'TCP'
	for (const [i, port] of portsOf(spec).entries()) {
		const wanted = port.nodePort
		if (typeof wanted !== 'number' || wanted === 0) continue
		const field = `spec.ports[${i}].nodePort`
		if (used.get(wanted)?.has(protocolOf(port))) throw fail(cause.duplicate(field, wanted))
		checkPort(wanted, field, had.has(wanted), context)
		use(wanted, protocolOf(port))
	}
	const ports: JsonObject[] = []
	for (const [i, port] of portsOf(spec).entries()) {
		if (!wants || (typeof port.nodePort === 'number' && port.nodePort !== 0)) {
			ports.push(port)
			continue
		}
		// The same port number under another protocol (DNS) shares the node port.
		const others = [...ports, ...portsOf(spec).slice(i + 1)]
		const shared = others.find((p) => p.port === port.port && typeof p.nodePort === 'number')?.nodePort as
			| number
			| undefined
		const free = shared !== undefined && shared !== 0 && !used.get(shared)?.has(protocolOf(port))
		const nodePort = free ? shared : takePort(used, context)
		use(nodePort, protocolOf(port))
		ports.push({ ...port, nodePort })
	}
	const out: Record<string, Json | undefined> = { ...spec, ports }
	if (!needsHealthPort(spec)) return out
	const field = 'spec.healthCheckNodePort'
	const wanted = spec.healthCheckNodePort
	if (typeof wanted !== 'number' || wanted === 0) out.healthCheckNodePort = takePort(used, context)
	else {
		if (old !== undefined && needsHealthPort(old) && old.healthCheckNodePort !== wanted)
			throw fail(
				cause.forbidden(
					field,
					'cannot change healthCheckNodePort on loadBalancer service with externalTraffic=Local during update',
				),
			)
		checkPort(wanted, field, old?.healthCheckNodePort === wanted, context)
		if (used.has(wanted)) throw fail(cause.duplicate(field, wanted))
	}
	return out

	function checkPort(port: number, field: string, mine: boolean, { ports, key }: PortContext): void {
		if (mine) return
		if (port < range.from || port > range.to) {
			const valid = `The range of valid ports is ${range.from}-${range.to}`
			throw fail(cause.invalid(field, port, `provided port is not in the valid range. ${valid}`))
		}
		const owner = ports.owner(String(port))
		if (owner !== undefined && owner !== key)
			throw fail(cause.invalid(field, port, 'provided port is already allocated'))
	}
}

function takePort(used: ReadonlyMap<number, unknown>, { ports, range, random }: PortContext): number {
	const size = range.to - range.from + 1
	// min(max(16, size/32), 128) are left to those who ask for a port by number; small ranges have no such band.
	const band = size <= 16 ? 0 : Math.min(Math.max(16, Math.floor(size / 32)), 128)
	const free = (port: bigint) => !used.has(Number(port)) && ports.owner(String(port)) === undefined
	const dynamic = BigInt(range.from + band)
	const port = pick(dynamic, BigInt(range.to), random, free) ?? pick(BigInt(range.from), dynamic - 1n, random, free)
	if (port === undefined) {
		throw refuse(
			'InternalError',
			`Internal error occurred: failed to allocate a nodePort: all of ${range.from}-${range.to} are taken`,
		)
	}
	return Number(port)
}
