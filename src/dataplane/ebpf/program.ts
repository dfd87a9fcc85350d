// What this data plane has in the kernel, as data: which programs are attached, whose sockets they touch, and where
// each Service address leads.

import type { Ip } from '../../base/ip.ts'
import { emptyTable, type Table, tableOf } from '../../base/table.ts'
import type { AttachType } from '../../linux/bpf/system.ts'
import type { SocketProtocol } from './layout.ts'

export interface EbpfProgram {
	/** Attached programs: place to the tag of their code (16 hexadecimal digits). */
	readonly attached: Table<AttachType, string>
	/** By path of the namespace's file; `cookie <n>` where no known file has the namespace any more. */
	readonly namespaces: Table<string, EbpfNamespace>
	/** By frontendKey. */
	readonly frontends: Table<string, EbpfFrontend>
	/** Only in a program read back, and only what still counts: which endpoint a client with session affinity has. */
	readonly clients?: readonly EbpfClient[]
}

export interface EbpfNamespace {
	readonly path: string
	readonly place: 'pod' | 'node'
	/** At most one of each family. Of a pod: its own; of the node: its primary ones. */
	readonly ips: readonly Ip[]
}

export interface Address {
	readonly ip: Ip
	readonly port: number
}

/** An address and port of a Service that sockets are led away from. */
export interface EbpfFrontend {
	readonly ip: Ip
	readonly port: number
	readonly protocol: SocketProtocol
	/** Never empty, but in a program read back where somebody else took them. */
	readonly endpoints: readonly Address[]
	/** Seconds of session affinity. */
	readonly affinity?: number
	/** Only processes of the node; pods need a masquerade, which packets get. */
	readonly nodeOnly?: true
	/**
	 * What a program can ask of single addresses: with port 0 the pods of this node that are endpoints themselves (they
	 * are left to packets, which masquerade a pod that reaches itself); with a port every endpoint, where somebody
	 * remembers one (UDP, session affinity).
	 */
	readonly members: readonly Address[]
	readonly comment: string
}

export interface EbpfClient {
	/** Path of the client's namespace. */
	readonly namespace: string
	readonly frontend: string
	readonly endpoint: Address
}

export const emptyProgram: EbpfProgram = {
	attached: emptyTable(),
	namespaces: emptyTable(),
	frontends: emptyTable(),
}

/** `10.96.0.1 tcp 80` */
export function frontendKey(frontend: Pick<EbpfFrontend, 'ip' | 'port' | 'protocol'>): string {
	return `${frontend.ip} ${frontend.protocol === 'TCP' ? 'tcp' : 'udp'} ${frontend.port}`
}

export function addressText({ ip, port }: Address): string {
	return ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`
}

/** Equal in every part. */
export function sameFrontend(a: EbpfFrontend, b: EbpfFrontend): boolean {
	return (
		a === b ||
		(a.ip === b.ip &&
			a.port === b.port &&
			a.protocol === b.protocol &&
			a.affinity === b.affinity &&
			a.nodeOnly === b.nodeOnly &&
			a.comment === b.comment &&
			sameAddresses(a.endpoints, b.endpoints) &&
			sameAddresses(a.members, b.members))
	)
}

export function sameAddresses(a: readonly Address[], b: readonly Address[]): boolean {
	if (a === b) return true
	if (a.length !== b.length) return false
	for (let i = 0; i < a.length; i++) {
		const x = a[i] as Address
		const y = b[i] as Address
		if (x !== y && (x.ip !== y.ip || x.port !== y.port)) return false
	}
	return true
}

export function sameNamespace(a: EbpfNamespace, b: EbpfNamespace): boolean {
	return a === b || (a.path === b.path && a.place === b.place && a.ips.join() === b.ips.join())
}

/** In the order `members` are kept: by address, then port. */
export function sortAddresses(list: Address[]): Address[] {
	return list.sort((a, b) => (a.ip < b.ip ? -1 : a.ip > b.ip ? 1 : a.port - b.port))
}

export interface EbpfProgramJson {
	readonly attached: Readonly<Record<string, string>>
	readonly namespaces: readonly EbpfNamespace[]
	readonly frontends: readonly EbpfFrontend[]
	readonly clients?: readonly EbpfClient[]
}

/** Lists sorted, so that equal programs give equal text. */
export function toJson(program: EbpfProgram): EbpfProgramJson {
	const sorted = <V>(table: Table<string, V>) => [...table].sort(([a], [b]) => (a < b ? -1 : 1))
	return {
		attached: Object.fromEntries(sorted(program.attached)),
		namespaces: sorted(program.namespaces).map(([, namespace]) => namespace),
		frontends: sorted(program.frontends).map(([, f]) => ({
			...f,
			endpoints: f.endpoints.map(({ ip, port }) => ({ ip, port })),
		})),
		...(program.clients === undefined ? {} : { clients: program.clients }),
	}
}

export function fromJson(json: EbpfProgramJson): EbpfProgram {
	return {
		attached: tableOf(Object.entries(json.attached) as [AttachType, string][]),
		namespaces: tableOf(json.namespaces.map((n) => [n.path, n])),
		frontends: tableOf(json.frontends.map((f) => [frontendKey(f), f])),
		...(json.clients === undefined ? {} : { clients: json.clients }),
	}
}
