// The law of the load balancer: what the model says becomes of a connection from outside is what the evaluation of the
// appliance's compiled program says, with the same chances; and a program that follows changes is the one made anew.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { type Cidr, familyOf, type Ip } from '../../src/base/ip.ts'
import type { Packet } from '../../src/base/packet.ts'
import { compileBalancer, holdersOf } from '../../src/dataplane/loadbalancer/compile.ts'
import { evaluateBalancer } from '../../src/dataplane/loadbalancer/evaluate.ts'
import { emptyProgram, type NftProgram, sameProgram } from '../../src/linux/nft/program.ts'
import { build } from '../../src/model/build.ts'
import { balance, wayOf } from '../../src/model/load-balancer.ts'
import type { NetworkModel } from '../../src/model/network.ts'
import { apply, edits, nothing } from './cluster.ts'
import './seed.ts'

const edge = {
	outsideInterface: 'outside0',
	nodesInterface: 'underlay0',
	nodes: ['172.18.0.0/16', 'fd00:172::/64'] as Cidr[],
}
const clients = ['203.0.113.1', '198.51.100.7', '10.0.0.9', '2001:db8:1::1'] as Ip[]
const well = () => true

test('model = evaluated program of the appliance', () => {
	const seen: Record<string, number> = {}
	fc.assert(
		fc.property(edits, (list) => {
			let state = nothing
			let model = build(state)
			let program: NftProgram = emptyProgram
			for (const edit of list) {
				const next = apply(state, edit)
				model = build(next, { state, model })
				state = next
				program = compileBalancer(model, edge, well, program)
			}
			assert.ok(sameProgram(program, compileBalancer(model, edge, well)), 'followed is not as made anew')
			for (const to of frontends(model)) {
				for (const source of clients) {
					if (familyOf(source) !== familyOf(to.ip)) continue
					const expected = should(model, source, to)
					const packet: Packet = {
						...{ protocol: to.protocol, source, sourcePort: 32768, destination: to.ip, destinationPort: to.port },
						...{ state: 'new', mark: 0, inInterface: 'outside0' },
					}
					assert.deepEqual(would(program, packet), expected, JSON.stringify({ source, ...to }))
					for (const key of Object.keys(expected)) {
						const kind = /[.:]/.test(key) ? 'handed on' : key
						seen[kind] = (seen[kind] ?? 0) + 1
					}
				}
			}
		}),
		{ numRuns: 120 },
	)
	for (const kind of ['handed on', 'reject', 'drop', 'as it is'])
		assert.ok((seen[kind] ?? 0) > 10, JSON.stringify(seen))
})

interface Frontend {
	readonly ip: Ip
	readonly protocol: 'TCP' | 'UDP' | 'SCTP'
	readonly port: number
}

/** Every port of every address of our load balancers, and one that none has. */
function frontends(model: NetworkModel): Frontend[] {
	const all: Frontend[] = [{ ip: '192.0.2.99' as Ip, protocol: 'TCP', port: 80 }]
	for (const [ip, services] of holdersOf(model)) {
		for (const service of services) {
			for (const { protocol, port } of service.ports) if (protocol !== 'ICMP') all.push({ ip, protocol, port })
		}
		all.push({ ip, protocol: 'TCP', port: 9 })
	}
	return all
}

function should(model: NetworkModel, source: Ip, { ip, protocol, port }: Frontend): Record<string, number> {
	const balanced = balance(model, ip, protocol, port, source)
	const holders = holdersOf(model).get(ip) ?? []
	const hidden = holders.some((s) => s.loadBalancer?.internal !== undefined)
	if (balanced === undefined) {
		if (hidden) return { drop: 1 }
		return { [holders.length === 0 || wayOf(holders) === 'announce' ? 'as it is' : 'reject']: 1 }
	}
	switch (balanced.kind) {
		case 'drop':
			return { drop: 1 }
		case 'announce':
			return { 'as it is': 1 }
		case 'forward': {
			const { targets } = balanced
			if (targets.length === 0) return { reject: 1 }
			return Object.fromEntries(targets.map((t) => [`${t.ip} ${t.port}`, 1 / targets.length]))
		}
	}
}

function would(program: NftProgram, packet: Packet): Record<string, number> {
	const outcomes: Record<string, number> = {}
	const add = (key: string, chance: number) => {
		outcomes[key] = (outcomes[key] ?? 0) + chance
	}
	for (const first of evaluateBalancer(program, packet, 'prerouting')) {
		const { destination, destinationPort } = first.packet
		if (first.verdict !== 'accept') add(first.verdict, first.chance)
		else if (destination !== packet.destination) add(`${destination} ${destinationPort}`, first.chance)
		else {
			const table = program.tables.get(familyOf(destination) === 4 ? 'ip podwire-balancer' : 'ip6 podwire-balancer')
			if (table?.sets.get('addresses')?.elements.has(destination) !== true) add('as it is', first.chance)
			else
				for (const last of evaluateBalancer(program, first.packet, 'input')) {
					add(last.verdict === 'accept' ? 'not taken' : last.verdict, first.chance * last.chance)
				}
		}
	}
	return outcomes
}
