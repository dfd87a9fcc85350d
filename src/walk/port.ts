// Which port and protocol a flow has: as written, or the only one there is, or by name on the Service or pod.

import { Failure } from '../base/failure.ts'
import type { Protocol } from '../base/packet.ts'
import { servicesAt } from '../model/frontends.ts'
import type { NetworkModel, Pod, Service } from '../model/network.ts'
import type { FlowRequest, Target } from './endpoint.ts'
import type { PortText } from './endpoint-text.ts'

export interface Chosen {
	readonly protocol: Protocol
	readonly port: number
}

/** Something that has ports, as messages list them. */
interface Candidate extends Chosen {
	readonly name?: string
}

export function portOf(
	model: NetworkModel,
	target: Target,
	text: PortText | undefined,
	namespace: string,
	request: FlowRequest,
): Chosen {
	const known = candidates(model, target, namespace)
	const protocol = text?.protocol ?? request.protocol
	if (protocol === 'ICMP') return { protocol, port: 0 }
	const possible = known.ports.filter((p) => protocol === undefined || p.protocol === protocol)
	if (text === undefined) {
		if (possible.length === 1) return pick(possible[0]!)
		throw new Failure('MissingPort', `Cannot trace to "${request.to}": name a port${listText(known)}`, {
			ports: known.ports,
		})
	}
	const { port } = text
	if (typeof port === 'string') {
		const named = possible.find((p) => p.name === port)
		if (named !== undefined) return pick(named)
		throw new Failure(
			'UnknownPort',
			`Cannot trace to "${request.to}": ${known.what} has no port "${port}"${listText(known)}`,
			{ ports: known.ports },
		)
	}
	if (protocol !== undefined) return { protocol, port }
	// 53 of a Service that has it for UDP only means UDP; where TCP has it too, TCP.
	const same = possible.filter((p) => p.port === port)
	const tcp = same.length === 0 || same.some((p) => p.protocol === 'TCP')
	return { protocol: tcp ? 'TCP' : same[0]!.protocol, port }
}

function pick({ protocol, port }: Candidate): Chosen {
	return { protocol, port }
}

interface Known {
	readonly what: string
	readonly ports: readonly Candidate[]
}

function listText({ what, ports }: Known): string {
	if (ports.length === 0) return ''
	const texts = ports.map(
		(p) => `${p.protocol === 'TCP' ? '' : `${p.protocol.toLowerCase()}/`}${p.port}${p.name ? ` (${p.name})` : ''}`,
	)
	return `; ${what} has ${texts.join(', ')}`
}

function candidates(model: NetworkModel, target: Target, namespace: string): Known {
	switch (target.kind) {
		case 'service':
			return ofService(target.service)
		case 'pod':
			return ofPod(target.pod, `pod "${target.pod.key}"`)
		case 'workload':
			return ofPod(target.pods[0]!, `${target.owner.kind} "${target.owner.key}"`)
		case 'ip': {
			const owner = model.addresses.get(target.ip)
			const service = owner?.kind === 'service' ? model.services.get(owner.service) : undefined
			if (service !== undefined) return ofService(service)
			const pod = owner?.kind === 'pod' ? model.pods.get(owner.pod) : undefined
			if (pod !== undefined) return ofPod(pod, `pod "${pod.key}"`)
			return { what: target.ip, ports: servicesAt(model, target.ip).flatMap((s) => ofService(s).ports) }
		}
		case 'name': {
			const service = serviceByName(model, target.name, namespace)
			return service === undefined ? { what: `"${target.name}"`, ports: [] } : ofService(service)
		}
		case 'node':
			return { what: `node "${target.node.name}"`, ports: [] }
		case 'outside':
			return { what: 'a host outside', ports: [] }
		default: {
			const never: never = target
			throw new Error(`No such target: ${JSON.stringify(never)}`)
		}
	}
}

function ofService(service: Service): Known {
	const ports = service.ports.map(({ name, protocol, port }) => ({ name, protocol, port }))
	return { what: `Service "${service.key}"`, ports }
}

function ofPod(pod: Pod, what: string): Known {
	const ports = pod.ports.map(({ name, protocol, port }) => ({
		...(name === undefined ? {} : { name }),
		protocol,
		port,
	}))
	return { what, ports }
}

/** `web`, `web.shop`, `web.shop.svc`, `web.shop.svc.cluster.local`: only to know its ports, the walk resolves it properly. */
function serviceByName(model: NetworkModel, name: string, namespace: string): Service | undefined {
	const domain = `.svc.${model.config.clusterDomain}`
	let rest = name.replace(/\.$/, '')
	if (rest.endsWith(domain)) rest = rest.slice(0, -domain.length)
	else if (rest.endsWith('.svc')) rest = rest.slice(0, -4)
	const [service = '', place = namespace, ...more] = rest.split('.')
	return more.length > 0 ? undefined : model.services.get(`${place}/${service}`)
}
