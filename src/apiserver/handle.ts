// One request to one answer: what is asked, who asks, and who answers it. Nothing thrown leaves here.

import { failed, json, text } from './answer.ts'
import type { Api, Call, User } from './api.ts'
import { attributesOf } from './auth/attributes.ts'
import { impersonated } from './auth/impersonate.ts'
import { answerIssuer } from './auth/issuer.ts'
import { isAdmin } from './auth/rbac.ts'
import { review } from './auth/reviews.ts'
import { warningHeaders } from './checks.ts'
import { deleteCollection, deleteObject } from './delete.ts'
import { discover } from './discovery.ts'
import { metricsText } from './metrics.ts'
import { type Accepted, negotiate } from './negotiate.ts'
import { getObject, listObjects } from './read.ts'
import { type ResourcePath, readPath } from './route.ts'
import { methodNotAllowed, noSuchResource, Refusal, statusOf } from './status.ts'
import { handleSubresource } from './subresources.ts'
import { version } from './version.ts'
import { watchObjects } from './watch.ts'
import { createObject, patchObject, updateObject } from './write.ts'

/** Answers one request of a user. Never rejects. */
export async function handle(api: Api, request: Request, user: User): Promise<Response> {
	let response: Response
	try {
		response = await route(api, request, user)
	} catch (e) {
		const status = statusOf(e)
		// What a webhook did wrong is refused on purpose.
		if ((status.code ?? 500) >= 500 && status.reason === 'InternalError' && !(e instanceof Refusal))
			api.reportFault(e, request)
		response = failed(e)
	}
	api.metrics.count(request.method, response.status)
	return response
}

async function route(api: Api, request: Request, asker: User): Promise<Response> {
	const url = request.url
	// The host is of no interest, and reading a URL is not free: cut path and query by hand.
	const start = url.indexOf('/', url.indexOf('//') + 2)
	const mark = url.indexOf('?', start)
	const path = start < 0 ? '/' : mark < 0 ? url.slice(start) : url.slice(start, mark)
	const query = new URLSearchParams(mark < 0 ? '' : url.slice(mark + 1))
	const target = readPath(path)
	const user = impersonated(api.authorizer, asker, request.headers)
	if (!isAdmin(user)) api.authorizer.require(user, attributesOf(request.method, path, target, query))
	if (target === undefined) return answerOther(api, request, path, query)
	const response = await answerResource(api, request, user, target, query)
	const warning = deprecation(api, target)
	// Some answers came from elsewhere, and their headers cannot be changed.
	if (warning !== undefined && target.subresource !== 'proxy') response.headers.append('warning', warning)
	return response
}

/** The `Warning` of a version that is deprecated; undefined: it is not. */
function deprecation(api: Api, { group, version, plural }: ResourcePath): string | undefined {
	const warnings = api.registry.find(group, version, plural)?.rules?.warnings
	if (warnings !== undefined) return warningHeaders(warnings)?.warning
	// Deprecated since 1.33.
	return group === '' && plural === 'endpoints' ? endpointsWarning : undefined
}

const endpointsWarning = warningHeaders([
	'v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice',
])?.warning

async function answerOther(api: Api, request: Request, path: string, query: URLSearchParams): Promise<Response> {
	const parts = path.split('/').filter((part) => part !== '')
	const readOnly = () => {
		if (request.method !== 'GET' && request.method !== 'HEAD') throw methodNotAllowed()
	}
	switch (parts[0]) {
		case undefined:
			readOnly()
			return json(200, { paths: paths(api) })
		case 'version':
			readOnly()
			return json(200, version)
		case 'healthz':
		case 'livez':
		case 'readyz':
			readOnly()
			if (parts.length > 2) throw noSuchResource()
			return query.has('verbose') ? text(200, `[+]ping ok\n[+]store ok\n${parts[0]} check passed\n`) : text(200, 'ok')
		case '.well-known':
		case 'openid':
			readOnly()
			return answerIssuer(api, parts)
		case 'metrics':
			readOnly()
			return text(200, metricsText(api))
		case 'openapi':
			readOnly()
			return (await api.openApi())(request)
		case 'api':
			readOnly()
			if (parts.length > 2) throw noSuchResource()
			return discover(api.registry, path, acceptOf(request), request)
		case 'apis':
			readOnly()
			if (parts.length > 3) throw noSuchResource()
			return discover(api.registry, path, acceptOf(request), request)
		default:
			return text(404, '404 page not found\n')
	}
}

function acceptOf(request: Request): Accepted {
	return negotiate(request.headers.get('accept'))
}

function paths(api: Api): string[] {
	const out = new Set(['/api', '/api/v1', '/apis'])
	for (const { resource, apiVersion } of api.registry.all()) {
		if (resource.group === '') continue
		out.add(`/apis/${resource.group}`)
		out.add(`/apis/${apiVersion}`)
	}
	for (const path of [
		'/.well-known/openid-configuration',
		'/healthz',
		'/livez',
		'/metrics',
		'/openid/v1/jwks',
		'/openapi/v2',
		'/openapi/v3',
		'/readyz',
		'/version',
	])
		out.add(path)
	return [...out].sort()
}

async function answerResource(
	api: Api,
	request: Request,
	user: User,
	target: ResourcePath,
	query: URLSearchParams,
): Promise<Response> {
	const served = api.registry.find(target.group, target.version, target.plural)
	if (served === undefined) throw noSuchResource()
	if (served.prepare !== undefined) await served.prepare()
	const { resource } = served
	const namespace = target.namespace ?? ''
	// An object of a namespaced resource has a namespace in its path, one of a cluster-scoped resource has none.
	if (!resource.namespaced && namespace !== '') throw noSuchResource()
	if (resource.namespaced && namespace === '' && target.name !== undefined) throw noSuchResource()
	const call: Call = {
		api,
		request,
		query,
		user,
		accept: negotiate(request.headers.get('accept')),
		served,
		namespace,
		name: target.name,
		subresource: target.subresource,
		rest: target.rest,
	}
	if (target.subresource !== undefined) {
		if (!resource.subresources.some((sub) => sub.name === target.subresource)) throw noSuchResource()
		return handleSubresource(call)
	}
	if (!resource.stored) return resource.kind === 'Binding' ? handleSubresource(call) : review(call)
	const verb = verbOf(call)
	if (verb === undefined || !resource.verbs.includes(verb)) throw methodNotAllowed()
	switch (verb) {
		case 'get':
			return getObject(call)
		case 'list':
			return listObjects(call)
		case 'watch':
			return watchObjects(call)
		case 'create':
			return createObject(call)
		case 'update':
			return updateObject(call)
		case 'patch':
			return patchObject(call)
		case 'delete':
			return deleteObject(call)
		case 'deletecollection':
			return deleteCollection(call)
		default:
			return verb satisfies never
	}
}

type Verb = 'get' | 'list' | 'watch' | 'create' | 'update' | 'patch' | 'delete' | 'deletecollection'

function verbOf(call: Call): Verb | undefined {
	const watch = call.query.get('watch')
	switch (call.request.method) {
		case 'GET':
		case 'HEAD':
			if (watch === 'true' || watch === '1') return 'watch'
			return call.name === undefined ? 'list' : 'get'
		case 'POST':
			return call.name === undefined ? 'create' : undefined
		case 'PUT':
			return call.name === undefined ? undefined : 'update'
		case 'PATCH':
			return call.name === undefined ? undefined : 'patch'
		case 'DELETE':
			return call.name === undefined ? 'deletecollection' : 'delete'
		default:
			return undefined
	}
}
