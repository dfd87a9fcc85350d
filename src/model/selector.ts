// Label selectors of the model, and what in one of them did not match.

import type { LabelSelector } from './network.ts'

type Labels = Readonly<Record<string, string>>

/** Matches nothing. Stands for what cannot be read: leaving it out could mean "any". */
export const nothing: LabelSelector = { matchLabels: {}, matchExpressions: [{ key: '', operator: 'In', values: [] }] }

export function isNothing(selector: LabelSelector | undefined): boolean {
	return selector?.matchExpressions[0]?.key === ''
}

/** An empty selector matches everything; the requirements are joined by "and". */
export function selectorMatches(selector: LabelSelector, labels: Labels): boolean {
	for (const [key, want] of Object.entries(selector.matchLabels)) if (read(labels, key) !== want) return false
	return selector.matchExpressions.every(({ key, operator, values }) => holds(operator, values, read(labels, key)))
}

/** `wants app=web, has app=api`; undefined where all matches. */
export function firstMismatch(selector: LabelSelector, labels: Labels): string | undefined {
	return mismatchOf(selector, labels)?.text
}

export interface SelectorMismatch {
	/** Inside the selector: `matchLabels.app`, `matchExpressions[0]`. */
	readonly field: string
	readonly label: string
	/** `app=web`, `app in (web, api)`, `!app`. */
	readonly wanted: string
	/** `app=api`, `no label app`. */
	readonly actual: string
	readonly text: string
}

/** The first requirement that does not hold. */
export function mismatchOf(selector: LabelSelector, labels: Labels): SelectorMismatch | undefined {
	for (const [key, want] of Object.entries(selector.matchLabels)) {
		if (read(labels, key) === want) continue
		const actual = hasText(labels, key)
		const text = `wants ${key}=${want}, has ${actual}`
		return { field: `matchLabels.${key}`, label: key, wanted: `${key}=${want}`, actual, text }
	}
	for (const [i, { key, operator, values }] of selector.matchExpressions.entries()) {
		if (holds(operator, values, read(labels, key))) continue
		const actual = hasText(labels, key)
		const list = values.join(', ')
		const [wanted, text] = {
			In: [`${key} in (${list})`, `wants ${key} in (${list}), has ${actual}`],
			NotIn: [`${key} notin (${list})`, `wants ${key} not in (${list}), has ${actual}`],
			Exists: [key, `wants a label ${key}`],
			DoesNotExist: [`!${key}`, `wants no label ${key}, has ${actual}`],
		}[operator] as [string, string]
		return { field: `matchExpressions[${i}]`, label: key, wanted, actual, text }
	}
	return undefined
}

function holds(
	operator: LabelSelector['matchExpressions'][number]['operator'],
	values: readonly string[],
	value: string | undefined,
): boolean {
	switch (operator) {
		case 'In':
			return value !== undefined && values.includes(value)
		case 'NotIn':
			// A missing label is not in any list: it matches.
			return value === undefined || !values.includes(value)
		case 'Exists':
			return value !== undefined
		case 'DoesNotExist':
			return value === undefined
		default: {
			const never: never = operator
			throw new Error(`No such selector operator: ${never}`)
		}
	}
}

/** How many single requirements hold; the nearest object is the one with the most. */
export function countMatches(selector: LabelSelector, labels: Labels): number {
	let count = 0
	for (const [key, value] of Object.entries(selector.matchLabels)) if (read(labels, key) === value) count++
	for (const expression of selector.matchExpressions) {
		if (selectorMatches({ matchLabels: {}, matchExpressions: [expression] }, labels)) count++
	}
	return count
}

/** As kubectl writes it: `app=web,tier in (a, b)`; `everything` for the empty selector. */
export function selectorText(selector: LabelSelector): string {
	const parts = Object.entries(selector.matchLabels).map(([key, value]) => `${key}=${value}`)
	for (const { key, operator, values } of selector.matchExpressions) {
		if (operator === 'Exists') parts.push(key)
		else if (operator === 'DoesNotExist') parts.push(`!${key}`)
		else parts.push(`${key} ${operator === 'In' ? 'in' : 'notin'} (${values.join(', ')})`)
	}
	return parts.length === 0 ? 'everything' : parts.join(',')
}

function read(labels: Labels, key: string): string | undefined {
	return Object.hasOwn(labels, key) ? labels[key] : undefined
}

function hasText(labels: Labels, key: string): string {
	const value = read(labels, key)
	return value === undefined ? `no label ${key}` : `${key}=${value}`
}
