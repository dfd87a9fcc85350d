// Cells of the tables kubectl prints: ages, selectors, lists. The forms are those of k8s.io/cli-runtime and
// apimachinery's duration package.

import type { UnknownObject } from '../../kube/objects/meta.ts'
import { isObject, type Json, type JsonObject } from '../../kube/schema/json.ts'
import { formatSelector, selectorOf } from '../../kube/selector.ts'

export type Cell = string | number | boolean

export const none = '<none>'

/** The value at a path of field names; undefined where there is none. */
export function at(object: UnknownObject | Json | undefined, ...path: readonly string[]): Json | undefined {
	let here = object as Json | undefined
	for (const step of path) {
		if (!isObject(here)) return undefined
		here = here[step]
	}
	return here
}

export function text(value: Json | undefined, otherwise = ''): string {
	return typeof value === 'string' && value !== '' ? value : typeof value === 'number' ? String(value) : otherwise
}

export function number(value: Json | undefined): number {
	return typeof value === 'number' ? value : 0
}

export function items(value: Json | undefined): readonly JsonObject[] {
	return Array.isArray(value) ? (value as readonly Json[]).filter(isObject) : []
}

export function texts(value: Json | undefined): readonly string[] {
	return Array.isArray(value) ? (value as readonly Json[]).filter((v): v is string => typeof v === 'string') : []
}

/** `3d4h`: the largest units that say enough (apimachinery util/duration HumanDuration). */
export function humanDuration(ms: number): string {
	const seconds = Math.trunc(ms / 1000)
	if (seconds < -1) return '<invalid>'
	if (seconds < 0) return '0s'
	if (seconds < 120) return `${seconds}s`
	const minutes = Math.trunc(seconds / 60)
	if (minutes < 10) return seconds % 60 === 0 ? `${minutes}m` : `${minutes}m${seconds % 60}s`
	if (minutes < 180) return `${minutes}m`
	const hours = Math.trunc(seconds / 3600)
	if (hours < 8) return minutes % 60 === 0 ? `${hours}h` : `${hours}h${minutes % 60}m`
	if (hours < 48) return `${hours}h`
	const days = Math.trunc(hours / 24)
	if (hours < 192) return hours % 24 === 0 ? `${days}d` : `${days}d${hours % 24}h`
	if (days < 730) return `${days}d`
	const years = Math.trunc(days / 365)
	if (days < 8 * 365) return days % 365 === 0 ? `${years}y` : `${years}y${days % 365}d`
	return `${years}y`
}

/** How long ago a time was. */
export function ageOf(time: Json | undefined, now: number): string {
	if (typeof time !== 'string' || time === '') return '<unknown>'
	return humanDuration(now - Date.parse(time))
}

/** `app=web,tier in (a,b)` of a LabelSelector object. */
export function selectorText(selector: Json | undefined): string {
	if (!isObject(selector)) return none
	const written = formatSelector(selectorOf(selector as Parameters<typeof selectorOf>[0]))
	return written === '' ? none : written
}

/** `a=b,c=d` of a map, keys in order. */
export function mapText(map: Json | undefined): string {
	if (!isObject(map)) return none
	const pairs = Object.keys(map)
		.sort()
		.map((key) => `${key}=${text(map[key])}`)
	return pairs.length === 0 ? none : pairs.join(',')
}

/** Names and images of a pod template's containers. */
export function containersText(spec: Json | undefined): readonly [string, string] {
	const containers = items(at(spec, 'containers'))
	return [containers.map((c) => text(c.name)).join(','), containers.map((c) => text(c.image)).join(',')]
}
