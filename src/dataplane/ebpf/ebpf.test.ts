// Compiling, comparing and evaluating on paper: step by step as at once, bytes and back, and the code of the programs
// against what the data says by itself.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { ServiceModels } from '../../../test/net/ebpf-models.ts'
import { podIp, sketchModel, sketchService } from '../../../test/net/services-world.ts'
import type { Ip } from '../../base/ip.ts'
import type { Packet } from '../../base/packet.ts'
import { tableOf } from '../../base/table.ts'
import type { AddressOwner } from '../../model/network.ts'
import { createEbpf } from './ebpf.ts'
import { evaluateCall } from './evaluate.ts'
import {
	chunks,
	chunksOf,
	mapLayouts,
	memberKey,
	namespaceValue,
	readChunk,
	readFrontendKey,
	readMember,
	readNamespace,
	writeChunk,
	writeFrontendKey,
} from './layout.ts'
import { type EbpfProgram, frontendKey } from './program.ts'

const { models, follow } = ServiceModels
const text = (program: EbpfProgram) => JSON.stringify(createEbpf().toJson(program))

describe('compile Services for sockets', () => {
	it('law: step by step as at once; nothing to do between equal programs', () => {
		fc.assert(
			fc.property(fc.array(models, { minLength: 2, maxLength: 5 }), (steps) => {
				const plane = createEbpf()
				let model = steps[0] as (typeof steps)[number]
				for (const step of steps) {
					model = follow(model, step)
					const want = plane.compile(model, 'node-1')
					assert.equal(text(want), text(createEbpf().compile(step, 'node-1')))
					assert.deepEqual(plane.diff(want, createEbpf().compile(step, 'node-1')), [])
					assert.equal(plane.compile(model, 'node-1'), want)
					const crossed = plane.fromJson(JSON.parse(text(want)))
					assert.deepEqual(plane.diff(crossed, want), [])
					assert.deepEqual(plane.diff(want, crossed), [])
				}
			}),
			{ numRuns: 150 },
		)
	})

	it('one change is one element, and takes the rest as it is', () => {
		const make = (count: number) =>
			sketchService({
				name: 's7',
				ips: ['10.96.1.7'],
				ports: [{ port: 80, endpoints: Array.from({ length: count }, (_, i) => ({ ip: podIp(i), port: 80 })) }],
			})
		const others = Array.from({ length: 50 }, (_, i) =>
			sketchService({
				name: `o${i}`,
				ips: [`10.96.2.${i}`],
				ports: [{ port: 80, endpoints: [{ ip: podIp(0), port: 80 }] }],
			}),
		)
		const model = sketchModel([make(3), ...others])
		const plane = createEbpf()
		const before = plane.compile(model, 'node-1')
		const after = plane.compile({ ...model, services: model.services.set('default/s7', make(4)) }, 'node-1')
		assert.equal(before.attached, after.attached)
		assert.equal(before.namespaces, after.namespaces)
		assert.equal(before.frontends.get('10.96.2.1 tcp 80'), after.frontends.get('10.96.2.1 tcp 80'))
		const changes = plane.diff(before, after)
		assert.equal(changes.length, 1)
		const [change] = changes
		assert.ok(change?.change === 'frontends')
		assert.deepEqual(
			change.put.map((p) => frontendKey(p.after)),
			['10.96.1.7 tcp 80'],
		)
		assert.deepEqual(change.drop, [])
	})

	it('a cluster without Services for sockets has nothing in the kernel', () => {
		const plane = createEbpf()
		assert.equal(plane.compile(sketchModel([], 2), 'node-1'), plane.empty)
		const sctp = sketchService({
			name: 'sctp',
			ips: ['10.96.0.1'],
			ports: [{ port: 80, protocol: 'SCTP', endpoints: [{ ip: podIp(0), port: 80 }] }],
		})
		assert.equal(plane.compile(sketchModel([sctp]), 'node-1'), plane.empty)
		const program = plane.compile(sketchModel([sketchService({ ...sketch, ports: sketch.ports })]), 'node-1')
		assert.deepEqual(plane.diff(program, plane.empty), [{ change: 'detach' }])
		assert.deepEqual(plane.diff(undefined, plane.empty), [])
		assert.deepEqual(
			plane.diff(plane.empty, program).map((c) => c.change),
			['frontends', 'namespaces', 'attach'],
		)
	})

	it('what packets have to do is left out: source ranges, nobody who serves', () => {
		const plane = createEbpf()
		const [service] = [sketchService(sketch)]
		const keys = (more: object) =>
			[
				...plane
					.compile(sketchModel([{ ...(service as NonNullable<typeof service>), ...more }]), 'node-1')
					.frontends.keys(),
			].sort()
		const ingress = [{ ip: '192.0.2.1' as Ip, ipMode: 'VIP' as const }]
		const balancer = { ingress, sourceRanges: [], allocateNodePorts: false }
		assert.deepEqual(keys({ type: 'LoadBalancer', loadBalancer: balancer }), ['10.96.0.1 tcp 80', '192.0.2.1 tcp 80'])
		assert.deepEqual(keys({ type: 'LoadBalancer', loadBalancer: { ...balancer, sourceRanges: ['10.0.0.0/8'] } }), [
			'10.96.0.1 tcp 80',
		])
		assert.deepEqual(keys({ internalTrafficPolicy: 'Local' }), [])
	})

	it('knows which pods of this node are endpoints themselves, also when that is all that changes', () => {
		const make = (node: object) =>
			sketchService({
				name: 'a',
				ips: ['10.96.0.1'],
				ports: [{ port: 80, endpoints: [{ ip: podIp(1), port: 80, ...node }] }],
			})
		const model = sketchModel([make({ node: 'node-2' })], 2)
		const plane = createEbpf()
		const away = plane.compile(model, 'node-1')
		assert.deepEqual(away.frontends.get('10.96.0.1 tcp 80')?.members, [])
		for (const node of [{ node: 'node-1' }, {}]) {
			const here = plane.compile({ ...model, services: model.services.set('default/a', make(node)) }, 'node-1')
			assert.deepEqual(here.frontends.get('10.96.0.1 tcp 80')?.members, [{ ip: podIp(1), port: 0 }])
			assert.deepEqual(
				plane.diff(away, here).map((c) => c.change),
				['frontends'],
			)
		}
	})

	it('gives an address that two Services claim to its owner', () => {
		const make = (name: string, i: number) =>
			sketchService({ name, ips: ['10.96.0.1'], ports: [{ port: 80, endpoints: [{ ip: podIp(i), port: 80 }] }] })
		const model = sketchModel([make('a', 1), make('b', 2)])
		const plane = createEbpf()
		const target = (owner: string) => {
			const addresses = tableOf<Ip, AddressOwner>([
				['10.96.0.1' as Ip, { kind: 'service', service: `default/${owner}` }],
			])
			return plane.compile({ ...model, addresses }, 'node-1').frontends.get('10.96.0.1 tcp 80')?.endpoints[0]?.ip
		}
		assert.equal(target('a'), podIp(1))
		assert.equal(target('b'), podIp(2))
		assert.equal(target('a'), podIp(1))
	})
})

const sketch = {
	name: 'web',
	ips: ['10.96.0.1'],
	ports: [{ port: 80, endpoints: [{ ip: podIp(1), port: 8080, node: 'node-2' }] }],
}

describe('bytes of the maps', () => {
	it('law: what is written is read', () => {
		fc.assert(
			fc.property(models, (model) => {
				const program = createEbpf().compile(model, 'node-1')
				for (const frontend of program.frontends.values()) {
					const family = frontend.ip.includes(':') ? 6 : 4
					const layout = mapLayouts[`frontends${family}`]
					const found: { ip: Ip; port: number }[] = []
					for (let chunk = 0; chunk < chunksOf(frontend); chunk++) {
						const key = new Uint8Array(layout.keySize)
						writeFrontendKey(key, 0, frontend, chunk)
						const read = readFrontendKey(key, family)
						assert.deepEqual([frontendKey(read.id), read.chunk], [frontendKey(frontend), chunk])
						const value = new Uint8Array(layout.valueSize)
						writeChunk(value, 0, frontend, chunk)
						const part = readChunk(value, family, chunk)
						assert.equal(part.count, frontend.endpoints.length)
						assert.equal(part.affinity, frontend.affinity ?? 0)
						assert.equal(part.nodeOnly, frontend.nodeOnly === true)
						found.push(...part.endpoints)
					}
					assert.deepEqual(
						found,
						frontend.endpoints.map(({ ip, port }) => ({ ip, port })),
					)
					for (const member of frontend.members) {
						const { id, endpoint } = readMember(memberKey(frontend, member))
						assert.deepEqual([frontendKey(id), endpoint], [frontendKey(frontend), member])
					}
				}
				for (const { place, ips } of program.namespaces.values())
					assert.deepEqual(readNamespace(namespaceValue({ place, ips })), { place, ips })
			}),
		)
	})
})

/** What must come of a call, from the program as data alone. */
function expected(program: EbpfProgram, packet: Packet): Map<string, number> {
	const asked = `${packet.destination} ${packet.destinationPort}`
	const socket = [...program.namespaces.values()].find((n) => n.ips.includes(packet.source))
	const frontend = program.frontends.get(
		`${packet.destination} ${packet.protocol.toLowerCase()} ${packet.destinationPort}`,
	)
	if (socket === undefined || frontend === undefined) return new Map([[asked, 1]])
	const own = frontend.members.some((m) => m.port === 0 && m.ip === packet.source)
	if (socket.place === 'pod' && (frontend.nodeOnly === true || own)) return new Map([[asked, 1]])
	const chances = new Map<string, number>()
	for (const { ip, port } of frontend.endpoints) {
		const key = `${ip} ${port}`
		chances.set(key, (chances.get(key) ?? 0) + 1 / frontend.endpoints.length)
	}
	return chances
}

describe('evaluate', () => {
	it('law: the code of the programs does what the data says, every endpoint with its chance', () => {
		fc.assert(
			fc.property(
				models,
				fc.nat(40),
				fc.nat(6),
				fc.constantFrom('TCP', 'UDP') as fc.Arbitrary<'TCP' | 'UDP'>,
				(model, which, from, protocol) => {
					const program = createEbpf().compile(model, 'node-1')
					const all = [...program.frontends.values()].filter((f) => f.protocol === protocol)
					const { ip, port } = all[which % Math.max(1, all.length)] ?? { ip: '10.96.0.99' as Ip, port: 80 }
					const six = ip.includes(':')
					const sources = [podIp(0), podIp(1), '172.18.0.2', '192.0.2.9'] as Ip[]
					const sources6 = [podIp(0, 6), podIp(1, 6), 'fd00:172::2', '2001:db8::9'] as Ip[]
					const source = (six ? sources6 : sources)[from % 4] as Ip
					const packet: Packet = {
						protocol,
						source,
						destination: ip,
						sourcePort: 0,
						destinationPort: port,
						state: 'new',
						mark: 0,
					}
					const got = evaluateCall(program, packet, protocol === 'TCP' ? 'connect' : 'sendmsg')
					const want = expected(program, packet)
					assert.deepEqual(
						got.map((o) => `${o.packet.destination} ${o.packet.destinationPort}`).sort(),
						[...want.keys()].sort(),
					)
					for (const one of got) {
						const chance = want.get(`${one.packet.destination} ${one.packet.destinationPort}`) as number
						assert.ok(Math.abs(one.chance - chance) < 1e-9, `${one.chance} instead of ${chance}`)
					}
				},
			),
			{ numRuns: 300 },
		)
	})

	it('more endpoints than one element holds', () => {
		for (const [family, ip] of [
			[4, '10.96.0.1'],
			[6, 'fd00:10:96::1'],
		] as const) {
			for (const count of [
				1,
				chunks[family].endpoints,
				chunks[family].endpoints + 1,
				3 * chunks[family].endpoints,
				100,
			]) {
				const list = Array.from({ length: count }, (_, i) => ({ ip: podIp(3, family), port: 9000 + i, node: 'node-2' }))
				const model = sketchModel([sketchService({ name: 'm', ips: [ip], ports: [{ port: 80, endpoints: list }] })], 1)
				const plane = createEbpf()
				const outcomes = plane.evaluate(
					plane.compile(model, 'node-1'),
					{
						protocol: 'TCP',
						source: podIp(0, family),
						destination: ip as Ip,
						sourcePort: 0,
						destinationPort: 80,
						state: 'new',
						mark: 0,
					},
					'connect',
				)
				assert.equal(new Set(outcomes.map((o) => o.packet.destinationPort)).size, count)
				for (const one of outcomes) assert.ok(Math.abs(one.chance - 1 / count) < 1e-9)
			}
		}
	})

	it('says nothing of code that is not ours', () => {
		const plane = createEbpf()
		const program = plane.compile(sketchModel([sketchService(sketch)], 1), 'node-1')
		const packet: Packet = {
			protocol: 'TCP',
			source: podIp(0),
			destination: '10.96.0.1' as Ip,
			sourcePort: 0,
			destinationPort: 80,
			state: 'new',
			mark: 0,
		}
		const strange = { ...program, attached: program.attached.set('connect4', '0123456789abcdef') }
		assert.throws(() => plane.evaluate(strange, packet, 'connect'), /tag 0123456789abcdef/)
		const none = { ...program, attached: program.attached.delete('connect4') }
		assert.deepEqual(plane.evaluate(none, packet, 'connect'), [{ verdict: 'accept', packet, rules: [], chance: 1 }])
		assert.deepEqual(plane.evaluate(program, packet, 'output'), [{ verdict: 'accept', packet, rules: [], chance: 1 }])
	})
})
