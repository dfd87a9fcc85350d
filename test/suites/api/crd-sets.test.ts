// The CRD sets Podwire cares for (Gateway API, MCS, ClusterNetworkPolicy, Istio) on the embedded server: they install,
// every rule of theirs compiles, and objects of ours are accepted or refused as the definitions say.

import assert from 'node:assert/strict'
import { existsSync, readFileSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { parseAllDocuments } from 'yaml'
import { compileRule } from '../../../src/apiserver/crd/rules.ts'
import { readSchema, type Schema } from '../../../src/apiserver/crd/schema.ts'
import { type ApiServer, createApiServer } from '../../../src/apiserver/server.ts'
import { createStore } from '../../../src/apiserver/store.ts'
import { systemClock } from '../../../src/base/clock.ts'
import type { JsonObject } from '../../../src/kube/schema/json.ts'

const folder = new URL('../../../../shared/data/crds/', import.meta.url).pathname
const sets = {
	'gateway-api-v1.6.1-standard': 295,
	'gateway-api-v1.6.1-experimental': 350,
	'cluster-network-policy-v1alpha2': 8,
	'mcs-api-v1beta1': 0,
	istio: 398,
} as const

interface Definition {
	readonly metadata: { readonly name: string }
	readonly spec: { readonly versions: readonly { readonly schema: { readonly openAPIV3Schema: JsonObject } }[] }
}

function definitionsOf(set: string): readonly Definition[] {
	return parseAllDocuments(readFileSync(`${folder}${set}.yaml`, 'utf8'))
		.map((document) => document.toJS() as Definition | null)
		.filter((definition) => definition !== null)
}

interface Case {
	readonly what: string
	readonly object: Record<string, unknown> & { readonly apiVersion: string; readonly kind: string }
	/** Absent: it is accepted. Else the field and the words each fault must have. */
	readonly refused?: readonly (readonly [field: string, words: string])[]
}

const gateway = (more: object, listener: object = {}) => ({
	apiVersion: 'gateway.networking.k8s.io/v1',
	kind: 'Gateway',
	spec: {
		gatewayClassName: 'podwire',
		listeners: [{ name: 'http', port: 80, protocol: 'HTTP', ...listener }],
		...more,
	},
})
const route = (rule: object, more: object = {}) => ({
	apiVersion: 'gateway.networking.k8s.io/v1',
	kind: 'HTTPRoute',
	spec: { parentRefs: [{ name: 'gw' }], rules: [rule], ...more },
})
const backend = { name: 'shop', port: 8080 }
const path = (type: string, value: string) => ({ matches: [{ path: { type, value } }], backendRefs: [backend] })

const cases: readonly Case[] = [
	{ what: 'a Gateway', object: gateway({}) },
	{
		what: 'a Gateway with two listeners of a name',
		object: gateway({
			listeners: [
				{ name: 'a', port: 80, protocol: 'HTTP' },
				{ name: 'a', port: 81, protocol: 'HTTP' },
			],
		}),
		refused: [['spec.listeners[1]', 'Duplicate value: {"name":"a"}']],
	},
	{
		what: 'a Gateway whose listeners share port, protocol and hostname',
		object: gateway({
			listeners: [
				{ name: 'a', port: 80, protocol: 'HTTP' },
				{ name: 'b', port: 80, protocol: 'HTTP' },
			],
		}),
		refused: [['spec.listeners', 'Combination of port, protocol and hostname must be unique for each listener']],
	},
	{
		what: 'a Gateway with TLS on HTTP',
		object: gateway({}, { tls: { mode: 'Terminate', certificateRefs: [{ name: 'c' }] } }),
		refused: [['spec.listeners', "tls must not be specified for protocols ['HTTP', 'TCP', 'UDP']"]],
	},
	{
		what: 'a Gateway with a port beyond all ports',
		object: gateway({}, { port: 70000 }),
		refused: [['spec.listeners[0].port', 'spec.listeners[0].port in body should be less than or equal to 65535']],
	},
	{
		what: 'a Gateway without listeners',
		object: gateway({ listeners: undefined }),
		refused: [
			['spec.listeners', 'Required value'],
			['<nil>', 'some validation rules were not checked'],
		],
	},
	{ what: 'an HTTPRoute', object: route(path('PathPrefix', '/shop')) },
	{
		what: 'an HTTPRoute with timeouts',
		object: route({ ...path('Exact', '/a'), timeouts: { request: '10s', backendRequest: '2s' } }),
	},
	{
		what: 'an HTTPRoute whose backend may take longer than the request',
		object: route({ ...path('Exact', '/a'), timeouts: { request: '1s', backendRequest: '2s' } }),
		refused: [['spec.rules[0].timeouts', 'backendRequest timeout cannot be longer than request timeout']],
	},
	{
		what: 'an HTTPRoute with a path that does not begin with a slash',
		object: route(path('PathPrefix', 'shop')),
		refused: [
			[
				'spec.rules[0].matches[0].path',
				"value must be an absolute path and start with '/' when type one of ['Exact', 'PathPrefix']",
			],
		],
	},
	{
		what: 'an HTTPRoute with an escaped slash',
		object: route(path('Exact', '/a%2fb')),
		refused: [['spec.rules[0].matches[0].path', "must not contain '%2f' when type one of ['Exact', 'PathPrefix']"]],
	},
	{
		what: 'an HTTPRoute with a redirect and backends',
		object: route({
			...path('Exact', '/a'),
			filters: [{ type: 'RequestRedirect', requestRedirect: { statusCode: 301 } }],
		}),
		refused: [['spec.rules[0]', 'RequestRedirect filter must not be used together with backendRefs']],
	},
	{
		what: 'an HTTPRoute with a filter of another type than it says',
		object: route({ filters: [{ type: 'RequestHeaderModifier' }] }),
		refused: [
			[
				'spec.rules[0].filters[0]',
				'filter.requestHeaderModifier must be specified for RequestHeaderModifier filter.type',
			],
		],
	},
	{
		what: 'an HTTPRoute to a Service without a port',
		object: route({ backendRefs: [{ name: 'shop' }] }),
		refused: [['spec.rules[0].backendRefs[0]', 'Must have port for Service reference']],
	},
	{
		what: 'an HTTPRoute with a method nobody knows',
		object: route({ matches: [{ method: 'FETCH' }] }),
		refused: [
			['spec.rules[0].matches[0].method', 'Unsupported value: "FETCH"'],
			['<nil>', 'some validation rules were not checked'],
		],
	},
	{
		what: 'an HTTPRoute with a hostname that is an address',
		object: route(path('Exact', '/'), { hostnames: ['Shop.example'] }),
		refused: [['spec.hostnames[0]', 'spec.hostnames[0] in body should match']],
	},
	{
		what: 'a GRPCRoute',
		object: {
			apiVersion: 'gateway.networking.k8s.io/v1',
			kind: 'GRPCRoute',
			spec: { rules: [{ matches: [{ method: { service: 'shop.Cart', method: 'Add' } }] }] },
		},
	},
	{
		what: 'a GRPCRoute that matches neither service nor method',
		object: {
			apiVersion: 'gateway.networking.k8s.io/v1',
			kind: 'GRPCRoute',
			spec: { rules: [{ matches: [{ method: { type: 'Exact' } }] }] },
		},
		refused: [['spec.rules[0].matches[0].method', "One or both of 'service' or 'method' must be specified"]],
	},
	{
		what: 'a ServiceImport',
		object: {
			apiVersion: 'multicluster.x-k8s.io/v1beta1',
			kind: 'ServiceImport',
			spec: { ports: [{ port: 80 }], type: 'ClusterSetIP' },
		},
	},
	{
		what: 'a ServiceImport of a type nobody knows',
		object: {
			apiVersion: 'multicluster.x-k8s.io/v1beta1',
			kind: 'ServiceImport',
			spec: { ports: [{ port: 80 }], type: 'Magic' },
		},
		refused: [['spec.type', 'Unsupported value: "Magic"']],
	},
	{
		what: 'a ClusterNetworkPolicy',
		object: {
			apiVersion: 'policy.networking.k8s.io/v1alpha2',
			kind: 'ClusterNetworkPolicy',
			spec: {
				tier: 'Admin',
				priority: 10,
				subject: { namespaces: {} },
				egress: [{ action: 'Deny', to: [{ networks: ['10.0.0.0/8'] }] }],
			},
		},
	},
	{
		what: 'a ClusterNetworkPolicy with a network that is none',
		object: {
			apiVersion: 'policy.networking.k8s.io/v1alpha2',
			kind: 'ClusterNetworkPolicy',
			spec: {
				tier: 'Admin',
				priority: 10,
				subject: { namespaces: {} },
				egress: [{ action: 'Deny', to: [{ networks: ['10.0.0.0/33'] }] }],
			},
		},
		refused: [['spec.egress[0].to[0].networks[0]', 'Invalid CIDR format provided']],
	},
	{
		what: 'a ClusterNetworkPolicy with a range of ports turned round',
		object: {
			apiVersion: 'policy.networking.k8s.io/v1alpha2',
			kind: 'ClusterNetworkPolicy',
			spec: {
				tier: 'Admin',
				priority: 10,
				subject: { namespaces: {} },
				ingress: [
					{
						action: 'Accept',
						from: [{ namespaces: {} }],
						protocols: [{ tcp: { destinationPort: { range: { start: 90, end: 80 } } } }],
					},
				],
			},
		},
		refused: [['spec.ingress[0].protocols[0].tcp.destinationPort.range', 'Start port must be less than End port']],
	},
	{
		what: 'an Istio ServiceEntry',
		object: {
			apiVersion: 'networking.istio.io/v1',
			kind: 'ServiceEntry',
			spec: { hosts: ['api.example'], ports: [{ number: 443, name: 'https' }], resolution: 'DNS' },
		},
	},
	{
		what: 'an Istio ServiceEntry with a CIDR and DNS',
		object: {
			apiVersion: 'networking.istio.io/v1',
			kind: 'ServiceEntry',
			spec: {
				hosts: ['api.example'],
				addresses: ['10.0.0.0/8'],
				ports: [{ number: 443, name: 'https' }],
				resolution: 'DNS',
			},
		},
		refused: [['spec', 'CIDR addresses are allowed only for NONE/STATIC resolution types']],
	},
	{
		what: 'an Istio RequestAuthentication with a key set that is no URL',
		object: {
			apiVersion: 'security.istio.io/v1',
			kind: 'RequestAuthentication',
			spec: { jwtRules: [{ issuer: 'me', jwksUri: 'ftp://keys.example/jwks' }] },
		},
		refused: [['spec.jwtRules[0].jwksUri', 'url must have scheme http:// or https://']],
	},
	{
		what: 'an Istio PeerAuthentication with ports but no selector',
		object: {
			apiVersion: 'security.istio.io/v1',
			kind: 'PeerAuthentication',
			spec: { portLevelMtls: { 80: { mode: 'STRICT' } } },
		},
		refused: [['spec', 'portLevelMtls requires selector']],
	},
	{
		what: 'an Istio VirtualService in its first version',
		object: {
			apiVersion: 'networking.istio.io/v1alpha3',
			kind: 'VirtualService',
			spec: { hosts: ['shop'], http: [{ route: [{ destination: { host: 'shop' } }] }] },
		},
	},
	{
		what: 'an Istio DestinationRule with two ways to hash',
		object: {
			apiVersion: 'networking.istio.io/v1',
			kind: 'DestinationRule',
			spec: {
				host: 'shop',
				trafficPolicy: { loadBalancer: { simple: 'RANDOM', consistentHash: { httpHeaderName: 'x' } } },
			},
		},
		refused: [
			['spec.trafficPolicy.loadBalancer', 'must validate one and only one schema (oneOf). Found 2 valid alternatives'],
		],
	},
]

describe('CRD sets', { skip: existsSync(folder) ? false : 'the data folder is not here' }, () => {
	let server: ApiServer
	const faults: unknown[] = []
	const send = (method: string, to: string, body?: unknown, type = 'application/json') =>
		server.transport(
			new Request(`http://kubernetes${to}`, {
				method,
				headers: { 'content-type': type },
				...(body === undefined ? {} : { body: JSON.stringify(body) }),
			}),
		)
	const plurals = new Map<string, { readonly plural: string; readonly namespaced: boolean }>()

	before(async () => {
		server = await createApiServer({ store: createStore(), clock: systemClock, onFault: (e) => faults.push(e) })
	})
	after(() => {
		server.close()
		assert.deepEqual(faults, [])
	})

	for (const [set, count] of Object.entries(sets)) {
		test(`${set}: installs, and all ${count} rules compile`, async () => {
			let rules = 0
			for (const definition of definitionsOf(set)) {
				for (const { schema } of definition.spec.versions) {
					const visit = (at: Schema, isRoot: boolean): void => {
						for (const rule of at.rules) {
							compileRule(rule, at, isRoot)
							rules++
						}
						for (const below of at.properties?.values() ?? []) visit(below, false)
						if (at.items) visit(at.items, false)
						if (at.additional !== undefined && at.additional !== true) visit(at.additional, false)
					}
					visit(readSchema(schema.openAPIV3Schema), true)
				}
				const response = await send(
					'PATCH',
					`/apis/apiextensions.k8s.io/v1/customresourcedefinitions/${definition.metadata.name}?fieldManager=test&fieldValidation=Strict`,
					definition,
					'application/apply-patch+yaml',
				)
				assert.ok(response.status < 300, `${definition.metadata.name}: ${await response.text()}`)
				// Its conditions are a write of their own.
				await server.api.store.settled()
				const kept = (await (
					await send('GET', `/apis/apiextensions.k8s.io/v1/customresourcedefinitions/${definition.metadata.name}`)
				).json()) as { status: { conditions: { type: string; status: string }[] } }
				assert.equal(kept.status.conditions.find((c) => c.type === 'Established')?.status, 'True')
			}
			assert.equal(rules, count)
			const discovery = await server.transport(
				new Request('http://kubernetes/apis', {
					headers: { accept: 'application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList' },
				}),
			)
			const groups = (await discovery.json()) as {
				items: {
					metadata: { name: string }
					versions: {
						version: string
						resources: { resource: string; scope: string; responseKind: { kind: string } }[]
					}[]
				}[]
			}
			for (const group of groups.items)
				for (const { version, resources } of group.versions)
					for (const r of resources)
						plurals.set(`${group.metadata.name}/${version} ${r.responseKind.kind}`, {
							plural: r.resource,
							namespaced: r.scope === 'Namespaced',
						})
		})
	}

	for (const [i, { what, object, refused }] of cases.entries()) {
		test(`${refused ? 'refuses' : 'accepts'} ${what}`, async () => {
			const resource = plurals.get(`${object.apiVersion} ${object.kind}`)
			assert.ok(resource, 'its kind is served')
			const response = await send(
				'POST',
				`/apis/${object.apiVersion}${resource.namespaced ? '/namespaces/default' : ''}/${resource.plural}?fieldValidation=Strict`,
				{ metadata: { name: `try-${i}` }, ...object },
			)
			const body = (await response.json()) as {
				message?: string
				details?: { causes?: { field: string; message: string }[] }
			}
			if (refused === undefined) {
				assert.equal(response.status, 201, body.message)
				return
			}
			assert.equal(response.status, 422, body.message)
			for (const [field, words] of refused) {
				const found = body.details?.causes?.find((cause) => cause.field === field && cause.message.includes(words))
				assert.ok(found, `${field}: ${words}\nis not in\n${body.message}`)
			}
		})
	}
})
