// What is in the maps and at the sockets now, as a program.

import { isFailure } from '../../base/failure.ts'
import { familyOf } from '../../base/ip.ts'
import { emptyTable, type Table, tableOf } from '../../base/table.ts'
import { tagsOf } from '../../linux/bpf/assemble.ts'
import { type AttachType, linkedTag } from '../../linux/bpf/system.ts'
import { codes } from './code.ts'
import type { SocketNamespace } from './compile.ts'
import { cookieOf, type Installed } from './installed.ts'
import {
	type Chunk,
	chunks,
	type FrontendId,
	readChunk,
	readComment,
	readFrontendKey,
	readMember,
	readNamespace,
	readRemembered,
} from './layout.ts'
import {
	type Address,
	addressText,
	type EbpfClient,
	type EbpfFrontend,
	type EbpfNamespace,
	type EbpfProgram,
	frontendKey,
	sortAddresses,
} from './program.ts'

/** `namespaces`: whose files may name what is found. `now`: nanoseconds since boot. */
export function readInstalled(installed: Installed, namespaces: Iterable<SocketNamespace>, now: bigint): EbpfProgram {
	const paths = new Map<bigint, string>()
	for (const { path } of namespaces) {
		try {
			paths.set(cookieOf(path), path)
		} catch (e) {
			if (!isFailure(e, 'ENOENT')) throw e
		}
	}
	const frontends = readFrontends(installed)
	return {
		attached: readAttached(installed),
		namespaces: readNamespaces(installed, paths),
		frontends,
		clients: readClients(installed, paths, frontends, now),
	}
}

function readAttached(installed: Installed): Table<AttachType, string> {
	const found: [AttachType, string][] = []
	for (const [type, link] of installed.links) {
		const tag = linkedTag(link)
		if (tag === undefined) continue
		const tags = tagsOf(codes[type])
		// Kernels name the same code in one of two ways; here it has one name.
		found.push([type, tags.includes(tag) ? (tags[0] as string) : tag])
	}
	return tableOf(found)
}

function readNamespaces(installed: Installed, paths: ReadonlyMap<bigint, string>): Table<string, EbpfNamespace> {
	const entries = installed.map('namespaces').entries()
	installed.setCount('namespaces', entries.length)
	return tableOf(
		entries.map(([key, value]): [string, EbpfNamespace] => {
			const cookie = new DataView(key.buffer, key.byteOffset, 8).getBigUint64(0, true)
			const path = paths.get(cookie) ?? `cookie ${cookie}`
			return [path, { path, ...readNamespace(value) }]
		}),
	)
}

interface Parts {
	readonly id: FrontendId
	readonly chunks: Map<number, Chunk>
	readonly members: Address[]
	comment: string
}

function readFrontends(installed: Installed): Table<string, EbpfFrontend> {
	const all = new Map<string, Parts>()
	const at = (id: FrontendId): Parts => {
		const key = frontendKey(id)
		let parts = all.get(key)
		if (parts === undefined) {
			parts = { id, chunks: new Map(), members: [], comment: '' }
			all.set(key, parts)
		}
		return parts
	}
	for (const family of [4, 6] as const) {
		const values = installed.map(`frontends${family}`).entries()
		installed.setCount(`frontends${family}`, values.length)
		for (const [key, value] of values) {
			const { id, chunk } = readFrontendKey(key, family)
			at(id).chunks.set(chunk, readChunk(value, family, chunk))
		}
		const origins = installed.map(`origins${family}`).entries()
		installed.setCount(`origins${family}`, origins.length)
		for (const [key, value] of origins) at(readFrontendKey(key, family).id).comment = readComment(value)
	}
	const members = installed.map('members').entries()
	installed.setCount('members', members.length)
	for (const [key] of members) {
		const { id, endpoint } = readMember(key)
		at(id).members.push(endpoint)
	}
	return all.size === 0
		? emptyTable()
		: tableOf([...all.values()].map((parts): [string, EbpfFrontend] => [frontendKey(parts.id), frontendOf(parts)]))
}

/** A chunk that is missing or too much shows as endpoints that differ from the wanted ones. */
function frontendOf({ id, chunks: found, members, comment }: Parts): EbpfFrontend {
	const first = found.get(0)
	const size = chunks[familyOf(id.ip)].endpoints
	const endpoints: Address[] = []
	const missing: Address = { ip: id.ip, port: 0 }
	for (const [i, chunk] of [...found].sort(([a], [b]) => a - b)) {
		while (endpoints.length < i * size) endpoints.push(missing)
		endpoints.push(...chunk.endpoints)
	}
	while (endpoints.length < (first?.count ?? 0)) endpoints.push(missing)
	return {
		...id,
		endpoints,
		...(first === undefined || first.affinity === 0 ? {} : { affinity: first.affinity }),
		...(first?.nodeOnly === true ? { nodeOnly: true as const } : {}),
		members: sortAddresses(members),
		comment,
	}
}

function readClients(
	installed: Installed,
	paths: ReadonlyMap<bigint, string>,
	frontends: Table<string, EbpfFrontend>,
	now: bigint,
): EbpfClient[] {
	const clients: EbpfClient[] = []
	// An LRU map is always as large as it gets: reading 16,384 places takes a while, and mostly there is nothing.
	if (![...frontends.values()].some((f) => f.affinity !== undefined)) return clients
	for (const [key, value] of installed.map('clients').entries()) {
		const { cookie, id, endpoint, until } = readRemembered(key, value)
		const namespace = paths.get(cookie)
		const frontend = frontendKey(id)
		const members = frontends.get(frontend)?.members ?? []
		if (until <= now || namespace === undefined || !members.some((m) => addressText(m) === addressText(endpoint)))
			continue
		clients.push({ namespace, frontend, endpoint })
	}
	return clients.sort((a, b) => (a.namespace + a.frontend < b.namespace + b.frontend ? -1 : 1))
}
