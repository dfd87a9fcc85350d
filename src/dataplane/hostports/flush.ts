// UDP has no end: connection tracking goes on sending a client's datagrams where it sent them first. From the changes of
// a program follow the host ports whose flows must choose again.

import type { Connection } from '../../linux/conntrack.ts'
import type { NftChange } from '../../linux/nft/change.ts'
import { names } from './layout.ts'

export interface ChangedPort {
	readonly family: 4 | 6
	readonly number: number
	/** Undefined: on all addresses of the node. */
	readonly at?: string
	/** Pod address and port it led to, `10.244.1.2 . 53`; undefined: it is new. */
	readonly lost?: string
}

/** UDP host ports that are new, gone or lead elsewhere now. */
export function changedPorts(changes: readonly NftChange[]): ChangedPort[] {
	const found: ChangedPort[] = []
	for (const change of changes) {
		if (change.op !== 'delete-elements' && change.op !== 'add-elements') continue
		const { name } = change.set
		if (name !== names.ports && name !== names.addressPorts) continue
		for (const [key, element] of change.elements) {
			const parts = key.split(' . ')
			const [at, protocol, port] = name === names.ports ? [undefined, ...parts] : parts
			if (protocol !== 'udp') continue
			found.push({
				family: change.family === 'ip' ? 4 : 6,
				number: Number(port),
				...(at === undefined ? {} : { at }),
				...(change.op === 'delete-elements' && element.data !== undefined ? { lost: element.data } : {}),
			})
		}
	}
	return found
}

/**
 * Whether the connection is one that the change leaves behind: it goes to the pod that had the port, or to the node
 * itself because it began when no pod had it. A client that kept asking a dead port would never reach the new pod.
 */
export function isLeftBehind(connection: Connection, port: ChangedPort): boolean {
	const { original, reply, translated } = connection
	if (original.protocol !== 'UDP' || original.destinationPort !== port.number) return false
	if (port.at !== undefined && original.destination !== port.at) return false
	return port.lost === undefined ? !translated.destination : `${reply.source} . ${reply.sourcePort}` === port.lost
}
