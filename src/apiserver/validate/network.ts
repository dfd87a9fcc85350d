// Checks of EndpointSlice, Endpoints, NetworkPolicy, Ingress, IngressClass, IPAddress, ServiceCIDR.
// Source: Kubernetes' pkg/apis/discovery/validation and pkg/apis/networking/validation.

import { cidrContains, cidrLength, tryParseCidr, tryParseIp } from '../../base/ip.ts'
import { type JsonObject, sameJson } from '../../kube/schema/json.ts'
import { checkSelector } from './metadata.ts'
import { cidrFaults, ipFaults, labelFaults, labelValueFaults, qualifiedNameFaults, subdomainFaults } from './names.ts'
import { isSet, objectAt, objectsAt, type Report, textAt, textsAt } from './report.ts'
import { checkPortOrName, protocols, specialIpFaults } from './service.ts'

const mostEndpoints = 1000
const mostAddresses = 100
const mostPorts = 20_000
const mostHints = 8

export function checkEndpointSlice(slice: JsonObject, report: Report): void {
	const type = textAt(slice, 'addressType')
	if (type === '') report.required('addressType')
	else report.oneOf('addressType', type, ['FQDN', 'IPv4', 'IPv6'])
	const endpoints = objectsAt(slice, 'endpoints')
	if (endpoints.length > mostEndpoints) report.tooMany('endpoints', endpoints.length, mostEndpoints)
	else
		endpoints.forEach((endpoint, i) => {
			checkEndpoint(endpoint, type, `endpoints[${i}]`, report)
		})
	const ports = objectsAt(slice, 'ports')
	if (ports.length > mostPorts) {
		report.tooMany('ports', ports.length, mostPorts)
		return
	}
	const names = new Set<string>()
	ports.forEach((port, i) => {
		const name = textAt(port, 'name')
		if (name !== '') report.invalidFor(`ports[${i}].name`, name, labelFaults(name))
		if (names.has(name)) report.duplicate(`ports[${i}].name`, name)
		names.add(name)
		if (!isSet(port.protocol)) report.required(`ports[${i}].protocol`)
		else report.oneOf(`ports[${i}].protocol`, port.protocol, protocols)
		report.between(`ports[${i}].port`, port.port, 1, 65535)
		if (isSet(port.appProtocol))
			report.invalidFor(`ports[${i}].appProtocol`, port.appProtocol, qualifiedNameFaults(String(port.appProtocol)))
	})
}

function checkEndpoint(endpoint: JsonObject, type: string, at: string, report: Report): void {
	const addresses = textsAt(endpoint, 'addresses')
	if (addresses.length === 0) report.required(`${at}.addresses`, 'must contain at least 1 address')
	else if (addresses.length > mostAddresses) report.tooMany(`${at}.addresses`, addresses.length, mostAddresses)
	else
		addresses.forEach((address, i) => {
			const where = `${at}.addresses[${i}]`
			if (type === 'FQDN') {
				report.invalidFor(where, address, subdomainFaults(address))
				return
			}
			const faults = ipFaults(address)
			report.invalidFor(where, address, faults)
			if (faults.length > 0) return
			if (address.includes(':') !== (type === 'IPv6')) report.invalid(where, address, `must be an ${type} address`)
			report.invalidFor(where, address, specialIpFaults(address))
		})
	if (isSet(endpoint.nodeName))
		report.invalidFor(`${at}.nodeName`, endpoint.nodeName, subdomainFaults(textAt(endpoint, 'nodeName')))
	if (isSet(endpoint.hostname))
		report.invalidFor(`${at}.hostname`, endpoint.hostname, labelFaults(textAt(endpoint, 'hostname')))
	const hints = objectAt(endpoint, 'hints')
	for (const list of ['forZones', 'forNodes']) {
		const items = objectsAt(hints, list)
		const names = new Set<string>()
		if (items.length > mostHints) report.tooMany(`${at}.hints.${list}`, items.length, mostHints)
		items.forEach((item, i) => {
			const where = `${at}.hints.${list}[${i}].name`
			const name = textAt(item, 'name')
			if (name === '') report.required(where)
			else report.invalidFor(where, name, labelValueFaults(name))
			if (names.has(name)) report.duplicate(where, name)
			names.add(name)
		})
	}
}

export function checkEndpointSliceUpdate(before: JsonObject, after: JsonObject, report: Report): void {
	if (before.addressType !== after.addressType) report.invalid('addressType', after.addressType, 'field is immutable')
}

export function checkEndpoints(endpoints: JsonObject, report: Report): void {
	objectsAt(endpoints, 'subsets').forEach((subset, i) => {
		const at = `subsets[${i}]`
		const ports = objectsAt(subset, 'ports')
		if (objectsAt(subset, 'addresses').length === 0 && objectsAt(subset, 'notReadyAddresses').length === 0)
			report.required(at, 'must specify `addresses` or `notReadyAddresses`')
		for (const list of ['addresses', 'notReadyAddresses'])
			objectsAt(subset, list).forEach((address, j) => {
				const ip = textAt(address, 'ip')
				const faults = ipFaults(ip)
				report.invalidFor(`${at}.${list}[${j}].ip`, ip, faults.length > 0 ? faults : specialIpFaults(ip))
			})
		ports.forEach((port, j) => {
			const name = textAt(port, 'name')
			if (name === '') {
				if (ports.length > 1) report.required(`${at}.ports[${j}].name`)
			} else report.invalidFor(`${at}.ports[${j}].name`, name, labelFaults(name))
			report.between(`${at}.ports[${j}].port`, port.port ?? 0, 1, 65535)
			report.oneOf(`${at}.ports[${j}].protocol`, port.protocol, protocols)
		})
	})
}

export function checkNetworkPolicy(policy: JsonObject, report: Report): void {
	const spec = objectAt(policy, 'spec')
	checkSelector(objectAt(spec, 'podSelector'), 'spec.podSelector', report)
	for (const [direction, peers] of [
		['ingress', 'from'],
		['egress', 'to'],
	] as const)
		objectsAt(spec, direction).forEach((rule, i) => {
			const at = `spec.${direction}[${i}]`
			objectsAt(rule, 'ports').forEach((port, j) => {
				checkPolicyPort(port, `${at}.ports[${j}]`, report)
			})
			objectsAt(rule, peers).forEach((peer, j) => {
				checkPeer(peer, `${at}.${peers}[${j}]`, report)
			})
		})
	const types = textsAt(spec, 'policyTypes')
	if (types.length > 2) report.invalid('spec.policyTypes', types, 'may not specify more than two policyTypes')
	types.forEach((type, i) => {
		if (type !== 'Ingress' && type !== 'Egress')
			report.notSupported(`spec.policyTypes[${i}]`, type, ['Egress', 'Ingress'])
	})
}

function checkPolicyPort(port: JsonObject, at: string, report: Report): void {
	report.oneOf(`${at}.protocol`, port.protocol, protocols)
	const number = port.port
	const endPort = port.endPort
	if (isSet(number)) checkPortOrName(number, `${at}.port`, report)
	if (!isSet(endPort)) return
	if (!isSet(number)) report.invalid(`${at}.endPort`, endPort, 'may not be specified when `port` is not specified')
	else if (typeof number === 'string')
		report.invalid(`${at}.endPort`, endPort, 'may not be specified when `port` is non-numeric')
	else {
		if (typeof number === 'number' && typeof endPort === 'number' && endPort < number)
			report.invalid(`${at}.endPort`, endPort, 'must be greater than or equal to `port`')
		report.between(`${at}.endPort`, endPort, 1, 65535)
	}
}

function checkPeer(peer: JsonObject, at: string, report: Report): void {
	let count = 0
	for (const field of ['podSelector', 'namespaceSelector'])
		if (isSet(peer[field])) {
			count++
			checkSelector(objectAt(peer, field), `${at}.${field}`, report)
		}
	if (isSet(peer.ipBlock)) {
		if (count > 0) report.forbidden(at, 'may not specify both ipBlock and another peer')
		count++
		checkIpBlock(objectAt(peer, 'ipBlock'), `${at}.ipBlock`, report)
	}
	if (count === 0) report.required(at, 'must specify a peer')
}

function checkIpBlock(block: JsonObject, at: string, report: Report): void {
	const text = textAt(block, 'cidr')
	if (text === '') {
		report.required(`${at}.cidr`)
		return
	}
	report.invalidFor(`${at}.cidr`, text, cidrFaults(text))
	const cidr = tryParseCidr(text, { mask: true })
	textsAt(block, 'except').forEach((except, i) => {
		const where = `${at}.except[${i}]`
		const faults = cidrFaults(except)
		report.invalidFor(where, except, faults)
		const inner = tryParseCidr(except, { mask: true })
		if (!cidr || !inner) return
		const address = tryParseIp(inner.split('/')[0]!)
		const isInside =
			address !== undefined &&
			inner.includes(':') === cidr.includes(':') &&
			cidrContains(cidr, address) &&
			cidrLength(inner) > cidrLength(cidr)
		if (!isInside) report.invalid(where, except, `must be a strict subset of \`cidr\``)
	})
}

export function checkIngress(ingress: JsonObject, report: Report): void {
	const spec = objectAt(ingress, 'spec')
	const rules = objectsAt(spec, 'rules')
	if (rules.length === 0 && !isSet(spec.defaultBackend))
		report.invalid('spec', spec, 'either `defaultBackend` or `rules` must be specified')
	if (isSet(spec.defaultBackend)) checkBackend(objectAt(spec, 'defaultBackend'), 'spec.defaultBackend', report)
	rules.forEach((rule, i) => {
		const at = `spec.rules[${i}]`
		const host = textAt(rule, 'host')
		if (host !== '') report.invalidFor(`${at}.host`, host, hostFaults(host))
		if (rule.http === undefined) return
		const paths = objectsAt(objectAt(rule, 'http'), 'paths')
		if (paths.length === 0) report.required(`${at}.http.paths`)
		paths.forEach((path, j) => {
			checkIngressPath(path, `${at}.http.paths[${j}]`, report)
		})
	})
	objectsAt(spec, 'tls').forEach((tls, i) => {
		textsAt(tls, 'hosts').forEach((host, j) => {
			report.invalidFor(`spec.tls[${i}].hosts[${j}]`, host, hostFaults(host))
		})
		const secret = textAt(tls, 'secretName')
		if (secret !== '') report.invalidFor(`spec.tls[${i}].secretName`, secret, subdomainFaults(secret))
	})
	const className = textAt(spec, 'ingressClassName')
	if (className !== '') report.invalidFor('spec.ingressClassName', className, subdomainFaults(className))
}

/** A name or `*.` and a name; never an address. */
export function hostFaults(host: string): string[] {
	if (tryParseIp(host)) return ['must be a DNS name, not an IP address']
	if (!host.includes('*')) return subdomainFaults(host)
	const rest = host.startsWith('*.') ? host.slice(2) : host
	return host.startsWith('*.') && !rest.includes('*')
		? subdomainFaults(rest)
		: ["must be a wildcard DNS name: '*.' and a subdomain (e.g. '*.example.com')"]
}

function checkIngressPath(path: JsonObject, at: string, report: Report): void {
	const type = textAt(path, 'pathType')
	const text = textAt(path, 'path')
	if (type === '') report.required(`${at}.pathType`, 'pathType must be specified')
	else if (!['Exact', 'Prefix', 'ImplementationSpecific'].includes(type))
		report.notSupported(`${at}.pathType`, type, ['Exact', 'ImplementationSpecific', 'Prefix'])
	else if (type === 'ImplementationSpecific') {
		if (text !== '' && !text.startsWith('/')) report.invalid(`${at}.path`, text, 'must be an absolute path')
	} else {
		if (!text.startsWith('/')) report.invalid(`${at}.path`, text, 'must be an absolute path')
		for (const sequence of ['//', '/./', '/../', '%2f', '%2F'])
			if (text.includes(sequence)) report.invalid(`${at}.path`, text, `must not contain '${sequence}'`)
		for (const suffix of ['/..', '/.'])
			if (text.endsWith(suffix)) report.invalid(`${at}.path`, text, `cannot end with '${suffix}'`)
	}
	checkBackend(objectAt(path, 'backend'), `${at}.backend`, report)
}

function checkBackend(backend: JsonObject, at: string, report: Report): void {
	const service = objectAt(backend, 'service')
	if (isSet(backend.resource)) {
		if (isSet(backend.service)) report.invalid(at, '', 'cannot set both resource and service backends')
		const resource = objectAt(backend, 'resource')
		for (const field of ['kind', 'name']) if (!isSet(resource[field])) report.required(`${at}.resource.${field}`)
		return
	}
	if (!isSet(backend.service)) {
		report.required(at, 'must specify a service or a resource')
		return
	}
	const name = textAt(service, 'name')
	if (name === '') report.required(`${at}.service.name`)
	else report.invalidFor(`${at}.service.name`, name, labelFaults(name))
	const port = objectAt(service, 'port')
	const portName = textAt(port, 'name')
	const number = port.number
	const hasNumber = isSet(number) && number !== 0
	if (portName !== '' && hasNumber) report.invalid(at, '', 'cannot set both port name & port number')
	else if (portName !== '') checkPortOrName(portName, `${at}.service.port.name`, report)
	else if (hasNumber) report.between(`${at}.service.port.number`, number, 1, 65535)
	else report.required(at, 'port name or number is required')
}

export function checkIngressClass(ingressClass: JsonObject, report: Report): void {
	const spec = objectAt(ingressClass, 'spec')
	const controller = textAt(spec, 'controller')
	if (controller === '') report.required('spec.controller')
	else {
		const [domain, path] = [controller.split('/')[0]!, controller.slice(controller.indexOf('/') + 1)]
		if (controller.length > 250) report.invalid('spec.controller', controller, 'must be no more than 250 characters')
		else if (!controller.includes('/') || path === '')
			report.invalid('spec.controller', controller, 'must be a domain-prefixed path (such as "acme.io/foo")')
		else report.invalidFor('spec.controller', controller, subdomainFaults(domain))
	}
	if (!isSet(spec.parameters)) return
	const parameters = objectAt(spec, 'parameters')
	for (const field of ['kind', 'name']) if (!isSet(parameters[field])) report.required(`spec.parameters.${field}`)
	const scope = textAt(parameters, 'scope')
	report.oneOf('spec.parameters.scope', scope, ['Cluster', 'Namespace'])
	if (scope === 'Namespace' && !isSet(parameters.namespace))
		report.required('spec.parameters.namespace', '`parameters.scope` is set to `Namespace`')
	if (scope === 'Cluster' && isSet(parameters.namespace))
		report.forbidden('spec.parameters.namespace', '`parameters.scope` is set to `Cluster`')
}

export function checkIngressClassUpdate(before: JsonObject, after: JsonObject, report: Report): void {
	const controller = objectAt(after, 'spec').controller
	if (objectAt(before, 'spec').controller !== controller)
		report.invalid('spec.controller', controller, 'field is immutable')
}

export function checkIpAddress(address: JsonObject, report: Report): void {
	const name = textAt(objectAt(address, 'metadata'), 'name')
	if (name !== '') {
		const ip = tryParseIp(name)
		if (!ip) report.invalidFor('metadata.name', name, ipFaults(name))
		else if (ip !== name) report.invalid('metadata.name', name, `must be in canonical form (${ip})`)
	}
	const ref = objectAt(objectAt(address, 'spec'), 'parentRef')
	if (Object.keys(ref).length === 0) report.required('spec.parentRef')
	else for (const field of ['resource', 'name']) if (!isSet(ref[field])) report.required(`spec.parentRef.${field}`)
}

export function checkIpAddressUpdate(before: JsonObject, after: JsonObject, report: Report): void {
	const ref = objectAt(after, 'spec').parentRef
	if (!sameJson(objectAt(before, 'spec').parentRef, ref)) report.invalid('spec.parentRef', ref, 'field is immutable')
}

export function checkServiceCidr(object: JsonObject, report: Report): void {
	const cidrs = textsAt(objectAt(object, 'spec'), 'cidrs')
	if (cidrs.length === 0) report.required('spec.cidrs', 'at least one CIDR required')
	if (cidrs.length > 2) report.invalid('spec.cidrs', cidrs, 'may only hold up to 2 values')
	cidrs.forEach((cidr, i) => {
		const faults = cidrFaults(cidr)
		report.invalidFor(`spec.cidrs[${i}]`, cidr, faults)
		const exact = tryParseCidr(cidr, { mask: true })
		if (exact && exact !== cidr) report.invalid(`spec.cidrs[${i}]`, cidr, `must be in canonical form (${exact})`)
	})
	if (cidrs.length === 2 && cidrs[0]!.includes(':') === cidrs[1]!.includes(':'))
		report.invalid('spec.cidrs', cidrs, 'must specify two CIDRs, one for each IP family')
}
