import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { filterProgram, tcpFlagsText } from './capture.ts'

/** Classic BPF as the kernel runs it (the few instructions a filter uses): the bytes it lets through, 0 for none. */
function run(program: Uint8Array, packet: Buffer): number {
	const code = new DataView(program.buffer)
	let a = 0
	let x = 0
	for (let pc = 0; pc < program.length / 8; pc++) {
		const op = code.getUint16(pc * 8, true)
		const yes = code.getUint8(pc * 8 + 2)
		const no = code.getUint8(pc * 8 + 3)
		const k = code.getUint32(pc * 8 + 4, true)
		// A load beyond the packet ends the program: nothing passes.
		const at = op === 0x48 ? x + k : k
		const size = op === 0x28 || op === 0x48 ? 2 : op === 0x30 || op === 0xb1 ? 1 : 0
		if (at + size > packet.length && size > 0) return 0
		switch (op) {
			case 0x30:
				a = packet.readUInt8(at)
				break
			case 0x28:
			case 0x48:
				a = packet.readUInt16BE(at)
				break
			case 0xb1:
				x = (packet.readUInt8(at) & 15) * 4
				break
			case 0x74:
				a >>>= k
				break
			case 0x15:
				pc += a === k ? yes : no
				break
			case 0x45:
				pc += (a & k) !== 0 ? yes : no
				break
			case 0x06:
				return k
			default:
				assert.fail(`instruction 0x${op.toString(16)}`)
		}
	}
	return assert.fail('the program runs off its end')
}

const ports = (source: number, destination: number) => {
	const bytes = Buffer.alloc(20)
	bytes.writeUInt16BE(source, 0)
	bytes.writeUInt16BE(destination, 2)
	return bytes
}
function ip4(protocol: number, payload: Buffer, { options = 0, fragment = 0 } = {}): Buffer {
	const header = Buffer.alloc(20 + options)
	header[0] = 0x40 | (header.length / 4)
	header.writeUInt16BE(header.length + payload.length, 2)
	header.writeUInt16BE(fragment, 6)
	header[9] = protocol
	return Buffer.concat([header, payload])
}
function ip6(next: number, payload: Buffer): Buffer {
	const header = Buffer.alloc(40)
	header[0] = 0x60
	header[6] = next
	return Buffer.concat([header, payload])
}
const error = (quoted: Buffer) => Buffer.concat([Buffer.from([3, 3, 0, 0, 0, 0, 0, 0]), quoted])

describe('capture filter', () => {
	const cases: readonly (readonly [string, Buffer, boolean])[] = [
		['from the port', ip4(6, ports(40000, 80)), true],
		['to the port', ip4(6, ports(80, 40000)), true],
		['after IP options', ip4(6, ports(40000, 80), { options: 8 }), true],
		['other ports', ip4(6, ports(40001, 80)), false],
		['the port of another protocol', ip4(17, ports(40000, 80)), false],
		['a later fragment', ip4(6, ports(40000, 80), { fragment: 100 }), false],
		['the first of fragments', ip4(6, ports(40000, 80), { fragment: 0x2000 }), true],
		['an error about it', ip4(1, error(ip4(6, ports(40000, 80)))), true],
		['an error about its answer', ip4(1, error(ip4(6, ports(80, 40000)))), true],
		['an error about another', ip4(1, error(ip4(6, ports(1, 2)))), false],
		['IPv6 from the port', ip6(6, ports(40000, 80)), true],
		['IPv6 to the port', ip6(6, ports(80, 40000)), true],
		['IPv6 other ports', ip6(6, ports(1, 2)), false],
		['IPv6 other protocol', ip6(17, ports(40000, 80)), false],
		['ICMPv6 error about it', ip6(58, error(ip6(6, ports(40000, 80)))), true],
		['ICMPv6 error about another', ip6(58, error(ip6(6, ports(1, 2)))), false],
		['neither version', Buffer.alloc(60), false],
		['too short', Buffer.from([0x45, 0]), false],
	]
	for (const [name, packet, passes] of cases) {
		it(`${passes ? 'lets through' : 'keeps out'}: ${name}`, () => {
			assert.equal(run(filterProgram({ protocol: 'TCP', port: 40000 }), packet) > 0, passes)
		})
	}

	it('writes TCP flags as tcpdump does', () => {
		assert.deepEqual([0x02, 0x12, 0x10, 0x18, 0x11, 0x14, 0].map(tcpFlagsText), [
			'S',
			'S.',
			'.',
			'P.',
			'F.',
			'R.',
			'none',
		])
	})
})
