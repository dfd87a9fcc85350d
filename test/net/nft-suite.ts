// What a kernel of nftables does, whichever it is: run on the one in memory and on the real one.

import assert from 'node:assert/strict'
import { it } from 'node:test'
import fc from 'fast-check'
import { isFailure } from '../../src/base/failure.ts'
import { tableOf } from '../../src/base/table.ts'
import { decide, fieldsOf, inSet, ip, l4proto, load, th, verdictMap } from '../../src/linux/nft/build.ts'
import type { NftChange } from '../../src/linux/nft/change.ts'
import { diffPrograms } from '../../src/linux/nft/diff.ts'
import type { NftKernel } from '../../src/linux/nft/kernel.ts'
import { printProgram } from '../../src/linux/nft/print.ts'
import {
	fromJson,
	type NftProgram,
	type NftSet,
	sameProgram,
	toJson,
	withoutState,
} from '../../src/linux/nft/program.ts'
import { programs } from './nft-programs.ts'

const place = { family: 'ip', table: 't' } as const
const key = fieldsOf([ip.daddr, l4proto, th.dport])
const plain: Omit<NftSet, 'elements'> = { name: 'plain', key, flags: [] }
const map: Omit<NftSet, 'elements'> = { name: 'map', key, data: fieldsOf([ip.daddr, th.dport]), flags: [] }
const verdicts: Omit<NftSet, 'elements'> = { name: 'verdicts', key, data: 'verdict', flags: [] }
const start: readonly NftChange[] = [
	{ ...place, op: 'add-table', comment: 'a table' },
	{ ...place, op: 'add-chain', chain: { name: 'leaf' } },
	{
		...place,
		op: 'add-chain',
		chain: { name: 'top', base: { type: 'filter', hook: 'forward', priority: 0, policy: 'accept' } },
	},
	{ ...place, op: 'add-set', set: plain },
	{ ...place, op: 'add-set', set: map },
	{ ...place, op: 'add-set', set: verdicts },
	{
		...place,
		op: 'add-elements',
		set: map,
		elements: [['10.0.0.1 . tcp . 80', { data: '10.1.0.1 . 8080', comment: 'one' }]],
	},
	{ ...place, op: 'add-elements', set: verdicts, elements: [['10.0.0.1 . tcp . 80', { data: 'goto leaf' }]] },
	{
		...place,
		op: 'add-rule',
		chain: 'top',
		rule: { expressions: verdictMap([ip.daddr, l4proto, th.dport], 'verdicts') },
	},
	{
		...place,
		op: 'add-rule',
		chain: 'leaf',
		rule: { expressions: [...inSet([ip.daddr, l4proto, th.dport], 'plain'), decide('drop')], comment: 'no' },
	},
]

const refusals: readonly {
	readonly what: string
	readonly changes: readonly NftChange[]
	readonly code: string
	readonly text: RegExp
}[] = [
	{
		what: 'a rule in an absent chain',
		changes: [{ ...place, op: 'add-rule', chain: 'gone', rule: { expressions: [decide('accept')] } }],
		code: 'ENOENT',
		text: /^Cannot apply rule "accept" in chain "gone" of table "ip t": chain "gone" does not exist$/,
	},
	{
		what: 'a rule that looks into an absent set',
		changes: [{ ...place, op: 'add-rule', chain: 'leaf', rule: { expressions: inSet([ip.daddr], 'gone') } }],
		code: 'ENOENT',
		text: /rule "ip daddr @gone" in chain "leaf" of table "ip t": set "gone" does not exist$/,
	},
	{
		what: 'a rule that jumps to an absent chain',
		changes: [{ ...place, op: 'add-rule', chain: 'leaf', rule: { expressions: [decide('jump', 'gone')] } }],
		code: 'ENOENT',
		text: /rule "jump gone" in chain "leaf" of table "ip t": chain "gone" does not exist$/,
	},
	{
		what: 'anything in an absent table',
		changes: [{ family: 'ip', table: 'gone', op: 'add-chain', chain: { name: 'x' } }],
		code: 'ENOENT',
		text: /chain "x" of table "ip gone": table "ip gone" does not exist$/,
	},
	{
		what: 'a key with another value',
		changes: [
			{ ...place, op: 'add-elements', set: map, elements: [['10.0.0.1 . tcp . 80', { data: '10.1.0.2 . 8080' }]] },
		],
		code: 'EEXIST',
		text: /element "10\.0\.0\.1 \. tcp \. 80 : 10\.1\.0\.2 \. 8080" of map "map" of table "ip t": the key is there with another value$/,
	},
	{
		what: 'the deletion of an absent element',
		changes: [{ ...place, op: 'delete-elements', set: map, elements: [['10.0.0.9 . tcp . 80', {}]] }],
		code: 'ENOENT',
		text: /deletion of element "10\.0\.0\.9 \. tcp \. 80" of map "map" of table "ip t": the element does not exist$/,
	},
	{
		what: 'an element that goes to an absent chain',
		changes: [
			{ ...place, op: 'add-elements', set: verdicts, elements: [['10.0.0.2 . tcp . 80', { data: 'goto gone' }]] },
		],
		code: 'ENOENT',
		text: /of map "verdicts" of table "ip t": chain "gone" does not exist$/,
	},
	{
		what: 'the deletion of a chain that an element goes to',
		changes: [{ ...place, op: 'delete-chain', chain: 'leaf' }],
		code: 'EBUSY',
		text: /deletion of chain "leaf" of table "ip t": it is still in use$/,
	},
	{
		what: 'the deletion of a set that a rule looks into',
		changes: [{ ...place, op: 'delete-set', set: 'plain' }],
		code: 'EBUSY',
		text: /deletion of set "plain" of table "ip t": it is still in use$/,
	},
	{
		what: 'a set declared otherwise',
		changes: [{ ...place, op: 'add-set', set: { ...plain, key: fieldsOf([ip.daddr]) } }],
		code: 'EEXIST',
		text: /set "plain" of table "ip t": it is there in another form \(EEXIST\)$/,
	},
	{
		what: 'a loop of jumps',
		changes: [{ ...place, op: 'add-rule', chain: 'leaf', rule: { expressions: [decide('jump', 'leaf')] } }],
		code: 'EMLINK',
		text: /rule "jump leaf" in chain "leaf" of table "ip t": .*\(EMLINK\)/,
	},
	{
		what: 'a jump to a base chain',
		changes: [{ ...place, op: 'add-rule', chain: 'leaf', rule: { expressions: [decide('jump', 'top')] } }],
		code: 'EOPNOTSUPP',
		text: /rule "jump top" in chain "leaf" of table "ip t": /,
	},
]

/** `withKernel` gives an empty kernel to a test and takes it away after. */
export function kernelSuite(withKernel: (test: (kernel: NftKernel) => void) => void, runs: number): void {
	for (const { what, changes, code, text } of refusals) {
		it(`refuses ${what}, and with it all of the transaction`, () => {
			withKernel((kernel) => {
				kernel.apply(start)
				const before = printProgram(kernel.read())
				const good: NftChange = { ...place, op: 'add-elements', set: plain, elements: [['10.0.0.7 . udp . 53', {}]] }
				assert.throws(
					() => kernel.apply([good, ...changes]),
					(e) => {
						assert.ok(isFailure(e), String(e))
						assert.equal(e.code, code, e.message)
						assert.match(e.message, text)
						assert.equal(e.details.change, 1)
						return true
					},
				)
				assert.equal(printProgram(kernel.read()), before)
			})
		})
	}

	it('takes the same value twice, and a key deleted and added in one transaction', () => {
		withKernel((kernel) => {
			kernel.apply(start)
			const old = ['10.0.0.1 . tcp . 80', { data: '10.1.0.1 . 8080', comment: 'one' }] as const
			kernel.apply([{ ...place, op: 'add-elements', set: map, elements: [old] }])
			const changed = [old[0], { data: '10.1.0.3 . 1', comment: 'two' }] as const
			kernel.apply([
				{ ...place, op: 'delete-elements', set: map, elements: [old] },
				{ ...place, op: 'add-elements', set: map, elements: [changed] },
			])
			const elements = kernel.read().tables.get('ip t')?.sets.get('map')?.elements
			assert.deepEqual([...(elements ?? [])], [changed])
		})
	})

	it('replaces a table whatever it holds, and deletes one that is not there', () => {
		withKernel((kernel) => {
			kernel.apply([{ ...place, op: 'delete-table', ifPresent: true }])
			assert.equal(kernel.read().tables.size, 0)
			kernel.apply(start)
			kernel.apply([
				{ ...place, op: 'delete-table', ifPresent: true },
				{ ...place, op: 'add-table', comment: 'new' },
			])
			const table = kernel.read().tables.get('ip t')
			assert.deepEqual([table?.comment, table?.chains.size, table?.sets.size], ['new', 0, 0])
			kernel.apply([{ ...place, op: 'delete-table' }])
			assert.throws(() => kernel.apply([{ ...place, op: 'delete-table' }]), /table "ip t" does not exist/)
		})
	})

	it('keeps interval sets', () => {
		withKernel((kernel) => {
			const set = { name: 'nets', key: fieldsOf([ip.daddr]), flags: ['interval'] } as const
			const pairs = { name: 'pairs', key: fieldsOf([ip.daddr, th.dport]), flags: ['interval'] } as const
			const keys = ['10.0.0.0/8', '192.168.1.4', '172.16.0.3-172.16.0.9', '255.255.255.0/24']
			const wide = ['10.0.0.0/8 . 80-90', '10.9.0.1 . 443']
			kernel.apply([
				{ ...place, op: 'add-table' },
				{ ...place, op: 'add-set', set },
				{ ...place, op: 'add-set', set: pairs },
				{ ...place, op: 'add-elements', set, elements: keys.map((k) => [k, {}] as const) },
				{ ...place, op: 'add-elements', set: pairs, elements: wide.map((k) => [k, {}] as const) },
				{ ...place, op: 'delete-elements', set, elements: [['192.168.1.4', {}]] },
			])
			const sets = kernel.read().tables.get('ip t')?.sets
			assert.deepEqual(
				[...(sets?.get('nets')?.elements.keys() ?? [])].sort(),
				keys.filter((k) => k !== '192.168.1.4').sort(),
			)
			assert.deepEqual([...(sets?.get('pairs')?.elements.keys() ?? [])].sort(), [...wide].sort())
		})
	})

	it('law: after apply(diff(a, b)) on a it holds b; diff(b, b) is empty', () => {
		withKernel((kernel) => {
			const owns = { owns: () => true }
			const same = (program: NftProgram) => {
				const read = kernel.read()
				assert.equal(
					sameProgram(read, program),
					true,
					`${printProgram(withoutState(read))}\n--- wanted\n${printProgram(program)}`,
				)
				assert.deepEqual(diffPrograms(read, program, owns), [])
				return read
			}
			fc.assert(
				fc.property(programs, programs, (a, b) => {
					const c = mix(a, b)
					kernel.apply(diffPrograms(kernel.read(), a, owns))
					same(a)
					// Once from what was read, once from the program in memory.
					kernel.apply(diffPrograms(kernel.read(), c, owns))
					same(c)
					kernel.apply(diffPrograms(c, b, owns))
					const read = same(b)
					assert.deepEqual(diffPrograms(b, b, owns), [])
					assert.equal(
						printProgram(fromJson(JSON.parse(JSON.stringify(toJson(read)))), { handles: true }),
						printProgram(read, { handles: true }),
					)
				}),
				{ numRuns: runs },
			)
		})
	})

	it('keeps a set of registers apart from another', () => {
		withKernel((kernel) => {
			kernel.apply(start)
			const expressions = [
				...load([ip.saddr, ip.daddr], 0),
				{ kind: 'cmp' as const, op: 'eq' as const, from: 1, value: '0a000001' },
				decide('drop'),
			]
			kernel.apply([{ ...place, op: 'add-rule', chain: 'leaf', rule: { expressions } }])
			const rule = kernel.read().tables.get('ip t')?.chains.get('leaf')?.rules.at(-1)
			assert.deepEqual(rule?.expressions, expressions)
		})
	})
}

/** Declared as `a`, filled as `b`: what changes in place. */
function mix(a: NftProgram, b: NftProgram): NftProgram {
	return {
		tables: tableOf(
			[...a.tables].map(([name, table]) => {
				const other = b.tables.get(name) ?? [...b.tables.values()][0]
				const chains = [...table.chains].map(([chain, declared]) => {
					const rules = other?.chains.get(chain)?.rules
					return [chain, rules === undefined ? declared : { ...declared, rules }] as const
				})
				const sets = [...table.sets].map(([set, declared]) => {
					const elements = other?.sets.get(set)?.elements
					return [set, elements === undefined ? declared : { ...declared, elements }] as const
				})
				return [name, { ...table, chains: tableOf(chains), sets: tableOf(sets) }] as const
			}),
		),
	}
}
