// Table answers: what `kubectl get` prints. The columns of each kind are those the real server names, in its order;
// kinds without columns of their own have Name and Age. Source: pkg/printers/internalversion (columns and their order).

import type { UnknownObject } from '../../kube/objects/meta.ts'
import { metadataOnly } from '../metadata-only.ts'
import type { Served } from '../registry.ts'
import { ageOf, type Cell } from './cells.ts'
import { clusterTables } from './cluster.ts'
import { coreTables } from './core.ts'
import { networkTables } from './network.ts'
import { podTable } from './pods.ts'
import { workloadTables } from './workloads.ts'

/** How the objects of one kind are shown. */
export interface KindTable {
	/** `Name`, `Age`; with a leading `+`: wide output only; `#` after it: an integer, `?`: a boolean. Or as it is sent. */
	readonly columns: readonly (string | object)[]
	cells(object: UnknownObject, now: number): readonly (Cell | null)[]
	readonly conditions?: (object: UnknownObject) => readonly object[] | undefined
}

export interface TableOptions {
	/** What of the object each row carries. */
	readonly include: 'None' | 'Metadata' | 'Object'
	/** Milliseconds since the epoch. */
	readonly now: number
	/** Without the columns (all but the first event of a watch). */
	readonly bare?: boolean
}

const plain: KindTable = {
	columns: ['Name', 'Age'],
	cells: (object, now) => [object.metadata.name, ageOf(object.metadata.creationTimestamp, now)],
}

const tables: Readonly<Record<string, KindTable>> = {
	pods: podTable,
	...coreTables,
	...workloadTables,
	...networkTables,
	...clusterTables,
}

/** A meta.k8s.io/v1 Table of objects of one resource. `facts` is the metadata of the list. */
export function tableOf(
	served: Served,
	objects: readonly UnknownObject[],
	facts: object,
	options: TableOptions,
): object {
	// Both versions of events show the kept one's columns; the rows are made of the kept form.
	const table = served.rules?.table ?? (served.custom ? undefined : tables[served.storage]) ?? plain
	return {
		kind: 'Table',
		apiVersion: 'meta.k8s.io/v1',
		metadata: facts,
		columnDefinitions: options.bare ? null : table.columns.map(column),
		rows: objects.map((object) => {
			const conditions = table.conditions?.(object)
			return {
				cells: table.cells(served.toKept?.(object) ?? object, options.now),
				...(conditions === undefined ? {} : { conditions }),
				object: options.include === 'Object' ? object : options.include === 'Metadata' ? metadataOnly(object) : null,
			}
		}),
	}
}

function column(written: string | object): object {
	if (typeof written !== 'string') return written
	const priority = written.startsWith('+') ? 1 : 0
	const type = written.includes('#') ? 'integer' : written.includes('?') ? 'boolean' : 'string'
	const name = written.replace(/^\+/, '').replace(/[#?]$/, '')
	return { name, type, format: name === 'Name' ? 'name' : '', description: '', priority }
}
