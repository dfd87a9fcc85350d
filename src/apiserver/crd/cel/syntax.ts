// CEL expressions as trees. The macros of the language are nodes of their own, not expanded.
// Source: https://github.com/google/cel-spec/blob/master/doc/langdef.md and the extensions Kubernetes switches on.

export type Literal =
	| { readonly type: 'null'; readonly value: null }
	| { readonly type: 'bool'; readonly value: boolean }
	| { readonly type: 'int' | 'uint'; readonly value: bigint }
	| { readonly type: 'double'; readonly value: number }
	| { readonly type: 'string'; readonly value: string }
	| { readonly type: 'bytes'; readonly value: Uint8Array }

export type LoopForm = 'all' | 'exists' | 'existsOne' | 'filter' | 'map' | 'transformMap' | 'transformMapEntry'

interface At {
	/** Offset in the source. */
	readonly at: number
}

export type Expr =
	| (At & { readonly kind: 'literal'; readonly literal: Literal })
	| (At & { readonly kind: 'name'; readonly name: string })
	/** `operand.field`, `operand.?field` */
	| (At & { readonly kind: 'select'; readonly operand: Expr; readonly field: string; readonly optional: boolean })
	/** `has(operand.field)` */
	| (At & { readonly kind: 'has'; readonly operand: Expr; readonly field: string })
	/** `operand[index]`, `operand[?index]` */
	| (At & { readonly kind: 'index'; readonly operand: Expr; readonly index: Expr; readonly optional: boolean })
	/** Operators are calls too: `_+_`, `!_`, `@in`. */
	| (At & { readonly kind: 'call'; readonly target?: Expr; readonly name: string; readonly args: readonly Expr[] })
	| (At & { readonly kind: 'and' | 'or'; readonly left: Expr; readonly right: Expr })
	| (At & { readonly kind: 'if'; readonly test: Expr; readonly yes: Expr; readonly no: Expr })
	| (At & { readonly kind: 'list'; readonly items: readonly { readonly value: Expr; readonly optional: boolean }[] })
	| (At & {
			readonly kind: 'map'
			readonly entries: readonly { readonly key: Expr; readonly value: Expr; readonly optional: boolean }[]
	  })
	/** `range.all(x, body)`; with two variables: index and item, or key and value. `filter` of map(x, filter, body). */
	| (At & {
			readonly kind: 'loop'
			readonly form: LoopForm
			readonly range: Expr
			readonly names: readonly string[]
			readonly filter?: Expr
			readonly body: Expr
	  })
	/** `cel.bind(name, value, body)` */
	| (At & { readonly kind: 'bind'; readonly name: string; readonly value: Expr; readonly body: Expr })
	/** `target.optMap(name, body)`; flat: `optFlatMap` */
	| (At & {
			readonly kind: 'optMap'
			readonly target: Expr
			readonly name: string
			readonly body: Expr
			readonly flat: boolean
	  })

/** What is wrong with an expression, in the form of cel-go: place, text, the line and a mark under it. */
export class CelCompileError extends Error {
	constructor(source: string, at: number, text: string) {
		const before = source.slice(0, at)
		const line = before.split('\n').length
		const column = at - (before.lastIndexOf('\n') + 1)
		const shown = source.split('\n')[line - 1] ?? ''
		super(`ERROR: <input>:${line}:${column + 1}: ${text}\n | ${shown}\n | ${'.'.repeat(column)}^`)
		this.name = 'CelCompileError'
	}
}

/** `a.b.c` of names alone; undefined: it is something else. */
export function qualifiedName(expr: Expr): string | undefined {
	if (expr.kind === 'name') return expr.name
	if (expr.kind !== 'select' || expr.optional) return undefined
	const before = qualifiedName(expr.operand)
	return before === undefined ? undefined : `${before}.${expr.field}`
}
