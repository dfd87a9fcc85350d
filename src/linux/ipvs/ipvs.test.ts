// IPVS and ipset messages byte by byte, as linux/ip_vs.h and linux/netfilter/ipset/ip_set.h lay them out; and read back.
// What the kernel, ipvsadm and ipset make of them is tested in a virtual machine (test/vm) and in test/net.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Ip } from '../../base/ip.ts'
import { readMessages } from '../netlink/decode.ts'
import { NetlinkEncoder } from '../netlink/encode.ts'
import {
	addDestination,
	addServer,
	type Destination,
	decodeDestination,
	decodeServer,
	deleteServer,
	type VirtualServer,
} from './ipvs.ts'

const family = 0x1b
const server: VirtualServer = { protocol: 'TCP', ip: '10.96.0.1' as Ip, port: 80, scheduler: 'rr', persistence: 10800 }
const six: VirtualServer = { protocol: 'UDP', ip: 'fd00:10:96::1' as Ip, port: 53, scheduler: 'mh', hashPort: true }
const destination: Destination = {
	ip: '10.244.1.2' as Ip,
	port: 8080,
	weight: 3,
	forwarding: 'masquerade',
	upper: 0,
	lower: 0,
}

function written(write: (e: NetlinkEncoder) => void): {
	readonly hex: string
	readonly body: Buffer
	readonly type: number
} {
	const e = new NetlinkEncoder()
	write(e)
	const [message] = readMessages(Buffer.from(e.bytes()))
	return { hex: message!.body.toString('hex'), body: message!.body, type: message!.type }
}

describe('IPVS messages', () => {
	it('a server, byte by byte', () => {
		const { hex, type } = written((e) => addServer(e, family, server))
		assert.equal(type, family)
		const expected = [
			'01010000', // IPVS_CMD_NEW_SERVICE, version 1
			'54000180', // IPVS_CMD_ATTR_SERVICE, nested
			'06000100 02000000', // address family 2
			'06000200 06000000', // TCP
			'14000300 0a600001 00000000 00000000 00000000',
			'06000400 00500000', // port 80, network order
			'07000600 72720000', // "rr"
			'0c000700 01000000 ffffffff', // persistent; all flags are meant
			'08000800 302a0000', // 10800 s
			'08000900 ffffffff',
		]
		assert.equal(hex, expected.join('').replaceAll(' ', ''))
	})

	it('a server of IPv6: its mask is a length', () => {
		const { hex } = written((e) => addServer(e, family, six))
		assert.ok(hex.includes('06000100 0a000000'.replaceAll(' ', '')))
		assert.ok(hex.includes('14000300 fd000010 00960000 00000000 00000001'.replaceAll(' ', '')))
		assert.ok(hex.includes('0c000700 10000000 ffffffff'.replaceAll(' ', '')))
		assert.ok(hex.endsWith('0800090080000000'))
	})

	it('a destination names its server', () => {
		const { hex } = written((e) => addDestination(e, family, server, destination, true))
		assert.equal(hex.slice(0, 8), '06010000')
		const nested = [
			'48000280',
			'06000b00 02000000',
			'14000100 0af40102 00000000 00000000 00000000',
			'06000200 1f900000',
			'08000300 00000000',
			'08000400 03000000',
			'08000500 00000000',
			'08000600 00000000',
		]
		assert.ok(hex.endsWith(nested.join('').replaceAll(' ', '')), hex)
	})

	it('deleting says no more than which', () => {
		const { hex } = written((e) => deleteServer(e, family, server))
		assert.equal(hex.length / 2, 4 + 4 + 8 + 8 + 20 + 8)
	})

	it('decode(encode(x)) = x', () => {
		for (const one of [server, six, { ...server, protocol: 'SCTP' as const, persistence: undefined }]) {
			const { body } = written((e) => addServer(e, family, one))
			assert.deepEqual(decodeServer({ body }), JSON.parse(JSON.stringify(one)))
		}
		const { body } = written((e) => addDestination(e, family, server, destination))
		assert.deepEqual(decodeDestination({ body }), { ...destination, active: 0, inactive: 0 })
	})
})
