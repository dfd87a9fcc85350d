import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import type { Cidr, Ip, IpFamily } from '../../base/ip.ts'
import type { Hook, Packet } from '../../base/packet.ts'
import { tableOf } from '../../base/table.ts'
import { diffRulesets, restoreText, sameRule } from './change.ts'
import { evaluateRuleset } from './evaluate.ts'
import { parseRule, parseRuleset } from './parse.ts'
import { type Chain, chainKey, connectionWords, type Match, type Rule, type Ruleset, type Target } from './program.ts'
import { renderRuleset, ruleText } from './render.ts'

// Printed by iptables-save 1.8.9 for rules that were given to iptables-restore in another order and spelling.
const printed = `*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
:KUBE-X - [0:0]
:KUBE-X2 - [0:0]
-A FORWARD -m conntrack --ctstate NEW -m comment --comment "kubernetes service portals" -j KUBE-X
-A KUBE-X -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP
-A KUBE-X -j REJECT --reject-with icmp-port-unreachable
-A KUBE-X -m comment --comment "it\\'s a \\"q\\"" -j DROP
-A KUBE-X ! -s 10.0.0.0/8 -d 1.2.3.4/32 -i eth0 ! -o eth1 -p sctp -m sctp --dport 5:10
-A KUBE-X -m comment --comment "a/b:c_d" -g KUBE-X2
-A KUBE-X -m mark --mark 0x10 -j MARK --set-xmark 0x4000/0x0
-A KUBE-X -m statistic --mode random --probability 0.33333333349 -j ACCEPT
-A KUBE-X -m recent --rcheck --seconds 10800 --reap --name ABC --mask 255.255.255.255 --rsource -j ACCEPT
-A KUBE-X -p tcp -m recent --set --name ABC --mask 255.255.255.255 --rsource -m tcp -j RETURN
-A KUBE-X -m addrtype --dst-type LOCAL -j ACCEPT
-A KUBE-X -m set --match-set KUBE-CLUSTER-IP dst,dst -j ACCEPT
-A KUBE-X -m limit --limit 5/min -m physdev ! --physdev-is-bridged -j LOG --log-prefix "a b: " --log-level 7
COMMIT
`

describe('iptables text', () => {
	it('is written as it was read', () => {
		assert.equal(renderRuleset(parseRuleset(printed, 4), { family: 4 }), printed)
	})

	it('keeps counters', () => {
		const text = '*nat\n:OUTPUT ACCEPT [0:0]\n[3:180] -A OUTPUT -j ACCEPT\nCOMMIT\n'
		const ruleset = parseRuleset(text, 4)
		assert.deepEqual(ruleset.get('nat OUTPUT')?.rules[0]?.counters, { packets: 3n, bytes: 180n })
		assert.equal(renderRuleset(ruleset, { family: 4, counters: true }), text)
	})

	it('is the same rule in the words of kube-proxy and of iptables-save', () => {
		const pairs: [IpFamily, string, string][] = [
			[
				4,
				'-m comment --comment "a/b:c cluster IP" -m tcp -p tcp -d 172.30.0.41 --dport 80 ! -s 10.0.0.0/8 -j KUBE-MARK-MASQ',
				'! -s 10.0.0.0/8 -d 172.30.0.41/32 -p tcp -m comment --comment "a/b:c cluster IP" -m tcp --dport 80 -j KUBE-MARK-MASQ',
			],
			[4, '-j MARK --or-mark 0x4000', '-j MARK --set-xmark 0x4000/0x4000'],
			[4, '-j MARK --xor-mark 0x4000', '-j MARK --set-xmark 0x4000/0x0'],
			[6, '-j REJECT', '-j REJECT --reject-with icmp6-port-unreachable'],
			[
				4,
				'-m statistic --mode random --probability 0.3333333333',
				'-m statistic --mode random --probability 0.33333333349',
			],
			[6, '-m udp -p udp -j DNAT --to-destination [fd00::1]:53', '-p udp -m udp -j DNAT --to-destination [fd00::1]:53'],
			[4, '-p tcp --dport 80', '-p tcp -m tcp --dport 80'],
		]
		for (const [family, written, saved] of pairs) assert.equal(ruleText(parseRule(written, family), family), saved)
	})

	it('says which line it cannot read', () => {
		assert.throws(() => parseRuleset('*nat\n-A NOWHERE -j ACCEPT\n', 4), /line 2: not a rule of a declared chain/)
		assert.throws(() => parseRuleset('*nat\n:A - [0:0]\n-A A -s 1.2.3\n', 4), /line 3: not an IPv4 address/)
	})

	it('parse(render(x)) = x', () => {
		fc.assert(
			fc.property(fc.array(fc.array(arbitraryRule, { maxLength: 6 }), { maxLength: 4 }), (all) => {
				const ruleset = rulesetOf(all.map((rules, i) => ({ table: 'nat', name: `C${i}`, rules })))
				const again = parseRuleset(renderRuleset(ruleset, { family: 4 }), 4)
				assert.deepEqual(Object.fromEntries(again), Object.fromEntries(ruleset))
			}),
		)
	})
})

function rulesetOf(chains: readonly Chain[]): Ruleset {
	return tableOf(chains.map((chain): [string, Chain] => [chainKey(chain.table, chain.name), chain]))
}

const byte = fc.integer({ min: 0, max: 255 })
const arbitraryIp = fc.tuple(byte, byte, byte, byte).map((b) => b.join('.') as Ip)
const negated = <T>(value: fc.Arbitrary<T>) =>
	fc.tuple(value, fc.boolean()).map(([v, not]) => (not ? { not: true as const, value: v } : { value: v }))
const ports = fc
	.tuple(fc.integer({ min: 0, max: 65535 }), fc.integer({ min: 0, max: 65535 }))
	.map(([a, b]) => ({ first: Math.min(a, b), last: Math.max(a, b) }))
const word = fc.stringMatching(/^[A-Z][A-Z0-9-]{0,10}$/)
const optional = <T>(key: string, value: fc.Arbitrary<T>) =>
	fc.option(value, { nil: undefined }).map((v) => (v === undefined ? {} : { [key]: v }))
const mark = fc.integer({ min: 0, max: 0xffffffff })
const maybeNot = optional('not', fc.constant(true))
const arbitraryMatch = fc
	.oneof(
		fc.stringMatching(/^[ -~]{1,40}$/).map((text) => ({ match: 'comment', text })),
		fc
			.tuple(optional('sport', negated(ports)), optional('dport', negated(ports)))
			.map(([s, d]) => ({ match: 'tcp', ...s, ...d })),
		fc.tuple(maybeNot, mark, mark).map(([n, value, mask]) => ({ match: 'mark', ...n, value, mask })),
		fc
			.tuple(maybeNot, fc.subarray([...connectionWords], { minLength: 1 }))
			.map(([n, states]) => ({ match: 'conntrack', ...n, states })),
		negated(fc.constantFrom('LOCAL', 'UNICAST')).map((source) => ({ match: 'addrtype', source })),
		fc.integer({ min: 0, max: 0x7fffffff }).map((share) => ({ match: 'statistic', share })),
		fc
			.tuple(
				fc.constantFrom('set', 'rcheck'),
				word,
				optional('seconds', fc.nat(9999)),
				optional('reap', fc.constant(true)),
			)
			.map(([op, name, seconds, reap]) => ({ match: 'recent', op, name, ...seconds, ...reap })),
		fc.tuple(maybeNot, word).map(([n, set]) => ({ match: 'set', ...n, set, fields: ['dst', 'dst', 'src'] })),
	)
	.map((m) => m as Match)
const arbitraryTarget = fc
	.oneof(
		fc.constantFrom('accept', 'drop', 'return').map((target) => ({ target })),
		fc.tuple(fc.constantFrom('jump', 'goto'), word).map(([target, name]) => ({ target, chain: `KUBE-${name}` })),
		fc.tuple(mark, mark).map(([value, mask]) => ({ target: 'mark', value, mask })),
		fc
			.tuple(arbitraryIp, optional('port', fc.integer({ min: 1, max: 65535 })))
			.map(([ip, port]) => ({ target: 'dnat', ip, ...port })),
		fc.constant({ target: 'masquerade', randomFully: true }),
		fc.constant({ target: 'reject', with: 'tcp-reset' }),
	)
	.map((t) => t as Target)
const host = arbitraryIp.map((ip) => `${ip}/32` as Cidr)
const arbitraryRule: fc.Arbitrary<Rule> = fc
	.tuple(
		optional('source', negated(host)),
		optional('destination', negated(host)),
		optional('inInterface', negated(fc.constantFrom('eth0', 'veth+'))),
		optional('protocol', negated(fc.constantFrom('tcp', 'udp'))),
		fc.array(arbitraryMatch, { maxLength: 4 }),
		optional('target', arbitraryTarget),
	)
	.map(([s, d, i, p, matches, t]) => ({ ...s, ...d, ...i, ...p, matches, ...t }))

describe('iptables changes', () => {
	const own = (name: string) => name.startsWith('KUBE-')
	const base = (rules: readonly string[], more: Record<string, readonly string[]> = {}): Ruleset =>
		rulesetOf([
			{ table: 'nat', name: 'OUTPUT', policy: 'ACCEPT', rules: rules.map((r) => parseRule(r, 4)) },
			...Object.entries(more).map(
				([name, list]): Chain => ({ table: 'nat', name, rules: list.map((r) => parseRule(r, 4)) }),
			),
		])

	it('are none between equals, whatever the counters and the order of matches', () => {
		const a = parseRule('-p tcp -m comment --comment x -m tcp --dport 80 -j ACCEPT', 4)
		const b = {
			...parseRule('-p tcp -m tcp --dport 80 -m comment --comment x -j ACCEPT', 4),
			counters: { packets: 1n, bytes: 2n },
		}
		assert.ok(sameRule(a, b, 4))
		const one = base(['-j KUBE-A'], { 'KUBE-A': ['-j ACCEPT'] })
		const other = base(['-j KUBE-A'], { 'KUBE-A': ['-j ACCEPT'] })
		assert.deepEqual(diffRulesets(one, other, 4, own), [])
	})

	it('leave alone what others have', () => {
		const have = base(['-j DOCKER', '-j KUBE-OLD'], { DOCKER: ['-j ACCEPT'], 'KUBE-OLD': [] })
		const want = base(['-j KUBE-A', '-m mark --mark 0x1 -j KUBE-B'], { 'KUBE-A': ['-j ACCEPT'], 'KUBE-B': [] })
		const { text, commits } = restoreText(diffRulesets(have, want, 4, own))
		const lines = text.trim().split('\n')
		assert.deepEqual(lines.slice(0, 1), ['*nat'])
		assert.deepEqual(lines.slice(1, 4).sort(), [':KUBE-A - [0:0]', ':KUBE-B - [0:0]', ':KUBE-OLD - [0:0]'])
		assert.deepEqual(
			lines.filter((l) => /^-[DIA]/.test(l)),
			[
				'-D OUTPUT -j KUBE-OLD',
				'-I OUTPUT -m mark --mark 0x1 -j KUBE-B',
				'-I OUTPUT -j KUBE-A',
				'-A KUBE-A -j ACCEPT',
			].sort((a, b) => lines.indexOf(a) - lines.indexOf(b)),
		)
		// In this order the first wanted jump is the first rule in the end.
		assert.ok(lines.indexOf('-I OUTPUT -m mark --mark 0x1 -j KUBE-B') < lines.indexOf('-I OUTPUT -j KUBE-A'))
		assert.deepEqual(lines.slice(-2), ['-X KUBE-OLD', 'COMMIT'])
		assert.deepEqual(commits, [{ table: 'nat', line: lines.length }])
	})

	it('write only the chains that differ', () => {
		const have = base(['-j KUBE-A'], { 'KUBE-A': ['-j ACCEPT'], 'KUBE-B': ['-j DROP'] })
		const want = base(['-j KUBE-A'], { 'KUBE-A': ['-j ACCEPT'], 'KUBE-B': ['-j RETURN'] })
		assert.equal(
			restoreText(diffRulesets(have, want, 4, own)).text,
			'*nat\n:KUBE-B - [0:0]\n-A KUBE-B -j RETURN\nCOMMIT\n',
		)
	})
})

describe('iptables, evaluated', () => {
	const packet: Packet = {
		protocol: 'TCP',
		source: '10.0.0.1' as Ip,
		sourcePort: 40000,
		destination: '10.96.0.1' as Ip,
		destinationPort: 80,
		state: 'new',
		mark: 0,
	}
	const run = (text: string, hook: Hook = 'output', over: Partial<Packet> = {}) =>
		evaluateRuleset(parseRuleset(text, 4), { ...packet, ...over }, hook, {
			localAddresses: ['172.18.0.2' as Ip],
			masqueradeAddress: () => '172.18.0.2' as Ip,
		}).map((o) => [
			o.verdict,
			`${o.packet.source} ${o.packet.destination}:${o.packet.destinationPort} ${o.packet.mark}`,
			Math.round(o.chance * 1e6) / 1e6,
			o.rules.map((r) => r.chain).join(' '),
		])
	const nat = (...lines: string[]) =>
		`*nat\n:OUTPUT ACCEPT [0:0]\n:A - [0:0]\n:B - [0:0]\n${lines.join('\n')}\nCOMMIT\n`

	it('shares among three', () => {
		const text = nat(
			'-A OUTPUT -d 10.96.0.1 -p tcp -m tcp --dport 80 -j A',
			'-A A -m statistic --mode random --probability 0.3333333333 -j DNAT --to-destination 1.1.1.1:1',
			'-A A -m statistic --mode random --probability 0.5000000000 -j DNAT --to-destination 1.1.1.2:2',
			'-A A -j DNAT --to-destination 1.1.1.3:3',
		)
		assert.deepEqual(run(text), [
			['accept', '10.0.0.1 1.1.1.1:1 0', 0.333333, 'OUTPUT A'],
			['accept', '10.0.0.1 1.1.1.2:2 0', 0.333333, 'OUTPUT A'],
			['accept', '10.0.0.1 1.1.1.3:3 0', 0.333333, 'OUTPUT A'],
		])
		assert.deepEqual(run(text, 'output', { destinationPort: 81 }), [['accept', '10.0.0.1 10.96.0.1:81 0', 1, '']])
	})

	it('returns from a jump and not from a goto', () => {
		const rest = ['-A A -j MARK --set-xmark 0x1/0x0', '-A OUTPUT -j MARK --or-mark 0x4']
		assert.deepEqual(run(nat('-A OUTPUT -j A', ...rest))[0]?.[1], '10.0.0.1 10.96.0.1:80 5')
		assert.deepEqual(run(nat('-A OUTPUT -g A', ...rest))[0]?.[1], '10.0.0.1 10.96.0.1:80 1')
	})

	it('goes from nat to filter, with the translated address', () => {
		const text = `${nat('-A OUTPUT -j DNAT --to-destination 1.1.1.1:1')}*filter
:OUTPUT ACCEPT [0:0]
-A OUTPUT -d 1.1.1.1 -j REJECT
COMMIT
`
		assert.deepEqual(run(text), [['reject', '10.0.0.1 1.1.1.1:1 0', 1, 'OUTPUT OUTPUT']])
		assert.deepEqual(run(text, 'output', { state: 'established' }), [['accept', '10.0.0.1 10.96.0.1:80 0', 1, '']])
	})

	it('masquerades what is marked', () => {
		const text = '*nat\n:POSTROUTING ACCEPT [0:0]\n-A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE\nCOMMIT\n'
		assert.equal(run(text, 'postrouting', { mark: 0x4000 })[0]?.[1], '172.18.0.2 10.96.0.1:80 16384')
		assert.equal(run(text, 'postrouting')[0]?.[1], '10.0.0.1 10.96.0.1:80 0')
	})

	it('does not guess', () => {
		assert.throws(() => run(nat('-A OUTPUT -m owner --uid-owner 0 -j ACCEPT')), { code: 'NotEvaluable' })
		assert.throws(() => run(nat('-A OUTPUT -j SNAT --to-source 1.2.3.4')), { code: 'NotEvaluable' })
		assert.throws(() => run(nat('-A OUTPUT -i eth0 -j ACCEPT')), { code: 'NotEvaluable' })
	})
})
