import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { ConfigMap, Secret, Service } from '../../kube/objects/core.ts'
import type { Container, Pod } from '../../kube/objects/pod.ts'
import { type EnvironmentInput, environmentOf, expand, serviceVariables } from './environment.ts'

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
	nodeIp: '172.18.0.3',
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
