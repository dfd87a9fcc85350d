// Rows as plain data, for JSON and YAML. Part of the command's contract: fields are only added.

import type { Origin } from '../../model/origin.ts'
import { intervalText } from '../addresses.ts'
import { type Connections, connectionsText, rangesOf } from '../connections.ts'
import { endName, type ReachRow, type RowEnd } from '../table.ts'

export interface EndDocument {
	readonly kind: string
	readonly name: string
	readonly namespace?: string
	readonly workload?: string
	readonly ranges?: readonly string[]
}

export interface ConnectionsDocument {
	readonly text: string
	/** `other`: protocols without ports. */
	readonly ranges: readonly { readonly protocol: string; readonly first?: number; readonly last?: number }[]
}

export interface RowDocument {
	readonly from: EndDocument
	readonly to: EndDocument
	readonly connections: ConnectionsDocument
	/** What every pair of pods may say, where that is less. */
	readonly every?: ConnectionsDocument
	readonly because?: readonly Origin[]
}

export function rowDocument(row: ReachRow, why: boolean): RowDocument {
	return {
		from: endDocument(row.from),
		to: endDocument(row.to),
		connections: connectionsDocument(row.connections),
		...(row.every === undefined ? {} : { every: connectionsDocument(row.every) }),
		...(why ? { because: row.because } : {}),
	}
}

export function endDocument(end: RowEnd): EndDocument {
	const name = endName(end)
	if (end.kind === 'outside') return { kind: 'Outside', name, ranges: end.ranges.map(intervalText) }
	if (end.kind === 'ingress-controller') return { kind: 'IngressController', name }
	const { kind, namespace, key } = end.party
	return { kind, name, namespace, workload: key.slice(key.indexOf('/') + 1) }
}

/** What some pair of pods may say, and what every pair may, where that is less. */
export function extentDocument(extent: Pick<ReachRow, 'connections' | 'every'>) {
	return {
		...connectionsDocument(extent.connections),
		...(extent.every === undefined ? {} : { every: connectionsDocument(extent.every) }),
	}
}

export function connectionsDocument(set: Connections): ConnectionsDocument {
	return {
		text: connectionsText(set),
		ranges: rangesOf(set).map(({ protocol, first, last }) =>
			protocol === 'other' ? { protocol } : { protocol, first, last },
		),
	}
}
