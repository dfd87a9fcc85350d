// YAML with places, read as kubectl reads it: scalars as go-yaml v2 resolves them (YAML 1.1: `on` is true, `0644` is
// octal, `1:30` a string), merge keys, aliases within bounds. The syntax itself is the `yaml` library's.

import {
	Composer,
	isAlias,
	isMap,
	isScalar,
	isSeq,
	LineCounter,
	type Node,
	type Pair,
	type ParsedNode,
	Parser,
} from 'yaml'
import { setOwn } from './manifest-json.ts'
import { lineOfPlace, type ParsedDocument, type ParsedText, type Place, type TextError } from './manifest-place.ts'

/** Values that aliases may add to one document: against documents that grow without bound ("billion laughs"). */
export const mostAliasedValues = 100_000
const deepest = 500

/** Every document that can be read; for each other one its first error. */
export function parseYamlText(text: string): ParsedText {
	const lines = new LineCounter()
	const documents: ParsedDocument[] = []
	const errors: TextError[] = []
	const parser = new Parser(lines.addNewLine)
	const composer = new Composer<ParsedNode, true>({
		schema: 'failsafe',
		prettyErrors: false,
		uniqueKeys: false,
		merge: false,
		logLevel: 'silent',
	})
	const at = (offset: number): { line: number; column: number } => {
		const { line, col } = lines.linePos(offset)
		return { line: Math.max(1, line), column: Math.max(1, col) }
	}
	try {
		for (const document of composer.compose(parser.parse(text), false, text.length)) {
			const error = document.errors[0]
			try {
				if (error !== undefined)
					throw new YamlError(error.pos[0], adviceFor(error.code, error.message, text, error.pos[0]))
				if (document.contents === null) continue
				documents.push(new Reader((offset) => at(offset).line).document(document.contents))
			} catch (e) {
				if (!(e instanceof YamlError)) throw e
				const range = document.range ?? [0, text.length]
				const templated = text.slice(range[0], range[2]).includes('{{')
				const hint = templated ? ' (this looks like a Helm template: render it first, `helm template …`)' : ''
				errors.push({ ...at(e.at), text: e.message + hint })
			}
		}
	} catch (e) {
		// The library recurses with the depth of the text.
		if (!(e instanceof RangeError)) throw e
		errors.push({ line: 1, column: 1, text: 'nested too deep to be read' })
	}
	return { documents, errors }
}

class YamlError extends Error {
	readonly at: number
	constructor(at: number, message: string) {
		super(message)
		this.at = at
	}
}

/** What the library says, and what would be right. */
function adviceFor(code: string, message: string, text: string, at: number): string {
	const plain = message.replace(/\s+/g, ' ')
	switch (code) {
		case 'TAB_AS_INDENT':
			return 'indented with a tab: YAML wants spaces'
		case 'BAD_INDENT':
			return `${plain}: indent the fields of one mapping equally`
		case 'MULTILINE_IMPLICIT_KEY':
			return `${plain}: is a ":" missing, or a quote?`
		case 'BLOCK_AS_IMPLICIT_KEY':
			return `${plain}: a value with ": " in it needs quotes`
		case 'MISSING_CHAR': {
			const line = text.slice(at).split('\n', 1)[0]?.trim() ?? ''
			return line === '' ? plain : `${plain} at ${JSON.stringify(line.slice(0, 40))}`
		}
		case 'BAD_ALIAS':
			return `${plain}: a value that begins with "*" needs quotes`
		case 'UNEXPECTED_TOKEN':
			return `${plain}: is the line before complete, and every quote closed?`
		default:
			return plain
	}
}

interface Read extends ParsedDocument {
	/** How many values it holds, itself included. */
	readonly size: number
}

/** Turns the nodes of one document into values. */
class Reader {
	readonly #line: (offset: number) => number
	readonly #anchors = new Map<string, Read | 'open'>()
	#aliased = 0
	constructor(line: (offset: number) => number) {
		this.#line = line
	}

	document(node: Node): ParsedDocument {
		const { value, place } = this.#read(node, 0)
		return { value, place }
	}

	#read(node: Node | null, depth: number): Read {
		if (node === null) return { value: null, place: 1, size: 1 }
		const at = node.range?.[0] ?? 0
		if (depth > deepest) throw new YamlError(at, `nested deeper than ${deepest} levels`)
		if (isAlias(node)) {
			const target = this.#anchors.get(node.source)
			if (target === undefined) throw new YamlError(at, `no anchor &${node.source} before *${node.source}`)
			if (target === 'open') throw new YamlError(at, `*${node.source} stands inside what it refers to`)
			this.#aliased += target.size
			if (this.#aliased > mostAliasedValues) {
				throw new YamlError(
					at,
					`aliases expand to more than ${mostAliasedValues} values: write them out, or split the document`,
				)
			}
			return target
		}
		const anchor = 'anchor' in node ? (node.anchor as string | undefined) : undefined
		if (anchor !== undefined) this.#anchors.set(anchor, 'open')
		const read = this.#fresh(node, at, depth)
		if (anchor !== undefined) this.#anchors.set(anchor, read)
		return read
	}

	#fresh(node: Node, at: number, depth: number): Read {
		const line = this.#line(at)
		if (isScalar(node)) return { value: this.#scalar(node, at), place: line, size: 1 }
		if (isSeq(node)) {
			const value: unknown[] = []
			const items: Place[] = []
			let size = 1
			for (const item of node.items) {
				const read = item === null ? { value: null, place: line, size: 1 } : this.#read(item as Node, depth + 1)
				value.push(read.value)
				items.push(read.place)
				size += read.size
			}
			return { value, place: { line, items }, size }
		}
		if (!isMap(node)) throw new YamlError(at, 'cannot read this')
		const value: Record<string, unknown> = {}
		const fields = new Map<string, { line: number; value: Place }>()
		const merges: Read[] = []
		let size = 1
		for (const pair of node.items as Pair<Node, Node | null>[]) {
			const keyAt = pair.key?.range?.[0] ?? at
			const key = this.#key(pair.key, keyAt)
			const read = this.#read(pair.value, depth + 1)
			size += read.size
			if (key === mergeKey) {
				merges.push(...this.#merged(read, keyAt))
				continue
			}
			const keyLine = this.#line(keyAt)
			const first = fields.get(key)
			if (first !== undefined) {
				throw new YamlError(keyAt, `key ${JSON.stringify(key)} is given twice (first in line ${first.line}): keep one`)
			}
			setOwn(value, key, read.value)
			fields.set(key, { line: keyLine, value: pair.value === null ? keyLine : read.place })
		}
		for (const { value: more, place } of merges) {
			if (typeof place === 'number' || 'items' in place) continue
			for (const [key, field] of place.fields) {
				if (fields.has(key)) continue
				setOwn(value, key, (more as Record<string, unknown>)[key])
				fields.set(key, field)
			}
		}
		return { value, place: { line, fields }, size }
	}

	#merged(read: Read, at: number): Read[] {
		if (Array.isArray(read.value) && typeof read.place !== 'number' && 'items' in read.place) {
			const { items } = read.place
			return read.value.flatMap((value, i) => this.#merged({ value, place: items[i] ?? 1, size: 1 }, at))
		}
		if (typeof read.place === 'number' || !('fields' in read.place)) {
			throw new YamlError(at, `"<<" merges mappings; in line ${lineOfPlace(read.place)} stands something else`)
		}
		return [read]
	}

	#key(key: Node | null, at: number): string | typeof mergeKey {
		if (key === null) throw new YamlError(at, 'a key is missing before ":"')
		if (isAlias(key)) {
			const { value } = this.#read(key, 0)
			if (typeof value === 'object') throw new YamlError(at, 'a key must be a string')
			return String(value)
		}
		if (!isScalar(key)) throw new YamlError(at, 'a key must be a string: does a "{{" or a "[" need quotes?')
		if (key.type === 'PLAIN' && key.value === '<<') return mergeKey
		const value = this.#read(key, 0).value
		if (value === null) throw new YamlError(at, 'a key must be a string: put quotes around null')
		return String(value)
	}

	#scalar(node: { value: unknown; type?: string; tag?: string }, at: number): unknown {
		const text = typeof node.value === 'string' ? node.value : ''
		const tag = node.tag?.replace('tag:yaml.org,2002:', '!!')
		if (tag === undefined || tag === '!!str' || tag === '!') {
			const plain = tag === undefined && (node.type === 'PLAIN' || node.type === undefined)
			const value = plain ? resolvePlain(text) : text
			if (typeof value === 'number' && !Number.isFinite(value))
				throw new YamlError(at, `${text} is no number JSON knows`)
			return value
		}
		const value = resolvePlain(text)
		const fits =
			(tag === '!!int' && Number.isInteger(value)) ||
			(tag === '!!float' && typeof value === 'number') ||
			(tag === '!!bool' && typeof value === 'boolean') ||
			(tag === '!!null' && value === null)
		if (!fits) throw new YamlError(at, `cannot read ${JSON.stringify(text)} as ${tag}`)
		return value
	}
}

const mergeKey = Symbol('<<')

const words: ReadonlyMap<string, boolean | null | number> = new Map<string, boolean | null | number>([
	...['y', 'Y', 'yes', 'Yes', 'YES', 'true', 'True', 'TRUE', 'on', 'On', 'ON'].map((w) => [w, true] as const),
	...['n', 'N', 'no', 'No', 'NO', 'false', 'False', 'FALSE', 'off', 'Off', 'OFF'].map((w) => [w, false] as const),
	...['', '~', 'null', 'Null', 'NULL'].map((w) => [w, null] as const),
	...['.nan', '.NaN', '.NAN'].map((w) => [w, Number.NaN] as const),
	...['.inf', '.Inf', '.INF', '+.inf', '+.Inf', '+.INF'].map((w) => [w, Number.POSITIVE_INFINITY] as const),
	...['-.inf', '-.Inf', '-.INF'].map((w) => [w, Number.NEGATIVE_INFINITY] as const),
])

/** What a scalar without quotes and tag means to go-yaml v2, which kubectl reads manifests with. Timestamps stay text. */
export function resolvePlain(text: string): string | number | boolean | null {
	const word = words.get(text)
	if (word !== undefined) return word
	if (!/^[-+.\d]/.test(text) || !/\d/.test(text)) return text
	const bare = text.replaceAll('_', '')
	const integer = /^([-+]?)(?:0[xX]([\da-fA-F]+)|0[bB]([01]+)|0[oO]?([0-7]+)|(0|[1-9]\d*))$/.exec(bare)
	if (integer !== null) {
		const [, sign, hex, binary, octal, decimal] = integer
		const [digits, radix] =
			hex !== undefined
				? [hex, 16]
				: binary !== undefined
					? [binary, 2]
					: octal !== undefined
						? [octal, 8]
						: [decimal!, 10]
		const value = Number.parseInt(digits, radix)
		return sign === '-' && value !== 0 ? -value : value
	}
	if (/^[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?$/.test(bare)) return Number(bare)
	return text
}
