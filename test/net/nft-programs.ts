// Generated nftables programs for laws: valid for the kernel by construction, of every expression this code writes.

import fc from 'fast-check'
import { type Cidr, type Ip, ipFromBytes, parseCidr } from '../../src/base/ip.ts'
import { tableOf } from '../../src/base/table.ts'
import {
	connectionState,
	count,
	decide,
	dnatByMap,
	fieldsOf,
	inSet,
	ip,
	l4proto,
	load,
	matchAddress,
	matchPort,
	matchPrefix,
	matchProtocol,
	random,
	rejectPort,
	rejectTcp,
	th,
	verdictMap,
} from '../../src/linux/nft/build.ts'
import { field } from '../../src/linux/nft/datatype.ts'
import type { Expression } from '../../src/linux/nft/expr/expression.ts'
import type {
	BaseChain,
	NftChain,
	NftElement,
	NftProgram,
	NftRule,
	NftSet,
	NftTable,
} from '../../src/linux/nft/program.ts'

const address = fc.uint8Array({ minLength: 4, maxLength: 4 }).map((b) => ipFromBytes(b))
const cidr = fc
	.tuple(address, fc.integer({ min: 1, max: 32 }))
	.map(([a, bits]) => parseCidr(`${a}/${bits}`, { mask: true }))
const port = fc.integer({ min: 1, max: 65535 })
const protocol = fc.constantFrom('tcp', 'udp', 'sctp')
const comment = fc.option(fc.stringMatching(/^[a-z][a-z0-9 .:[\]/-]{0,60}[a-z]$/), { nil: undefined })

const frontend = fc.tuple(address, protocol, port).map((parts) => parts.join(' . '))
const slot = fc.tuple(frontend, fc.integer({ min: 0, max: 300 })).map((parts) => parts.join(' . '))
const endpoint = fc.tuple(address, port).map((parts) => parts.join(' . '))

function withComment(data: string | undefined, text: string | undefined): NftElement {
	return { ...(data === undefined ? {} : { data }), ...(text === undefined ? {} : { comment: text }) }
}

function elements(key: fc.Arbitrary<string>, data?: fc.Arbitrary<string>): fc.Arbitrary<NftSet['elements']> {
	const entry = fc.tuple(key, data ?? fc.constant(undefined), comment)
	return fc
		.array(entry, { maxLength: 12 })
		.map((list) => tableOf(list.map(([k, d, c]) => [k, withComment(d, c)] as const)))
}

const frontendParts = [ip.daddr, l4proto, th.dport]
const slotParts = [...frontendParts, random(2)]
/** The sets every generated table declares; their contents vary. */
const sets: fc.Arbitrary<NftSet[]> = fc
	.tuple(
		elements(frontend),
		elements(slot, endpoint),
		elements(frontend, fc.constantFrom('goto leaf-1', 'jump leaf-2', 'drop', 'accept', 'return')),
		elements(
			address,
			fc.integer({ min: 0, max: 2 ** 32 - 1 }).map((n) => `0x${n.toString(16).padStart(8, '0')}`),
		),
		elements(fc.integer({ min: 0, max: 65535 }).map(String)),
		comment,
	)
	.map(([frontends, endpoints, verdicts, marks, ports, text]) => [
		{
			name: 'frontends',
			key: fieldsOf(frontendParts),
			flags: [],
			elements: frontends,
			...(text === undefined ? {} : { comment: text }),
		},
		{
			name: 'endpoints',
			key: fieldsOf(slotParts),
			data: fieldsOf([ip.daddr, th.dport]),
			flags: [],
			elements: endpoints,
		},
		{
			name: 'verdicts',
			key: [field('ipv4_addr'), field('inet_proto'), field('inet_service')],
			data: 'verdict',
			flags: [],
			elements: verdicts,
		},
		{ name: 'marks', key: [field('ipv4_addr')], data: [field('mark')], flags: [], elements: marks },
		{ name: 'ports', key: [field('inet_service')], flags: [], elements: ports },
		{
			name: 'clients',
			key: fieldsOf([ip.saddr, ...frontendParts]),
			data: fieldsOf([ip.daddr, th.dport]),
			flags: ['timeout', 'dynamic'],
			size: 1000,
			elements: tableOf<string, NftElement>([]),
		},
	])

const matches: fc.Arbitrary<Expression[]> = fc.oneof(
	cidr.map((c: Cidr) => matchPrefix(ip.daddr, c)),
	address.map((a: Ip) => matchAddress(ip.saddr, a)),
	port.map((p) => matchPort(th.sport, p)),
	fc.constantFrom(6, 17, 132).map(matchProtocol),
	fc.subarray(['invalid', 'established', 'related', 'new'], { minLength: 1 }).map((names) => connectionState(...names)),
	fc.constant(inSet(frontendParts, 'frontends')),
	fc.constant(inSet([th.dport], 'ports')),
	fc.constant<Expression[]>([
		ip.saddr.load(0),
		{ kind: 'lookup', set: 'marks', from: 0, to: 0 },
		{ kind: 'meta', key: 'mark', from: 0 },
	]),
	fc.constantFrom('eth0', 'veth1').map((name): Expression[] => [
		{ kind: 'meta', key: 'iifname', to: 0 },
		{ kind: 'cmp', op: 'eq', from: 0, value: Buffer.from(name.padEnd(16, '\0')).toString('hex') },
	]),
	fc.constant<Expression[]>([
		{ kind: 'meta', key: 'mark', to: 0 },
		{ kind: 'bitwise', from: 0, to: 0, length: 4, mask: 'ff000000', xor: '00000000' },
		{ kind: 'cmp', op: 'neq', from: 0, value: '12000000' },
	]),
	fc.constant<Expression[]>([
		...load([ip.saddr, ...frontendParts]),
		...load([ip.daddr, th.dport], 4),
		{ kind: 'dynset', op: 'update', set: 'clients', key: 0, data: 4, timeout: 60000 },
	]),
	fc.tuple(port, port).map(([a, b]): Expression[] => {
		const hex = (n: number) => n.toString(16).padStart(4, '0')
		return [
			th.dport.load(0),
			{ kind: 'cmp', op: 'gte', from: 0, value: hex(Math.min(a, b)) },
			{ kind: 'cmp', op: 'lte', from: 0, value: hex(Math.max(a, b)) },
		]
	}),
	fc.constant<Expression[]>([
		{ kind: 'fib', result: 'type', by: ['daddr'], to: 0 },
		{ kind: 'cmp', op: 'eq', from: 0, value: '02000000' },
	]),
	fc.constant<Expression[]>([{ kind: 'limit', of: 'packets', rate: 10, per: 1, burst: 7 }]),
	fc.constant<Expression[]>([{ kind: 'log', prefix: 'seen ', group: 3 }]),
	fc.constant<Expression[]>([count]),
)

const filterEnds: fc.Arbitrary<Expression[]> = fc.constantFrom<Expression[]>(
	[decide('accept')],
	[decide('drop')],
	[decide('return')],
	[...matchProtocol(6), rejectTcp],
	[rejectPort('ip')],
	[decide('jump', 'leaf-1')],
	[decide('goto', 'leaf-2')],
	verdictMap(frontendParts, 'verdicts'),
	[],
)
const natEnds: fc.Arbitrary<Expression[]> = fc.constantFrom<Expression[]>(
	dnatByMap('ip', [...frontendParts, random(3)], 'endpoints'),
	[
		{ kind: 'immediate', to: 0, value: '0a000001' },
		{ kind: 'immediate', to: 1, value: '1f90' },
		{ kind: 'nat', type: 'dnat', family: 'ip', address: 0, port: 1 },
	],
	[decide('return')],
)

/** Comparisons with a protocol: two in one rule match nothing, and nft prints nonsense for them. */
function protocols(expressions: readonly Expression[]): number {
	return expressions.filter((e, i) => e.kind === 'meta' && e.key === 'l4proto' && expressions[i + 1]?.kind === 'cmp')
		.length
}

function rules(ends: fc.Arbitrary<Expression[]>): fc.Arbitrary<NftRule[]> {
	const rule = fc
		.tuple(fc.array(matches, { maxLength: 2 }), ends, comment)
		.filter(([found, end]) => found.length + end.length > 0 && protocols([...found.flat(), ...end]) < 2)
		.map(
			([found, end, text]): NftRule => ({
				expressions: [...found.flat(), ...end],
				...(text === undefined ? {} : { comment: text }),
			}),
		)
	return fc.array(rule, { maxLength: 5 })
}

const leafEnds = fc.constantFrom<Expression[]>([decide('accept')], [decide('drop')], [count])

function base(type: BaseChain['type'], hook: BaseChain['hook'], priority: number): BaseChain {
	return { type, hook, priority, policy: 'accept' }
}

const table: fc.Arbitrary<NftTable> = fc
	.tuple(
		fc.constantFrom('one', 'two'),
		comment,
		sets,
		rules(leafEnds),
		rules(leafEnds),
		rules(filterEnds),
		rules(natEnds),
		fc.integer({ min: -400, max: 400 }),
		fc.boolean(),
	)
	.map(([name, text, all, leaf1, leaf2, forward, prerouting, priority, nat]): NftTable => {
		const chains: NftChain[] = [
			{ name: 'leaf-1', rules: leaf1 },
			{ name: 'leaf-2', rules: leaf2 },
			{ name: 'forward', base: base('filter', 'forward', priority), rules: forward },
		]
		if (nat)
			chains.push({ name: 'prerouting', base: base('nat', 'prerouting', -100), rules: prerouting, comment: 'nat' })
		return {
			family: 'ip',
			name,
			...(text === undefined ? {} : { comment: text }),
			chains: tableOf(chains.map((c) => [c.name, c])),
			sets: tableOf(all.map((s) => [s.name, s])),
		}
	})

export const programs: fc.Arbitrary<NftProgram> = fc
	.array(table, { minLength: 1, maxLength: 2 })
	.map((tables) => ({ tables: tableOf(tables.map((t) => [`${t.family} ${t.name}`, t])) }))
