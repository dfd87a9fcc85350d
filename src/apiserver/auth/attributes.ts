// What a request asks permission for: a verb on a resource or on a path, as RBAC rules name them; and the words of a
// refusal. Source: apiserver endpoints/request/requestinfo.go and handlers/responsewriters/errors.go, their rules.

import { parseFieldSelector } from '../../kube/selector.ts'
import type { User } from '../api.ts'
import type { ResourcePath } from '../route.ts'
import { qualified, type Refusal, refuse } from '../status.ts'

export interface ResourceAttributes {
	readonly verb: string
	readonly group: string
	/** The plural; '' where nothing is named. */
	readonly resource: string
	/** '' for the object itself. */
	readonly subresource: string
	/** '' for all of them, and for those still to be created. */
	readonly name: string
	/** '' for all namespaces and cluster-scoped resources. */
	readonly namespace: string
}

export interface PathAttributes {
	/** The HTTP method in lower case. */
	readonly verb: string
	readonly path: string
}

export type Attributes = ResourceAttributes | PathAttributes

/** What an HTTP request asks for. `target` is the path as `readPath` reads it; undefined: no path of a resource. */
export function attributesOf(
	method: string,
	path: string,
	target: ResourcePath | undefined,
	query: URLSearchParams,
): Attributes {
	if (target === undefined) return { verb: method.toLowerCase(), path }
	const { group, plural: resource, subresource = '' } = target
	let name = target.name ?? ''
	const watch = query.get('watch')
	let verb: string
	switch (method) {
		case 'GET':
		case 'HEAD':
			if (subresource === '' && (watch === 'true' || watch === '1')) verb = 'watch'
			else verb = name === '' ? 'list' : 'get'
			// A list of the one object with this name may be allowed by resourceNames.
			if (name === '') name = selectedName(query)
			break
		case 'POST':
			verb = 'create'
			break
		case 'PUT':
			verb = 'update'
			break
		case 'PATCH':
			verb = 'patch'
			break
		case 'DELETE':
			verb = name === '' ? 'deletecollection' : 'delete'
			break
		default:
			verb = method.toLowerCase()
	}
	// A namespace lies in itself: a Role in it may allow to read it.
	const namespace = target.namespace ?? (group === '' && resource === 'namespaces' ? (target.name ?? '') : '')
	return { verb, group, resource, subresource, name, namespace }
}

function selectedName(query: URLSearchParams): string {
	const text = query.get('fieldSelector')
	if (text === null || !text.includes('metadata.name')) return ''
	try {
		return parseFieldSelector(text).find((f) => f.field === 'metadata.name' && f.equal)?.value ?? ''
	} catch {
		// Whoever may ask at all hears what is wrong with it.
		return ''
	}
}

/** The refusal users know: `pods is forbidden: User "x" cannot list resource "pods" in API group "" in the namespace "y"`. */
export function denied(user: User, attributes: Attributes, reason: string): Refusal {
	const who = `User ${JSON.stringify(user.name)} cannot`
	const because = reason === '' ? '' : `: ${reason}`
	if ('path' in attributes) {
		const { verb, path } = attributes
		return refuse('Forbidden', `forbidden: ${who} ${verb} path ${JSON.stringify(path)}${because}`, {})
	}
	const { verb, group, resource, subresource, name, namespace } = attributes
	const what = JSON.stringify(subresource === '' ? resource : `${resource}/${subresource}`)
	const where = namespace === '' ? 'at the cluster scope' : `in the namespace ${JSON.stringify(namespace)}`
	const head = `${qualified({ group, plural: resource })}${name === '' ? '' : ` ${JSON.stringify(name)}`} is forbidden`
	return refuse(
		'Forbidden',
		`${head}: ${who} ${verb} resource ${what} in API group ${JSON.stringify(group)} ${where}${because}`,
		{ ...(name === '' ? {} : { name }), ...(group === '' ? {} : { group }), kind: resource },
	)
}
