// bpf(2): maps, programs, links. Each object lives as long as its descriptor, and a link keeps its program attached just
// as long. A refusal is a Failure with the errno's name; that of a program carries what the verifier said.

import { constants } from 'node:os'
import { Failure } from '../../base/failure.ts'
import { addressOf, bpf, close, errnoFailure } from '../syscalls.ts'

const MAP_CREATE = 0
const MAP_LOOKUP_ELEM = 1
const MAP_UPDATE_ELEM = 2
const MAP_DELETE_ELEM = 3
const PROG_LOAD = 5
const PROG_GET_FD_BY_ID = 13
const OBJ_GET_INFO_BY_FD = 15
const MAP_LOOKUP_BATCH = 24
const MAP_UPDATE_BATCH = 26
const MAP_DELETE_BATCH = 27
const LINK_CREATE = 28
const LINK_UPDATE = 29

export const mapTypes = { hash: 1, array: 2, 'lru-hash': 9 } as const
const F_NO_PREALLOC = 1
const F_REPLACE = 4

const CGROUP_SOCK_ADDR = 18
/** Where a program for socket addresses can be attached (enum bpf_attach_type). */
export const attachTypes = {
	connect4: 10,
	connect6: 11,
	sendmsg4: 14,
	sendmsg6: 15,
	recvmsg4: 19,
	recvmsg6: 20,
	getpeername4: 29,
	getpeername6: 30,
} as const
export type AttachType = keyof typeof attachTypes

/** Characters of the verifier's log that a Failure quotes: its end, where the reason stands. */
const quotedLog = 2000
const logSize = 1 << 18

export interface MapDeclaration {
	readonly type: keyof typeof mapTypes
	/** At most 15 characters: letters, digits, `_` and `.`. */
	readonly name: string
	readonly keySize: number
	readonly valueSize: number
	/** A hash takes memory as it fills, the others all at once. The keys of an array are numbers of 4 bytes. */
	readonly capacity: number
}

function attribute(size: number): { readonly bytes: Uint8Array<ArrayBuffer>; readonly view: DataView } {
	const buffer = new ArrayBuffer(size)
	return { bytes: new Uint8Array(buffer), view: new DataView(buffer) }
}

function writeName(bytes: Uint8Array, at: number, name: string): void {
	bytes.set(Buffer.from(name.slice(0, 15), 'latin1'), at)
}

/** Memory whose address the kernel is told: outside V8's heap. */
export function kernelBuffer(size: number): Uint8Array<ArrayBuffer> {
	return new Uint8Array(new ArrayBuffer(size))
}

/** One map. Keys and values are bytes of the declared sizes. */
export class BpfMap {
	readonly fd: number
	readonly declaration: MapDeclaration
	readonly #one = attribute(32)
	readonly #batch = attribute(56)
	readonly #key: Uint8Array<ArrayBuffer>
	readonly #value: Uint8Array<ArrayBuffer>

	constructor(fd: number, declaration: MapDeclaration) {
		this.fd = fd
		this.declaration = declaration
		this.#key = kernelBuffer(declaration.keySize)
		this.#value = kernelBuffer(declaration.valueSize)
		this.#one.view.setUint32(0, fd, true)
		this.#one.view.setBigUint64(8, addressOf(this.#key), true)
		this.#one.view.setBigUint64(16, addressOf(this.#value), true)
	}

	/** A copy. */
	get(key: Uint8Array): Uint8Array | undefined {
		this.#key.set(key)
		const result = bpf(MAP_LOOKUP_ELEM, this.#one.bytes)
		if (result === 0) return this.#value.slice()
		const failure = errnoFailure(-result, `look up in map "${this.declaration.name}"`)
		if (failure.code === 'ENOENT') return undefined
		throw failure
	}

	/** Atomic for readers: all of the old value or all of the new one. Throws Failure E2BIG where the map is full. */
	set(key: Uint8Array, value: Uint8Array): void {
		this.#key.set(key)
		this.#value.set(value)
		const result = bpf(MAP_UPDATE_ELEM, this.#one.bytes)
		if (result < 0) throw errnoFailure(-result, `write to map "${this.declaration.name}"`)
	}

	/** False where there is no such key. */
	delete(key: Uint8Array): boolean {
		this.#key.set(key)
		// What a command does not use must be zero.
		const result = bpf(MAP_DELETE_ELEM, this.#one.bytes.subarray(0, 16))
		if (result === 0) return true
		const failure = errnoFailure(-result, `delete from map "${this.declaration.name}"`)
		if (failure.code === 'ENOENT') return false
		throw failure
	}

	/** `keys` and `values` in one piece each, in kernelBuffer memory. */
	setAll(keys: Uint8Array, values: Uint8Array, count: number): void {
		if (count === 0) return
		const result = this.#call(MAP_UPDATE_BATCH, keys, values, count)
		if (result < 0) throw errnoFailure(-result, `write ${count} elements to map "${this.declaration.name}"`)
	}

	/** Keys that are not there count as deleted. */
	deleteAll(keys: Uint8Array, count: number): void {
		const { keySize, name } = this.declaration
		for (let from = 0; from < count; ) {
			const result = this.#call(MAP_DELETE_BATCH, keys.subarray(from * keySize), undefined, count - from)
			if (result === 0) return
			const failure = errnoFailure(-result, `delete ${count} elements from map "${name}"`)
			if (failure.code !== 'ENOENT') throw failure
			// It stops at a missing key and says how many went before.
			from += this.#batch.view.getUint32(32, true) + 1
		}
	}

	/** Every element, copied. What others change meanwhile may come or not. */
	entries(): [key: Uint8Array, value: Uint8Array][] {
		const { keySize, valueSize, name } = this.declaration
		const all: [Uint8Array, Uint8Array][] = []
		let room = 1024
		let keys = kernelBuffer(keySize * room)
		let values = kernelBuffer(valueSize * room)
		const position = kernelBuffer(Math.max(8, keySize))
		for (let first = true; ; ) {
			const { view } = this.#batch
			view.setBigUint64(0, first ? 0n : addressOf(position), true)
			view.setBigUint64(8, addressOf(position), true)
			const result = this.#call(MAP_LOOKUP_BATCH, keys, values, room)
			const failure = result < 0 ? errnoFailure(-result, `read map "${name}"`) : undefined
			if (failure?.code === 'ENOSPC') {
				// One bucket holds more than there is room.
				room *= 4
				keys = kernelBuffer(keySize * room)
				values = kernelBuffer(valueSize * room)
				continue
			}
			if (failure !== undefined && failure.code !== 'ENOENT') throw failure
			const count = view.getUint32(32, true)
			for (let i = 0; i < count; i++)
				all.push([keys.slice(i * keySize, (i + 1) * keySize), values.slice(i * valueSize, (i + 1) * valueSize)])
			if (failure !== undefined) return all
			first = false
		}
	}

	#call(command: number, keys: Uint8Array, values: Uint8Array | undefined, count: number): number {
		const { bytes, view } = this.#batch
		view.setBigUint64(16, addressOf(keys), true)
		view.setBigUint64(24, values === undefined ? 0n : addressOf(values), true)
		view.setUint32(32, count, true)
		view.setUint32(36, this.fd, true)
		const result = bpf(command, bytes)
		view.setBigUint64(0, 0n, true)
		view.setBigUint64(8, 0n, true)
		return result
	}

	close(): void {
		close(this.fd)
	}
}

/** Throws Failure EPERM (no rights), ENOMEM, E2BIG, EINVAL (a kind this kernel lacks). */
export function createMap(declaration: MapDeclaration): BpfMap {
	const { type, name, keySize, valueSize, capacity } = declaration
	const { bytes, view } = attribute(72)
	view.setUint32(0, mapTypes[type], true)
	view.setUint32(4, keySize, true)
	view.setUint32(8, valueSize, true)
	view.setUint32(12, capacity, true)
	view.setUint32(16, type === 'hash' ? F_NO_PREALLOC : 0, true)
	writeName(bytes, 28, name)
	const fd = bpf(MAP_CREATE, bytes)
	if (fd < 0) throw errnoFailure(-fd, `make the eBPF map "${name}"`)
	return new BpfMap(fd, declaration)
}

/** The descriptor of a verified program for socket addresses. Throws Failure with the end of the verifier's log. */
export function loadProgram(name: string, type: AttachType, instructions: Uint8Array): number {
	const license = kernelBuffer(4)
	license.set(Buffer.from('GPL\0', 'latin1'))
	const { bytes, view } = attribute(72)
	view.setUint32(0, CGROUP_SOCK_ADDR, true)
	view.setUint32(4, instructions.length / 8, true)
	view.setBigUint64(8, addressOf(instructions), true)
	view.setBigUint64(16, addressOf(license), true)
	writeName(bytes, 48, name)
	view.setUint32(68, attachTypes[type], true)
	const fd = verify(bytes)
	if (fd >= 0) return fd
	// Again with a log: without one the kernel verifies faster.
	const log = kernelBuffer(logSize)
	view.setUint32(24, 1, true)
	view.setUint32(28, log.length, true)
	view.setBigUint64(32, addressOf(log), true)
	const second = verify(bytes)
	if (second >= 0) return second
	const end = log.indexOf(0)
	const said = Buffer.from(log.buffer, 0, end < 0 ? log.length : end)
		.toString('latin1')
		.trim()
	const failure = errnoFailure(-fd, `load the eBPF program "${name}"`)
	if (said === '') throw failure
	throw new Failure(failure.code, `${failure.message}; the verifier says: ${said.slice(-quotedLog)}`, {
		...failure.details,
		log: said.slice(-quotedLog * 8),
	})
}

/** A signal ends the verifier's work with EAGAIN, any signal to the process: it is begun again. */
function verify(attribute: Uint8Array): number {
	for (let attempts = 1; ; attempts++) {
		const result = bpf(PROG_LOAD, attribute)
		if (result !== -constants.errno.EAGAIN || attempts === 100) return result
	}
}

/** Attaches a program to a control group; detached when the descriptor closes. */
export function linkToCgroup(program: number, cgroup: number, type: AttachType): number {
	const { bytes, view } = attribute(16)
	view.setUint32(0, program, true)
	view.setUint32(4, cgroup, true)
	view.setUint32(8, attachTypes[type], true)
	const fd = bpf(LINK_CREATE, bytes)
	if (fd >= 0) return fd
	const failure = errnoFailure(-fd, `attach an eBPF program to the control group (${type})`)
	if (failure.code !== 'E2BIG') throw failure
	// BPF_CGROUP_MAX_PROGS in the kernel.
	throw new Failure('E2BIG', `${failure.message}: 64 programs of a kind are there already`, failure.details)
}

/** Puts another program in the place of the link's `old` one, at once: no connection meets none. */
export function updateLink(link: number, program: number, old: number): void {
	const { bytes, view } = attribute(16)
	view.setUint32(0, link, true)
	view.setUint32(4, program, true)
	view.setUint32(8, F_REPLACE, true)
	view.setUint32(12, old, true)
	const result = bpf(LINK_UPDATE, bytes)
	if (result < 0) throw errnoFailure(-result, 'replace an attached eBPF program')
}

function info(fd: number, size: number): DataView {
	const into = kernelBuffer(size)
	const { bytes, view } = attribute(16)
	view.setUint32(0, fd, true)
	view.setUint32(4, size, true)
	view.setBigUint64(8, addressOf(into), true)
	const result = bpf(OBJ_GET_INFO_BY_FD, bytes)
	if (result < 0) throw errnoFailure(-result, 'read about an eBPF object')
	return new DataView(into.buffer)
}

/** The tag of the program a link has in place; undefined where it was detached by somebody. */
export function linkedTag(link: number): string | undefined {
	const about = info(link, 64)
	if (about.getBigUint64(16, true) === 0n) return undefined
	const { bytes, view } = attribute(12)
	view.setUint32(0, about.getUint32(8, true), true)
	const program = bpf(PROG_GET_FD_BY_ID, bytes)
	if (program < 0) return undefined
	try {
		return programTag(program)
	} finally {
		close(program)
	}
}

/** See tagsOf in assemble.ts. */
export function programTag(program: number): string {
	return Buffer.from(info(program, 64).buffer, 8, 8).toString('hex')
}
