// What iptables-save prints (and what kube-proxy writes for iptables-restore) as data. Options come in any order; what
// is not in the vocabulary of program.ts is kept word by word, so that nothing of other programs' rules is lost.

import { type Cidr, hostCidr, type Ip, type IpFamily, tryParseCidr, tryParseIp } from '../../base/ip.ts'
import { tableOf } from '../../base/table.ts'
import {
	type AddressType,
	type Chain,
	type ConnectionWord,
	type Counters,
	chainKey,
	connectionWords,
	defaultReject,
	type Match,
	type Negatable,
	type Policy,
	type PortRange,
	probabilityUnit,
	type Rule,
	type Ruleset,
	type TableName,
	type Target,
} from './program.ts'

/** Throws an Error that names the line where the text is not what iptables-save prints. */
export function parseRuleset(text: string, family: IpFamily): Ruleset {
	const chains = new Map<string, { table: TableName; name: string; policy?: Policy; rules: Rule[] }>()
	let table: TableName | undefined
	for (const [i, line] of text.split('\n').entries()) {
		const trimmed = line.trim()
		if (trimmed === '' || trimmed.startsWith('#')) continue
		if (trimmed.startsWith('*')) {
			table = trimmed.slice(1) as TableName
			continue
		}
		if (trimmed === 'COMMIT') {
			table = undefined
			continue
		}
		if (table === undefined) throw new Error(`iptables text, line ${i + 1}: outside of a table: ${trimmed}`)
		try {
			if (trimmed.startsWith(':')) {
				const [name = '', policy = '-'] = trimmed.slice(1).split(' ')
				chains.set(chainKey(table, name), {
					table,
					name,
					...(policy === '-' ? {} : { policy: policy as Policy }),
					rules: [],
				})
				continue
			}
			const words = splitWords(trimmed)
			const counters = words[0]?.startsWith('[') ? readCounters(words.shift()!) : undefined
			const [append, name = ''] = words
			const chain = chains.get(chainKey(table, name))
			if (append !== '-A' || chain === undefined) throw new Error('not a rule of a declared chain')
			const rule = parseWords(words.slice(2), family)
			chain.rules.push(counters === undefined ? rule : { ...rule, counters })
		} catch (e) {
			throw new Error(`iptables text, line ${i + 1}: ${(e as Error).message}: ${trimmed}`)
		}
	}
	return tableOf([...chains].map(([key, chain]): [string, Chain] => [key, chain]))
}

/** One rule without `-A CHAIN`. */
export function parseRule(text: string, family: IpFamily): Rule {
	return parseWords(splitWords(text), family)
}

/** Words as written: quotes and backslashes still in them. */
function splitWords(line: string): string[] {
	return line.match(/"(?:[^"\\]|\\.)*"|\S+/g) ?? []
}

function plain(word: string | undefined): string {
	if (word === undefined) throw new Error('an argument is missing')
	return word.startsWith('"') ? word.slice(1, -1).replaceAll(/\\(.)/g, '$1') : word
}

function readCounters(word: string): Counters {
	const match = /^\[(\d+):(\d+)\]$/.exec(word)
	if (match === null) throw new Error(`not counters: ${word}`)
	return { packets: BigInt(match[1]!), bytes: BigInt(match[2]!) }
}

/** A match while it is read. */
interface Draft {
	readonly name: string
	/** All of it as written. */
	readonly words: string[]
	/** Something in it has no place in the vocabulary. */
	strange: boolean
	readonly put: Record<string, unknown>
}

function parseWords(words: readonly string[], family: IpFamily): Rule {
	const rule: Record<string, unknown> = {}
	const drafts: Draft[] = []
	let target: Target | undefined
	for (let i = 0; i < words.length; ) {
		const not = words[i] === '!'
		if (not) i++
		const word = words[i++] as string
		const generic = genericOptions[word]
		if (generic !== undefined) {
			rule[generic] = negatable(not, genericValue(generic, plain(words[i++]), family))
		} else if (word === '-m' || word === '--match') {
			const name = plain(words[i++])
			drafts.push({ name, words: ['-m', name], strange: !known.has(name), put: {} })
		} else if (word === '-j' || word === '-g') {
			target = readTarget(word, words.slice(i), family)
			break
		} else {
			let draft = drafts.at(-1)
			if (isPortOption(word)) draft = portsOf(drafts, rule.protocol as Negatable<string> | undefined) ?? draft
			if (draft === undefined) throw new Error(`option ${word} belongs to no match`)
			if (not) draft.words.push('!')
			draft.words.push(word)
			const start = i
			// A comment may begin with a dash.
			if (word === '--comment' && i < words.length) draft.words.push(words[i++] as string)
			while (i < words.length && !/^(?:-|!$)/.test(words[i] as string)) draft.words.push(words[i++] as string)
			if (!readOption(draft, word, words.slice(start, i), not)) draft.strange = true
		}
	}
	return { ...(rule as Partial<Rule>), matches: drafts.map(finish), ...(target === undefined ? {} : { target }) }
}

type GenericOption = 'source' | 'destination' | 'inInterface' | 'outInterface' | 'protocol'

const genericOptions: Readonly<Record<string, GenericOption | undefined>> = {
	'-s': 'source',
	'--src': 'source',
	'-d': 'destination',
	'--dst': 'destination',
	'-i': 'inInterface',
	'-o': 'outInterface',
	'-p': 'protocol',
}

function negatable<T>(not: boolean, value: T): Negatable<T> {
	return not ? { not: true, value } : { value }
}

function genericValue(option: GenericOption, text: string, family: IpFamily): string {
	if (option === 'protocol') return text
	if (option !== 'source' && option !== 'destination') return text
	return readCidr(text, family)
}

function readCidr(text: string, family: IpFamily): Cidr {
	const ip = tryParseIp(text)
	if (ip !== undefined) return hostCidr(ip)
	const cidr = tryParseCidr(text, { mask: true })
	if (cidr !== undefined) return cidr
	throw new Error(`not an IPv${family} address or network: ${text}`)
}

const known = new Set(['comment', 'tcp', 'udp', 'sctp', 'mark', 'conntrack', 'addrtype', 'statistic', 'recent', 'set'])

function isPortOption(word: string): boolean {
	return word === '--dport' || word === '--sport'
}

/** The match of a transport protocol; where none was named the rule's protocol stands for it. */
function portsOf(drafts: Draft[], protocol: Negatable<string> | undefined): Draft | undefined {
	const found = drafts.findLast((d) => d.name === 'tcp' || d.name === 'udp' || d.name === 'sctp')
	if (found !== undefined || protocol === undefined || drafts.at(-1)?.strange) return found
	const draft: Draft = { name: protocol.value, words: ['-m', protocol.value], strange: false, put: {} }
	drafts.push(draft)
	return draft
}

/** False: not in the vocabulary. */
function readOption(draft: Draft, option: string, values: readonly string[], not: boolean): boolean {
	const { put } = draft
	const value = () => plain(values[0])
	switch (`${draft.name} ${option}`) {
		case 'comment --comment':
			put.text = value()
			return !not
		case 'tcp --dport':
		case 'udp --dport':
		case 'sctp --dport':
			put.dport = negatable(not, readPorts(value()))
			return true
		case 'tcp --sport':
		case 'udp --sport':
		case 'sctp --sport':
			put.sport = negatable(not, readPorts(value()))
			return true
		case 'mark --mark':
			Object.assign(put, not ? { not: true } : {}, readMasked(value()))
			return true
		case 'conntrack --ctstate': {
			const states = value().split(',') as ConnectionWord[]
			if (not) put.not = true
			put.states = connectionWords.filter((w) => states.includes(w))
			return (put.states as ConnectionWord[]).length === states.length
		}
		case 'addrtype --src-type':
			put.source = negatable(not, value() as AddressType)
			return true
		case 'addrtype --dst-type':
			put.destination = negatable(not, value() as AddressType)
			return true
		case 'statistic --mode':
			return value() === 'random'
		case 'statistic --probability':
			if (not) put.not = true
			put.share = Math.round(Number(value()) * probabilityUnit)
			return true
		case 'recent --set':
		case 'recent --rcheck':
		case 'recent --update':
		case 'recent --remove':
			if (not) put.not = true
			put.op = option.slice(2)
			return true
		case 'recent --name':
			put.name = value()
			return true
		case 'recent --seconds':
			put.seconds = Number(value())
			return true
		case 'recent --reap':
			put.reap = true
			return true
		case 'recent --mask':
			// One address, the default.
			return /^(?:255\.255\.255\.255|(?:ffff:){7}ffff)$/.test(value())
		case 'recent --rsource':
			return true
		case 'set --match-set':
			if (not) put.not = true
			put.set = value()
			put.fields = plain(values[1]).split(',')
			return values.length === 2
		default:
			return false
	}
}

function finish(draft: Draft): Match {
	if (draft.strange) return { match: 'other', words: draft.words }
	return { match: draft.name, ...draft.put } as Match
}

function readPorts(text: string): PortRange {
	const [first = '', last = first] = text.split(':')
	return { first: first === '' ? 0 : Number(first), last: last === '' ? 65535 : Number(last) }
}

function readMasked(text: string): { value: number; mask: number } {
	const [value = '', mask] = text.split('/')
	return { value: Number(value), mask: mask === undefined ? 0xffffffff : Number(mask) }
}

const builtinVerdicts: Readonly<Record<string, Target | undefined>> = {
	ACCEPT: { target: 'accept' },
	DROP: { target: 'drop' },
	RETURN: { target: 'return' },
}

function readTarget(word: string, words: readonly string[], family: IpFamily): Target {
	const name = plain(words[0])
	const other: Target = { target: 'other', words: [word, ...words] }
	if (word === '-g') return { target: 'goto', chain: name }
	const verdict = builtinVerdicts[name]
	if (verdict !== undefined) return verdict
	const options = words.slice(1)
	switch (name) {
		case 'MARK': {
			const { value, mask } = readMasked(plain(options[1]))
			switch (options[0]) {
				case '--set-xmark':
					return { target: 'mark', value, mask }
				case '--or-mark':
					return { target: 'mark', value, mask: value }
				case '--xor-mark':
					return { target: 'mark', value, mask: 0 }
				case '--set-mark':
					return { target: 'mark', value, mask: (mask | value) >>> 0 }
				default:
					return other
			}
		}
		case 'DNAT': {
			if (options[0] !== '--to-destination' || options.length !== 2) return other
			return readDestination(plain(options[1])) ?? other
		}
		case 'MASQUERADE':
			if (options.length === 0) return { target: 'masquerade' }
			return options.join(' ') === '--random-fully' ? { target: 'masquerade', randomFully: true } : other
		case 'REJECT':
			if (options.length === 0) return { target: 'reject', with: defaultReject(family) }
			return options[0] === '--reject-with' && options.length === 2
				? { target: 'reject', with: plain(options[1]) }
				: other
		default:
			// Targets of modules are in capitals and take options; a chain takes none.
			return options.length === 0 && !moduleTargets.has(name) ? { target: 'jump', chain: name } : other
	}
}

const moduleTargets = new Set(['LOG', 'TRACE', 'NOTRACK', 'SNAT', 'REDIRECT', 'CHECKSUM', 'AUDIT', 'CT', 'TPROXY'])

function readDestination(text: string): Target | undefined {
	const match = /^(?:\[([^\]]+)\]|([^:]+)):(\d+)$/.exec(text)
	const ip: Ip | undefined = tryParseIp(match?.[1] ?? match?.[2] ?? text)
	if (ip === undefined) return undefined
	return { target: 'dnat', ip, ...(match === null ? {} : { port: Number(match[3]) }) }
}
