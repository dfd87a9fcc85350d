// Checks of Services. Source: ValidateService and ValidateServiceUpdate in Kubernetes' pkg/apis/core/validation.

import { tryParseIp } from '../../base/ip.ts'
import { type JsonObject, sameJson } from '../../kube/schema/json.ts'
import { checkLabels } from './metadata.ts'
import { cidrFaults, ipFaults, labelFaults, portNameFaults, qualifiedNameFaults, subdomainFaults } from './names.ts'
import { isSet, objectAt, objectsAt, type Report, textAt, textsAt } from './report.ts'

export const protocols = ['SCTP', 'TCP', 'UDP']

export function checkService(service: JsonObject, report: Report): void {
	const spec = objectAt(service, 'spec')
	const type = textAt(spec, 'type')
	report.oneOf('spec.type', type, ['ClusterIP', 'ExternalName', 'LoadBalancer', 'NodePort'])
	const clusterIPs = textsAt(spec, 'clusterIPs')
	const isHeadless = textAt(spec, 'clusterIP') === 'None' || clusterIPs[0] === 'None'
	const ports = objectsAt(spec, 'ports')

	if (type === 'ExternalName') {
		const name = textAt(spec, 'externalName')
		if (name === '') report.required('spec.externalName')
		else report.invalidFor('spec.externalName', name, subdomainFaults(name.replace(/\.$/, '').toLowerCase()))
		if (clusterIPs.length > 0 || isSet(spec.clusterIP))
			report.forbidden('spec.clusterIPs', 'may not be set for ExternalName services')
	} else if (ports.length === 0 && !isHeadless) report.required('spec.ports')
	if (isHeadless && (type === 'NodePort' || type === 'LoadBalancer'))
		report.invalid('spec.clusterIPs[0]', 'None', `may not be set to 'None' for ${type} services`)

	checkPorts(ports, type, report)
	checkLabels(objectAt(spec, 'selector'), 'spec.selector', report)
	checkAffinity(spec, report)
	checkAddresses(spec, report)
	checkPolicies(spec, type, report)
}

function checkPorts(ports: readonly JsonObject[], type: string, report: Report): void {
	const names = new Set<string>()
	const numbers = new Set<string>()
	const nodePorts = new Set<string>()
	ports.forEach((port, i) => {
		const at = `spec.ports[${i}]`
		const name = textAt(port, 'name')
		if (name === '') {
			if (ports.length > 1) report.required(`${at}.name`)
		} else {
			report.invalidFor(`${at}.name`, name, labelFaults(name))
			if (names.has(name)) report.duplicate(`${at}.name`, name)
			names.add(name)
		}
		const number = typeof port.port === 'number' ? port.port : 0
		report.between(`${at}.port`, number, 1, 65535)
		const protocol = textAt(port, 'protocol')
		if (protocol === '') report.required(`${at}.protocol`)
		else report.oneOf(`${at}.protocol`, protocol, protocols)
		checkPortOrName(port.targetPort, `${at}.targetPort`, report)
		if (isSet(port.appProtocol))
			report.invalidFor(`${at}.appProtocol`, port.appProtocol, qualifiedNameFaults(String(port.appProtocol)))
		const key = `${protocol} ${number}`
		if (numbers.has(key)) report.duplicate(at, { protocol, port: number })
		numbers.add(key)
		const nodePort = port.nodePort
		if (typeof nodePort === 'number' && nodePort !== 0) {
			if (type === 'ClusterIP' || type === 'ExternalName')
				report.forbidden(`${at}.nodePort`, `may not be used when \`type\` is '${type}'`)
			const nodeKey = `${protocol} ${nodePort}`
			if (nodePorts.has(nodeKey)) report.duplicate(`${at}.nodePort`, nodePort)
			nodePorts.add(nodeKey)
		}
	})
}

/** A number from 1 to 65535, or a port's name. */
export function checkPortOrName(value: unknown, at: string, report: Report): void {
	if (typeof value === 'number') report.between(at, value, 1, 65535)
	else if (typeof value === 'string') report.invalidFor(at, value, portNameFaults(value))
}

function checkAffinity(spec: JsonObject, report: Report): void {
	const affinity = textAt(spec, 'sessionAffinity')
	if (affinity === '') report.required('spec.sessionAffinity')
	else report.oneOf('spec.sessionAffinity', affinity, ['ClientIP', 'None'])
	if (affinity === 'ClientIP') {
		const at = 'spec.sessionAffinityConfig.clientIP.timeoutSeconds'
		const seconds = objectAt(objectAt(spec, 'sessionAffinityConfig'), 'clientIP').timeoutSeconds
		if (!isSet(seconds)) report.required('spec.sessionAffinityConfig', 'when session affinity type is ClientIP')
		else report.between(at, seconds, 1, 86400)
	} else if (isSet(spec.sessionAffinityConfig))
		report.forbidden('spec.sessionAffinityConfig', 'must not be set when session affinity is None')
}

function checkAddresses(spec: JsonObject, report: Report): void {
	const clusterIP = textAt(spec, 'clusterIP')
	const clusterIPs = textsAt(spec, 'clusterIPs')
	if (clusterIPs.length === 0) {
		if (clusterIP !== '' && clusterIP !== 'None') report.invalidFor('spec.clusterIP', clusterIP, ipFaults(clusterIP))
	} else if (clusterIP !== clusterIPs[0])
		report.invalid('spec.clusterIPs', clusterIPs, 'first value must match `clusterIP`')
	if (clusterIPs.length > 2) report.invalid('spec.clusterIPs', clusterIPs, 'may only hold up to 2 values')
	clusterIPs.forEach((ip, i) => {
		const at = `spec.clusterIPs[${i}]`
		if (ip === 'None') {
			if (clusterIPs.length > 1)
				report.invalid('spec.clusterIPs', clusterIPs, "'None' must be the first and only value")
		} else report.invalidFor(at, ip, ipFaults(ip))
	})
	const families = textsAt(spec, 'ipFamilies')
	families.forEach((family, i) => {
		report.oneOf(`spec.ipFamilies[${i}]`, family, ['IPv4', 'IPv6'])
		if (families.indexOf(family) < i) report.duplicate(`spec.ipFamilies[${i}]`, family)
	})
	report.oneOf('spec.ipFamilyPolicy', spec.ipFamilyPolicy, ['PreferDualStack', 'RequireDualStack', 'SingleStack'])
	families.forEach((family, i) => {
		const ip = clusterIPs[i] === undefined ? undefined : tryParseIp(clusterIPs[i])
		if (ip && ip.includes(':') !== (family === 'IPv6'))
			report.invalid(
				`spec.clusterIPs[${i}]`,
				clusterIPs[i],
				`expected an ${family} value as indicated by \`ipFamilies[${i}]\``,
			)
	})
	textsAt(spec, 'externalIPs').forEach((ip, i) => {
		const at = `spec.externalIPs[${i}]`
		const faults = ipFaults(ip)
		report.invalidFor(at, ip, faults)
		if (faults.length === 0) report.invalidFor(at, ip, specialIpFaults(ip))
	})
}

/** Addresses no endpoint and no external address may have. */
export function specialIpFaults(ip: string): string[] {
	const address = tryParseIp(ip)
	if (!address) return []
	if (address === '0.0.0.0' || address === '::') return [`may not be unspecified (${address})`]
	if (address.startsWith('127.') || address === '::1')
		return ['may not be in the loopback range (127.0.0.0/8, ::1/128)']
	if (address.startsWith('169.254.') || /^fe[89ab]/.test(address))
		return ['may not be in the link-local range (169.254.0.0/16, fe80::/10)']
	if (/^224\.0\.0\./.test(address) || address.startsWith('ff02:'))
		return ['may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)']
	return []
}

function checkPolicies(spec: JsonObject, type: string, report: Report): void {
	const external = spec.externalTrafficPolicy
	const isPublished =
		type === 'NodePort' || type === 'LoadBalancer' || (type === 'ClusterIP' && textsAt(spec, 'externalIPs').length > 0)
	if (isSet(external)) {
		if (!isPublished)
			report.invalid('spec.externalTrafficPolicy', external, 'may only be set for externally-accessible services')
		else report.oneOf('spec.externalTrafficPolicy', external, ['Cluster', 'Local'])
	}
	report.oneOf('spec.internalTrafficPolicy', spec.internalTrafficPolicy, ['Cluster', 'Local'])
	report.oneOf('spec.trafficDistribution', spec.trafficDistribution, [
		'PreferClose',
		'PreferSameNode',
		'PreferSameZone',
	])
	const healthPort = spec.healthCheckNodePort
	if (typeof healthPort === 'number' && healthPort !== 0) {
		if (type !== 'LoadBalancer' || external !== 'Local')
			report.invalid(
				'spec.healthCheckNodePort',
				healthPort,
				"may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
			)
		else report.between('spec.healthCheckNodePort', healthPort, 1, 65535)
	}
	const ranges = textsAt(spec, 'loadBalancerSourceRanges')
	if (ranges.length > 0 && type !== 'LoadBalancer')
		report.forbidden('spec.loadBalancerSourceRanges', "may only be used when `type` is 'LoadBalancer'")
	ranges.forEach((range, i) => {
		report.invalidFor(`spec.loadBalancerSourceRanges[${i}]`, range, cidrFaults(range.trim()))
	})
	if (isSet(spec.allocateLoadBalancerNodePorts) && type !== 'LoadBalancer')
		report.forbidden('spec.allocateLoadBalancerNodePorts', "may only be used when `type` is 'LoadBalancer'")
	const loadBalancerClass = spec.loadBalancerClass
	if (isSet(loadBalancerClass)) {
		if (type !== 'LoadBalancer')
			report.forbidden('spec.loadBalancerClass', "may only be used when `type` is 'LoadBalancer'")
		else report.invalidFor('spec.loadBalancerClass', loadBalancerClass, qualifiedNameFaults(String(loadBalancerClass)))
	}
}

/** What a load balancer says of itself, in the status of a Service (ValidateLoadBalancerStatus). */
export function checkServiceStatus(service: JsonObject, before: JsonObject, report: Report): void {
	const balancer = objectAt(objectAt(service, 'status'), 'loadBalancer')
	const points = objectsAt(balancer, 'ingress')
	const type = textAt(objectAt(service, 'spec'), 'type')
	const same = sameJson(balancer, objectAt(objectAt(before, 'status'), 'loadBalancer'))
	if (same) return
	const at = 'status.loadBalancer.ingress'
	if (type !== 'LoadBalancer' && points.length > 0)
		report.forbidden(at, 'may only be used when `spec.type` is "LoadBalancer"')
	points.forEach((point, i) => {
		checkIngressPoint(point, `${at}[${i}]`, report)
		if (textAt(point, 'ip') === '') {
			if (isSet(point.ipMode)) report.forbidden(`${at}[${i}].ipMode`, 'may not be specified when `ip` is not set')
		} else if (!isSet(point.ipMode)) {
			if (type === 'LoadBalancer') report.required(`${at}[${i}].ipMode`, 'must be specified when `ip` is set')
		} else report.oneOf(`${at}[${i}].ipMode`, point.ipMode, ['Proxy', 'VIP'])
	})
}

/** An address or a name of a load balancer. */
export function checkIngressPoint(point: JsonObject, at: string, report: Report): void {
	const ip = textAt(point, 'ip')
	if (ip !== '') report.invalidFor(`${at}.ip`, ip, ipFaults(ip))
	const hostname = textAt(point, 'hostname')
	if (hostname === '') return
	report.invalidFor(`${at}.hostname`, hostname, subdomainFaults(hostname))
	if (tryParseIp(hostname)) report.invalid(`${at}.hostname`, hostname, 'must be a DNS name, not an IP address')
}

export function checkServiceUpdate(before: JsonObject, after: JsonObject, report: Report): void {
	const had = objectAt(before, 'spec')
	const has = objectAt(after, 'spec')
	if (had.type === 'ExternalName' || has.type === 'ExternalName') return
	const was = textsAt(had, 'clusterIPs')
	const is = textsAt(has, 'clusterIPs')
	const first = was[0] ?? textAt(had, 'clusterIP')
	const now = is[0] ?? textAt(has, 'clusterIP')
	if (first !== '' && now === '') report.invalid('spec.clusterIPs[0]', is, 'primary clusterIP can not be unset')
	else if (first !== '' && now !== first) report.invalid('spec.clusterIPs[0]', is, 'may not change once set')
	if (was[1] !== undefined && is[1] !== undefined && is[1] !== was[1])
		report.invalid('spec.clusterIPs[1]', is, 'may not change once set')
	const families = textsAt(had, 'ipFamilies')
	const next = textsAt(has, 'ipFamilies')
	if (families[0] !== undefined && next[0] !== undefined && families[0] !== next[0])
		report.invalid('spec.ipFamilies[0]', next, 'may not change once set')
	if (
		had.type === 'LoadBalancer' &&
		has.type === 'LoadBalancer' &&
		!sameJson(had.loadBalancerClass, has.loadBalancerClass)
	)
		report.invalid('spec.loadBalancerClass', has.loadBalancerClass, 'may not change once set')
}
