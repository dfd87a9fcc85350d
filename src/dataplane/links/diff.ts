// What turns one node's wiring into another. Pure; costs what differs.

import { diffTables } from '../../base/table.ts'
import { type Attachment, faultsOf, type LinksProgram, type Route } from './program.ts'

export type LinksChange =
	| { readonly change: 'sysctl'; readonly name: string; readonly value: string }
	/** Makes it, or repairs what is there; `faults` says what is wrong with it. */
	| { readonly change: 'attach'; readonly attachment: Attachment; readonly faults: readonly string[] }
	| { readonly change: 'detach'; readonly attachment: Attachment }
	/** Adds it, or replaces the one to the same destination. */
	| { readonly change: 'route'; readonly route: Route }
	| { readonly change: 'unroute'; readonly route: Route }

/** In the order to apply: settings, what goes, what comes, routes last. A setting nobody wants any more stays. */
export function diffLinks(have: LinksProgram | undefined, want: LinksProgram): LinksChange[] {
	const changes: LinksChange[] = []
	const come: LinksChange[] = []
	for (const [name, value] of want.sysctls) {
		if (have?.sysctls.get(name) !== value) changes.push({ change: 'sysctl', name, value })
	}
	if (have === undefined) {
		for (const attachment of want.attachments.values()) come.push({ change: 'attach', attachment, faults: [] })
		for (const route of want.routes.values()) come.push({ change: 'route', route })
		return [...changes, ...come]
	}
	diffTables(have.attachments, want.attachments, (_, before, after) => {
		if (after === undefined) changes.push({ change: 'detach', attachment: before as Attachment })
		else if (before === undefined) come.push({ change: 'attach', attachment: after, faults: [] })
		else if (before.namespace !== after.namespace) {
			changes.push({ change: 'detach', attachment: before })
			come.push({ change: 'attach', attachment: after, faults: [] })
		} else {
			const faults = faultsOf(before, after)
			if (faults.length > 0) come.push({ change: 'attach', attachment: after, faults })
		}
	})
	diffTables(have.routes, want.routes, (_, before, after) => {
		if (after === undefined) changes.push({ change: 'unroute', route: before as Route })
		else if (before === undefined || !sameInKernel(before, after)) come.push({ change: 'route', route: after })
	})
	return [...changes, ...come]
}

function sameInKernel(a: Route, b: Route): boolean {
	return a.via === b.via && a.device === b.device && a.unreachable === b.unreachable
}

/** One line for a person: `attach pod "default/web": interface "eth0" is down`. */
export function changeText(change: LinksChange): string {
	switch (change.change) {
		case 'sysctl':
			return `set ${change.name} to ${change.value}`
		case 'attach': {
			const why = change.faults.length === 0 ? '' : `: ${change.faults.join('; ')}`
			return `attach pod ${JSON.stringify(change.attachment.pod)}${why}`
		}
		case 'detach':
			return `detach pod ${JSON.stringify(change.attachment.pod)}`
		case 'route':
			return `add route ${JSON.stringify(`${change.route.destination}`)}`
		case 'unroute':
			return `remove route ${JSON.stringify(`${change.route.destination}`)}`
		default:
			return change satisfies never
	}
}
