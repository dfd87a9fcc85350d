import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFailure } from '../base/failure.ts'
import { type Cidr, type Ip, parseCidr } from '../base/ip.ts'
import { createIpam } from './ipam.ts'

const c = (text: string): Cidr => parseCidr(text)

test('gives the lowest free address after the last, and what was left is used again last', () => {
	const ipam = createIpam('node-1', [c('10.244.0.0/29')])
	assert.equal(ipam.capacity, 5)
	assert.deepEqual(ipam.allocate('a'), ['10.244.0.2'])
	assert.deepEqual(ipam.allocate('b'), ['10.244.0.3'])
	assert.deepEqual(ipam.allocate('a'), ['10.244.0.2'], 'the same owner keeps its address')
	ipam.release('a')
	assert.deepEqual(ipam.allocate('c'), ['10.244.0.4'])
	assert.deepEqual(ipam.allocate('d'), ['10.244.0.5'])
	assert.deepEqual(ipam.allocate('e'), ['10.244.0.6'], 'the last before the broadcast address')
	assert.deepEqual(ipam.allocate('f'), ['10.244.0.2'], 'wraps around')
	assert.equal(ipam.used, 5)
	assert.throws(
		() => ipam.allocate('g'),
		(e) =>
			isFailure(e, 'AddressesExhausted') &&
			e.message === 'Cannot give pod "g" an address on node "node-1": all 5 addresses of 10.244.0.0/29 are taken',
	)
	ipam.release('d')
	assert.deepEqual(ipam.allocate('g'), ['10.244.0.5'], 'the only free one is found wherever it is')
})

test('two families: both or none', () => {
	const ipam = createIpam('n', [c('10.0.0.0/24'), c('fd00::/126')])
	assert.deepEqual(ipam.allocate('a'), ['10.0.0.2', 'fd00::2'])
	assert.deepEqual(ipam.allocate('b'), ['10.0.0.3', 'fd00::3'])
	assert.throws(() => ipam.allocate('c'), /all 2 addresses of fd00::\/126/)
	ipam.release('a')
	assert.deepEqual(ipam.allocate('d'), ['10.0.0.4', 'fd00::2'], 'the failed try took nothing')
})

test('restores, prefers, and refuses what another has', () => {
	const ipam = createIpam('n', [c('10.0.0.0/24')])
	ipam.restore('a', ['10.0.0.7' as Ip])
	assert.deepEqual(ipam.allocate('a'), ['10.0.0.7'])
	assert.throws(() => ipam.restore('b', ['10.0.0.7' as Ip]), /"a" has it/)
	assert.deepEqual(
		ipam.allocate('b', ['10.0.0.7' as Ip]),
		['10.0.0.8'],
		'a preferred address that is taken is passed over',
	)
	assert.deepEqual(ipam.allocate('c', ['10.0.0.99' as Ip]), ['10.0.0.99'])
	assert.deepEqual(
		ipam.allocate('d', ['10.0.0.0' as Ip, '10.0.0.255' as Ip]),
		['10.0.0.9'],
		'network and broadcast never',
	)
})

test('a node without pod CIDR, and one too small, say so', () => {
	assert.throws(
		() => createIpam('n', []).allocate('a'),
		(e) => isFailure(e, 'NoPodCidr'),
	)
	assert.throws(
		() => createIpam('n', [c('10.0.0.0/31')]).allocate('a'),
		(e) => isFailure(e, 'AddressesExhausted'),
	)
})
