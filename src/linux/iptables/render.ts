// Rules as iptables-save prints them, which is also what iptables-restore reads.

import type { IpFamily } from '../../base/ip.ts'
import {
	type Chain,
	type Counters,
	connectionWords,
	type Match,
	type Negatable,
	type PortRange,
	probabilityUnit,
	type Rule,
	type Ruleset,
	type TableName,
	type Target,
} from './program.ts'

const tableOrder: readonly TableName[] = ['raw', 'mangle', 'nat', 'filter', 'security']
const builtin = ['PREROUTING', 'INPUT', 'FORWARD', 'OUTPUT', 'POSTROUTING']

export interface RenderOptions {
	readonly family: IpFamily
	/** Counters of rules, as `iptables-save -c`. */
	readonly counters?: boolean
}

/** The whole ruleset: tables in the kernel's order, built-in chains first, then by name. */
export function renderRuleset(ruleset: Ruleset, options: RenderOptions): string {
	const lines: string[] = []
	for (const table of tableOrder) {
		const chains = [...ruleset.values()].filter((c) => c.table === table).sort(byPlace)
		if (chains.length === 0) continue
		lines.push(`*${table}`)
		for (const chain of chains) lines.push(renderDeclaration(chain))
		for (const { name, rules } of chains) {
			for (const rule of rules) lines.push(renderRule(name, rule, options))
		}
		lines.push('COMMIT')
	}
	return lines.map((line) => `${line}\n`).join('')
}

function byPlace(a: Chain, b: Chain): number {
	const place = (c: Chain) => (builtin.includes(c.name) ? builtin.indexOf(c.name) : builtin.length)
	return place(a) - place(b) || (a.name < b.name ? -1 : a.name > b.name ? 1 : 0)
}

/** `:KUBE-SERVICES - [0:0]`: makes the chain, or empties it. */
export function renderDeclaration(chain: Pick<Chain, 'name' | 'policy'>): string {
	return `:${chain.name} ${chain.policy ?? '-'} [0:0]`
}

/** `-A KUBE-SERVICES …` */
export function renderRule(chain: string, rule: Rule, options: RenderOptions): string {
	const counters = options.counters === true && rule.counters !== undefined ? `${renderCounters(rule.counters)} ` : ''
	const text = ruleText(rule, options.family)
	return `${counters}-A ${chain}${text === '' ? '' : ` ${text}`}`
}

export function renderCounters({ packets, bytes }: Counters): string {
	return `[${packets}:${bytes}]`
}

// Rules are shared between programs: each is written once.
const known: Readonly<Record<IpFamily, WeakMap<Rule, string>>> = { 4: new WeakMap(), 6: new WeakMap() }

/** A rule without its chain and counters. */
export function ruleText(rule: Rule, family: IpFamily): string {
	let text = known[family].get(rule)
	if (text === undefined) {
		text = writeRule(rule, family)
		known[family].set(rule, text)
	}
	return text
}

function writeRule(rule: Rule, family: IpFamily): string {
	const words: string[] = []
	option(words, '-s', rule.source)
	option(words, '-d', rule.destination)
	option(words, '-i', rule.inInterface)
	option(words, '-o', rule.outInterface)
	option(words, '-p', rule.protocol)
	for (const match of rule.matches) writeMatch(words, match, family)
	if (rule.target !== undefined) writeTarget(words, rule.target, family)
	return words.join(' ')
}

function option(words: string[], name: string, value: Negatable<string | number> | undefined): void {
	if (value === undefined) return
	if (value.not) words.push('!')
	words.push(name, String(value.value))
}

function portOption(words: string[], name: string, range: Negatable<PortRange> | undefined): void {
	if (range === undefined) return
	const { first, last } = range.value
	option(words, name, { ...range, value: first === last ? first : `${first}:${last}` })
}

function writeMatch(words: string[], match: Match, family: IpFamily): void {
	if (match.match === 'other') {
		words.push(...match.words)
		return
	}
	words.push('-m', match.match)
	const no = (not: true | undefined) => {
		if (not) words.push('!')
	}
	switch (match.match) {
		case 'comment':
			words.push('--comment', quote(match.text))
			return
		case 'tcp':
		case 'udp':
		case 'sctp':
			portOption(words, '--sport', match.sport)
			portOption(words, '--dport', match.dport)
			return
		case 'mark':
			no(match.not)
			words.push('--mark', masked(match.value, match.mask))
			return
		case 'conntrack':
			no(match.not)
			words.push('--ctstate', connectionWords.filter((w) => match.states.includes(w)).join(','))
			return
		case 'addrtype':
			option(words, '--src-type', match.source)
			option(words, '--dst-type', match.destination)
			return
		case 'statistic':
			words.push('--mode', 'random')
			no(match.not)
			words.push('--probability', (match.share / probabilityUnit).toFixed(11))
			return
		case 'recent': {
			no(match.not)
			words.push(`--${match.op}`)
			if (match.seconds !== undefined) words.push('--seconds', String(match.seconds))
			if (match.reap) words.push('--reap')
			const mask = family === 4 ? '255.255.255.255' : 'ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff'
			words.push('--name', match.name, '--mask', mask, '--rsource')
			return
		}
		case 'set':
			no(match.not)
			words.push('--match-set', match.set, match.fields.join(','))
			return
		default: {
			const never: never = match
			throw new Error(`no such match: ${JSON.stringify(never)}`)
		}
	}
}

function writeTarget(words: string[], target: Target, family: IpFamily): void {
	switch (target.target) {
		case 'accept':
		case 'drop':
		case 'return':
			words.push('-j', target.target.toUpperCase())
			return
		case 'jump':
			words.push('-j', target.chain)
			return
		case 'goto':
			words.push('-g', target.chain)
			return
		case 'mark':
			words.push('-j', 'MARK', '--set-xmark', `${hex(target.value)}/${hex(target.mask)}`)
			return
		case 'dnat':
			words.push('-j', 'DNAT', '--to-destination', endpointText(target, family))
			return
		case 'masquerade':
			words.push('-j', 'MASQUERADE')
			if (target.randomFully) words.push('--random-fully')
			return
		case 'reject':
			words.push('-j', 'REJECT', '--reject-with', target.with)
			return
		case 'other':
			words.push(...target.words)
			return
		default: {
			const never: never = target
			throw new Error(`no such target: ${JSON.stringify(never)}`)
		}
	}
}

function endpointText({ ip, port }: { readonly ip: string; readonly port?: number }, family: IpFamily): string {
	if (port === undefined) return ip
	return family === 6 ? `[${ip}]:${port}` : `${ip}:${port}`
}

function masked(value: number, mask: number): string {
	return mask === 0xffffffff ? hex(value) : `${hex(value)}/${hex(mask)}`
}

function hex(value: number): string {
	return `0x${value.toString(16)}`
}

/** As xtables does: anything but letters, digits, - and _ is quoted. */
function quote(text: string): string {
	return /^[-A-Za-z0-9_]+$/.test(text) ? text : `"${text.replaceAll(/["'\\]/g, (c) => `\\${c}`)}"`
}
