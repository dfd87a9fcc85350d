// First packets of connections, made by hand and sent through raw sockets, and which of them came where they should:
// each is told by its own source port (or echo id), so that many are on the way at once.

import { type Ip, ipToBytes } from '../../../src/base/ip.ts'
import type { Protocol } from '../../../src/base/packet.ts'
import { inNetnsAt } from '../../../src/linux/netns.ts'
import {
	AF_INET,
	AF_INET6,
	bind,
	close,
	inetAddress,
	recv,
	SO_RCVBUF,
	SOCK_NONBLOCK,
	SOCK_RAW,
	SOL_SOCKET,
	sendto,
	setsockopt,
	socket,
} from '../../../src/linux/syscalls.ts'
import type { Place } from './world.ts'

export interface Sent {
	readonly from: Ip
	readonly to: Ip
	readonly protocol: Protocol
	readonly port: number
}

const numbers: Readonly<Record<Protocol, number>> = { TCP: 6, UDP: 17, SCTP: 132, ICMP: 1 }
const protocols = Object.keys(numbers) as Protocol[]
const lowest = 1_024
const highest = 65_000

/** Sends and hears for all places. */
export class Packets {
	/** `protocol address` → a socket that sends from the address, and hears what is for it. */
	readonly #sockets = new Map<string, number>()
	readonly #buffer = new Uint8Array(2_048)
	#id = lowest

	constructor(places: readonly Place[]) {
		for (const { netns, ips } of places) {
			for (const ip of ips) {
				for (const protocol of protocols) {
					const [family, number] = ip.includes(':')
						? [AF_INET6, protocol === 'ICMP' ? 58 : numbers[protocol]]
						: [AF_INET, numbers[protocol]]
					const fd = inNetnsAt(netns, () => socket(family, SOCK_RAW | SOCK_NONBLOCK, number))
					setsockopt(fd, SOL_SOCKET, SO_RCVBUF, 1 << 20)
					bind(fd, inetAddress(ipToBytes(ip), 0))
					this.#sockets.set(`${protocol} ${ip}`, fd)
				}
			}
		}
	}

	/** By what it is told again. */
	send({ from, to, protocol, port }: Sent): number {
		const id = this.#id
		this.#id = id === highest ? lowest : id + 1
		const bytes = packetOf(protocol, id, port, from, to)
		sendto(this.#sockets.get(`${protocol} ${from}`)!, bytes, inetAddress(ipToBytes(to), 0))
		return id
	}

	/** What has come since: ids with the address they came to. Answers of kernels are none of ours. */
	heard(): (readonly [id: number, at: Ip])[] {
		const found: (readonly [number, Ip])[] = []
		for (const [key, fd] of this.#sockets) {
			const [protocol, at] = key.split(' ') as [Protocol, Ip]
			for (let size = recv(fd, this.#buffer); size !== undefined; size = recv(fd, this.#buffer)) {
				const id = idOf(protocol, at, Buffer.from(this.#buffer.buffer, 0, size))
				if (id !== undefined) found.push([id, at])
			}
		}
		return found
	}

	close(): void {
		for (const fd of this.#sockets.values()) close(fd)
	}
}

const SYN = 0x02
const CHUNK_INIT = 1

function packetOf(protocol: Protocol, id: number, port: number, from: Ip, to: Ip): Buffer {
	switch (protocol) {
		case 'TCP': {
			const b = Buffer.alloc(20)
			b.writeUInt16BE(id, 0)
			b.writeUInt16BE(port, 2)
			b.writeUInt32BE(id * 7, 4)
			b[12] = 5 << 4
			b[13] = SYN
			b.writeUInt16BE(64_000, 14)
			b.writeUInt16BE(checksum(b, 6, from, to), 16)
			return b
		}
		case 'UDP': {
			const b = Buffer.alloc(12)
			b.writeUInt16BE(id, 0)
			b.writeUInt16BE(port, 2)
			b.writeUInt16BE(b.length, 4)
			b.writeUInt16BE(checksum(b, 17, from, to), 6)
			return b
		}
		case 'SCTP': {
			const b = Buffer.alloc(32)
			b.writeUInt16BE(id, 0)
			b.writeUInt16BE(port, 2)
			b[12] = CHUNK_INIT
			b.writeUInt16BE(20, 14)
			b.writeUInt32BE(id, 16)
			b.writeUInt32BE(64_000, 20)
			b.writeUInt16BE(1, 24)
			b.writeUInt16BE(1, 26)
			b.writeUInt32LE(crc32c(b), 8)
			return b
		}
		case 'ICMP': {
			const b = Buffer.alloc(16)
			b[0] = from.includes(':') ? 128 : 8
			b.writeUInt16BE(id, 4)
			// Of ICMPv6 the kernel writes the checksum itself.
			if (b[0] === 8) b.writeUInt16BE(sumOf(b), 2)
			return b
		}
		default:
			return protocol satisfies never
	}
}

/** Undefined: an answer, or an error about one of ours. */
function idOf(protocol: Protocol, at: Ip, packet: Buffer): number | undefined {
	// IPv4 comes with its header, IPv6 without.
	const b = at.includes(':') ? packet : packet.subarray((packet.readUInt8(0) & 15) * 4)
	switch (protocol) {
		case 'TCP':
			return b.readUInt8(13) === SYN ? b.readUInt16BE(0) : undefined
		case 'UDP':
			return b.readUInt16BE(0)
		case 'SCTP':
			return b.readUInt8(12) === CHUNK_INIT ? b.readUInt16BE(0) : undefined
		case 'ICMP':
			return b.readUInt8(0) === (at.includes(':') ? 128 : 8) ? b.readUInt16BE(4) : undefined
		default:
			return protocol satisfies never
	}
}

function sumOf(...parts: readonly Uint8Array[]): number {
	let sum = 0
	for (const part of parts) for (let i = 0; i < part.length; i += 2) sum += (part[i]! << 8) | (part[i + 1] ?? 0)
	while (sum > 0xffff) sum = (sum >>> 16) + (sum & 0xffff)
	return ~sum & 0xffff
}

/** Over the pseudo header too (RFC 9293, RFC 8200 §8.1). */
function checksum(b: Buffer, protocol: number, from: Ip, to: Ip): number {
	const tail = Buffer.alloc(4)
	tail.writeUInt16BE(protocol, 0)
	tail.writeUInt16BE(b.length, 2)
	return sumOf(ipToBytes(from), ipToBytes(to), tail, b) || 0xffff
}

function crc32c(b: Buffer): number {
	let crc = 0xffffffff
	for (const byte of b) {
		crc ^= byte
		for (let i = 0; i < 8; i++) crc = (crc >>> 1) ^ (crc & 1 ? 0x82f63b78 : 0)
	}
	return (crc ^ 0xffffffff) >>> 0
}
