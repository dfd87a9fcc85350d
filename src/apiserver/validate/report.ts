// What a check collects: field errors in the words of the API, and safe reads of loose JSON.

import type { StatusCause } from '../../kube/objects/meta.ts'
import { isObject, type Json, type JsonObject } from '../../kube/schema/json.ts'
import { cause } from '../status.ts'

export class Report {
	readonly causes: StatusCause[] = []

	invalid(field: string, value: unknown, why: string): void {
		this.causes.push(cause.invalid(field, value, why))
	}

	/** One error for each reason. */
	invalidFor(field: string, value: unknown, reasons: readonly string[]): void {
		for (const why of reasons) this.invalid(field, value, why)
	}

	required(field: string, why = ''): void {
		this.causes.push(cause.required(field, why))
	}

	forbidden(field: string, why: string): void {
		this.causes.push(cause.forbidden(field, why))
	}

	duplicate(field: string, value: unknown): void {
		this.causes.push(cause.duplicate(field, value))
	}

	notSupported(field: string, value: unknown, supported: readonly string[]): void {
		this.causes.push(cause.notSupported(field, value, supported))
	}

	notFound(field: string, value: unknown): void {
		this.causes.push({ reason: 'FieldValueNotFound', message: `Not found: ${JSON.stringify(value)}`, field })
	}

	tooLong(field: string, limit: number): void {
		const message = `Too long: may not be more than ${limit} bytes`
		this.causes.push({ reason: 'FieldValueTooLong', message, field })
	}

	tooMany(field: string, count: number, limit: number): void {
		const message = `Too many: ${count}: must have at most ${limit} items`
		this.causes.push({ reason: 'FieldValueTooMany', message, field })
	}

	/** A value of a closed set; absent is right. */
	oneOf(field: string, value: Json | undefined, supported: readonly string[]): void {
		if (value !== undefined && value !== '' && !supported.includes(value as string))
			this.notSupported(field, value, supported)
	}

	between(field: string, value: Json | undefined, low: number, high: number): void {
		if (typeof value === 'number' && (value < low || value > high))
			this.invalid(field, value, `must be between ${low} and ${high}, inclusive`)
	}

	notNegative(field: string, value: Json | undefined): void {
		if (typeof value === 'number' && value < 0) this.invalid(field, value, 'must be greater than or equal to 0')
	}

	positive(field: string, value: Json | undefined): void {
		if (typeof value === 'number' && value <= 0) this.invalid(field, value, 'must be greater than 0')
	}
}

const nothing: JsonObject = {}

/** The object at a key; an empty one where there is none. */
export function objectAt(object: JsonObject, key: string): JsonObject {
	const value = object[key]
	return isObject(value) ? value : nothing
}

/** The objects of the list at a key. */
export function objectsAt(object: JsonObject, key: string): readonly JsonObject[] {
	const value = object[key]
	return Array.isArray(value) ? value.map((item: Json) => (isObject(item) ? item : nothing)) : []
}

/** The texts of the list at a key. */
export function textsAt(object: JsonObject, key: string): readonly string[] {
	const value = object[key]
	return Array.isArray(value) ? value.filter((item: Json) => typeof item === 'string') : []
}

/** The text at a key; '' where there is none. */
export function textAt(object: JsonObject, key: string): string {
	const value = object[key]
	return typeof value === 'string' ? value : ''
}

export function isSet(value: Json | undefined): value is Exclude<Json, null> {
	return value !== undefined && value !== null && value !== ''
}
