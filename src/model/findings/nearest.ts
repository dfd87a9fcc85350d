// Of several things the one the user probably meant: for label selectors and for misspelt names.

import type { LabelSelector, Pod } from '../network.ts'
import { firstMismatch } from '../selector.ts'

/** The pod whose labels are most like what `selector` wants, and the first difference; undefined when none is near. */
export function nearestPod(
	pods: readonly Pod[],
	selector: LabelSelector,
): { readonly pod: Pod; readonly difference: string } | undefined {
	let best: { pod: Pod; score: number } | undefined
	const seen = new Set<string>()
	for (const pod of pods) {
		// Pods of one workload have the same labels.
		const owner = `${pod.owner.kind} ${pod.owner.key}`
		if (pod.owner.kind !== 'Pod' && seen.has(owner)) continue
		seen.add(owner)
		const score = likeness(selector, pod.labels)
		if (score > 0.3 && (best === undefined || score > best.score)) best = { pod, score }
	}
	if (best === undefined) return undefined
	const difference = firstMismatch(selector, best.pod.labels)
	return difference === undefined ? undefined : { pod: best.pod, difference }
}

/** 0 to 1: each wanted label counts fully when it is there, partly when its value or its key is similar. */
function likeness(selector: LabelSelector, labels: Readonly<Record<string, string>>): number {
	const wanted = Object.entries(selector.matchLabels)
	if (wanted.length === 0) return 0
	let sum = 0
	for (const [key, value] of wanted) {
		const has = labels[key]
		if (has === value) sum += 1
		else if (has !== undefined) sum += 0.9 * similarity(has, value)
		else if (Object.values(labels).includes(value)) sum += 0.6
	}
	return sum / wanted.length
}

/** The names most like `name`, nearest first, at most three. */
export function nearNames(name: string, names: Iterable<string>): string[] {
	return [...new Set(names)]
		.map((n) => ({ n, score: n.includes(name) || name.includes(n) ? 0.8 : similarity(n, name) }))
		.filter(({ score }) => score >= 0.5)
		.sort((a, b) => b.score - a.score || (a.n < b.n ? -1 : 1))
		.slice(0, 3)
		.map(({ n }) => n)
}

/** 1 for equal, 0 for nothing in common: 1 - edit distance ÷ length of the longer. */
export function similarity(a: string, b: string): number {
	const longest = Math.max(a.length, b.length)
	return longest === 0 ? 1 : 1 - distance(a, b) / longest
}

/** Levenshtein distance with adjacent swaps as one step (optimal string alignment). */
function distance(a: string, b: string): number {
	let beforeLast: number[] = []
	let last = Array.from({ length: b.length + 1 }, (_, j) => j)
	for (let i = 1; i <= a.length; i++) {
		const row = [i]
		for (let j = 1; j <= b.length; j++) {
			const cost = a[i - 1] === b[j - 1] ? 0 : 1
			let value = Math.min(last[j]! + 1, row[j - 1]! + 1, last[j - 1]! + cost)
			if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
				value = Math.min(value, beforeLast[j - 2]! + 1)
			row.push(value)
		}
		beforeLast = last
		last = row
	}
	return last[b.length]!
}
