import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type Cidr, cidrContains, cidrLength, ipFromBytes, maskIp, parseCidr, parseIp } from './ip.ts'
import { prefixTable } from './prefix.ts'

test('the most specific network wins', () => {
	const table = prefixTable([
		[parseCidr('0.0.0.0/0'), 'default'],
		[parseCidr('10.0.0.0/8'), 'ten'],
		[parseCidr('10.244.1.0/24'), 'node'],
		[parseCidr('10.244.1.7/32'), 'pod'],
		[parseCidr('fd00::/8'), 'local'],
	])
	const want: [string, string | undefined][] = [
		['10.244.1.7', 'pod'],
		['10.244.1.8', 'node'],
		['10.9.9.9', 'ten'],
		['8.8.8.8', 'default'],
		['fd00::1', 'local'],
		['2001:db8::1', undefined],
	]
	for (const [ip, value] of want) assert.equal(table.find(parseIp(ip))?.value, value, ip)
	assert.equal(table.get(parseCidr('10.0.0.0/8')), 'ten')
	assert.equal(table.get(parseCidr('10.0.0.0/9')), undefined)
	assert.equal(table.size, 5)
})

test('it finds what comparing with every network finds', () => {
	// Addresses of few different bits, so that networks hold them.
	const ip = fc
		.oneof(
			fc.array(fc.constantFrom(0, 1, 128, 255), { minLength: 4, maxLength: 4 }),
			fc.array(fc.constantFrom(0, 255), { minLength: 16, maxLength: 16 }),
		)
		.map((bytes) => ipFromBytes(Uint8Array.from(bytes)))
	const cidr = fc.tuple(ip, fc.nat(128)).map(([address, n]) => {
		const length = address.includes(':') ? n : n % 33
		return `${maskIp(address, length)}/${length}` as Cidr
	})
	fc.assert(
		fc.property(fc.uniqueArray(cidr, { maxLength: 30, size: 'max' }), ip, (cidrs, address) => {
			const table = prefixTable(cidrs.map((c) => [c, c] as const))
			const naive = cidrs.filter((c) => cidrContains(c, address)).sort((a, b) => cidrLength(b) - cidrLength(a))
			assert.deepEqual(
				table.findAll(address).map((m) => m.cidr),
				naive,
			)
			assert.equal(table.find(address)?.value, naive[0])
		}),
	)
})
