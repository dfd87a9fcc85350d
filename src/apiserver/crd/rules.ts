// The rules of a schema (`x-kubernetes-validations`): compiled when first needed, run on what an object has where the
// schema has a rule. Wording of the real server (apiextensions-apiserver, pkg/apiserver/schema/cel).

import { messageOf } from '../../base/failure.ts'
import type { StatusCause } from '../../kube/objects/meta.ts'
import { isObject, type Json, type JsonObject, sameJson } from '../../kube/schema/json.ts'
import { cause } from '../status.ts'
import { compile, type Program } from './cel/compile.ts'
import type { Budget } from './cel/functions.ts'
import { kubernetesFunctions } from './cel/kubernetes.ts'
import { types } from './cel/types.ts'
import { CelBudgetError, CelError, none, Optional, type Value } from './cel/values.ts'
import { parseFieldPath } from './field-path.ts'
import { adapterOf } from './rule-values.ts'
import { childPath, type Rule, type Schema } from './schema.ts'
import { previousItems } from './values.ts'

/** Work units: of one expression, and of all rules for one object. */
const perCall = 1_000_000
const perObject = 10_000_000

export interface CompiledRule {
	readonly rule: Rule
	readonly program: Program
	readonly message: Program | undefined
	readonly usesOldSelf: boolean
	/** `.spec.x` as it is added to the path of the value. */
	readonly fieldPath: string
}

/** Throws CelCompileError; a text says which expression in the words the definition is refused with. */
export function compileRule(rule: Rule, schema: Schema, isResource: boolean): CompiledRule {
	const adapter = adapterOf(schema, isResource)
	if (adapter === undefined) throw new CelError('rules cannot see values of a schema without a type')
	const old = rule.optionalOldSelf ? types.optional(adapter.type) : adapter.type
	const variables = new Map([
		['self', adapter.type],
		['oldSelf', old],
	])
	const program = compile(rule.rule, variables, kubernetesFunctions())
	if (program.type.kind !== 'bool' && program.type.kind !== 'dyn')
		throw new CelError('cel expression must evaluate to a bool')
	const message =
		rule.messageExpression === '' ? undefined : compile(rule.messageExpression, variables, kubernetesFunctions())
	if (message !== undefined && message.type.kind !== 'string' && message.type.kind !== 'dyn')
		throw new CelError('messageExpression must evaluate to a string')
	return {
		rule,
		program,
		message,
		usesOldSelf: program.reads.has('oldSelf'),
		fieldPath: rule.fieldPath === '' ? '' : parseFieldPath(rule.fieldPath, schema),
	}
}

const compiled = new WeakMap<Rule, CompiledRule | Error>()

function compiledOf(rule: Rule, schema: Schema, isResource: boolean): CompiledRule | Error {
	const known = compiled.get(rule)
	if (known !== undefined) return known
	let made: CompiledRule | Error
	try {
		made = compileRule(rule, schema, isResource)
	} catch (e) {
		made = e instanceof Error ? e : new Error(messageOf(e))
	}
	compiled.set(rule, made)
	return made
}

interface Walk {
	readonly causes: StatusCause[]
	readonly budget: Budget
	/** A rule used up what was left: no other is run. */
	stopped: boolean
}

/** Runs all rules of a schema on an object; `before`: what it takes the place of. */
export function checkRules(object: JsonObject, before: JsonObject | undefined, schema: Schema): StatusCause[] {
	if (!schema.hasRules) return []
	const walk: Walk = { causes: [], budget: { left: perObject }, stopped: false }
	visit(object, before, schema, '', walk, true, before !== undefined && sameJson(object, before))
	return walk.causes
}

function visit(
	value: Json,
	before: Json | undefined,
	schema: Schema,
	path: string,
	walk: Walk,
	isResource: boolean,
	/** The value, or something around it, is as it was. */
	unchanged: boolean,
): void {
	if (value === null || walk.stopped || !schema.hasRules) return
	const same = unchanged || (before !== undefined && sameJson(value, before))
	for (const rule of schema.rules)
		runRule(rule, value, before ?? undefined, schema, schema, path, walk, isResource, same)
	for (const one of schema.allOf) visitAllOf(one, value, before ?? undefined, schema, path, walk, isResource, same)
	if (Array.isArray(value)) {
		const { items } = schema
		if (items === undefined || !items.hasRules) return
		const list = value as readonly Json[]
		const old = previousItems(list, before, schema)
		for (const [i, item] of list.entries()) visit(item, old(item), items, `${path}[${i}]`, walk, items.embedded, same)
		return
	}
	if (!isObject(value)) return
	const had = isObject(before) && !schema.atomicMap ? before : undefined
	for (const key of Object.keys(value)) {
		const own = schema.properties?.get(key)
		const below = own ?? (schema.additional === true ? undefined : schema.additional)
		if (below === undefined || !below.hasRules || value[key] === undefined) continue
		const was = had !== undefined && Object.hasOwn(had, key) ? had[key] : undefined
		visit(value[key], was, below, own ? childPath(path, key) : `${path}[${key}]`, walk, below.embedded, same)
	}
}

/** Rules within allOf see the value as the schema around it says it is. */
function visitAllOf(
	one: Schema,
	value: Json,
	before: Json | undefined,
	structure: Schema,
	path: string,
	walk: Walk,
	isResource: boolean,
	same: boolean,
): void {
	if (!one.hasRules) return
	for (const rule of one.rules) runRule(rule, value, before, structure, structure, path, walk, isResource, same)
	for (const inner of one.allOf) visitAllOf(inner, value, before, structure, path, walk, isResource, same)
	if (Array.isArray(value) && one.items !== undefined && structure.items !== undefined) {
		for (const [i, item] of (value as readonly Json[]).entries())
			visitAllOf(one.items, item, undefined, structure.items, `${path}[${i}]`, walk, structure.items.embedded, same)
	} else if (isObject(value) && one.properties !== undefined) {
		for (const [key, below] of one.properties) {
			const inner = structure.properties?.get(key)
			const item = Object.hasOwn(value, key) ? value[key] : undefined
			if (inner === undefined || item === undefined || item === null) continue
			visitAllOf(below, item, undefined, inner, childPath(path, key), walk, inner.embedded, same)
		}
	}
}

const shownRule = (rule: Rule): string => (rule.message === '' ? rule.rule : rule.message).trim()

function runRule(
	rule: Rule,
	value: Json,
	before: Json | undefined,
	schema: Schema,
	shown: Schema,
	path: string,
	walk: Walk,
	isResource: boolean,
	same: boolean,
): void {
	if (walk.stopped || rule.rule.trim() === '') return
	const add = (why: string, at = path): void => {
		walk.causes.push(cause.invalid(at, typeWord(shown), why))
	}
	const program = compiledOf(rule, schema, isResource)
	if (program instanceof Error) {
		add(`rule compile error: ${program.message}`)
		return
	}
	if (program.usesOldSelf && before === undefined && !rule.optionalOldSelf) return
	if (walk.budget.left <= 0) {
		add('validation failed due to running out of cost budget, no further validation rules will be run')
		walk.stopped = true
		return
	}
	const adapter = adapterOf(schema, isResource)!
	const budget: Budget = { left: Math.min(perCall, walk.budget.left) }
	const given = budget.left
	let variables: Record<string, Value>
	try {
		const old = before === undefined ? undefined : adapter.value(before)
		variables = {
			self: adapter.value(value),
			oldSelf: rule.optionalOldSelf ? (old === undefined ? none : new Optional(old)) : (old ?? null),
		}
		if (program.program.evaluate(variables, budget) === true) return
	} catch (e) {
		if (e instanceof CelBudgetError) {
			add(
				`'${e.message}': no further validation rules will be run due to call cost exceeds limit for rule: ${shownRule(rule)}`,
			)
			walk.stopped = true
		} else if (!(e instanceof CelError)) throw e
		else if (e.message.startsWith('no such overload')) {
			add(
				`'${e.message}': call arguments did not match a supported operator, function or macro signature for rule: ${shownRule(rule)}`,
			)
		} else add(`${e.message} evaluating rule: ${shownRule(rule)}`)
		return
	} finally {
		walk.budget.left -= given - budget.left
	}
	// What was wrong before and is unchanged may stay; rules about changes always hold.
	if (same && !program.usesOldSelf) return
	const at =
		program.fieldPath === '' ? path : `${path}${path === '' ? program.fieldPath.replace(/^\./, '') : program.fieldPath}`
	const why =
		ownMessage(program, variables, walk) ??
		(rule.message === '' ? `failed rule: ${shownRule(rule)}` : rule.message.trim())
	walk.causes.push(faultOf(rule.reason, at, typeWord(shown), why))
}

function typeWord(schema: Schema): string {
	return schema.type
}

function ownMessage(program: CompiledRule, variables: Readonly<Record<string, Value>>, walk: Walk): string | undefined {
	if (program.message === undefined) return undefined
	try {
		const budget: Budget = { left: Math.min(perCall, walk.budget.left) }
		const text = program.message.evaluate(variables, budget)
		const trimmed = typeof text === 'string' ? text.trim() : ''
		return trimmed === '' || trimmed.includes('\n') || trimmed.length > 5120 ? undefined : trimmed
	} catch (e) {
		if (e instanceof CelError || e instanceof CelBudgetError) return undefined
		throw e
	}
}

function faultOf(reason: string | undefined, path: string, value: string, why: string): StatusCause {
	switch (reason) {
		case 'FieldValueForbidden':
			return cause.forbidden(path, why)
		case 'FieldValueRequired':
			return cause.required(path, why)
		case 'FieldValueDuplicate':
			return cause.duplicate(path, value)
		default:
			return cause.invalid(path, value, why)
	}
}
