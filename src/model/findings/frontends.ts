// Services that cannot be reached as they say: addresses and ports that two claim, load balancers without an address,
// external IPs nobody routes, source ranges that restrict nothing or everything.

import { type Cidr, cidrAddress, cidrContains, cidrLength, familyOf, type Ip, tryParseCidr } from '../../base/ip.ts'
import type { Finding } from '../finding.ts'
import { externalIpsOff, isProxied, nodePortIps } from '../frontends.ts'
import type { Service } from '../network.ts'
import { type Origin, objectOrigin } from '../origin.ts'
import { originOf } from '../state.ts'
import type { CheckInput } from './check.ts'

export function* checkFrontends(input: CheckInput): Iterable<Finding> {
	yield* checkClaims(input)
	yield* checkHealthPorts(input)
	yield* checkNodePortAddresses(input)
	for (const service of input.model.services.values()) {
		yield* checkBalancer(service)
		yield* checkExternalIps(input, service)
		yield* checkRanges(input, service)
		yield* checkNodePorts(service)
		if (service.otherProxy !== undefined && service.clusterIps.length > 0) {
			yield {
				code: 'PW0036',
				severity: 'info',
				text: `Service "${service.key}" is labelled for another proxy: no node translates its addresses`,
				because: [service.otherProxy],
			}
		}
	}
}

/** PW0023 (no address yet), PW0024 (a class nobody here serves) */
function* checkBalancer(service: Service): Iterable<Finding> {
	const { loadBalancer } = service
	if (loadBalancer === undefined || loadBalancer.ingress.length > 0) return
	const { by, requestedIp } = loadBalancer
	if (by === undefined) {
		yield {
			code: 'PW0024',
			severity: 'warning',
			text: `Service "${service.key}" asks for load balancer class "${loadBalancer.class}", which nobody has answered: it gets no address until a controller of that class runs`,
			because: [service.fields?.loadBalancerClass ?? service.origin],
		}
		return
	}
	const wish =
		requestedIp === undefined ? '' : ` (it asks for ${requestedIp}: that must lie in an address pool and be free)`
	const asked = requestedIp === undefined ? service.fields?.type : service.fields?.loadBalancerIP
	yield {
		code: 'PW0023',
		severity: 'warning',
		text: `Service "${service.key}" is of type LoadBalancer and has no address yet${wish}: nobody outside reaches it by one`,
		because: [asked ?? service.origin],
	}
}

/** PW0025 */
function* checkClaims({ frontendClaims, model }: CheckInput): Iterable<Finding> {
	for (const [, claims] of frontendClaims) {
		for (const [i, late] of claims.entries()) {
			const first = claims.find((c) => c.key === late.key)!
			// Once for each Service that loses, not for each of its further losses.
			if (
				first.service === late.service ||
				claims.findIndex((c) => c.key === late.key && c.service === late.service) < i
			)
				continue
			const why =
				first.kind === late.kind ? 'it is the older one, or first by name' : 'a load balancer goes before externalIPs'
			yield {
				code: 'PW0025',
				severity: 'error',
				text: `Services "${first.service}" and "${late.service}" both claim ${frontendText(late.key)}: only "${first.service}" gets it, ${why}`,
				because: [originOfService(model, first.service), originOfService(model, late.service)],
			}
		}
	}
}

function frontendText(key: string): string {
	const [ip = '', protocol = '', port = ''] = key.split(' ')
	if (ip.startsWith('*')) return `node port ${port}/${protocol}${ip === '*6' ? ' (IPv6)' : ''}`
	return `${ip} port ${port}/${protocol}`
}

function originOfService(model: CheckInput['model'], key: string): Origin {
	return model.services.get(key)?.origin ?? objectOrigin('Service', key)
}

/** PW0026 (somebody has the address), PW0027 (nobody routes it) */
function* checkExternalIps({ model }: CheckInput, service: Service): Iterable<Finding> {
	if (!isProxied(service)) return
	const because = [service.fields?.externalIPs ?? service.origin]
	const ignored = service.ignoredExternalIps ?? []
	if (ignored.length > 0) {
		yield {
			code: 'PW0027',
			severity: 'warning',
			text: `Service "${service.key}" has ${ignored.length === 1 ? 'the external IP' : 'the external IPs'} ${ignored.join(', ')}: no node answers there, the feature gate AllowServiceExternalIPs is off`,
			because: [...because, externalIpsOff],
		}
	}
	if (service.externalIps.length === 0) return
	const unrouted: Ip[] = []
	const families = new Set(service.clusterIps.map((ip) => familyOf(ip)))
	for (const ip of service.externalIps) {
		if (!families.has(familyOf(ip))) {
			yield {
				code: 'PW0027',
				severity: 'warning',
				text: `Service "${service.key}" has the external IP ${ip} and no ClusterIP of that family: it is not proxied in it, no node answers there`,
				because,
			}
			continue
		}
		const owner = model.addresses.get(ip)
		if (owner?.kind === 'pod') {
			yield {
				code: 'PW0026',
				severity: 'error',
				text: `Service "${service.key}" has the external IP ${ip}, which is the address of pod "${owner.pod}": it takes that pod's connections to its ports`,
				because: [...because, ...originsOf(model.pods.get(owner.pod)?.origin)],
			}
		} else if (owner?.kind === 'service') {
			yield {
				code: 'PW0026',
				severity: 'error',
				text: `Service "${service.key}" has the external IP ${ip}, which is the ClusterIP of Service "${owner.service}": it is ignored`,
				because: [...because, ...originsOf(model.services.get(owner.service)?.origin)],
			}
		} else if (owner === undefined) unrouted.push(ip)
	}
	if (unrouted.length === 0) return
	yield {
		code: 'PW0027',
		severity: 'info',
		text: `Service "${service.key}" has ${unrouted.length === 1 ? 'the external IP' : 'the external IPs'} ${unrouted.join(', ')}: nodes answer there, but nothing in the cluster routes it to a node; externalIPs are deprecated since Kubernetes 1.36`,
		because,
	}
}

function originsOf(origin: Origin | undefined): Origin[] {
	return origin === undefined ? [] : [origin]
}

/** PW0028 (ranges without effect, or that let nobody in), PW0029 (that keep the cluster out), PW0020 */
function* checkRanges({ state, model }: CheckInput, service: Service): Iterable<Finding> {
	const texts = state.services.get(service.key)?.spec?.loadBalancerSourceRanges ?? []
	for (const [i, text] of texts.entries()) {
		if (tryParseCidr(text.trim(), { mask: true }) !== undefined) continue
		yield {
			code: 'PW0020',
			severity: 'error',
			text: `Service "${service.key}" has the source range ${JSON.stringify(text)}, which is no network: it is left out`,
			because: [originOf(state, 'Service', service.key, `spec.loadBalancerSourceRanges[${i}]`)],
		}
	}
	const because = [service.fields?.loadBalancerSourceRanges ?? service.origin]
	if (service.loadBalancer === undefined) {
		if (texts.length === 0) return
		yield {
			code: 'PW0028',
			severity: 'warning',
			text: `Service "${service.key}" has loadBalancerSourceRanges, but its type is ${service.type}: they restrict nothing`,
			because,
		}
		return
	}
	const { sourceRanges, ingress } = service.loadBalancer
	if (sourceRanges.length === 0) return
	const addresses = ingress.flatMap(({ ip }) => ip ?? [])
	const families = new Set((addresses.length > 0 ? addresses : service.clusterIps).map((ip) => familyOf(ip)))
	for (const family of families) {
		const name = family === 4 ? 'IPv4' : 'IPv6'
		const ranges = sourceRanges.filter((cidr) => familyOf(cidr) === family)
		if (ranges.length === 0) {
			yield {
				code: 'PW0028',
				severity: 'warning',
				text: `Service "${service.key}" has no source range of ${name}: its ${name} address is open to everybody`,
				because,
			}
		} else if (ranges.every(isNobody)) {
			yield {
				code: 'PW0028',
				severity: 'error',
				text: `Service "${service.key}" lets only ${ranges.join(', ')} in, where no client can come from`,
				because,
			}
		} else {
			const outsiders = model.config.podCidrs.filter(
				(cidr) => familyOf(cidr) === family && !ranges.some((range) => overlap(range, cidr)),
			)
			if (outsiders.length === 0) continue
			yield {
				code: 'PW0029',
				severity: 'info',
				text: `Service "${service.key}" lets only ${ranges.join(', ')} in, none of it in the pod network ${outsiders.join(', ')}: pods that use its load balancer's address are dropped on their own node`,
				because,
			}
		}
	}
}

function overlap(a: Cidr, b: Cidr): boolean {
	return cidrContains(a, cidrAddress(b)) || cidrContains(b, cidrAddress(a))
}

/** Loopback, the unspecified address, multicast: no packet from there crosses a network. */
const nobodys = ['0.0.0.0/32', '127.0.0.0/8', '224.0.0.0/4', '::/128', '::1/128', 'ff00::/8'].map((c) => c as Cidr)

function isNobody(cidr: Cidr): boolean {
	return nobodys.some(
		(n) => familyOf(n) === familyOf(cidr) && cidrLength(n) <= cidrLength(cidr) && cidrContains(n, cidrAddress(cidr)),
	)
}

/** PW0030 */
function* checkHealthPorts({ model }: CheckInput): Iterable<Finding> {
	const takers = new Map<number, { what: string; origin: Origin }>()
	const services = [...model.services.values()].sort((a, b) => (a.key < b.key ? -1 : 1))
	for (const service of services) {
		for (const port of service.ports) {
			if (port.nodePort === undefined || port.protocol !== 'TCP' || takers.has(port.nodePort)) continue
			takers.set(port.nodePort, { what: `the node port of Service "${service.key}"`, origin: port.origin })
		}
	}
	for (const pod of model.pods.values()) {
		for (const { hostPort, protocol, origin } of pod.ports) {
			if (hostPort !== undefined && protocol === 'TCP' && !takers.has(hostPort))
				takers.set(hostPort, { what: `the hostPort of pod "${pod.key}"`, origin })
		}
	}
	for (const service of services) {
		const { healthCheckNodePort: port } = service
		if (port === undefined) continue
		const origin = service.fields?.healthCheckNodePort ?? service.origin
		const taker = takers.get(port)
		if (taker === undefined) {
			takers.set(port, { what: `the health check port of Service "${service.key}"`, origin })
			continue
		}
		yield {
			code: 'PW0030',
			severity: 'error',
			text: `Service "${service.key}" has healthCheckNodePort ${port}, which is ${taker.what} as well: load balancers ask somebody else about its health`,
			because: [origin, taker.origin],
		}
	}
}

/** The range the API server gives node ports of, unless it is told otherwise (--service-node-port-range). */
const nodePortRange = { from: 30000, to: 32767 }

/** PW0035 */
function* checkNodePorts(service: Service): Iterable<Finding> {
	for (const port of service.ports) {
		const { nodePort } = port
		if (nodePort === undefined || (nodePort >= nodePortRange.from && nodePort <= nodePortRange.to)) continue
		yield {
			code: 'PW0035',
			severity: 'warning',
			text: `Service "${service.key}" has node port ${nodePort}, outside of ${nodePortRange.from}-${nodePortRange.to}: an API server with the usual range refuses it`,
			because: [port.origin],
		}
	}
}

/** PW0035 */
function* checkNodePortAddresses({ model }: CheckInput): Iterable<Finding> {
	if (![...model.services.values()].some((s) => isProxied(s) && s.ports.some((p) => p.nodePort !== undefined))) return
	for (const node of [...model.nodes.values()].sort((a, b) => (a.name < b.name ? -1 : 1))) {
		if (nodePortIps(model, node).length > 0) continue
		const why =
			node.addresses.length === 0
				? 'it has no InternalIP'
				: `none of its addresses ${node.addresses.join(', ')} lies in ${model.config.nodePortAddresses?.join(', ')}`
		yield {
			code: 'PW0035',
			severity: 'warning',
			text: `Node "${node.name}" answers at no node port: ${why}`,
			because: [node.origin],
		}
	}
}
