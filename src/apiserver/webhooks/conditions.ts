// The conditions of a webhook: CEL over the request. Loaded when first needed, with the language.

import { messageOf } from '../../base/failure.ts'
import type { JsonObject } from '../../kube/schema/json.ts'
import { compile, type Program } from '../crd/cel/compile.ts'
import { kubernetesFunctions } from '../crd/cel/kubernetes.ts'
import { types } from '../crd/cel/types.ts'
import { CelError } from '../crd/cel/values.ts'
import { looseValue } from '../crd/rule-values.ts'
import type { Webhook } from './configuration.ts'

const variables = new Map([
	['object', types.dyn],
	['oldObject', types.dyn],
	['request', types.dyn],
])
const compiled = new Map<string, Program | Error>()
/** Work units of one expression. */
const budget = 1_000_000

/** Throws CelCompileError, CelError. */
export function compileCondition(expression: string): Program {
	const program = compile(expression, variables, kubernetesFunctions())
	if (program.type.kind !== 'bool' && program.type.kind !== 'dyn') throw new CelError('must evaluate to bool')
	return program
}

function conditionOf(expression: string): Program | Error {
	let known = compiled.get(expression)
	if (known === undefined) {
		try {
			known = compileCondition(expression)
		} catch (e) {
			known = e instanceof Error ? e : new Error(messageOf(e))
		}
		if (compiled.size > 1000) compiled.clear()
		compiled.set(expression, known)
	}
	return known
}

/** false where one is false, whatever the others say; else an Error of the first that could not be told. */
export function conditionsHold(webhook: Webhook, request: JsonObject): boolean | Error {
	let failed: Error | undefined
	for (const { name, expression } of webhook.matchConditions ?? []) {
		const program = conditionOf(expression)
		try {
			if (program instanceof Error) throw program
			const { object = null, oldObject = null } = request
			const values = { object: looseValue(object), oldObject: looseValue(oldObject), request: looseValue(request) }
			if (program.evaluate(values, { left: budget }) !== true) return false
		} catch (e) {
			failed ??= new Error(`matchCondition ${JSON.stringify(name)}: ${messageOf(e)}`)
		}
	}
	return failed ?? true
}
