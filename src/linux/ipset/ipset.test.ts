import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Ip } from '../../base/ip.ts'
import { readMessages } from '../netlink/decode.ts'
import { NetlinkEncoder } from '../netlink/encode.ts'
import {
	changeEntry,
	createSet,
	findEntry,
	parseEntry,
	type SetHeader,
	type SetType,
	swapSets,
	writeEntry,
} from './ipset.ts'

const hex = (write: (e: NetlinkEncoder) => void): string => {
	const e = new NetlinkEncoder()
	write(e)
	return readMessages(Buffer.from(e.bytes()))
		.map((m) => `${m.type.toString(16)} ${m.body.toString('hex')}`)
		.join(' ')
}
const bytes = (...parts: string[]) => parts.join('').replaceAll(' ', '')
const set: SetHeader = { name: 'A', type: 'hash:ip,port', family: 4 }

describe('ipset messages', () => {
	it('a set, byte by byte', () => {
		assert.equal(
			hex((e) => createSet(e, set)),
			`602 ${bytes(
				'02000000', // nfgenmsg, IPv4
				'05000100 06000000', // protocol 6
				'06000200 41000000', // name
				`11000300 ${Buffer.from('hash:ip,port\0').toString('hex')} 000000`,
				'05000400 01000000', // revision
				'05000500 02000000', // family
				'14000780',
				'08001240 00000400', // 1,024 buckets
				'08001340 00100000', // at most 1,048,576 entries
			)}`,
		)
	})

	it('an entry, byte by byte', () => {
		assert.equal(
			hex((e) => changeEntry(e, 'add', set, '10.96.0.1,udp:53')),
			`609 ${bytes(
				'02000000 05000100 06000000 06000200 41000000',
				'28000780',
				'0c000180 08000140 0a600001',
				'06000440 00350000',
				'05000700 11000000',
				'08000940 00000000',
			)}`,
		)
	})

	it('two sets change places', () => {
		assert.equal(
			hex((e) => swapSets(e, 'A', 'B')),
			`606 ${bytes('02000000 05000100 06000000 06000200 41000000 06000300 42000000')}`,
		)
	})
})

describe('ipset entries', () => {
	const texts: [SetType, string][] = [
		['hash:ip', '10.96.0.1'],
		['hash:ip,port', '10.96.0.1,tcp:80'],
		['hash:ip,port', 'fd00::1,sctp:9'],
		['hash:ip,port,ip', '10.244.1.2,udp:53,10.244.1.2'],
		['hash:ip,port,net', '203.0.113.7,tcp:443,198.51.100.0/24'],
		['hash:ip,port,net', '203.0.113.7,tcp:443,198.51.100.1'],
		['hash:ip,port,net', 'fd00::1,tcp:443,fd01::/16'],
		['bitmap:port', '30080'],
	]

	it('are written as they were read', () => {
		for (const [type, text] of texts) assert.equal(writeEntry(type, parseEntry(type, text)), text)
	})

	it('are found by the fields of a packet', () => {
		const fields = { ip: '203.0.113.7' as Ip, protocol: 'tcp', port: 443, ip2: '198.51.100.9' as Ip } as const
		const nets = { type: 'hash:ip,port,net', entries: new Set(['203.0.113.7,tcp:443,198.51.100.0/24']) } as const
		assert.equal(findEntry(nets, fields), '203.0.113.7,tcp:443,198.51.100.0/24')
		assert.equal(findEntry(nets, { ...fields, ip2: '198.51.101.9' as Ip }), undefined)
		assert.equal(findEntry({ type: 'bitmap:port', entries: new Set(['443']) }, fields), '443')
		assert.equal(findEntry({ type: 'hash:ip,port', entries: new Set(['203.0.113.7,udp:443']) }, fields), undefined)
	})
})
