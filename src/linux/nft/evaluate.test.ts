// Packets against programs: order of chains, jumps, translation, chance. What the kernel does with the same rules is
// tested with real packets in test/net/services.test.ts.

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Cidr, Ip } from '../../base/ip.ts'
import type { Packet } from '../../base/packet.ts'
import { tableOf } from '../../base/table.ts'
import {
	connectionState,
	decide,
	dnatByMap,
	fieldsOf,
	inSet,
	ip,
	l4proto,
	matchPort,
	matchPrefix,
	random,
	rejectPort,
	th,
	verdictMap,
} from './build.ts'
import { field } from './datatype.ts'
import { evaluateProgram, NotEvaluable } from './evaluate.ts'
import type { Expression } from './expr/expression.ts'
import type { BaseChain, NftChain, NftElement, NftProgram, NftSet, NftTable } from './program.ts'

const packet: Packet = {
	protocol: 'TCP',
	source: '10.244.1.2' as Ip,
	destination: '10.96.0.1' as Ip,
	sourcePort: 40000,
	destinationPort: 80,
	state: 'new',
	mark: 0,
	inInterface: 'veth1',
}
const key = [ip.daddr, l4proto, th.dport]

function chain(name: string, rules: readonly (readonly Expression[])[], base?: Partial<BaseChain>): NftChain {
	const full: BaseChain = { type: 'filter', hook: 'prerouting', priority: 0, policy: 'accept', ...base }
	return {
		name,
		...(base === undefined ? {} : { base: full }),
		rules: rules.map((expressions, i) => ({ expressions, handle: i + 1, comment: `${name} ${i}` })),
	}
}

function set(
	name: string,
	parts: NftSet['key'],
	entries: Record<string, string | undefined>,
	more: Partial<NftSet> = {},
): NftSet {
	const elements = Object.entries(entries).map(([k, data]): [string, NftElement] => [
		k,
		data === undefined ? {} : { data },
	])
	return { name, key: parts, flags: [], elements: tableOf(elements), ...more }
}

function program(
	...tables: readonly { family?: NftTable['family']; chains: readonly NftChain[]; sets?: readonly NftSet[] }[]
): NftProgram {
	return {
		tables: tableOf(
			tables.map(({ family = 'ip', chains, sets = [] }, i) => [
				`${family} t${i}`,
				{
					family,
					name: `t${i}`,
					chains: tableOf(chains.map((c) => [c.name, c])),
					sets: tableOf(sets.map((s) => [s.name, s])),
				},
			]),
		),
	}
}

/** Verdict, destination, comments of the rules, chance. */
function run(p: NftProgram, of: Packet = packet, hook: Parameters<typeof evaluateProgram>[2] = 'prerouting') {
	return evaluateProgram(p, of, hook).map((o) => [
		o.verdict,
		`${o.packet.destination}:${o.packet.destinationPort}`,
		o.rules.map((r) => r.comment).join(', '),
		Number(o.chance.toFixed(6)),
	])
}

const slots = (count: number, filled = count) =>
	set(
		`e${count}`,
		fieldsOf([...key, random(count)]),
		Object.fromEntries(
			Array.from({ length: filled }, (_, i) => [`10.96.0.1 . tcp . 80 . ${i}`, `10.244.9.${i} . 8080`]),
		),
		{ data: fieldsOf([ip.daddr, th.dport]) },
	)

describe('evaluate nftables', () => {
	it('asks base chains by priority across tables; drop ends, accept does not', () => {
		const p = program(
			{ chains: [chain('late', [[decide('drop')]], { priority: 10 })] },
			{ family: 'inet', chains: [chain('early', [[decide('accept')]], { priority: -10 })] },
			{ family: 'ip6', chains: [chain('other', [[decide('drop')]], { priority: -20 })] },
		)
		assert.deepEqual(run(p), [['drop', '10.96.0.1:80', 'early 0, late 0', 1]])
		assert.deepEqual(run(p, packet, 'forward'), [['accept', '10.96.0.1:80', '', 1]])
	})

	it('applies the policy where nothing decides', () => {
		const p = program({ chains: [chain('base', [[...matchPort(th.dport, 81), decide('accept')]], { policy: 'drop' })] })
		assert.deepEqual(run(p), [['drop', '10.96.0.1:80', '', 1]])
	})

	it('comes back from jump, not from goto; return ends a chain', () => {
		const leaf = chain('leaf', [[...matchPort(th.dport, 80), decide('return')], [decide('drop')]])
		const jump = program({ chains: [leaf, chain('base', [[decide('jump', 'leaf')], [rejectPort('ip')]], {})] })
		assert.deepEqual(run(jump), [['reject', '10.96.0.1:80', 'base 0, leaf 0, base 1', 1]])
		const go = program({ chains: [leaf, chain('base', [[decide('goto', 'leaf')], [rejectPort('ip')]], {})] })
		assert.deepEqual(run(go), [['accept', '10.96.0.1:80', 'base 0, leaf 0', 1]])
	})

	it('translates once, and only the first packet of a connection', () => {
		const one = (to: string) =>
			set('e1', fieldsOf(key), { '10.96.0.1 . tcp . 80': to }, { data: fieldsOf([ip.daddr, th.dport]) })
		const rules = [dnatByMap('ip', key, 'e1')]
		const base = { type: 'nat' as const, priority: -100 }
		const p = program(
			{ chains: [chain('second', rules, { ...base, priority: -90 })], sets: [one('10.244.9.2 . 2')] },
			{ chains: [chain('first', rules, base)], sets: [one('10.244.9.1 . 1')] },
			// A nat chain runs where nat runs, whatever priority it declares: after this one.
			{ chains: [chain('mangle', [[...matchPort(th.dport, 80)]], { priority: -150 })] },
			{ chains: [chain('after', [[...matchPort(th.dport, 1)]], { priority: -95 })] },
		)
		assert.deepEqual(run(p), [['accept', '10.244.9.1:1', 'mangle 0, first 0, after 0', 1]])
		assert.deepEqual(run(p, { ...packet, state: 'established' }), [['accept', '10.96.0.1:80', 'mangle 0', 1]])
	})

	it('gives every choice its chance, and none to choices that make no difference', () => {
		const base = { type: 'nat' as const, priority: -100 }
		const rules = [2, 3, 4].map((n) => dnatByMap('ip', [...key, random(n)], `e${n}`))
		const p = program({ chains: [chain('nat', rules, base)], sets: [slots(2, 0), slots(3), slots(4, 0)] })
		assert.deepEqual(
			run(p),
			[0, 1, 2].map((i) => ['accept', `10.244.9.${i}:8080`, 'nat 1', 0.333333]),
		)
		// A slot that is missing falls through.
		const hole = program({ chains: [chain('nat', rules, base)], sets: [slots(2, 0), slots(3, 2), slots(4, 0)] })
		assert.deepEqual(run(hole), [
			['accept', '10.244.9.0:8080', 'nat 1', 0.333333],
			['accept', '10.244.9.1:8080', 'nat 1', 0.333333],
			['accept', '10.96.0.1:80', '', 0.333333],
		])
	})

	it('looks into intervals, verdict maps and connection states', () => {
		const nets = set(
			'nets',
			[field('ipv4_addr')],
			{ '10.96.0.0/16': undefined, '10.1.0.3-10.1.0.9': undefined },
			{ flags: ['interval'] },
		)
		const verdicts = set('verdicts', fieldsOf(key), { '10.96.0.1 . tcp . 80': 'goto leaf' }, { data: 'verdict' })
		const p = program({
			chains: [
				chain('leaf', [[...connectionState('new', 'invalid'), decide('drop')]]),
				chain(
					'base',
					[
						[...inSet([ip.daddr], 'nets')],
						verdictMap(key, 'verdicts'),
						[...matchPrefix(ip.saddr, '10.244.0.0/15' as Cidr), rejectPort('ip')],
					],
					{},
				),
			],
			sets: [nets, verdicts],
		})
		assert.deepEqual(run(p), [['drop', '10.96.0.1:80', 'base 0, base 1, leaf 0', 1]])
		assert.deepEqual(run(p, { ...packet, destination: '10.1.0.9' as Ip }), [
			['reject', '10.1.0.9:80', 'base 0, base 2', 1],
		])
		assert.deepEqual(run(p, { ...packet, destination: '10.1.0.10' as Ip, source: '10.9.0.1' as Ip }), [
			['accept', '10.1.0.10:80', '', 1],
		])
		const [outcome] = evaluateProgram(p, packet, 'prerouting')
		assert.deepEqual(
			outcome?.rules.map((r) => r.elements),
			[['10.96.0.0/16'], ['10.96.0.1 . tcp . 80 : goto leaf'], []],
		)
		assert.equal(outcome?.rules[2]?.text, 'ct state invalid,new drop')
	})

	it('says that it cannot tell rather than guess', () => {
		const p = program({ chains: [chain('base', [[{ kind: 'unknown', name: 'osf', data: '' }]], {})] })
		assert.throws(
			() => run(p),
			(e) =>
				e instanceof NotEvaluable &&
				/^Cannot evaluate rule "\[osf\]" in chain "base" of table "ip t0": /.test(e.message),
		)
		const ttl: Expression[] = [
			{ kind: 'payload', base: 'network', offset: 8, length: 1, to: 0 },
			{ kind: 'cmp', op: 'eq', from: 0, value: '01' },
			decide('drop'),
		]
		assert.throws(
			() => run(program({ chains: [chain('base', [ttl], {})] })),
			/byte 8 of the network header is not known/,
		)
	})
})
