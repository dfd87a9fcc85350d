// One node's wiring as data: interfaces, addresses, routes and neighbours of the node's namespace and of its pods.

import type { Cidr, Ip } from '../../base/ip.ts'
import type { Table } from '../../base/table.ts'
import type { ObjectKey, Origin } from '../../model/origin.ts'

export interface LinksProgram {
	/** By pod uid. */
	readonly attachments: Table<string, Attachment>
	/** Routes of the node's own namespace, by `destination table`. */
	readonly routes: Table<string, Route>
	/** sysctls of the node's namespace, by dotted name. */
	readonly sysctls: Table<string, string>
}

/** One pod's wiring: a persistent namespace, a veth, its addresses, the link-local gateway. */
export interface Attachment {
	readonly uid: string
	readonly pod: ObjectKey
	/** Path of the pod's persistent network namespace. */
	readonly namespace: string
	readonly ips: readonly Ip[]
	/** Name of the node's end. */
	readonly hostInterface: string
	/** Name of the pod's end: eth0. */
	readonly podInterface: string
	readonly mtu: number
	readonly because: readonly Origin[]
}

export interface Route {
	readonly destination: Cidr
	/** undefined: on link. */
	readonly via?: Ip
	readonly device: string
	readonly because: readonly Origin[]
}
