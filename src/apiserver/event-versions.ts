// Events have two faces, v1 and events.k8s.io/v1, of one kept object (v1). Field pairs: k8s.io/api events/v1 types.go.

import type { UnknownObject } from '../kube/objects/meta.ts'

/** v1 name → events.k8s.io/v1 name, where they differ. */
const pairs = [
	['involvedObject', 'regarding'],
	['message', 'note'],
	['source', 'deprecatedSource'],
	['firstTimestamp', 'deprecatedFirstTimestamp'],
	['lastTimestamp', 'deprecatedLastTimestamp'],
	['count', 'deprecatedCount'],
	['reportingComponent', 'reportingController'],
] as const

const toEvents = new Map<string, string>(pairs)
const toCore = new Map<string, string>(pairs.map(([core, events]) => [events, core]))

/** events.k8s.io/v1 → v1. */
export function coreEventOf(event: UnknownObject): UnknownObject {
	return renamed(event, toCore, 'v1')
}

/** v1 → events.k8s.io/v1. */
export function eventsEventOf(event: UnknownObject): UnknownObject {
	return renamed(event, toEvents, 'events.k8s.io/v1')
}

function renamed(event: UnknownObject, names: ReadonlyMap<string, string>, apiVersion: string): UnknownObject {
	const out: Record<string, unknown> = {}
	for (const [name, value] of Object.entries(event)) out[names.get(name) ?? name] = value
	out.apiVersion = apiVersion
	return out as UnknownObject
}
