// From the URL to what is asked: the resource, object and subresource a path names.

import { badRequest } from './status.ts'

export interface ResourcePath {
	readonly group: string
	readonly version: string
	/** Absent: all namespaces, or a cluster-scoped resource. */
	readonly namespace?: string
	readonly plural: string
	readonly name?: string
	readonly subresource?: string
	/** What follows the subresource (proxy paths), without the leading slash. */
	readonly rest?: string
}

/**
 * Reads `/api/v1/namespaces/default/pods/web/log` or `/apis/apps/v1/deployments`. Undefined: no path of a resource
 * (`/version`, `/apis/apps/v1`). Throws Refusal 400 for broken percent escapes.
 */
export function readPath(path: string): ResourcePath | undefined {
	const parts = path.split('/')
	let at: number
	let group = ''
	if (parts[1] === 'api') at = 2
	else if (parts[1] === 'apis') {
		group = parts[2] ?? ''
		at = 3
		if (group === '') return undefined
	} else return undefined
	const version = parts[at++]
	if (version === undefined || version === '' || parts[at] === undefined || parts[at] === '') return undefined
	let namespace: string | undefined
	// `namespaces/x` is the object, `namespaces/x/pods` a collection in it, `namespaces/x/status` its subresource.
	if (parts[at] === 'namespaces' && parts[at + 2] !== undefined && parts[at + 2] !== '') {
		if (group !== '' || !namespaceSubresources.has(parts[at + 2]!)) {
			namespace = decode(parts[at + 1]!)
			at += 2
		}
	}
	const plural = decode(parts[at++]!)
	const name = parts[at] === undefined || parts[at] === '' ? undefined : decode(parts[at]!)
	const subresource = parts[at + 1] === undefined || parts[at + 1] === '' ? undefined : decode(parts[at + 1]!)
	const rest = parts.slice(at + 2)
	return {
		group,
		version,
		...(namespace === undefined ? {} : { namespace }),
		plural,
		...(name === undefined ? {} : { name }),
		...(subresource === undefined ? {} : { subresource }),
		...(rest.length > 0 ? { rest: rest.join('/') } : {}),
	}
}

const namespaceSubresources: ReadonlySet<string> = new Set(['status', 'finalize'])

function decode(part: string): string {
	if (!part.includes('%')) return part
	try {
		return decodeURIComponent(part)
	} catch {
		throw badRequest(`the path segment ${JSON.stringify(part)} is not correctly escaped`)
	}
}
