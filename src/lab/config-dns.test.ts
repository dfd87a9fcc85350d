import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFailure } from '../base/failure.ts'
import { parseConfig } from './config.ts'

const head = 'apiVersion: podwire.dev/v1alpha1\nkind: Config\n'

test('hosts and upstreams are read', async () => {
	const text = `${head}dns:
  hosts:
    - names: [api.example.com, www.example.com]
      addresses: [203.0.113.10, "2001:db8::10"]
    - names: [brief.example.com]
      addresses: [203.0.113.11]
      ttl: 0
  upstreams: [203.0.113.1]
`
	const addresses = ['203.0.113.10', '2001:db8::10']
	assert.deepEqual((await parseConfig(text, 'f')).dns, {
		hosts: [
			{ name: 'api.example.com', addresses, ttl: 30 },
			{ name: 'www.example.com', addresses, ttl: 30 },
			{ name: 'brief.example.com', addresses: ['203.0.113.11'], ttl: 0 },
		],
		upstreams: ['203.0.113.1'],
	})
	assert.equal((await parseConfig(head, 'f')).dns, undefined)
})

test('faults are named with their place', async () => {
	for (const [section, faults] of [
		['dns: []', ['f:3:6: dns must be a mapping']],
		['dns: { host: [] }', ['f:3:8: unknown field "dns.host"; known are hosts, upstreams']],
		['dns: { hosts: {} }', ['f:3:15: dns.hosts must be a list of hosts that is not empty']],
		['dns: { hosts: [{ names: [a.example] }] }', ['f:3:16: dns.hosts[0].addresses is missing']],
		[
			'dns: { hosts: [{ names: ["*.example", a.example], addresses: [x], ttl: soon }] }',
			[
				'f:3:72: dns.hosts[0].ttl must be a whole number of seconds',
				'f:3:63: dns.hosts[0].addresses[0] must be an address such as 203.0.113.10',
				'f:3:26: dns.hosts[0].names[0] must be a name such as api.example.com',
			],
		],
		['dns: { upstreams: 203.0.113.1 }', ['f:3:19: dns.upstreams must be a list of addresses that is not empty']],
	] as const)
		await assert.rejects(parseConfig(`${head}${section}\n`, 'f'), (e) => {
			assert.ok(isFailure(e, 'InvalidConfig'))
			assert.deepEqual(e.message.split('\n'), faults)
			return true
		})
})
