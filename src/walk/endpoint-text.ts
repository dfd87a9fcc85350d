// The text of one end of a flow, taken apart: `[ns/NAMESPACE/][KIND/]NAME[:[PROTOCOL/]PORT][/PATH]`, and as lists print a
// workload: `NAMESPACE/KIND/NAME[:PORT]`.

import { Failure } from '../base/failure.ts'
import { tryParseIp } from '../base/ip.ts'
import type { Protocol } from '../base/packet.ts'

export interface PortText {
	readonly protocol?: Protocol
	readonly port: number | string
}

export interface TargetText {
	/** As in the API: `Pod`, `Deployment`, `Service`, `Node`…; undefined for a bare name or address. */
	readonly kind?: string
	readonly name: string
	readonly namespace?: string
	readonly port?: PortText
	/** With its first slash. */
	readonly path?: string
}

const kinds: Readonly<Record<string, string>> = {
	pod: 'Pod',
	pods: 'Pod',
	po: 'Pod',
	deploy: 'Deployment',
	deployment: 'Deployment',
	deployments: 'Deployment',
	rs: 'ReplicaSet',
	replicaset: 'ReplicaSet',
	replicasets: 'ReplicaSet',
	sts: 'StatefulSet',
	statefulset: 'StatefulSet',
	statefulsets: 'StatefulSet',
	ds: 'DaemonSet',
	daemonset: 'DaemonSet',
	daemonsets: 'DaemonSet',
	job: 'Job',
	jobs: 'Job',
	rc: 'ReplicationController',
	replicationcontroller: 'ReplicationController',
	svc: 'Service',
	service: 'Service',
	services: 'Service',
	node: 'Node',
	nodes: 'Node',
	no: 'Node',
}

function isKind(text: string): boolean {
	return Object.hasOwn(kinds, text.toLowerCase())
}

/** Throws Failure InvalidEndpoint where the text is not of the grammar. `side` only words the message. */
export function parseTarget(text: string, side: 'from' | 'to'): TargetText {
	const invalid = (why: string) =>
		new Failure('InvalidEndpoint', `Cannot read ${side === 'from' ? 'source' : 'destination'} "${text}": ${why}`)
	if (text.trim() === '') throw invalid('it is empty')
	if (tryParseIp(text) !== undefined) return { name: text }
	const bracketed = /^\[([^\]]*)\](?::(.*))?$/.exec(text)
	if (bracketed !== null) {
		const [, address = '', rest] = bracketed
		if (tryParseIp(address) === undefined) throw invalid(`"${address}" is no IPv6 address`)
		return { name: address, ...(rest === undefined ? {} : parsePort(rest, invalid)) }
	}
	const colon = text.indexOf(':')
	const left = colon < 0 ? text : text.slice(0, colon)
	const end = colon < 0 ? {} : parsePort(text.slice(colon + 1), invalid)
	const parts = left.split('/')
	const found: { namespace?: string; kind?: string } = {}
	if ((parts[0] === 'ns' || parts[0] === 'namespace') && parts.length > 2) {
		found.namespace = parts[1]!
		parts.splice(0, 2)
	} else if (parts.length === 3 && isKind(parts[1]!) && !isKind(parts[0]!) && (side === 'from' || colon >= 0)) {
		// As lists of workloads print it. Without a port it is a destination's name and path: api/jobs/42.
		found.namespace = parts.shift()!
	}
	if (parts.length > 1) {
		const kind = kinds[parts[0]!.toLowerCase()]
		if (kind !== undefined) {
			found.kind = kind
			parts.splice(0, 1)
		} else if (colon >= 0 || !isName(parts[0]!) || found.namespace !== undefined) {
			throw invalid(`"${parts[0]}" is no kind of endpoint (pod, deploy, sts, ds, job, svc, node)`)
		}
	}
	const [name = '', ...path] = parts
	if (!isName(name)) throw invalid(`"${name}" is no name`)
	if (path.length > 0 && colon >= 0) throw invalid('a path stands after the port')
	return { ...found, name, ...(path.length === 0 ? {} : { path: `/${path.join('/')}` }), ...end }
}

/** Names of objects and DNS names, an address, with underscores as in SRV names; a final dot makes a DNS name whole. */
function isName(text: string): boolean {
	return text.length <= 254 && /^[a-z0-9_]([-a-z0-9_.]*[a-z0-9_.])?$/i.test(text) && !text.includes('..')
}

function parsePort(text: string, invalid: (why: string) => Failure): { port: PortText; path?: string } {
	const match = /^(?:(tcp|udp|sctp)\/)?([^/]*)(\/.*)?$/i.exec(text)
	const [, protocol, port = '', path] = match ?? []
	const common = {
		...(path === undefined ? {} : { path }),
	}
	const spelled = protocol === undefined ? {} : { protocol: protocol.toUpperCase() as Protocol }
	if (/^\d+$/.test(port)) {
		const number = Number(port)
		if (number < 1 || number > 65535) throw invalid(`port ${port} is not between 1 and 65535`)
		return { port: { ...spelled, port: number }, ...common }
	}
	// IANA service names, which container ports are (RFC 6335 §5.1).
	if (!/^[a-z0-9](-?[a-z0-9])*$/i.test(port) || port.length > 63) throw invalid(`"${port}" is no port`)
	return { port: { ...spelled, port }, ...common }
}
