import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ConfigMap, Secret, Service } from '../../kube/objects/core.ts'
import type { Container, Pod } from '../../kube/objects/pod.ts'
import { type EnvironmentInput, environmentOf, expand, fieldOf, resourceOf, serviceVariables } from './environment.ts'

const service = (name: string, clusterIP: string): Service => ({
	apiVersion: 'v1',
	kind: 'Service',
	metadata: { name, namespace: 'shop' },
	spec: {
		clusterIP,
		ports: [
			{ name: 'http', port: 80 },
			{ name: 'dns', port: 53, protocol: 'UDP' },
		],
	},
})

test('the variables of a Service', () => {
	assert.deepEqual(serviceVariables(service('redis-primary', '10.96.0.11')), {
		REDIS_PRIMARY_SERVICE_HOST: '10.96.0.11',
		REDIS_PRIMARY_SERVICE_PORT: '80',
		REDIS_PRIMARY_SERVICE_PORT_HTTP: '80',
		REDIS_PRIMARY_SERVICE_PORT_DNS: '53',
		REDIS_PRIMARY_PORT: 'tcp://10.96.0.11:80',
		REDIS_PRIMARY_PORT_80_TCP: 'tcp://10.96.0.11:80',
		REDIS_PRIMARY_PORT_80_TCP_PROTO: 'tcp',
		REDIS_PRIMARY_PORT_80_TCP_PORT: '80',
		REDIS_PRIMARY_PORT_80_TCP_ADDR: '10.96.0.11',
		REDIS_PRIMARY_PORT_53_UDP: 'udp://10.96.0.11:53',
		REDIS_PRIMARY_PORT_53_UDP_PROTO: 'udp',
		REDIS_PRIMARY_PORT_53_UDP_PORT: '53',
		REDIS_PRIMARY_PORT_53_UDP_ADDR: '10.96.0.11',
	})
	assert.deepEqual(serviceVariables(service('headless', 'None')), {})
})

test('$(NAME) is replaced where NAME is known, $$ is a dollar', () => {
	const env = { A: '1', 'B.C': '2' }
	for (const [text, want] of [
		['$(A)', '1'],
		['x$(A)y$(B.C)', 'x1y2'],
		['$(NOPE)', '$(NOPE)'],
		['$$(A)', '$(A)'],
		['$$$(A)', '$1'],
		['$A', '$A'],
		['$(A', '$(A'],
		['$(toString)', '$(toString)'],
		['$(A$(A))', '$(A$(A))'],
		['$()$(A)', '$()1'],
		['$$$$(A)', '$$(A)'],
		['$(B.C)$', '2$'],
	]) {
		assert.equal(expand(text as string, env), want, text)
	}
})

const container: Container = {
	name: 'c',
	resources: { limits: { cpu: '1500m', memory: '64Mi' } },
	envFrom: [{ prefix: 'P_', configMapRef: { name: 'settings' } }],
	env: [
		{ name: 'ADDR', value: 'redis:$(REDIS_SERVICE_PORT)' },
		{ name: 'NODE', valueFrom: { fieldRef: { fieldPath: 'spec.nodeName' } } },
		{ name: 'IP', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } },
		{ name: 'LABEL', valueFrom: { fieldRef: { fieldPath: "metadata.labels['app']" } } },
		{ name: 'SECRET', valueFrom: { secretKeyRef: { name: 'keys', key: 'token' } } },
		{ name: 'OPTIONAL', valueFrom: { configMapKeyRef: { name: 'none', key: 'k', optional: true } } },
		{ name: 'MISSING', valueFrom: { configMapKeyRef: { name: 'settings', key: 'nope' } } },
		{ name: 'CPU', valueFrom: { resourceFieldRef: { resource: 'limits.cpu' } } },
		{ name: 'MEMORY', valueFrom: { resourceFieldRef: { resource: 'limits.memory', divisor: '1Mi' } } },
	],
}
const pod: Pod = {
	apiVersion: 'v1',
	kind: 'Pod',
	metadata: { name: 'web-0', namespace: 'shop', labels: { app: 'web' } },
	spec: { nodeName: 'node-2', containers: [container] },
}
const input: EnvironmentInput = {
	pod,
	container,
	services: [service('redis', '10.96.0.11')],
	configMaps: new Map([
		[
			'settings',
			{ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'settings' }, data: { COLOR: 'red' } } as ConfigMap,
		],
	]),
	secrets: new Map([
		['keys', { apiVersion: 'v1', kind: 'Secret', metadata: { name: 'keys' }, data: { token: 'c2VjcmV0' } } as Secret],
	]),
	hostname: 'web-0',
	nodeIps: ['172.18.0.3'],
	podIps: ['10.244.1.5'],
}

test('env with references, and what is missing', () => {
	const { env, missing } = environmentOf(input)
	assert.equal(env.HOSTNAME, 'web-0')
	assert.equal(env.P_COLOR, 'red')
	assert.equal(env.ADDR, 'redis:80')
	assert.equal(env.NODE, 'node-2')
	assert.equal(env.IP, '10.244.1.5')
	assert.equal(env.LABEL, 'web')
	assert.equal(env.SECRET, 'secret')
	assert.equal(env.CPU, '2', 'whole cores, rounded up')
	assert.equal(env.MEMORY, '64')
	assert.ok(!('OPTIONAL' in env))
	assert.deepEqual(missing, [{ text: "couldn't find key nope in configmap shop/settings" }])
})

test('the downward API of a pod of both families', () => {
	const both = { pod, nodeIps: ['172.18.0.3', 'fd00:172:18::3'], podIps: ['10.244.1.5', 'fd00:10:244:1::5'] }
	assert.deepEqual(
		['status.hostIP', 'status.hostIPs', 'status.podIP', 'status.podIPs'].map((path) => fieldOf(path, both)),
		['172.18.0.3', '172.18.0.3,fd00:172:18::3', '10.244.1.5', '10.244.1.5,fd00:10:244:1::5'],
	)
})

test('enableServiceLinks false leaves only the API server, a missing map is named', () => {
	const { env, missing } = environmentOf({
		...input,
		pod: { ...pod, spec: { ...pod.spec, containers: [container], enableServiceLinks: false } },
		kubernetes: service('kubernetes', '10.96.0.1'),
		configMaps: new Map(),
	})
	assert.equal(env.KUBERNETES_SERVICE_HOST, '10.96.0.1')
	assert.ok(!('REDIS_SERVICE_HOST' in env))
	assert.equal(env.ADDR, 'redis:$(REDIS_SERVICE_PORT)')
	assert.deepEqual(
		missing.map((m) => m.text),
		['configmap "settings" not found', 'configmap "settings" not found'],
	)
})

test('the order: Services, then envFrom, then env, each able to refer to what came before', () => {
	const of = (container: Partial<Container>, more: Partial<EnvironmentInput> = {}) =>
		environmentOf({ ...input, container: { name: 'c', ...container }, ...more }).env
	const from = { envFrom: [{ configMapRef: { name: 'settings' } }, { secretRef: { name: 'keys' } }] }
	const data = (values: Record<string, string>) =>
		new Map([
			['settings', { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'settings' }, data: values } as ConfigMap],
		])
	const cases: readonly (readonly [
		what: string,
		env: Readonly<Record<string, string>>,
		name: string,
		value: string | undefined,
	])[] = [
		['env goes before a Service', of({ env: [{ name: 'REDIS_PORT', value: 'mine' }] }), 'REDIS_PORT', 'mine'],
		['envFrom goes before a Service', of(from, { configMaps: data({ REDIS_PORT: 'map' }) }), 'REDIS_PORT', 'map'],
		['env goes before envFrom', of({ ...from, env: [{ name: 'COLOR', value: 'blue' }] }), 'COLOR', 'blue'],
		['of several envFrom the last', of(from, { configMaps: data({ token: 'map' }) }), 'token', 'secret'],
		[
			'of several env the last',
			of({
				env: [
					{ name: 'A', value: '1' },
					{ name: 'A', value: '2' },
				],
			}),
			'A',
			'2',
		],
		['refers to envFrom', of({ ...from, env: [{ name: 'A', value: '$(COLOR)' }] }), 'A', 'red'],
		[
			'not to a later one',
			of({
				env: [
					{ name: 'A', value: '$(B)' },
					{ name: 'B', value: '1' },
				],
			}),
			'A',
			'$(B)',
		],
		[
			'to itself as it was',
			of({
				env: [
					{ name: 'A', value: '1' },
					{ name: 'A', value: '$(A)2' },
				],
			}),
			'A',
			'12',
		],
		[
			'values of envFrom are not expanded',
			of(from, { configMaps: data({ A: '$(REDIS_PORT)' }) }),
			'A',
			'$(REDIS_PORT)',
		],
		['HOSTNAME is the runtime’s', of({ env: [{ name: 'A', value: '$(HOSTNAME)' }] }), 'A', '$(HOSTNAME)'],
		['HOSTNAME may be set', of({ env: [{ name: 'HOSTNAME', value: 'x' }] }), 'HOSTNAME', 'x'],
		['no value is an empty one', of({ env: [{ name: 'A' }] }), 'A', ''],
	]
	for (const [what, env, name, value] of cases) assert.equal(env[name], value, what)
})

test('Services the pod is told of', () => {
	const of = (services: readonly Service[], links?: boolean) =>
		environmentOf({
			...input,
			container: { name: 'c' },
			pod: { ...pod, spec: { containers: [], ...(links === undefined ? {} : { enableServiceLinks: links }) } },
			services,
			kubernetes: service('kubernetes', '10.96.0.1'),
		}).env
	const own = service('kubernetes', '10.96.9.9')
	const external: Service = { ...service('far', ''), spec: { type: 'ExternalName', externalName: 'example.com' } }
	const six = service('six', 'fd00:10:96::5')
	const cases: readonly (readonly [
		what: string,
		env: Readonly<Record<string, string>>,
		name: string,
		value: string | undefined,
	])[] = [
		['the API server’s, always', of([]), 'KUBERNETES_SERVICE_HOST', '10.96.0.1'],
		['also without links', of([own], false), 'KUBERNETES_SERVICE_HOST', '10.96.0.1'],
		['the namespace’s own of that name', of([own]), 'KUBERNETES_SERVICE_HOST', '10.96.9.9'],
		[
			'a headless one of that name does not count',
			of([service('kubernetes', 'None')]),
			'KUBERNETES_SERVICE_HOST',
			'10.96.0.1',
		],
		['none without a ClusterIP', of([external, service('h', 'None')]), 'FAR_SERVICE_HOST', undefined],
		['an IPv6 address in a URL', of([six]), 'SIX_PORT_80_TCP', 'tcp://[fd00:10:96::5]:80'],
		['and bare', of([six]), 'SIX_PORT_80_TCP_ADDR', 'fd00:10:96::5'],
	]
	for (const [what, env, name, value] of cases) assert.equal(env[name], value, what)
})

test('resources as whole numbers of the divisor', () => {
	const with_ = (resources: Container['resources']): Pod => ({
		...pod,
		spec: { containers: [{ name: 'c', ...(resources === undefined ? {} : { resources }) }] },
	})
	const cases: readonly (readonly [
		resources: Container['resources'],
		resource: string,
		divisor: string | undefined,
		value: string,
	])[] = [
		[{ limits: { cpu: '250m' } }, 'limits.cpu', undefined, '1'],
		[{ limits: { cpu: '570m' } }, 'limits.cpu', '1m', '570'],
		[{ limits: { cpu: '0.3' } }, 'limits.cpu', '1m', '300'],
		[{ limits: { memory: '1.5Gi' } }, 'limits.memory', '1Mi', '1536'],
		[{ limits: { memory: '1G' } }, 'limits.memory', '1Mi', '954'],
		[{ limits: { memory: '1e3' } }, 'limits.memory', '0', '1000'],
		[{ requests: { cpu: '2' } }, 'requests.cpu', '1', '2'],
		[{}, 'requests.cpu', '1', '0'],
		[{}, 'limits.cpu', '1', '4'],
		[{}, 'limits.memory', '1Ki', '2048'],
		[{ limits: { 'hugepages-2Mi': '4Mi' } }, 'limits.hugepages-2Mi', '1Mi', '4'],
	]
	for (const [resources, resource, divisor, value] of cases) {
		const reference = { resource, ...(divisor === undefined ? {} : { divisor }) }
		const got = resourceOf(reference, with_(resources), { cpu: '4', memory: '2Mi' }, 'c')
		assert.equal(got, value, JSON.stringify([resources, reference]))
	}
})
