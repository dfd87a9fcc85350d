// Session affinity that outlives its endpoint: from the changes of a program follow the clients that must choose again.

import { isFailure } from '../../base/failure.ts'
import { familyOf, type Ip } from '../../base/ip.ts'
import type { NetlinkSocket } from '../../linux/netlink/socket.ts'
import type { ElementEntry, NftChange } from '../../linux/nft/change.ts'
import { readProgram } from '../../linux/nft/read.ts'
import { applyChanges } from '../../linux/nft/transaction.ts'
import { choiceOfMap, type Family, names, tableName } from './layout.ts'

/** What clients may remember and must not any more. */
export interface Forgotten {
	/** `10.96.0.1 . tcp . 80 : 10.244.0.5 . 8080`: the endpoint left. */
	readonly endpoints: ReadonlySet<string>
	/** `10.96.0.1 . tcp . 80`: from now on clients outside may only have endpoints of this node. */
	readonly frontends: ReadonlySet<string>
}

/** Endpoints that served before the changes and do not after them, in either of a frontend's choices. */
export function forgottenBy(changes: readonly NftChange[]): Forgotten {
	const lost = new Map<string, string>()
	const kept = new Set<string>()
	const frontends = new Set<string>()
	for (const change of changes) {
		if (change.op !== 'delete-elements' && change.op !== 'add-elements') continue
		const { name } = change.set
		if (name === names.policyLocal && change.op === 'add-elements') {
			for (const [key] of change.elements) frontends.add(key)
			continue
		}
		const choice = choiceOfMap(name)
		if (choice === undefined) continue
		for (const [key, element] of change.elements) {
			const pair = `${frontendOf(key)} : ${element.data}`
			// A change of the number of endpoints moves all of them to another map.
			if (change.op === 'add-elements') kept.add(`${choice} ${pair}`)
			else lost.set(`${choice} ${pair}`, pair)
		}
	}
	return { endpoints: new Set([...lost].filter(([id]) => !kept.has(id)).map(([, pair]) => pair)), frontends }
}

/** Without the slot. */
function frontendOf(key: string): string {
	const parts = key.split(' . ')
	return parts.length === 4 ? parts.slice(0, 3).join(' . ') : key
}

/** Takes out of the kernel's memory what clients must not remember. */
export function forgetClients(socket: NetlinkSocket, { endpoints, frontends }: Forgotten): void {
	const families = new Set<Family>()
	for (const text of [...endpoints, ...frontends])
		families.add(familyOf(text.slice(0, text.indexOf(' ')) as Ip) === 4 ? 'ip' : 'ip6')
	for (const family of families) {
		const program = readProgram(
			socket,
			(f, name) => f === family && name === tableName,
			(set) => set === names.clients,
		)
		const set = program.tables.get(`${family} ${tableName}`)?.sets.get(names.clients)
		if (set === undefined) continue
		const elements: ElementEntry[] = [...set.elements].filter(([key, element]) => {
			const frontend = key.slice(key.indexOf(' . ') + 3)
			return frontends.has(frontend) || endpoints.has(`${frontend} : ${element.data}`)
		})
		if (elements.length === 0) continue
		try {
			applyChanges(socket, [{ family, table: tableName, op: 'delete-elements', set, elements }])
		} catch (e) {
			// One of them expired meanwhile: the rest goes one by one.
			if (!isFailure(e, 'ENOENT')) throw e
			for (const one of elements) {
				try {
					applyChanges(socket, [{ family, table: tableName, op: 'delete-elements', set, elements: [one] }])
				} catch (error) {
					if (!isFailure(error, 'ENOENT')) throw error
				}
			}
		}
	}
}
