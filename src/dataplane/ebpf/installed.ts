// What one node has in the kernel: the maps, the programs, and the links that keep them attached. Everything lives as
// long as the descriptors here; nothing has a name in a file system, so nothing can stay behind.

import { readFileSync } from 'node:fs'
import { isFailure } from '../../base/failure.ts'
import { familyOf } from '../../base/ip.ts'
import { assemble } from '../../linux/bpf/assemble.ts'
import { openCgroup2 } from '../../linux/bpf/cgroup.ts'
import {
	type AttachType,
	type BpfMap,
	createMap,
	kernelBuffer,
	linkToCgroup,
	loadProgram,
	updateLink,
} from '../../linux/bpf/system.ts'
import { inNetnsAt } from '../../linux/netns.ts'
import { AF_INET, close, netnsCookie, SOCK_DGRAM, socket } from '../../linux/syscalls.ts'
import { codes } from './code.ts'
import type { EbpfChange } from './diff.ts'
import {
	chunksOf,
	cookieKey,
	type MapName,
	mapLayouts,
	mapNames,
	memberKey,
	namespaceValue,
	writeChunk,
	writeComment,
	writeFrontendKey,
} from './layout.ts'
import type { Address, EbpfFrontend, EbpfNamespace } from './program.ts'

const smallest = 256
/** From so many elements on they are written in one call. */
const batchFrom = 4

/** `cookie <n>`: how a namespace is named that no known file has. */
export const cookiePath = /^cookie ([0-9]+)$/

/** The number by which programs know a namespace. Throws Failure ENOENT where the file is gone. */
export function cookieOf(path: string): bigint {
	return inNetnsAt(path, ownCookie)
}

/** That of the namespace this thread is in. Throws Failure ENOPROTOOPT on kernels without such numbers. */
export function ownCookie(): bigint {
	const fd = socket(AF_INET, SOCK_DGRAM, 0)
	try {
		return netnsCookie(fd)
	} finally {
		close(fd)
	}
}

export class Installed {
	/** Undefined: the root of the machine's control groups. */
	readonly #cgroup: number | undefined
	readonly #maps = new Map<MapName, BpfMap>()
	/** Elements of the maps that grow, as far as we wrote them. */
	readonly #counts = new Map<MapName, number>()
	readonly #programs = new Map<AttachType, number>()
	readonly #links = new Map<AttachType, number>()
	readonly #cookies = new Map<string, bigint>()

	constructor(cgroup: number | undefined) {
		this.#cgroup = cgroup
		try {
			for (const name of mapNames) {
				const { capacity } = mapLayouts[name]
				this.#maps.set(name, createMap({ ...mapLayouts[name], name: `pw_${name}`, capacity: capacity || smallest }))
			}
		} catch (e) {
			this.close()
			throw e
		}
	}

	map(name: MapName): BpfMap {
		return this.#maps.get(name) as BpfMap
	}

	get links(): ReadonlyMap<AttachType, number> {
		return this.#links
	}

	/** After reading back: what somebody else wrote counts, too. */
	setCount(name: MapName, count: number): void {
		this.#counts.set(name, count)
	}

	/** Bytes of kernel memory the maps take, as the kernel counts them. */
	get memory(): number {
		let sum = 0
		for (const map of this.#maps.values())
			sum += Number(/^memlock:\s*([0-9]+)/m.exec(readFileSync(`/proc/self/fdinfo/${map.fd}`, 'utf8'))?.[1] ?? 0)
		return sum
	}

	apply(change: Exclude<EbpfChange, { change: 'detach' }>): void {
		switch (change.change) {
			case 'frontends':
				this.#changeFrontends(change.put, change.drop)
				break
			case 'namespaces':
				this.#changeNamespaces(change.put, change.drop)
				break
			case 'attach':
				for (const type of change.types) this.#attach(type)
				break
			default:
				change satisfies never
		}
	}

	/** Readers see the old frontend or the new one: all of it where its endpoints fit in one chunk. */
	#changeFrontends(
		put: readonly { readonly before?: EbpfFrontend; readonly after: EbpfFrontend }[],
		drop: readonly EbpfFrontend[],
	): void {
		const come: Record<'members' | 'origins4' | 'origins6' | 'later4' | 'later6' | 'first4' | 'first6', Writer> = {
			members: new Writer('members'),
			origins4: new Writer('origins4'),
			origins6: new Writer('origins6'),
			later4: new Writer('frontends4'),
			later6: new Writer('frontends6'),
			first4: new Writer('frontends4'),
			first6: new Writer('frontends6'),
		}
		const go = new Map<MapName, Uint8Array[]>()
		const remove = (map: MapName, key: Uint8Array) => {
			const keys = go.get(map)
			if (keys === undefined) go.set(map, [key])
			else keys.push(key)
		}
		for (const { before, after } of put) {
			const family = familyOf(after.ip)
			if (before?.members !== after.members) {
				const had = new Set(before?.members.map(addressId))
				for (const one of after.members)
					if (!had.delete(addressId(one))) come.members.add(memberKey(after, one), present)
				if (had.size > 0)
					for (const one of before?.members ?? []) if (had.has(addressId(one))) remove('members', memberKey(after, one))
			}
			if (before?.comment !== after.comment) {
				const origins = come[`origins${family}`]
				const { keys, key } = origins.next()
				writeFrontendKey(keys, key, after, 0)
				origins.writeComment(after.comment)
			}
			const chunks = chunksOf(after)
			for (let chunk = chunks - 1; chunk >= 0; chunk--) {
				const { keys, key, values, value } = come[`${chunk === 0 ? 'first' : 'later'}${family}` as const].next()
				writeFrontendKey(keys, key, after, chunk)
				writeChunk(values, value, after, chunk)
			}
			const had = before === undefined ? 0 : chunksOf(before)
			for (let chunk = had - 1; chunk >= chunks; chunk--) remove(`frontends${family}`, this.#frontendKey(after, chunk))
		}
		for (const one of drop) {
			const family = familyOf(one.ip)
			// One that was found without endpoints may still have its first chunk.
			for (let chunk = 0; chunk < Math.max(1, chunksOf(one)); chunk++)
				remove(`frontends${family}`, this.#frontendKey(one, chunk))
			remove(`origins${family}`, this.#frontendKey(one, 0))
			for (const member of one.members) remove('members', memberKey(one, member))
		}
		for (const writer of Object.values(come)) this.#reserve(writer)
		for (const writer of Object.values(come)) writer.write(this.map(writer.name))
		for (const [name, keys] of go) {
			if (keys.length < batchFrom) for (const key of keys) this.map(name).delete(key)
			else this.map(name).deleteAll(joined(keys), keys.length)
			this.setCount(name, Math.max(0, (this.#counts.get(name) ?? 0) - keys.length))
		}
	}

	#frontendKey(frontend: EbpfFrontend, chunk: number): Uint8Array {
		const key = kernelBuffer(mapLayouts[`frontends${familyOf(frontend.ip)}`].keySize)
		writeFrontendKey(key, 0, frontend, chunk)
		return key
	}

	#changeNamespaces(put: readonly EbpfNamespace[], drop: readonly string[]): void {
		const map = this.map('namespaces')
		for (const path of drop) {
			const cookie = cookiePath.exec(path)?.[1] ?? this.#cookies.get(path)
			this.#cookies.delete(path)
			if (cookie !== undefined) map.delete(cookieKey(BigInt(cookie)))
		}
		const writer = new Writer('namespaces')
		for (const namespace of put) {
			let cookie: bigint
			try {
				cookie = cookieOf(namespace.path)
			} catch (e) {
				// Taken down meanwhile: the next program will not have it.
				if (isFailure(e, 'ENOENT')) continue
				throw e
			}
			const old = this.#cookies.get(namespace.path)
			if (old !== undefined && old !== cookie) map.delete(cookieKey(old))
			this.#cookies.set(namespace.path, cookie)
			writer.add(cookieKey(cookie), namespaceValue(namespace))
		}
		this.#reserve(writer)
		writer.write(map)
		this.setCount('namespaces', this.#cookies.size)
	}

	/**
	 * Makes room for what is to come. All of it counts as new, and is counted again when that seems to be too much.
	 * Replacing a map replaces the programs that read it.
	 */
	#reserve(writer: Writer): void {
		const { name } = writer
		const map = this.map(name)
		if ((this.#counts.get(name) ?? 0) + writer.size > map.declaration.capacity) {
			const all = map.entries()
			this.setCount(name, all.length)
			if (all.length + writer.size > map.declaration.capacity) this.#grow(map, name, all, all.length + writer.size)
		}
		this.setCount(name, (this.#counts.get(name) ?? 0) + writer.size)
	}

	#grow(map: BpfMap, name: MapName, all: readonly (readonly [Uint8Array, Uint8Array])[], need: number): void {
		const bigger = createMap({ ...map.declaration, capacity: 2 ** Math.ceil(Math.log2(need * 1.25)) })
		const copy = new Writer(name)
		for (const [key, value] of all) copy.add(key, value)
		copy.write(bigger)
		this.#maps.set(name, bigger)
		for (const type of this.#programs.keys()) if (readsMap(type, name)) this.#attach(type)
		map.close()
	}

	/** Puts the program in force, in the place of the one that is there. */
	#attach(type: AttachType): void {
		const program = loadProgram(
			`pw_${type}`,
			type,
			assemble(codes[type], (map) => this.map(map as MapName).fd),
		)
		const old = this.#programs.get(type)
		const link = this.#links.get(type)
		try {
			if (link !== undefined && old !== undefined) {
				try {
					updateLink(link, program, old)
				} catch (e) {
					// Somebody detached it: a new link takes its place.
					if (!isFailure(e, 'ENOLINK') && !isFailure(e, 'EPERM') && !isFailure(e, 'EINVAL')) throw e
					close(link)
					this.#links.delete(type)
				}
			}
			if (!this.#links.has(type)) this.#links.set(type, this.#link(program, type))
		} catch (e) {
			close(program)
			throw e
		}
		this.#programs.set(type, program)
		if (old !== undefined) close(old)
	}

	#link(program: number, type: AttachType): number {
		if (this.#cgroup !== undefined) return linkToCgroup(program, this.#cgroup, type)
		const cgroup = openCgroup2()
		try {
			return linkToCgroup(program, cgroup, type)
		} finally {
			close(cgroup)
		}
	}

	/** Nothing is attached and nothing is left afterwards. */
	close(): void {
		for (const fd of [...this.#links.values(), ...this.#programs.values()]) close(fd)
		for (const map of this.#maps.values()) map.close()
		this.#links.clear()
		this.#programs.clear()
		this.#maps.clear()
	}
}

function readsMap(type: AttachType, map: MapName): boolean {
	return codes[type].some((one) => one.kind === 'map' && one.map === map)
}

const present = kernelBuffer(4)
const addressId = ({ ip, port }: Address) => `${ip} ${port}`

/** Elements for one map, gathered in one piece of memory and written in one call where they are many. */
class Writer {
	readonly name: MapName
	readonly #keySize: number
	readonly #valueSize: number
	#keys = none
	#values = none
	#text: Buffer | undefined
	#size = 0
	#room = 0

	constructor(name: MapName) {
		this.name = name
		this.#keySize = mapLayouts[name].keySize
		this.#valueSize = mapLayouts[name].valueSize
	}

	get size(): number {
		return this.#size
	}

	/** Where the next element goes; zero all over. Valid until the next one. */
	next(): { readonly keys: Uint8Array; readonly key: number; readonly values: Uint8Array; readonly value: number } {
		if (this.#size === this.#room) this.#grow()
		const i = this.#size++
		return { keys: this.#keys, key: i * this.#keySize, values: this.#values, value: i * this.#valueSize }
	}

	add(key: Uint8Array, value: Uint8Array): void {
		const at = this.next()
		at.keys.set(key, at.key)
		at.values.set(value, at.value)
	}

	/** The last element's value as text. */
	writeComment(comment: string): void {
		this.#text ??= Buffer.from(this.#values.buffer)
		writeComment(this.#text, (this.#size - 1) * this.#valueSize, comment)
	}

	write(map: BpfMap): void {
		if (this.#size >= batchFrom) map.setAll(this.#keys, this.#values, this.#size)
		else
			for (let i = 0; i < this.#size; i++)
				map.set(
					this.#keys.subarray(i * this.#keySize, (i + 1) * this.#keySize),
					this.#values.subarray(i * this.#valueSize, (i + 1) * this.#valueSize),
				)
	}

	#grow(): void {
		this.#room = Math.max(4, this.#room * 4)
		const keys = kernelBuffer(this.#room * this.#keySize)
		const values = kernelBuffer(this.#room * this.#valueSize)
		keys.set(this.#keys)
		values.set(this.#values)
		this.#keys = keys
		this.#values = values
		this.#text = undefined
	}
}

const none = kernelBuffer(0)

function joined(parts: readonly Uint8Array[]): Uint8Array {
	const size = parts[0]?.length ?? 0
	const all = kernelBuffer(size * parts.length)
	for (const [i, part] of parts.entries()) all.set(part, i * size)
	return all
}
