// stub to be replaced
import type { UnknownObject } from '../../kube/objects/meta.ts'
import type { Served } from '../registry.ts'
export interface TableOptions {
	readonly include: 'None' | 'Metadata' | 'Object'
	readonly now: number
	readonly bare?: boolean
}
export function tableOf(_s: Served, _o: readonly UnknownObject[], _m: object, _op: TableOptions): object {
	return {}
}
