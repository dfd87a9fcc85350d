// From the text of a CEL expression to its tree: operators by precedence, then the macros of calls.

import { CelCompileError, type Expr, type LoopForm } from './syntax.ts'
import { type Token, tokensOf } from './tokens.ts'

/** Deeper expressions are refused, so that all that walks them may recurse. */
const deepest = 250

const reserved: ReadonlySet<string> = new Set(
	'as break const continue else for function if import let loop package namespace return var void while'.split(' '),
)

/** Throws CelCompileError. */
export function parse(source: string): Expr {
	return new Parser(source).whole()
}

const relations: readonly string[] = ['<', '<=', '>=', '>', '==', '!=']

class Parser {
	readonly #source: string
	readonly #tokens: readonly Token[]
	#at = 0
	#depth = 0

	constructor(source: string) {
		this.#source = source
		this.#tokens = tokensOf(source)
	}

	whole(): Expr {
		const expr = this.#expr()
		if (this.#here.type !== 'end') throw this.#unexpected()
		return expr
	}

	get #here(): Token {
		return this.#tokens[this.#at]!
	}

	#error(at: number, text: string): CelCompileError {
		return new CelCompileError(this.#source, at, text)
	}

	#unexpected(): CelCompileError {
		const here = this.#here
		const next = this.#tokens[this.#at + 1]?.at ?? this.#source.length
		const shown = here.type === 'end' ? '<EOF>' : this.#source.slice(here.at, next).trim()
		return this.#error(here.at, `Syntax error: mismatched input '${shown}'`)
	}

	/** Takes one of these signs. */
	#take(...signs: readonly string[]): (Token & { readonly type: 'sign' }) | undefined {
		const here = this.#here
		if (here.type !== 'sign' || !signs.includes(here.text)) return undefined
		this.#at++
		return here
	}

	#want(sign: string): void {
		if (this.#take(sign) === undefined) throw this.#unexpected()
	}

	#isNext(word: string): boolean {
		const here = this.#here
		return (here.type === 'name' || here.type === 'sign') && here.text === word
	}

	#expr(): Expr {
		if (++this.#depth > deepest) throw this.#error(this.#here.at, 'expression recursion limit exceeded')
		const test = this.#or()
		const mark = this.#take('?')
		if (mark === undefined) {
			this.#depth--
			return test
		}
		const yes = this.#or()
		this.#want(':')
		const no = this.#expr()
		this.#depth--
		return { kind: 'if', test, yes, no, at: mark.at }
	}

	#or(): Expr {
		const parts = [this.#and()]
		const marks: number[] = []
		for (let mark = this.#take('||'); mark !== undefined; mark = this.#take('||')) {
			marks.push(mark.at)
			parts.push(this.#and())
		}
		return balanced('or', parts, marks)
	}

	#and(): Expr {
		const parts = [this.#relation()]
		const marks: number[] = []
		for (let mark = this.#take('&&'); mark !== undefined; mark = this.#take('&&')) {
			marks.push(mark.at)
			parts.push(this.#relation())
		}
		return balanced('and', parts, marks)
	}

	#relation(): Expr {
		let left = this.#sum()
		for (;;) {
			const at = this.#here.at
			let name: string
			if (this.#isNext('in') && this.#here.type === 'name') {
				this.#at++
				name = '@in'
			} else {
				const mark = this.#take(...relations)
				if (mark === undefined) return left
				name = `_${mark.text}_`
			}
			left = { kind: 'call', name, args: [left, this.#sum()], at }
		}
	}

	#sum(): Expr {
		let left = this.#product()
		for (let mark = this.#take('+', '-'); mark !== undefined; mark = this.#take('+', '-'))
			left = { kind: 'call', name: `_${mark.text}_`, args: [left, this.#product()], at: mark.at }
		return left
	}

	#product(): Expr {
		let left = this.#unary()
		for (let mark = this.#take('*', '/', '%'); mark !== undefined; mark = this.#take('*', '/', '%'))
			left = { kind: 'call', name: `_${mark.text}_`, args: [left, this.#unary()], at: mark.at }
		return left
	}

	#unary(): Expr {
		const mark = this.#take('!', '-')
		if (mark === undefined) return this.#member()
		if (++this.#depth > deepest) throw this.#error(mark.at, 'expression recursion limit exceeded')
		const next = this.#here
		if (mark.text === '-' && next.type === 'literal') {
			const { literal } = next
			if (literal.type === 'int' || literal.type === 'double') {
				this.#at++
				const negated = { ...literal, value: -literal.value } as typeof literal
				this.#depth--
				return this.#postfix({ kind: 'literal', literal: negated, at: mark.at })
			}
		}
		const operand = this.#unary()
		this.#depth--
		return { kind: 'call', name: `${mark.text}_`, args: [operand], at: mark.at }
	}

	#member(): Expr {
		return this.#postfix(this.#primary())
	}

	#postfix(first: Expr): Expr {
		let operand = first
		for (let length = 0; ; length++) {
			if (length > deepest) throw this.#error(this.#here.at, 'expression recursion limit exceeded')
			const dot = this.#take('.', '.?')
			if (dot !== undefined) {
				const field = this.#here
				if (field.type !== 'name') throw this.#unexpected()
				this.#at++
				if (dot.text === '.' && !field.quoted && this.#isNext('(')) {
					operand = this.#call(field.text, field.at, operand)
				} else operand = { kind: 'select', operand, field: field.text, optional: dot.text === '.?', at: dot.at }
				continue
			}
			const bracket = this.#take('[', '[?')
			if (bracket === undefined) {
				if (this.#isNext('{') && this.#here.type === 'sign')
					throw this.#error(this.#here.at, 'messages cannot be made in rules')
				return operand
			}
			const index = this.#expr()
			this.#want(']')
			operand = { kind: 'index', operand, index, optional: bracket.text === '[?', at: bracket.at }
		}
	}

	#primary(): Expr {
		const here = this.#here
		if (here.type === 'literal') {
			this.#at++
			if (here.literal.type === 'int' && here.literal.value > (1n << 63n) - 1n)
				throw this.#error(here.at, 'invalid int literal')
			return { kind: 'literal', literal: here.literal, at: here.at }
		}
		// A leading dot names from the root, where we are.
		if (here.type === 'sign' && here.text === '.') this.#at++
		const next = this.#here
		if (next.type === 'name' && !next.quoted) {
			if (reserved.has(next.text)) throw this.#error(next.at, `Syntax error: reserved identifier: ${next.text}`)
			if (next.text === 'in') throw this.#unexpected()
			this.#at++
			return this.#isNext('(') ? this.#call(next.text, next.at) : { kind: 'name', name: next.text, at: next.at }
		}
		if (this.#take('(') !== undefined) {
			const inner = this.#expr()
			this.#want(')')
			return inner
		}
		if (this.#take('[') !== undefined) return this.#list(here.at)
		// `[?x]` begins with one sign.
		if (this.#take('[?') !== undefined) return this.#list(here.at, true)
		if (this.#take('{') !== undefined) return this.#map(here.at)
		throw this.#unexpected()
	}

	#list(at: number, firstOptional = false): Expr {
		const items: { value: Expr; optional: boolean }[] = []
		let optional = firstOptional
		while (optional || this.#take(']') === undefined) {
			optional = optional || this.#take('?') !== undefined
			items.push({ value: this.#expr(), optional })
			optional = false
			if (this.#take(',') === undefined) {
				this.#want(']')
				break
			}
		}
		return { kind: 'list', items, at }
	}

	#map(at: number): Expr {
		const entries: { key: Expr; value: Expr; optional: boolean }[] = []
		while (this.#take('}') === undefined) {
			const optional = this.#take('?') !== undefined
			const key = this.#expr()
			this.#want(':')
			entries.push({ key, value: this.#expr(), optional })
			if (this.#take(',') === undefined) {
				this.#want('}')
				break
			}
		}
		return { kind: 'map', entries, at }
	}

	#call(name: string, at: number, target?: Expr): Expr {
		this.#want('(')
		const args: Expr[] = []
		while (this.#take(')') === undefined) {
			args.push(this.#expr())
			if (this.#take(',') === undefined) {
				this.#want(')')
				break
			}
		}
		return this.#macro(name, at, target, args) ?? { kind: 'call', ...(target ? { target } : {}), name, args, at }
	}

	#macro(name: string, at: number, target: Expr | undefined, args: readonly Expr[]): Expr | undefined {
		if (target === undefined) {
			if (name !== 'has') return undefined
			const [field] = args
			if (args.length !== 1 || field?.kind !== 'select' || field.optional)
				throw this.#error(at, 'invalid argument to has() macro')
			return { kind: 'has', operand: field.operand, field: field.field, at }
		}
		if (target.kind === 'name' && target.name === 'cel' && name === 'bind' && args.length === 3)
			return { kind: 'bind', name: this.#variable(args[0]!), value: args[1]!, body: args[2]!, at }
		if ((name === 'optMap' || name === 'optFlatMap') && args.length === 2) {
			const flat = name === 'optFlatMap'
			return { kind: 'optMap', target, name: this.#variable(args[0]!), body: args[1]!, flat, at }
		}
		const form = loops.find((l) => l.name === name && args.length >= l.least && args.length <= l.most)
		if (form === undefined) return undefined
		// The last one or two arguments are expressions, the ones before variables.
		const hasFilter = form.filter === args.length
		const names = args.slice(0, args.length - (hasFilter ? 2 : 1)).map((arg) => this.#variable(arg))
		if (new Set(names).size < names.length) throw this.#error(at, 'the variables of a macro must differ')
		return {
			kind: 'loop',
			form: form.form,
			range: target,
			names,
			...(hasFilter ? { filter: args.at(-2)! } : {}),
			body: args.at(-1)!,
			at,
		}
	}

	#variable(expr: Expr): string {
		if (expr.kind !== 'name') throw this.#error(expr.at, 'argument must be a simple name')
		if (expr.name === '__result__') throw this.#error(expr.at, 'iteration variable overwrites accumulator variable')
		return expr.name
	}
}

/** `filter`: with so many arguments the last but one is a filter. */
const loops: readonly { name: string; form: LoopForm; least: number; most: number; filter?: number }[] = [
	{ name: 'all', form: 'all', least: 2, most: 3 },
	{ name: 'exists', form: 'exists', least: 2, most: 3 },
	{ name: 'exists_one', form: 'existsOne', least: 2, most: 2 },
	{ name: 'existsOne', form: 'existsOne', least: 2, most: 3 },
	{ name: 'filter', form: 'filter', least: 2, most: 2 },
	{ name: 'map', form: 'map', least: 2, most: 3, filter: 3 },
	{ name: 'transformList', form: 'map', least: 3, most: 4, filter: 4 },
	{ name: 'transformMap', form: 'transformMap', least: 3, most: 4, filter: 4 },
	{ name: 'transformMapEntry', form: 'transformMapEntry', least: 3, most: 4, filter: 4 },
]

/** A chain of one operator as a tree of little depth: rules with hundreds of parts are common. */
function balanced(kind: 'and' | 'or', parts: readonly Expr[], marks: readonly number[]): Expr {
	if (parts.length === 1) return parts[0]!
	const middle = parts.length >> 1
	return {
		kind,
		left: balanced(kind, parts.slice(0, middle), marks.slice(0, middle - 1)),
		right: balanced(kind, parts.slice(middle), marks.slice(middle)),
		at: marks[middle - 1]!,
	}
}
