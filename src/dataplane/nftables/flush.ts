// Connections that outlive their endpoint: conntrack keeps sending UDP to an address that no longer serves. From the
// changes of a program follow the frontends and backends whose entries must go.

import { type Ip, parseIp } from '../../base/ip.ts'
import type { Protocol } from '../../base/packet.ts'
import type { NftChange } from '../../linux/nft/change.ts'
import { isEndpointMap } from './layout.ts'

export interface LostBackend {
	readonly protocol: Protocol
	readonly frontend: { readonly ip: Ip; readonly port: number }
	readonly backend: { readonly ip: Ip; readonly port: number }
}

/** Pairs that translated before the changes and do not after them. */
export function lostBackends(changes: readonly NftChange[]): LostBackend[] {
	const lost = new Map<string, LostBackend>()
	const kept = new Set<string>()
	for (const change of changes) {
		if ((change.op !== 'delete-elements' && change.op !== 'add-elements') || !isEndpointMap(change.set.name)) continue
		for (const [key, element] of change.elements) {
			const [ip = '', protocol = '', port = ''] = key.split(' . ')
			const id = `${ip} ${protocol} ${port} ${element.data}`
			if (change.op === 'add-elements') {
				kept.add(id)
				continue
			}
			const [backendIp = '', backendPort = ''] = (element.data ?? '').split(' . ')
			lost.set(id, {
				protocol: protocol.toUpperCase() as Protocol,
				frontend: { ip: parseIp(ip), port: Number(port) },
				backend: { ip: parseIp(backendIp), port: Number(backendPort) },
			})
		}
	}
	return [...lost].filter(([id]) => !kept.has(id)).map(([, backend]) => backend)
}
