// From a CEL expression to a function: types are checked on the way, as cel-go does, so that a rule that cannot be right
// is refused with its CustomResourceDefinition and not when an object meets it.

import type { Budget, Functions, Overload } from './functions.ts'
import { parse } from './parse.ts'
import {
	callFitting,
	callOf,
	eitherDecides,
	type Frame,
	fieldOf,
	itemOf,
	type Loop,
	makeList,
	makeMap,
	type Run,
	runLoop,
	spend,
} from './run.ts'
import { CelCompileError, type Expr, qualifiedName } from './syntax.ts'
import { type Bindings, bind, fits, hasDyn, join, printType, sameType, type Type, typeNames, types } from './types.ts'
import { CelError, MapValue, none, Optional, TypeName, Uint, type Value } from './values.ts'

interface Compiled {
	readonly type: Type
	readonly run: Run
}

export interface Program {
	readonly type: Type
	/** Which of the declared variables it reads. */
	readonly reads: ReadonlySet<string>
	/** Throws CelError, CelBudgetError. */
	evaluate(variables: Readonly<Record<string, Value>>, budget: Budget): Value
}

/** Throws CelCompileError. */
export function compile(source: string, variables: ReadonlyMap<string, Type>, functions: Functions): Program {
	const compiler = new Compiler(source, functions)
	const names = [...variables.keys()]
	const scope: Scope = { find: () => undefined }
	const outer = names.reduce<Scope>((inner, name) => compiler.declare(inner, name, variables.get(name)!), scope)
	const { type, run } = compiler.compile(parse(source), outer)
	const { reads } = compiler
	return {
		type,
		reads,
		evaluate(values, budget) {
			const slots: Value[] = names.map((name) => values[name] as Value)
			return run({ slots, budget })
		},
	}
}

interface Variable {
	readonly slot: number
	readonly type: Type
	readonly name: string
	/** Declared outside of the expression. */
	readonly given: boolean
}
interface Scope {
	find(name: string): Variable | undefined
}

class Compiler {
	readonly reads = new Set<string>()
	readonly #source: string
	readonly #functions: Functions
	#slots = 0
	#depth = 0

	constructor(source: string, functions: Functions) {
		this.#source = source
		this.#functions = functions
	}

	declare(outer: Scope, name: string, type: Type, given = true): Scope & { readonly slot: number } {
		const slot = this.#slots++
		const variable = { slot, type, name, given }
		return { slot, find: (wanted) => (wanted === name ? variable : outer.find(wanted)) }
	}

	#fail(at: number, text: string): never {
		throw new CelCompileError(this.#source, at, text)
	}

	compile(expr: Expr, scope: Scope): Compiled {
		if (++this.#depth > 1000) this.#fail(expr.at, 'expression recursion limit exceeded')
		const compiled = this.#compile(expr, scope)
		this.#depth--
		return compiled
	}

	#compile(expr: Expr, scope: Scope): Compiled {
		switch (expr.kind) {
			case 'literal': {
				const { literal } = expr
				const value: Value = literal.type === 'uint' ? new Uint(literal.value) : literal.value
				return { type: types[literal.type], run: () => value }
			}
			case 'name':
				return this.#name(expr, scope)
			case 'select':
				return this.#select(expr, scope)
			case 'has':
				return this.#has(expr, scope)
			case 'index':
				return this.#index(expr, scope)
			case 'call':
				return this.#call(expr, scope)
			case 'and':
			case 'or':
				return this.#logical(expr, scope)
			case 'if': {
				const test = this.#wantBool(expr.test, scope, '_?_:_')
				const yes = this.compile(expr.yes, scope)
				const no = this.compile(expr.no, scope)
				const type = join(yes.type, no.type)
				if (type === undefined) this.#noOverload(expr.at, '_?_:_', [types.bool, yes.type, no.type])
				return { type, run: (frame) => (test(frame) ? yes.run(frame) : no.run(frame)) }
			}
			case 'list':
				return this.#list(expr, scope)
			case 'map':
				return this.#map(expr, scope)
			case 'loop':
				return this.#loop(expr, scope)
			case 'bind': {
				const value = this.compile(expr.value, scope)
				const inner = this.declare(scope, expr.name, value.type, false)
				const body = this.compile(expr.body, inner)
				return {
					type: body.type,
					run(frame) {
						frame.slots[inner.slot] = value.run(frame)
						return body.run(frame)
					},
				}
			}
			case 'optMap': {
				const target = this.compile(expr.target, scope)
				if (target.type.kind !== 'optional' && target.type.kind !== 'dyn')
					this.#noOverload(expr.at, expr.flat ? 'optFlatMap' : 'optMap', [target.type])
				const inner = this.declare(
					scope,
					expr.name,
					target.type.kind === 'optional' ? target.type.value : types.dyn,
					false,
				)
				const body = this.compile(expr.body, inner)
				return {
					type: expr.flat ? body.type : types.optional(body.type),
					run(frame) {
						const value = target.run(frame)
						if (!(value instanceof Optional)) throw new CelError('no such overload')
						if (value.value === undefined) return none
						frame.slots[inner.slot] = value.value
						const result = body.run(frame)
						return expr.flat ? result : new Optional(result)
					},
				}
			}
			default:
				return expr satisfies never
		}
	}

	#wantBool(expr: Expr, scope: Scope, where: string): (frame: Frame) => boolean {
		const { type, run } = this.compile(expr, scope)
		if (type.kind !== 'bool' && type.kind !== 'dyn' && type.kind !== 'nothing')
			this.#fail(expr.at, `found no matching overload for '${where}' applied to '(${printType(type)})'`)
		return (frame) => {
			const value = run(frame)
			if (typeof value !== 'boolean') throw new CelError('no such overload')
			return value
		}
	}

	#name(expr: Extract<Expr, { kind: 'name' }>, scope: Scope): Compiled {
		const variable = scope.find(expr.name)
		if (variable !== undefined) {
			if (variable.given) this.reads.add(variable.name)
			const { slot } = variable
			return { type: variable.type, run: (frame) => frame.slots[slot]! }
		}
		if (typeNames.has(expr.name)) {
			const value = new TypeName(expr.name)
			return { type: types.type, run: () => value }
		}
		return this.#fail(expr.at, `undeclared reference to '${expr.name}' (in container '')`)
	}

	/** The type of a field of a type; and whether values must be unwrapped from an optional. */
	#fieldType(at: number, type: Type, field: string): { readonly type: Type; readonly wrapped: boolean } {
		switch (type.kind) {
			case 'object': {
				const found = type.fields.get(field)
				if (found === undefined) this.#fail(at, `undefined field '${field}'`)
				return { type: found, wrapped: false }
			}
			case 'map':
				return { type: type.value, wrapped: false }
			case 'optional':
				return { type: this.#fieldType(at, type.value, field).type, wrapped: true }
			case 'dyn':
			case 'nothing':
				return { type: types.dyn, wrapped: false }
			default:
				return this.#fail(at, `type '${printType(type)}' does not support field selection`)
		}
	}

	#select(expr: Extract<Expr, { kind: 'select' }>, scope: Scope): Compiled {
		const named = this.#qualifiedType(expr)
		if (named !== undefined) return named
		const operand = this.compile(expr.operand, scope)
		const { field, optional } = expr
		const { type, wrapped } = this.#fieldType(expr.at, operand.type, field)
		if (optional || wrapped || operand.type.kind === 'dyn') {
			const isOptional = optional || wrapped
			return {
				type: isOptional ? types.optional(type.kind === 'optional' && !optional ? type.value : type) : type,
				run(frame) {
					spend(frame, 1)
					let target = operand.run(frame)
					const lifted = target instanceof Optional
					if (target instanceof Optional) {
						if (target.value === undefined) return none
						target = target.value
					}
					const value = fieldOf(target, field)
					if (optional || lifted) return value === undefined ? none : new Optional(value)
					if (value === undefined) throw new CelError(`no such key: ${field}`)
					return value
				},
			}
		}
		return {
			type,
			run(frame) {
				spend(frame, 1)
				const value = fieldOf(operand.run(frame), field)
				if (value === undefined) throw new CelError(`no such key: ${field}`)
				return value
			},
		}
	}

	/** `google.protobuf.Timestamp`, `net.IP`: names of types have dots. */
	#qualifiedType(expr: Extract<Expr, { kind: 'select' }>): Compiled | undefined {
		const name = qualifiedName(expr)
		if (name === undefined || !typeNames.has(name)) return undefined
		return this.#name({ kind: 'name', name, at: expr.at }, { find: () => undefined })
	}

	#has(expr: Extract<Expr, { kind: 'has' }>, scope: Scope): Compiled {
		const operand = this.compile(expr.operand, scope)
		this.#fieldType(expr.at, operand.type, expr.field)
		const { field } = expr
		return {
			type: types.bool,
			run(frame) {
				spend(frame, 1)
				let target = operand.run(frame)
				if (target instanceof Optional) {
					if (target.value === undefined) return false
					target = target.value
				}
				if (!(target instanceof MapValue)) throw new CelError('no such overload')
				return target.has(field)
			},
		}
	}

	#index(expr: Extract<Expr, { kind: 'index' }>, scope: Scope): Compiled {
		const operand = this.compile(expr.operand, scope)
		const index = this.compile(expr.index, scope)
		const name = expr.optional ? '_[?_]' : '_[_]'
		const wrapped = operand.type.kind === 'optional'
		const inner = operand.type.kind === 'optional' ? operand.type.value : operand.type
		const fail = (): never => this.#noOverload(expr.at, name, [operand.type, index.type])
		let type: Type
		switch (inner.kind) {
			case 'list':
				if (!fits(types.int, index.type, new Map()) && index.type.kind !== 'uint' && index.type.kind !== 'double')
					fail()
				type = inner.item
				break
			case 'map':
				if (!fits(inner.key, index.type, new Map())) fail()
				type = inner.value
				break
			case 'dyn':
			case 'nothing':
				type = types.dyn
				break
			default:
				type = fail()
		}
		const { optional } = expr
		return {
			type: optional || wrapped ? types.optional(type) : type,
			run(frame) {
				spend(frame, 1)
				let target = operand.run(frame)
				const lifted = target instanceof Optional
				if (target instanceof Optional) {
					if (target.value === undefined) return none
					target = target.value
				}
				const soft = optional || lifted
				const value = itemOf(target, index.run(frame), soft)
				if (soft) return value === undefined ? none : new Optional(value)
				return value!
			},
		}
	}

	#logical(expr: Extract<Expr, { kind: 'and' | 'or' }>, scope: Scope): Compiled {
		const name = expr.kind === 'and' ? '_&&_' : '_||_'
		const left = this.#wantBool(expr.left, scope, name)
		const right = this.#wantBool(expr.right, scope, name)
		return { type: types.bool, run: eitherDecides(left, right, expr.kind === 'or') }
	}

	/** `mixed`: its items need not be of one type. */
	#list(expr: Extract<Expr, { kind: 'list' }>, scope: Scope, mixed = false): Compiled {
		let item: Type = types.nothing
		const items = expr.items.map(({ value, optional }) => {
			const { type, run } = this.compile(value, scope)
			const plain = optional && type.kind === 'optional' ? type.value : type
			if (optional && type.kind !== 'optional' && type.kind !== 'dyn')
				this.#fail(value.at, `expected type 'optional_type(dyn)' but found '${printType(type)}'`)
			const both = join(item, plain)
			if (both === undefined && !mixed)
				this.#fail(value.at, `expected type '${printType(item)}' but found '${printType(plain)}'`)
			item = both ?? types.dyn
			return { run, optional }
		})
		return {
			type: types.list(item),
			run: (frame) => makeList(items, frame),
		}
	}

	#map(expr: Extract<Expr, { kind: 'map' }>, scope: Scope): Compiled {
		let key: Type = types.nothing
		let value: Type = types.nothing
		const entries = expr.entries.map((entry) => {
			const k = this.compile(entry.key, scope)
			const v = this.compile(entry.value, scope)
			const plain = entry.optional && v.type.kind === 'optional' ? v.type.value : v.type
			const keys = join(key, k.type)
			if (keys === undefined)
				this.#fail(entry.key.at, `expected type '${printType(key)}' but found '${printType(k.type)}'`)
			const values = join(value, plain)
			if (values === undefined)
				this.#fail(entry.value.at, `expected type '${printType(value)}' but found '${printType(plain)}'`)
			key = keys
			value = values
			return { key: k.run, value: v.run, optional: entry.optional }
		})
		return {
			type: types.map(key, value),
			run: (frame) => makeMap(entries, frame),
		}
	}

	#loop(expr: Extract<Expr, { kind: 'loop' }>, scope: Scope): Compiled {
		const range = this.compile(expr.range, scope)
		const { names, form } = expr
		const two = names.length === 2
		let first: Type = types.dyn
		let second: Type = types.dyn
		let key: Type = types.dyn
		switch (range.type.kind) {
			case 'list':
				first = two ? types.int : range.type.item
				second = range.type.item
				key = types.int
				break
			case 'map':
				first = key = range.type.key
				second = range.type.value
				break
			case 'object':
			case 'dyn':
			case 'nothing':
				if (range.type.kind !== 'object') break
				this.#fail(
					expr.at,
					`expression of type 'object' cannot be range of a comprehension (must be list, map, or dynamic)`,
				)
				break
			default:
				this.#fail(
					expr.at,
					`expression of type '${printType(range.type)}' cannot be range of a comprehension (must be list, map, or dynamic)`,
				)
		}
		const outer = this.declare(scope, names[0]!, first, false)
		const inner = two ? this.declare(outer, names[1]!, second, false) : outer
		const isQuestion = form === 'all' || form === 'exists' || form === 'existsOne' || form === 'filter'
		const filter = expr.filter && this.#wantBool(expr.filter, inner, '_?_:_')
		const body = isQuestion
			? { type: types.bool, run: this.#wantBool(expr.body, inner, '_&&_') as Run }
			: this.compile(expr.body, inner)
		const set = (frame: Frame, one: Value, other: Value): void => {
			frame.slots[outer.slot] = one
			if (two) frame.slots[inner.slot] = other
		}
		const result: Type =
			form === 'filter'
				? types.list(first)
				: form === 'map'
					? types.list(body.type)
					: form === 'transformMap'
						? types.map(key, body.type)
						: form === 'transformMapEntry'
							? body.type
							: types.bool
		const loop: Loop = { form, two, set, body: body.run, filter }
		return { type: result, run: (frame) => runLoop(loop, range.run(frame), frame) }
	}

	#call(expr: Extract<Expr, { kind: 'call' }>, scope: Scope): Compiled {
		const { name, target } = expr
		if (target !== undefined) {
			// A function of a namespace: sets.contains(a, b).
			const space = qualifiedName(target)
			const first = space?.split('.')[0]
			const qualified = space === undefined ? undefined : `${space}.${name}`
			if (qualified !== undefined && this.#functions.has(qualified) && scope.find(first!) === undefined)
				return this.#invoke(expr.at, qualified, false, expr.args, scope)
			return this.#invoke(expr.at, name, true, [target, ...expr.args], scope)
		}
		return this.#invoke(expr.at, name, false, expr.args, scope)
	}

	#invoke(at: number, name: string, member: boolean, given: readonly Expr[], scope: Scope): Compiled {
		const known = this.#functions.get(name)
		if (known === undefined) this.#fail(at, `undeclared reference to '${name}' (in container '')`)
		const args = given.map((arg) =>
			// What is formatted is of many types.
			name === 'format' && arg.kind === 'list' ? this.#list(arg, scope, true) : this.compile(arg, scope),
		)
		const found: { readonly overload: Overload; readonly result: Type }[] = []
		for (const overload of known) {
			if (overload.member !== member || overload.args.length !== args.length) continue
			const bindings: Bindings = new Map()
			if (overload.args.every((formal, i) => fits(formal, args[i]!.type, bindings)))
				found.push({ overload, result: bind(overload.result, bindings) })
		}
		const [only] = found
		if (only === undefined)
			this.#noOverload(
				at,
				name,
				args.map((arg) => arg.type),
				member,
			)
		const type = found.every(({ result }) => sameType(result, only.result)) ? only.result : types.dyn
		const runs = args.map((arg) => arg.run)
		// What is known to fit needs no look at the values.
		const isKnown = found.length === 1 && !args.some((arg) => hasDyn(arg.type))
		const overloads = found.map(({ overload }) => overload)
		return { type, run: isKnown ? callOf(only.overload, runs) : callFitting(overloads, runs) }
	}

	#noOverload(at: number, name: string, args: readonly Type[], member = false): never {
		const shown = args.map(printType)
		const applied = member ? `${shown[0]}.(${shown.slice(1).join(', ')})` : `(${shown.join(', ')})`
		return this.#fail(at, `found no matching overload for '${name}' applied to '${applied}'`)
	}
}
