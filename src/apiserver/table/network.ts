// Rows of Services, endpoints, Ingresses, NetworkPolicies and the address objects.

import type { UnknownObject } from '../../kube/objects/meta.ts'
import type { JsonObject } from '../../kube/schema/json.ts'
import { ageOf, at, type Cell, items, mapText, none, number, selectorText, text, texts } from './cells.ts'
import type { KindTable } from './table.ts'

export const networkTables: Readonly<Record<string, KindTable>> = {
	services: {
		columns: ['Name', 'Type', 'Cluster-IP', 'External-IP', 'Port(s)', 'Age', '+Selector'],
		cells: (o, now) => [
			o.metadata.name,
			text(at(o, 'spec', 'type')),
			texts(at(o, 'spec', 'clusterIPs'))[0] ?? text(at(o, 'spec', 'clusterIP'), none),
			externalOf(o),
			portsOf(o),
			ageOf(o.metadata.creationTimestamp, now),
			mapText(at(o, 'spec', 'selector')),
		],
	},
	endpoints: {
		columns: ['Name', 'Endpoints', 'Age'],
		cells(o, now) {
			const all: string[] = []
			for (const subset of items(at(o, 'subsets'))) {
				const addresses = items(subset.addresses).map((a) => text(a.ip))
				const ports = items(subset.ports)
				if (ports.length === 0) all.push(...addresses)
				for (const port of ports) for (const ip of addresses) all.push(hostPort(ip, number(port.port)))
			}
			return [o.metadata.name, listWithMore(all, none), ageOf(o.metadata.creationTimestamp, now)]
		},
	},
	'endpointslices.discovery.k8s.io': {
		columns: ['Name', 'AddressType', 'Ports', 'Endpoints', 'Age'],
		cells: (o, now) => [
			o.metadata.name,
			text(at(o, 'addressType')),
			listWithMore(
				items(at(o, 'ports')).map((p) => text(p.port, text(p.name, '*'))),
				'<unset>',
			),
			listWithMore(
				items(at(o, 'endpoints')).flatMap((e) => texts(e.addresses)),
				'<unset>',
			),
			ageOf(o.metadata.creationTimestamp, now),
		],
	},
	'ingresses.networking.k8s.io': {
		columns: ['Name', 'Class', 'Hosts', 'Address', 'Ports', 'Age'],
		cells: (o, now) => [
			o.metadata.name,
			text(at(o, 'spec', 'ingressClassName'), none),
			hostsOf(items(at(o, 'spec', 'rules'))),
			ingressPoints(o, true).join(','),
			items(at(o, 'spec', 'tls')).length > 0 ? '80, 443' : '80',
			ageOf(o.metadata.creationTimestamp, now),
		],
	},
	'ingressclasses.networking.k8s.io': {
		columns: ['Name', 'Controller', 'Parameters', 'Age'],
		cells(o, now) {
			const parameters = at(o, 'spec', 'parameters')
			const group = text(at(parameters, 'apiGroup'))
			const kind = text(at(parameters, 'kind'))
			const shown =
				parameters === undefined ? none : `${kind}${group === '' ? '' : `.${group}`}/${text(at(parameters, 'name'))}`
			return [o.metadata.name, text(at(o, 'spec', 'controller')), shown, ageOf(o.metadata.creationTimestamp, now)]
		},
	},
	'networkpolicies.networking.k8s.io': {
		columns: ['Name', 'Pod-Selector', 'Age'],
		cells: (o, now) => [
			o.metadata.name,
			selectorText(at(o, 'spec', 'podSelector')),
			ageOf(o.metadata.creationTimestamp, now),
		],
	},
	'ipaddresses.networking.k8s.io': {
		columns: ['Name', 'ParentRef'],
		cells(o) {
			const parent = at(o, 'spec', 'parentRef')
			const parts = ['resource', 'namespace', 'name']
				.map((part) => text(at(parent, part)))
				.filter((part) => part !== '')
			const group = text(at(parent, 'group'))
			if (group !== '' && parts[0] !== undefined) parts[0] = `${parts[0]}.${group}`
			return [o.metadata.name, parts.length === 0 ? none : parts.join('/')]
		},
	},
	'servicecidrs.networking.k8s.io': {
		columns: ['Name', 'CIDRs', 'Age'],
		cells: (o, now) => [
			o.metadata.name,
			texts(at(o, 'spec', 'cidrs')).join(','),
			ageOf(o.metadata.creationTimestamp, now),
		],
	},
}

const shownAtMost = 3

/** The first three and how many more; `empty` where there are none. */
function listWithMore(list: readonly string[], empty: string): string {
	if (list.length === 0) return empty
	const shown = list.slice(0, shownAtMost).join(',')
	return list.length > shownAtMost ? `${shown} + ${list.length - shownAtMost} more...` : shown
}

function hostPort(ip: string, port: number): string {
	return ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`
}

function ingressPoints(object: UnknownObject, names: boolean): readonly string[] {
	return items(at(object, 'status', 'loadBalancer', 'ingress'))
		.map((point) => text(point.ip, names ? text(point.hostname) : ''))
		.filter((point) => point !== '')
}

function externalOf(service: UnknownObject): Cell {
	const external = texts(at(service, 'spec', 'externalIPs'))
	switch (at(service, 'spec', 'type')) {
		case 'ExternalName':
			return text(at(service, 'spec', 'externalName'), none)
		case 'LoadBalancer': {
			const points = [...ingressPoints(service, true), ...external]
			return points.length > 0 ? points.join(',') : '<pending>'
		}
		default:
			return external.length > 0 ? external.join(',') : none
	}
}

function portsOf(service: UnknownObject): string {
	const ports = items(at(service, 'spec', 'ports')).map((port) => {
		const node = number(port.nodePort)
		return `${number(port.port)}${node > 0 ? `:${node}` : ''}/${text(port.protocol, 'TCP')}`
	})
	return ports.length === 0 ? none : ports.join(',')
}

function hostsOf(rules: readonly JsonObject[]): string {
	const hosts = rules.map((rule) => text(rule.host)).filter((host) => host !== '')
	return hosts.length === 0 ? '*' : listWithMore(hosts, '*')
}
