// The way of an object from a request body to what may be kept: read as its type, defaults, checks of values.

import type { StatusCause, UnknownObject } from '../kube/objects/meta.ts'
import type { JsonObject } from '../kube/schema/json.ts'
import { applyDefaults } from './defaults/defaults.ts'
import type { Served } from './registry.ts'
import { badRequest, invalid } from './status.ts'
import { type FieldValidation, readObject } from './validate/fields.ts'
import { checkMetadata, checkMetadataUpdate } from './validate/metadata.ts'
import { checkStatus, validateObject } from './validate/objects.ts'
import { Report } from './validate/report.ts'

export type { FieldValidation }

/** Reads `?fieldValidation=`; the real server warns where nothing is said. Throws Refusal 400. */
export function readFieldValidation(value: string | null): FieldValidation {
	if (value === null || value === '') return 'Warn'
	if (value === 'Strict' || value === 'Warn' || value === 'Ignore') return value
	throw badRequest(
		`fieldValidation: Unsupported value: ${JSON.stringify(value)}: supported values: "Ignore", "Warn", "Strict"`,
	)
}

/**
 * The object as its type has it, with defaults. The body may leave apiVersion and kind out.
 * Throws Failure/Refusal BadRequest where it is of another kind or has fields of a wrong type.
 */
export function readAs(
	served: Served,
	body: JsonObject,
	level: FieldValidation,
	text?: string,
): { readonly object: UnknownObject; readonly warnings: readonly string[] } {
	const { kind } = served.resource
	const { apiVersion } = served
	const haveVersion = body.apiVersion ?? ''
	const haveKind = body.kind ?? ''
	if (haveVersion !== '' && haveVersion !== apiVersion) {
		throw badRequest(
			`the API version in the data (${String(haveVersion)}) does not match the expected API version (${apiVersion})`,
		)
	}
	if (haveKind !== '' && haveKind !== kind) {
		throw badRequest(`${String(haveKind)} in version "${served.resource.version}" cannot be handled as a ${kind}`)
	}
	const named: JsonObject = haveVersion === '' || haveKind === '' ? { ...body, apiVersion, kind } : body
	const { rules } = served
	const read =
		rules?.read !== undefined
			? rules.read(named, level, text)
			: served.type === undefined
				? { object: named, warnings: [] }
				: readObject(named, served.type, level, text)
	const { object, warnings } = read
	// apiVersion and kind first: where an object is printed one sees at once what it is.
	const { kind: _kind, apiVersion: _version, ...rest } = object
	const whole = { kind, apiVersion, ...rest } as unknown as UnknownObject
	if (typeof whole.metadata !== 'object' || whole.metadata === null) {
		return { object: { ...whole, metadata: {} } as unknown as UnknownObject, warnings }
	}
	return { object: whole, warnings }
}

/** `Warning` headers for what was dropped. RFC 7234 §5.5 form, as the real server sends them. */
export function warningHeaders(warnings: readonly string[]): Readonly<Record<string, string>> | undefined {
	if (warnings.length === 0) return undefined
	// Several values of one header: they may be joined with commas.
	const values = warnings.slice(0, 20).map((text) => `299 - ${JSON.stringify(text.replace(/[^\x20-\x7e]/g, '?'))}`)
	return { warning: values.join(', ') }
}

/** The object with the defaults of its kind. */
export function withDefaults(object: UnknownObject): UnknownObject {
	return applyDefaults(object as unknown as JsonObject) as unknown as UnknownObject
}

/** Throws Refusal Invalid with every fault of the object's values; `before`: what it takes the place of. */
export function checkValues(served: Served, object: UnknownObject, before: UnknownObject | undefined): void {
	const causes = validateObject(object as unknown as JsonObject, before as unknown as JsonObject | undefined).concat(
		ownFaults(served, object, before),
	)
	if (causes.length > 0) throw invalid(served.resource, object.metadata.name ?? '', causes)
}

/** By the rules the kind has of its own. */
function ownFaults(served: Served, object: UnknownObject, before: UnknownObject | undefined): readonly StatusCause[] {
	const check = served.rules?.check
	if (check === undefined) return []
	return check(object as unknown as JsonObject, before as unknown as JsonObject | undefined)
}

/**
 * As readAs, of what an update of the status may change: the rest of the body is not looked at, nor is metadata that is
 * the very metadata of `current`.
 */
export function readStatusAs(
	served: Served,
	body: JsonObject,
	level: FieldValidation,
	current?: JsonObject,
): { readonly object: UnknownObject; readonly warnings: readonly string[] } {
	const { apiVersion, kind, metadata, status } = body
	const read: JsonObject = { apiVersion, kind, ...(status === undefined ? {} : { status }) }
	if (metadata === undefined || metadata !== current?.metadata) return readAs(served, { ...read, metadata }, level)
	const { object, warnings } = readAs(served, read, level)
	return { object: { ...object, metadata } as unknown as UnknownObject, warnings }
}

/** As checkValues, of an update that leaves the specification as it was. */
export function checkMetadataOnly(served: Served, object: UnknownObject, before: UnknownObject): void {
	const report = new Report()
	const after = object as unknown as JsonObject
	checkMetadata(after, `${served.resource.group}/${served.resource.kind}`, report)
	checkMetadataUpdate(before as unknown as JsonObject, after, report)
	checkStatus(`${served.resource.group}/${served.resource.kind}`, after, before as unknown as JsonObject, report)
	const causes = served.custom ? report.causes.concat(ownFaults(served, object, before)) : report.causes
	if (causes.length > 0) throw invalid(served.resource, object.metadata.name ?? '', causes)
}
