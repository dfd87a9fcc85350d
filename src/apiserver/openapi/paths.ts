// The paths of resources as OpenAPI operations: what kubectl reads to find a kind, and which query parameters the
// server understands (fieldValidation, dryRun).

import type { Json, JsonObject } from '../../kube/schema/json.ts'
import type { Documented } from './documents.ts'
import type { Dialect } from './schemas.ts'

type Refs = {
	readonly object: JsonObject
	readonly list: JsonObject
	readonly status: JsonObject
	readonly options: JsonObject
}
type Verb = 'get' | 'list' | 'create' | 'update' | 'patch' | 'delete' | 'deletecollection'

const methods: Readonly<Record<Verb, string>> = {
	get: 'get',
	list: 'get',
	create: 'post',
	update: 'put',
	patch: 'patch',
	delete: 'delete',
	deletecollection: 'delete',
}
const actions: Readonly<Record<Verb, string>> = {
	get: 'get',
	list: 'list',
	create: 'post',
	update: 'put',
	patch: 'patch',
	delete: 'delete',
	deletecollection: 'deletecollection',
}

const patchTypes = [
	'application/json-patch+json',
	'application/merge-patch+json',
	'application/strategic-merge-patch+json',
	'application/apply-patch+yaml',
]

/** Clients choose by this: custom kinds have no strategic merge. */
function patchTypesOf(served: Documented): readonly string[] {
	return served.openApiSchema === undefined ? patchTypes : patchTypes.filter((type) => !type.includes('strategic'))
}

const parameters: Readonly<Record<string, readonly [type: string, description: string]>> = {
	pretty: ['string', 'Print the answer for people.'],
	dryRun: ['string', 'With "All" nothing is kept.'],
	fieldManager: ['string', 'Who changes the object: its managedFields say so.'],
	fieldValidation: ['string', 'What to do about unknown and duplicate fields: Ignore, Warn or Strict.'],
	force: ['boolean', 'Take over what other managers own; apply alone.'],
	labelSelector: ['string', 'Only objects with these labels.'],
	fieldSelector: ['string', 'Only objects with these fields.'],
	limit: ['integer', 'At most so many objects; `continue` leads to the next ones.'],
	continue: ['string', 'Where the list before ended.'],
	resourceVersion: ['string', 'The state of the store that is asked for.'],
	resourceVersionMatch: ['string', 'How resourceVersion is meant.'],
	sendInitialEvents: ['boolean', 'A watch begins with what is there.'],
	allowWatchBookmarks: ['boolean', 'A watch may send bookmarks.'],
	watch: ['boolean', 'Follow changes.'],
	timeoutSeconds: ['integer', 'End after so many seconds.'],
	gracePeriodSeconds: ['integer', 'Seconds until the object goes.'],
	propagationPolicy: ['string', 'What becomes of dependents: Orphan, Background or Foreground.'],
}
const listing =
	'allowWatchBookmarks continue fieldSelector labelSelector limit resourceVersion resourceVersionMatch sendInitialEvents timeoutSeconds watch'
const verbParameters: Readonly<Record<Verb, string>> = {
	get: '',
	list: listing,
	create: 'dryRun fieldManager fieldValidation',
	update: 'dryRun fieldManager fieldValidation',
	patch: 'dryRun fieldManager fieldValidation force',
	delete: 'dryRun gracePeriodSeconds propagationPolicy',
	deletecollection: `dryRun gracePeriodSeconds propagationPolicy ${listing}`,
}

/**
 * Query parameters that documents of version 3 say once, under components/parameters. kubectl up to 1.34 reads the whole
 * document anew for each object it creates, so that its size is what that costs; what it looks for by name, the
 * parameters of writes, stays where it is.
 */
const shared: ReadonlySet<string> = new Set([
	'pretty',
	...listing.split(' '),
	'gracePeriodSeconds',
	'propagationPolicy',
])

/** The components that the operations of `pathsOf` refer to. */
export function sharedParameters(): JsonObject {
	return Object.fromEntries([...shared].map((name) => [name, parameter(name, 'query', ...parameters[name]!, 'v3')]))
}

function queryParameter(name: string, dialect: Dialect): JsonObject {
	return dialect === 'v3' && shared.has(name)
		? { $ref: `#/components/parameters/${name}` }
		: parameter(name, 'query', ...parameters[name]!, dialect)
}

/** The paths of one resource: its list, its objects, their status and scale. */
export function pathsOf(served: Documented, refs: Refs, dialect: Dialect): Record<string, JsonObject> {
	const { resource } = served
	const base = resource.group === '' ? `/api/${resource.version}` : `/apis/${resource.group}/${resource.version}`
	const scope = resource.namespaced ? `${base}/namespaces/{namespace}` : base
	const verbs = new Set<string>(resource.verbs)
	const out: Record<string, JsonObject> = {}
	const add = (path: string, wanted: readonly Verb[], isItem: boolean, sub = ''): void => {
		const item: Record<string, Json> = {}
		for (const verb of wanted) item[methods[verb]] = operationOf(served, verb, sub, refs, dialect, path)
		if (wanted.length === 0) return
		item.parameters = [
			...(isItem ? [parameter('name', 'path', 'string', `The name of the ${resource.kind}.`, dialect)] : []),
			...(path.includes('{namespace}') ? [parameter('namespace', 'path', 'string', 'The namespace.', dialect)] : []),
			queryParameter('pretty', dialect),
		]
		out[path] = item
	}
	const having = (wanted: readonly Verb[]): Verb[] => wanted.filter((verb) => verbs.has(verb))
	add(`${scope}/${resource.plural}`, having(['list', 'create', 'deletecollection']), false)
	if (resource.namespaced) add(`${base}/${resource.plural}`, having(['list']), false)
	add(`${scope}/${resource.plural}/{name}`, having(['get', 'update', 'patch', 'delete']), true)
	for (const sub of resource.subresources)
		if (sub.name === 'status' || sub.name === 'scale')
			add(
				`${scope}/${resource.plural}/{name}/${sub.name}`,
				(['get', 'update', 'patch'] as const).filter((verb) => sub.verbs.includes(verb)),
				true,
				sub.name,
			)
	return out
}

function operationOf(
	served: Documented,
	verb: Verb,
	sub: string,
	refs: Refs,
	dialect: Dialect,
	path: string,
): JsonObject {
	const { resource } = served
	const scoped = path.includes('{namespace}') ? 'Namespaced' : resource.namespaced ? 'AllNamespaces' : ''
	const answer =
		verb === 'list' ? refs.list : verb === 'delete' || verb === 'deletecollection' ? refs.status : refs.object
	const body =
		verb === 'create' || verb === 'update'
			? refs.object
			: verb === 'patch'
				? { type: 'object' }
				: verb === 'delete' || verb === 'deletecollection'
					? refs.options
					: undefined
	const names = verbParameters[verb].split(' ').filter((name) => name !== '')
	const query = names.map((name) => queryParameter(name, dialect))
	const id = `${verb}${title(resource.group.split('.')[0] || 'core')}${title(resource.version)}${scoped}${resource.kind}${title(sub)}`
	const content = (schema: JsonObject, types: readonly string[]): JsonObject =>
		Object.fromEntries(types.map((type) => [type, { schema }]))
	return {
		operationId: id,
		description: `${title(verb)} ${resource.plural}${sub === '' ? '' : ` (${sub})`}.`,
		...(dialect === 'v3'
			? {
					parameters: query,
					...(body
						? {
								requestBody: {
									content: content(body, verb === 'patch' ? patchTypesOf(served) : ['*/*']),
									required: verb === 'patch',
								},
							}
						: {}),
					responses: { 200: { description: 'OK', content: content(answer, ['application/json']) } },
				}
			: {
					consumes: verb === 'patch' ? patchTypesOf(served) : ['*/*'],
					produces: ['application/json', 'application/yaml', 'application/vnd.kubernetes.protobuf'],
					parameters: [
						...(body ? [{ name: 'body', in: 'body', required: verb !== 'delete', schema: body }] : []),
						...query,
					],
					responses: { 200: { description: 'OK', schema: answer } },
				}),
		'x-kubernetes-action': actions[verb],
		'x-kubernetes-group-version-kind': { group: resource.group, version: resource.version, kind: resource.kind },
	}
}

function title(word: string): string {
	return word.charAt(0).toUpperCase() + word.slice(1)
}

function parameter(
	name: string,
	place: 'query' | 'path',
	type: string,
	description: string,
	dialect: Dialect,
): JsonObject {
	return {
		name,
		in: place,
		description,
		...(place === 'path' ? { required: true } : {}),
		...(dialect === 'v3' ? { schema: { type } } : { type, uniqueItems: true }),
	}
}
