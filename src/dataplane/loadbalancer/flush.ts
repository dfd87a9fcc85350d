// From two programs follow the UDP ports whose flows must choose again.

import type { Ip } from '../../base/ip.ts'
import { diffTables, emptyTable } from '../../base/table.ts'
import { type NftElement, type NftProgram, tableKey } from '../../linux/nft/program.ts'
import { names, tableName } from './layout.ts'

export interface ChangedPort {
	readonly destination: Ip
	readonly port: number
	/** Where its flows may go now, `172.18.0.2 . 30053`. */
	readonly targets: ReadonlySet<string>
}

/** UDP ports that are new, gone, or have other targets now. Cost proportional to the difference. */
export function changedDatagramPorts(before: NftProgram | undefined, after: NftProgram): ChangedPort[] {
	const changed: ChangedPort[] = []
	for (const family of ['ip', 'ip6'] as const) {
		const elements = (program: NftProgram | undefined) =>
			program?.tables.get(tableKey(family, tableName))?.sets.get(names.targets)?.elements ??
			emptyTable<string, NftElement>()
		const now = elements(after)
		const frontends = new Set<string>()
		diffTables(elements(before), now, (key, old, element) => {
			const frontend = key.slice(0, key.lastIndexOf(' . '))
			if (old?.data !== element?.data && frontend.includes(' . udp . ')) frontends.add(frontend)
		})
		for (const frontend of frontends) {
			const targets = new Set<string>()
			for (let slot = 0; ; slot++) {
				const data = now.get(`${frontend} . ${slot}`)?.data
				if (data === undefined) break
				targets.add(data)
			}
			const [destination, , port] = frontend.split(' . ')
			changed.push({ destination: destination as Ip, port: Number(port), targets })
		}
	}
	return changed
}
