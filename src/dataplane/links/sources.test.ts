import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Ip } from '../../base/ip.ts'
import type { Packet } from '../../base/packet.ts'
import { tableOf } from '../../base/table.ts'
import { evaluateProgram } from '../../linux/nft/evaluate.ts'
import type { NetworkModel, Node } from '../../model/network.ts'
import { createSources, foreignSource } from './sources.ts'

const modelWith = (...podCidrs: string[]) =>
	({ nodes: tableOf([['node-1', { podCidrs } as unknown as Node]]) }) as unknown as NetworkModel
const compile = (...podCidrs: string[]) => createSources().compile(modelWith(...podCidrs), 'node-1')

test('only where pods have IPv6, and always the same program', () => {
	assert.equal(compile('10.244.0.0/24').tables.size, 0)
	assert.deepEqual([...compile('10.244.0.0/24', 'fd00::/64').tables.keys()], ['ip6 podwire-links'])
	assert.equal(compile('fd00::/64'), compile('fd01::/64'))
})

for (const [what, source, inInterface, verdict] of [
	['its own address', 'fd00::5', 'pw0123456789ab', 'accept'],
	["another pod's", 'fd00::6', 'pw0123456789ab', 'drop'],
	["nobody's", '2001:db8::1', 'pw0123456789ab', 'drop'],
	['its link-local one', 'fe80::858:aff:fe00:5', 'pw0123456789ab', 'accept'],
	['whatever comes from elsewhere', '2001:db8::1', 'eth0', 'accept'],
] as const) {
	test(`sources: ${what}`, () => {
		const packet: Packet = {
			...{ protocol: 'UDP', source: source as Ip, sourcePort: 1, destination: 'fd00::9' as Ip, destinationPort: 2 },
			...{ state: 'new', mark: 0, inInterface },
		}
		const wayBack = (ip: string, device: string) => ip === 'fd00::5' && device === 'pw0123456789ab'
		const [outcome] = evaluateProgram(compile('fd00::/64'), packet, 'prerouting', { wayBack })
		assert.equal(outcome?.verdict, verdict)
		if (verdict === 'drop') assert.equal(outcome?.rules.at(-1)?.comment, foreignSource)
	})
}
