// The packets of one connection as they cross the interfaces of one namespace, with the kernel's own timestamps:
// a packet socket with a filter in the kernel, so that nothing else is copied. Reference: man 7 packet, man 7 socket.

import { setTimeout } from 'node:timers/promises'
import { isFailure } from '../base/failure.ts'
import { type Ip, ipFromBytes } from '../base/ip.ts'
import type { Protocol } from '../base/packet.ts'
import { protocolNumber } from './conntrack.ts'
import { inNetns } from './netns.ts'
import {
	AF_INET,
	AF_PACKET,
	attachFilter,
	bind,
	close,
	getsockname,
	inetAddress,
	MessageReceiver,
	SO_RCVBUF,
	SO_RCVBUFFORCE,
	SO_TIMESTAMPNS,
	SOCK_DGRAM,
	SOL_SOCKET,
	sendto,
	setsockopt,
	socket,
	trySetsockopt,
} from './syscalls.ts'

const ETH_P_ALL = 3
const PACKET_OUTGOING = 4

export interface CapturedPacket {
	/** Index of the interface in its namespace. */
	readonly index: number
	readonly direction: 'in' | 'out'
	/** Kernel time of the sighting, nanoseconds since the epoch. */
	readonly time: bigint
	readonly source: Ip
	readonly destination: Ip
	/** Of the packet itself, or of the packet an ICMP error quotes. */
	readonly sourcePort: number
	readonly destinationPort: number
	/** TCP flags as tcpdump writes them (`S`, `S.`, `.`, `P.`, `F.`, `R`), `` for UDP, `icmp 3/3` for an ICMP error. */
	readonly flags: string
	/** True for an ICMP error about the connection. */
	readonly icmp: boolean
	/** Bytes of payload after the TCP or UDP header. */
	readonly payload: number
}

/** Packets of `protocol` that have `port` as their source or destination port, and ICMP errors quoting such packets. */
export interface CaptureFilter {
	readonly protocol: Protocol
	readonly port: number
}

/** Listens on all interfaces of the namespace its maker was in. Close it. */
export class Capture {
	readonly fd: number
	readonly #receiver: MessageReceiver
	#open = true

	/** Throws Failure EPERM without CAP_NET_RAW, EAFNOSUPPORT where the kernel has no packet sockets. */
	constructor(filter: CaptureFilter) {
		// Protocol 0 receives nothing: the filter is in place before the first packet.
		this.fd = socket(AF_PACKET, SOCK_DGRAM, 0)
		try {
			attachFilter(this.fd, filterProgram(filter))
			setsockopt(this.fd, SOL_SOCKET, SO_TIMESTAMPNS, 1)
			if (trySetsockopt(this.fd, SOL_SOCKET, SO_RCVBUFFORCE, 1 << 20) < 0)
				trySetsockopt(this.fd, SOL_SOCKET, SO_RCVBUF, 1 << 20)
			const address = new Uint8Array(20)
			address[0] = AF_PACKET
			address[3] = ETH_P_ALL
			bind(this.fd, address)
		} catch (e) {
			close(this.fd)
			throw e
		}
		this.#receiver = new MessageReceiver(2048)
	}

	/** What was seen since the last call, in the kernel's order. Never blocks. */
	read(): CapturedPacket[] {
		const packets: CapturedPacket[] = []
		while (this.#open) {
			const message = this.#receiver.receive(this.fd)
			if (message === undefined) break
			const packet = decodePacket(message.bytes, message.address, message.control)
			if (packet !== undefined) packets.push(packet)
		}
		return packets
	}

	close(): void {
		if (!this.#open) return
		this.#open = false
		close(this.fd)
	}

	[Symbol.dispose](): void {
		this.close()
	}
}

/**
 * Resolves once the kernel stamps packets as they pass: it begins a moment after the first Capture asked for stamps,
 * and until then a packet gets the time at which it is read. False where that could not be seen in 100 ms (loopback of
 * the namespace `netns` is down, say): then times are not exact.
 */
export async function waitForTimestamps(netns: number): Promise<boolean> {
	const receiver = new MessageReceiver(16)
	const fd = inNetns(netns, () => socket(AF_INET, SOCK_DGRAM, 0))
	try {
		setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, 1)
		bind(fd, inetAddress(new Uint8Array([127, 0, 0, 1]), 0))
		const self = getsockname(fd)
		for (let attempt = 0; attempt < 30; attempt++) {
			// Two datagrams sent apart and read together: their stamps are as far apart only if made on the way.
			sendto(fd, new Uint8Array(1), self)
			await setTimeout(2)
			sendto(fd, new Uint8Array(1), self)
			// One after the other: a message is a view that the next one overwrites.
			const first = timestampOf(receiver.receive(fd)?.control)
			const second = timestampOf(receiver.receive(fd)?.control)
			if (first !== 0n && second - first > 1_000_000n) return true
		}
		return false
	} catch (e) {
		if (isFailure(e)) return false
		throw e
	} finally {
		close(fd)
	}
}

function decodePacket(bytes: Uint8Array, address: Uint8Array, control: Uint8Array): CapturedPacket | undefined {
	const packet = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
	const from = new DataView(address.buffer, address.byteOffset, address.byteLength)
	const outer = decodeHeaders(packet)
	if (outer === undefined) return undefined
	const seen = {
		index: from.getInt32(4, true),
		direction: from.getUint8(10) === PACKET_OUTGOING ? ('out' as const) : ('in' as const),
		time: timestampOf(control),
		source: outer.source,
		destination: outer.destination,
	}
	const rest = packet.subarray(outer.length)
	if (outer.protocol === 1 || outer.protocol === 58) {
		const quoted = decodeHeaders(rest.subarray(8))
		if (quoted === undefined) return undefined
		const ports = rest.subarray(8 + quoted.length)
		if (ports.length < 4) return undefined
		return {
			...seen,
			sourcePort: ports.readUInt16BE(0),
			destinationPort: ports.readUInt16BE(2),
			flags: `icmp ${rest.readUInt8(0)}/${rest.readUInt8(1)}`,
			icmp: true,
			payload: 0,
		}
	}
	if (rest.length < 8) return undefined
	const tcp = outer.protocol === 6
	const header = tcp && rest.length >= 14 ? (rest.readUInt8(12) >> 4) * 4 : outer.protocol === 132 ? 12 : 8
	return {
		...seen,
		sourcePort: rest.readUInt16BE(0),
		destinationPort: rest.readUInt16BE(2),
		flags: tcp && rest.length >= 14 ? tcpFlagsText(rest.readUInt8(13)) : '',
		icmp: false,
		payload: Math.max(0, outer.total - outer.length - header),
	}
}

function decodeHeaders(packet: Buffer):
	| {
			readonly protocol: number
			readonly source: Ip
			readonly destination: Ip
			readonly length: number
			readonly total: number
	  }
	| undefined {
	if (packet.length < 20) return undefined
	const version = packet.readUInt8(0) >> 4
	if (version === 4) {
		return {
			protocol: packet.readUInt8(9),
			source: ipFromBytes(packet.subarray(12, 16)),
			destination: ipFromBytes(packet.subarray(16, 20)),
			length: (packet.readUInt8(0) & 15) * 4,
			total: packet.readUInt16BE(2),
		}
	}
	if (version !== 6 || packet.length < 40) return undefined
	return {
		protocol: packet.readUInt8(6),
		source: ipFromBytes(packet.subarray(8, 24)),
		destination: ipFromBytes(packet.subarray(24, 40)),
		length: 40,
		total: 40 + packet.readUInt16BE(4),
	}
}

/** struct cmsghdr { size_t length; int level; int type; } then struct timespec. */
function timestampOf(control: Uint8Array | undefined): bigint {
	if (control === undefined) return 0n
	const view = new DataView(control.buffer, control.byteOffset, control.byteLength)
	for (let at = 0; at + 16 <= control.length; ) {
		const length = Number(view.getBigUint64(at, true))
		if (length < 16) break
		if (view.getInt32(at + 8, true) === SOL_SOCKET && view.getInt32(at + 12, true) === SO_TIMESTAMPNS) {
			return view.getBigInt64(at + 16, true) * 1_000_000_000n + view.getBigInt64(at + 24, true)
		}
		at += (length + 7) & ~7
	}
	return 0n
}

/** As tcpdump writes them: `S`, `S.`, `P.`, `F.`, `R.`, `.`; `none` without any. */
export function tcpFlagsText(flags: number): string {
	const letters: readonly (readonly [number, string])[] = [
		[0x01, 'F'],
		[0x02, 'S'],
		[0x04, 'R'],
		[0x08, 'P'],
		[0x10, '.'],
		[0x20, 'U'],
		[0x40, 'E'],
		[0x80, 'W'],
	]
	return letters.map(([bit, letter]) => ((flags & bit) !== 0 ? letter : '')).join('') || 'none'
}

// Classic BPF (linux/filter.h): class | size | mode. The packet starts at its IP header (cooked socket).
const LD_B = 0x30
const LD_H = 0x28
const LD_H_X = 0x48
const LDX_MSH = 0xb1
const JEQ = 0x15
const JSET = 0x45
const RSH = 0x74
const RET = 0x06

type Instruction = readonly [code: number, k: number, yes?: string, no?: string]

/** The filter as a classic BPF program: IPv4 (no later fragments), IPv6 (no extension headers), ICMP errors about either. */
export function filterProgram(filter: CaptureFilter): Uint8Array {
	const { port } = filter
	const number = protocolNumber(filter.protocol)
	// Jumps name labels: '' is the next instruction. Quoted headers in ICMP errors are taken to have no options.
	const lines: readonly (readonly [label: string, ...Instruction])[] = [
		['', LD_B, 0],
		['', RSH, 4],
		['', JEQ, 6, 'six', ''],
		['', JEQ, 4, '', 'no'],
		['', LD_H, 6],
		['', JSET, 0x1fff, 'no', ''],
		['', LDX_MSH, 0],
		['', LD_B, 9],
		['', JEQ, 1, 'icmp', ''],
		['', JEQ, number, '', 'no'],
		['', LD_H_X, 0],
		['', JEQ, port, 'yes', ''],
		['', LD_H_X, 2],
		['', JEQ, port, 'yes', 'no'],
		['icmp', LD_H_X, 28],
		['', JEQ, port, 'yes', ''],
		['', LD_H_X, 30],
		['', JEQ, port, 'yes', 'no'],
		['six', LD_B, 6],
		['', JEQ, 58, 'icmp6', ''],
		['', JEQ, number, '', 'no'],
		['', LD_H, 40],
		['', JEQ, port, 'yes', ''],
		['', LD_H, 42],
		['', JEQ, port, 'yes', 'no'],
		['icmp6', LD_H, 88],
		['', JEQ, port, 'yes', ''],
		['', LD_H, 90],
		['', JEQ, port, 'yes', 'no'],
		['yes', RET, 256],
		['no', RET, 0],
	]
	const bytes = new Uint8Array(lines.length * 8)
	const view = new DataView(bytes.buffer)
	lines.forEach(([, code, k, yes, no], i) => {
		const jump = (label: string | undefined) =>
			label === undefined || label === '' ? 0 : lines.findIndex(([name]) => name === label) - i - 1
		view.setUint16(i * 8, code, true)
		view.setUint8(i * 8 + 2, jump(yes))
		view.setUint8(i * 8 + 3, jump(no))
		view.setUint32(i * 8 + 4, k, true)
	})
	return bytes
}
