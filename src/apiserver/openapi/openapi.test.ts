import assert from 'node:assert/strict'
import { test } from 'node:test'
import { apiVersionOf, resources } from '../../kube/resources.ts'
import { isObject, type Json, type JsonObject } from '../../kube/schema/json.ts'
import { typeOf } from '../../kube/schema/schema.ts'
import { WireReader } from '../protobuf/wire.ts'
import { type Documented, documentV2, documentV3 } from './documents.ts'
import { wordsOf } from './schemas.ts'
import { createOpenApi } from './serve.ts'
import { encodeSwagger } from './swagger-protobuf.ts'

const served: Documented[] = resources.map((resource) => {
	const apiVersion = apiVersionOf(resource)
	return { resource, apiVersion, type: typeOf(apiVersion, resource.kind) }
})

function at(value: Json | undefined, ...path: string[]): Json | undefined {
	return path.reduce<Json | undefined>((inner, key) => (isObject(inner) ? inner[key] : undefined), value)
}

function refsIn(value: Json, found: Set<string> = new Set()): Set<string> {
	if (Array.isArray(value)) for (const item of value as readonly Json[]) refsIn(item, found)
	else if (isObject(value))
		for (const [key, item] of Object.entries(value)) {
			if (key === '$ref' && typeof item === 'string') found.add(item)
			else if (item !== undefined) refsIn(item, found)
		}
	return found
}

const groupVersions = [...new Set(served.map((row) => row.apiVersion))]

test('every reference of every document leads somewhere', () => {
	for (const apiVersion of groupVersions) {
		const document = documentV3(apiVersion, served, 'v1.35.0')
		for (const ref of refsIn(document)) assert.ok(at(document, ...ref.split('/').slice(1)), `${apiVersion} ${ref}`)
	}
	const document = documentV2(served, 'v1.35.0')
	for (const ref of refsIn(document)) assert.ok(at(document, 'definitions', ref.replace('#/definitions/', '')), ref)
})

test('a kind is found by its path, as kubectl explain looks for it', () => {
	for (const { resource, apiVersion } of served) {
		if (!resource.verbs.includes('list')) continue
		const document = documentV3(apiVersion, served, 'v1.35.0')
		const base = resource.group === '' ? `/api/${resource.version}` : `/apis/${resource.group}/${resource.version}`
		const path = resource.namespaced
			? `${base}/namespaces/{namespace}/${resource.plural}`
			: `${base}/${resource.plural}`
		const { group, version, kind } = resource
		const gvk = { group, version, kind }
		assert.deepEqual(at(document, 'paths', path, 'get', 'x-kubernetes-group-version-kind'), gvk, path)
		const schemas = at(document, 'components', 'schemas') as JsonObject
		const owners = Object.values(schemas).filter((schema) => {
			const kinds = at(schema, 'x-kubernetes-group-version-kind') as Json[] | undefined
			return kinds?.some((k) => isObject(k) && k.kind === kind && k.group === group && k.version === version)
		})
		assert.equal(owners.length, 1, `${apiVersion} ${kind}`)
	}
})

test('patch operations say that they know fieldValidation and dryRun', () => {
	const document = documentV3('apps/v1', served, 'v1.35.0')
	const parameters = at(
		document,
		'paths',
		'/apis/apps/v1/namespaces/{namespace}/deployments/{name}',
		'patch',
		'parameters',
	)
	const names = (parameters as JsonObject[]).map((parameter) => parameter.name)
	for (const name of ['fieldValidation', 'dryRun', 'force', 'fieldManager']) assert.ok(names.includes(name), name)
})

test('schemas say how fields merge', () => {
	const schemas = at(documentV3('v1', served, 'v1.35.0'), 'components', 'schemas')
	const containers = at(schemas, 'io.k8s.api.core.v1.PodSpec', 'properties', 'containers')
	assert.equal(at(containers, 'x-kubernetes-patch-merge-key'), 'name')
	assert.equal(at(containers, 'x-kubernetes-patch-strategy'), 'merge')
	assert.deepEqual(at(containers, 'x-kubernetes-list-map-keys'), ['name'])
	assert.deepEqual(at(schemas, 'io.k8s.api.core.v1.PodSpec', 'required'), ['containers'])
	assert.equal(
		at(schemas, 'io.k8s.api.core.v1.PodSpec', 'properties', 'nodeSelector', 'x-kubernetes-map-type'),
		'atomic',
	)
	const protocol = at(schemas, 'io.k8s.api.core.v1.ServicePort', 'properties', 'protocol')
	assert.deepEqual(at(protocol, 'enum'), ['SCTP', 'TCP', 'UDP'])
	assert.equal(at(protocol, 'default'), 'TCP')
	const target = at(schemas, 'io.k8s.api.core.v1.ServicePort', 'properties', 'targetPort', 'allOf')
	assert.deepEqual(target, [{ $ref: '#/components/schemas/io.k8s.apimachinery.pkg.util.intstr.IntOrString' }])
})

test('a custom resource has the schema it was given', () => {
	const row = resources.find((resource) => resource.kind === 'Deployment')!
	const resource = { ...row, group: 'example.com', version: 'v1', kind: 'Thing', plural: 'things', subresources: [] }
	const custom: Documented = {
		resource,
		apiVersion: 'example.com/v1',
		type: undefined,
		openApiSchema: { type: 'object', description: 'A thing.', properties: { spec: { type: 'object' } } },
	}
	const document = documentV3('example.com/v1', [custom], 'v1.35.0')
	const thing = at(document, 'components', 'schemas', 'com.example.v1.Thing')
	assert.equal(at(thing, 'description'), 'A thing.')
	assert.deepEqual(Object.keys(at(thing, 'properties') as JsonObject), ['spec', 'apiVersion', 'kind', 'metadata'])
	for (const ref of refsIn(document)) assert.ok(at(document, ...ref.split('/').slice(1)), ref)
})

test('version 2 in protobuf is a document with the same names', () => {
	const document = documentV2(served, 'v1.35.0')
	const reader = new WireReader(encodeSwagger(document))
	const names = { 8: [] as string[], 9: [] as string[] }
	while (!reader.done) {
		const tag = reader.varint('') >>> 3
		const field = reader.nested('')
		if (tag !== 8 && tag !== 9) continue
		while (!field.done) {
			field.varint('')
			const entry = field.nested('')
			assert.equal(entry.varint(''), 10)
			names[tag].push(entry.nested('').text())
		}
	}
	assert.deepEqual(names[8], Object.keys(at(document, 'paths') as JsonObject))
	assert.deepEqual(names[9], Object.keys(at(document, 'definitions') as JsonObject))
})

test('documents are served by hash, and kept until what is served changes', async () => {
	const source = { generation: 0, rows: served, all: () => source.rows }
	const openApi = createOpenApi(source, 'v1.35.0')
	const get = (path: string, headers: Record<string, string> = {}): Response =>
		openApi(new Request(`http://x${path}`, { headers }))
	const index = (await get('/openapi/v3').json()) as { paths: Record<string, { serverRelativeURL: string }> }
	const url = index.paths['apis/apps/v1']!.serverRelativeURL
	const answer = get(url)
	assert.equal(answer.headers.get('content-type'), 'application/json')
	assert.match(answer.headers.get('cache-control')!, /immutable/)
	const etag = answer.headers.get('etag')!
	assert.equal(get(url, { 'if-none-match': etag }).status, 304)
	assert.equal(get('/openapi/v3/apis/nothing/v1').status, 404)
	assert.equal(get('/openapi').status, 404)
	assert.equal(get('/openapi/v3', { accept: 'application/x-other' }).status, 406)
	const protobuf = get('/openapi/v2', { accept: 'application/com.github.proto-openapi.spec.v2@v1.0+protobuf' })
	assert.equal(protobuf.headers.get('content-type'), 'application/com.github.proto-openapi.spec.v2.v1.0+protobuf')
	source.rows = served.filter((row) => row.apiVersion !== 'apps/v1')
	source.generation++
	assert.equal(get(url).status, 404)
})

test('names of fields read as words', () => {
	for (const [name, words] of [
		['terminationGracePeriodSeconds', 'Termination grace period seconds'],
		['hostIP', 'Host IP'],
		['podIPs', 'Pod IPs'],
		['clusterIP', 'Cluster IP'],
		['nonResourceURLs', 'Non resource URLs'],
		['fsGroup', 'Fs group'],
	] as const)
		assert.equal(wordsOf(name), words)
})
