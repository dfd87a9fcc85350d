import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Ip } from '../base/ip.ts'
import { tableOf } from '../base/table.ts'
import { meantAt, nameMatches } from './resolved-names.ts'

for (const [entry, name, meant] of [
	['kubernetes.io', 'kubernetes.io', true],
	['kubernetes.io', 'Kubernetes.IO.', true],
	['Kubernetes.io.', 'kubernetes.io', true],
	['kubernetes.io', 'www.kubernetes.io', false],
	['kubernetes.io', 'my-kubernetes.io', false],
	['*.kubernetes.io', 'www.kubernetes.io', true],
	['*.kubernetes.io', 'latest.blog.kubernetes.io', true],
	['*.kubernetes.io', 'kubernetes.io', false],
	['*.kubernetes.io', '.kubernetes.io', false],
	['*.kubernetes.io', 'wikikubernetes.io', false],
	['*.kubernetes.io', 'wikipedia.org', false],
] as const)
	test(`${entry} ${meant ? 'means' : 'does not mean'} ${name}`, () => assert.equal(nameMatches(entry, name), meant))

test('an address has the names that are meant, sorted', () => {
	const ip = '192.0.2.1' as Ip
	const names = tableOf<string, readonly Ip[]>([
		['b.example.com', [ip]],
		['a.example.com', ['192.0.2.9' as Ip, ip]],
		['example.org', [ip]],
		['c.example.com', ['192.0.2.9' as Ip]],
	])
	assert.deepEqual(meantAt(names, ['*.example.com'], ip), ['a.example.com', 'b.example.com'])
	assert.deepEqual(meantAt(names, ['example.org', 'c.example.com'], ip), ['example.org'])
	assert.deepEqual(meantAt(names, ['example.net'], ip), [])
	assert.deepEqual(meantAt(undefined, ['example.org'], ip), [])
})
