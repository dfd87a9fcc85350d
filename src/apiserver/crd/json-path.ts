// JSONPath as printer columns use it (k8s.io/client-go/util/jsonpath): fields, indexes, slices, wildcards, filters.

import { Failure } from '../../base/failure.ts'
import { isObject, type Json } from '../../kube/schema/json.ts'

type Step =
	| { readonly kind: 'field'; readonly name: string }
	| { readonly kind: 'all' }
	| { readonly kind: 'deep' }
	| { readonly kind: 'slice'; readonly from: number | undefined; readonly to: number | undefined; readonly by: number }
	| { readonly kind: 'filter'; readonly left: Operand; readonly operator: string; readonly right: Operand }
	| { readonly kind: 'union'; readonly names: readonly string[] }

type Operand = { readonly path: readonly Step[] } | { readonly value: Json } | undefined

/** Failure Invalid: it cannot be read. */
export function parseJsonPath(path: string): (value: Json) => readonly Json[] {
	const steps = readSteps(path)
	return (value) => find([value], steps)
}

function bad(path: string, why: string): Failure {
	return new Failure('Invalid', `cannot read the path ${JSON.stringify(path)}: ${why}`)
}

function readSteps(path: string): readonly Step[] {
	const steps: Step[] = []
	let at = path.startsWith('$') || path.startsWith('@') ? 1 : 0
	while (at < path.length) {
		if (path[at] === '.') {
			if (path[at + 1] === '.') {
				steps.push({ kind: 'deep' })
				at++
				// `..[0]` has no name.
				if (path[at + 1] === '[') {
					at++
					continue
				}
			}
			const name = /^\.(\*|(?:\\.|[^.[\]*\\\s'"(){}|,@$?=<>!])+)/.exec(path.slice(at))
			if (name === null) {
				if (path[at + 1] === '[' || at + 1 === path.length) {
					at++
					continue
				}
				throw bad(path, `unexpected text at ${JSON.stringify(path.slice(at))}`)
			}
			steps.push(name[1] === '*' ? { kind: 'all' } : { kind: 'field', name: name[1]!.replace(/\\(.)/g, '$1') })
			at += name[0].length
		} else if (path[at] === '[') {
			const end = closing(path, at)
			steps.push(readBracket(path, path.slice(at + 1, end).trim()))
			at = end + 1
		} else if (at === 0) {
			const name = /^[A-Za-z0-9_-]+/.exec(path)
			if (name === null) throw bad(path, 'it must begin with a dot')
			steps.push({ kind: 'field', name: name[0] })
			at += name[0].length
		} else throw bad(path, `unexpected text at ${JSON.stringify(path.slice(at))}`)
	}
	return steps
}

/** The bracket that ends the one at `open`; brackets and quotes nest. */
function closing(path: string, open: number): number {
	let depth = 0
	let quote = ''
	for (let i = open; i < path.length; i++) {
		const char = path[i]!
		if (quote !== '') {
			if (char === '\\') i++
			else if (char === quote) quote = ''
		} else if (char === '"' || char === "'") quote = char
		else if (char === '[') depth++
		else if (char === ']' && --depth === 0) return i
	}
	throw bad(path, 'a bracket is not closed')
}

function readBracket(path: string, inner: string): Step {
	if (inner === '*') return { kind: 'all' }
	const slice = /^(-?\d*)(?::(-?\d*))?(?::(\d+))?$/.exec(inner)
	if (slice !== null && inner !== '') {
		const number = (text: string | undefined) => (text === undefined || text === '' ? undefined : Number(text))
		const from = number(slice[1])
		if (slice[2] === undefined) return { kind: 'slice', from, to: from === -1 ? undefined : from! + 1, by: 1 }
		return { kind: 'slice', from, to: number(slice[2]), by: number(slice[3]) || 1 }
	}
	if (/^'.*'$|^".*"$/s.test(inner)) {
		const names = [...inner.matchAll(/'((?:[^'\\]|\\.)*)'|"((?:[^"\\]|\\.)*)"/g)].map((m) =>
			(m[1] ?? m[2] ?? '').replace(/\\(.)/g, '$1'),
		)
		return names.length === 1 ? { kind: 'field', name: names[0]! } : { kind: 'union', names }
	}
	const filter = /^\?\((.*)\)$/s.exec(inner)
	if (filter === null) throw bad(path, `[${inner}] is no index and no filter`)
	const parts = /^(.+?)\s*(==|!=|<=|>=|<|>)\s*(.+)$/s.exec(filter[1]!.trim())
	if (parts === null)
		return { kind: 'filter', left: readOperand(path, filter[1]!.trim()), operator: 'exists', right: undefined }
	return {
		kind: 'filter',
		left: readOperand(path, parts[1]!),
		operator: parts[2]!,
		right: readOperand(path, parts[3]!),
	}
}

function readOperand(path: string, text: string): Operand {
	if (/^[@$]/.test(text)) return { path: readSteps(text) }
	const quoted = /^(['"])(.*)\1$/s.exec(text)
	if (quoted !== null) return { value: quoted[2]!.replace(/\\(.)/g, '$1') }
	if (text === 'true' || text === 'false') return { value: text === 'true' }
	if (/^-?\d+(\.\d+)?$/.test(text)) return { value: Number(text) }
	throw bad(path, `${JSON.stringify(text)} is no value`)
}

function find(values: readonly Json[], steps: readonly Step[]): readonly Json[] {
	return steps.reduce<readonly Json[]>((found, step) => found.flatMap((value) => take(value, step)), values)
}

function take(value: Json, step: Step): readonly Json[] {
	const list = Array.isArray(value) ? (value as readonly Json[]) : undefined
	switch (step.kind) {
		case 'field':
			return fieldOf(value, step.name)
		case 'union':
			return step.names.flatMap((name) => fieldOf(value, name))
		case 'all':
			return list ?? (isObject(value) ? Object.values(value).filter((v): v is Json => v !== undefined) : [])
		case 'deep':
			return below(value)
		case 'slice': {
			if (list === undefined) return []
			const at = (n: number | undefined, otherwise: number) =>
				n === undefined ? otherwise : n < 0 ? list.length + n : n
			const out: Json[] = []
			for (let i = Math.max(0, at(step.from, 0)); i < Math.min(list.length, at(step.to, list.length)); i += step.by)
				out.push(list[i]!)
			return out
		}
		case 'filter':
			return (list ?? []).filter((item) => holds(item, step))
		default:
			return step satisfies never
	}
}

function fieldOf(value: Json, name: string): readonly Json[] {
	return isObject(value) && Object.hasOwn(value, name) && value[name] !== undefined ? [value[name]] : []
}

function below(value: Json): readonly Json[] {
	if (Array.isArray(value)) return [value, ...(value as readonly Json[]).flatMap(below)]
	if (!isObject(value)) return [value]
	return [value, ...Object.values(value).flatMap((v) => (v === undefined ? [] : below(v)))]
}

function holds(item: Json, { left, operator, right }: Extract<Step, { kind: 'filter' }>): boolean {
	const of = (operand: Operand): Json | undefined =>
		operand === undefined ? undefined : 'path' in operand ? find([item], operand.path)[0] : operand.value
	const a = of(left)
	if (operator === 'exists') return a !== undefined
	const b = of(right)
	if (a === undefined || b === undefined || a === null || b === null) return false
	switch (operator) {
		case '==':
			return a === b
		case '!=':
			return a !== b
		case '<':
			return a < b
		case '<=':
			return a <= b
		case '>':
			return a > b
		default:
			return a >= b
	}
}
