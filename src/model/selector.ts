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
	return firstMismatch(selector, labels) === undefined
}

/** `wants app=web, has app=api`; undefined where all matches. */
export function firstMismatch(selector: LabelSelector, labels: Labels): string | undefined {
	for (const [key, want] of Object.entries(selector.matchLabels)) {
		if (read(labels, key) !== want) return `wants ${key}=${want}, has ${hasText(labels, key)}`
	}
	for (const { key, operator, values } of selector.matchExpressions) {
		const value = read(labels, key)
		switch (operator) {
			case 'In':
				if (value === undefined || !values.includes(value))
					return `wants ${key} in (${values.join(', ')}), has ${hasText(labels, key)}`
				break
			case 'NotIn':
				// A missing label is not in any list: it matches.
				if (value !== undefined && values.includes(value))
					return `wants ${key} not in (${values.join(', ')}), has ${hasText(labels, key)}`
				break
			case 'Exists':
				if (value === undefined) return `wants a label ${key}`
				break
			case 'DoesNotExist':
				if (value !== undefined) return `wants no label ${key}, has ${hasText(labels, key)}`
				break
			default: {
				const never: never = operator
				throw new Error(`No such selector operator: ${never}`)
			}
		}
	}
	return undefined
}

/** How many single requirements hold; the nearest object is the one with the most. */
export function countMatches(selector: LabelSelector, labels: Labels): number {
	let count = 0
	for (const [key, value] of Object.entries(selector.matchLabels)) if (read(labels, key) === value) count++
	for (const expression of selector.matchExpressions) {
		if (firstMismatch({ matchLabels: {}, matchExpressions: [expression] }, labels) === undefined) count++
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
