// What is served, told to clients: /api, /apis, resource lists, and both in one (aggregated discovery).

import { createHash } from 'node:crypto'
import { apiVersionOf, type Resource } from '../kube/resources.ts'
import { json } from './answer.ts'
import type { Accepted } from './negotiate.ts'
import type { Registry } from './registry.ts'
import { noSuchResource } from './status.ts'

/** Answers /api, /api/v1, /apis, /apis/GROUP and /apis/GROUP/VERSION. */
export function discover(registry: Registry, path: string, accept: Accepted, request: Request): Response {
	const parts = path.split('/').filter((part) => part !== '')
	if (accept.discovery !== undefined && parts.length === 1) {
		return aggregated(registry, parts[0] === 'api', accept.discovery, request)
	}
	if (parts[0] === 'api') {
		if (parts.length === 1) {
			return json(200, {
				kind: 'APIVersions',
				versions: ['v1'],
				serverAddressByClientCIDRs: [{ clientCIDR: '0.0.0.0/0', serverAddress: new URL(request.url).host }],
			})
		}
		return resourceList(registry, '', parts[1]!)
	}
	if (parts.length === 1) {
		const groups = [...groupsOf(registry)]
			.filter(([name]) => name !== '')
			.map(([name, versions]) => group(name, versions))
		return json(200, { kind: 'APIGroupList', apiVersion: 'v1', groups })
	}
	const versions = groupsOf(registry).get(parts[1]!)
	if (versions === undefined || parts[1] === '') throw noSuchResource()
	if (parts.length === 2) return json(200, { kind: 'APIGroup', apiVersion: 'v1', ...group(parts[1]!, versions) })
	return resourceList(registry, parts[1]!, parts[2]!)
}

function group(name: string, versions: ReadonlyMap<string, readonly Resource[]>): object {
	const all = [...versions.keys()].map((version) => ({ groupVersion: apiVersionOf({ group: name, version }), version }))
	return { name, versions: all, preferredVersion: all[0] }
}

/** Group → version → resources, in the order of the registry. */
function groupsOf(registry: Registry): Map<string, Map<string, Resource[]>> {
	const groups = new Map<string, Map<string, Resource[]>>()
	for (const { resource } of registry.all()) {
		let versions = groups.get(resource.group)
		if (versions === undefined) groups.set(resource.group, (versions = new Map()))
		const list = versions.get(resource.version)
		if (list === undefined) versions.set(resource.version, [resource])
		else list.push(resource)
	}
	return groups
}

function resourceList(registry: Registry, groupName: string, version: string): Response {
	const list = groupsOf(registry).get(groupName)?.get(version)
	if (list === undefined) throw noSuchResource()
	const resources = list.flatMap((resource) => {
		const { plural: name, singular: singularName, namespaced, kind, verbs, shortNames, categories } = resource
		const row = {
			name,
			singularName,
			namespaced,
			kind,
			verbs,
			...(shortNames.length > 0 ? { shortNames } : {}),
			...(categories.length > 0 ? { categories } : {}),
			...(resource.stored ? { storageVersionHash: storageHash(resource) } : {}),
		}
		const subs = resource.subresources.map((sub) => {
			const body = sub.body ?? { group: resource.group, version: resource.version, kind }
			const other = body.group !== resource.group || body.version !== resource.version
			return {
				name: `${name}/${sub.name}`,
				singularName: '',
				namespaced,
				...(other ? { group: body.group, version: body.version } : {}),
				kind: body.kind,
				verbs: sub.verbs,
			}
		})
		return [row, ...subs]
	})
	const groupVersion = apiVersionOf({ group: groupName, version })
	return json(200, { kind: 'APIResourceList', apiVersion: 'v1', groupVersion, resources })
}

function storageHash(resource: Resource): string {
	return createHash('sha256')
		.update(`${resource.group}/${resource.version}/${resource.kind}`)
		.digest('base64')
		.slice(0, 12)
		.replace(/.{4}$/, (end) => `${end.slice(0, 3)}=`)
}

interface Made {
	readonly generation: number
	readonly body: string
	readonly etag: string
}
const made = new WeakMap<Registry, Map<string, Made>>()

function aggregated(registry: Registry, core: boolean, version: 'v2' | 'v2beta1', request: Request): Response {
	let kept = made.get(registry)
	if (kept === undefined) made.set(registry, (kept = new Map()))
	const key = `${core} ${version}`
	let document = kept.get(key)
	if (document === undefined || document.generation !== registry.generation) {
		const body = JSON.stringify(aggregate(registry, core, version))
		const etag = `"${createHash('sha256').update(body).digest('hex').toUpperCase()}"`
		kept.set(key, (document = { generation: registry.generation, body, etag }))
	}
	const headers = {
		'content-type': `application/json;g=apidiscovery.k8s.io;v=${version};as=APIGroupDiscoveryList`,
		etag: document.etag,
		vary: 'Accept',
		'cache-control': 'public',
	}
	if (request.headers.get('if-none-match') === document.etag) return new Response(null, { status: 304, headers })
	return new Response(document.body, { status: 200, headers })
}

function aggregate(registry: Registry, core: boolean, version: 'v2' | 'v2beta1'): object {
	const items = [...groupsOf(registry)]
		.filter(([name]) => (name === '') === core)
		.map(([name, versions]) => ({
			metadata: { ...(name === '' ? {} : { name }), creationTimestamp: null },
			versions: [...versions].map(([v, resources]) => ({
				version: v,
				resources: resources.map(aggregatedResource),
				freshness: 'Current',
			})),
		}))
	return { kind: 'APIGroupDiscoveryList', apiVersion: `apidiscovery.k8s.io/${version}`, metadata: {}, items }
}

function aggregatedResource(resource: Resource): object {
	const { group: groupName, version, kind } = resource
	return {
		resource: resource.plural,
		responseKind: { group: groupName, version, kind },
		scope: resource.namespaced ? 'Namespaced' : 'Cluster',
		singularResource: resource.singular,
		verbs: resource.verbs,
		...(resource.shortNames.length > 0 ? { shortNames: resource.shortNames } : {}),
		...(resource.categories.length > 0 ? { categories: resource.categories } : {}),
		...(resource.subresources.length > 0
			? {
					subresources: resource.subresources.map((sub) => ({
						subresource: sub.name,
						responseKind: sub.body ?? { group: groupName, version, kind },
						verbs: sub.verbs,
					})),
				}
			: {}),
	}
}
