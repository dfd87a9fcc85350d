import assert from 'node:assert/strict'
import { test } from 'node:test'
import { canonical } from '../../kube/schema/canonical.ts'
import type { JsonObject } from '../../kube/schema/json.ts'
import { typeOf } from '../../kube/schema/schema.ts'
import { applyDefaults } from './defaults.ts'
import { pullPolicyOf } from './pod.ts'

function defaulted(object: object): JsonObject {
	const json = object as JsonObject
	const type = typeOf(String(json.apiVersion), String(json.kind))!
	return applyDefaults(canonical(json, type))
}

const container = {
	imagePullPolicy: 'Always',
	resources: {},
	terminationMessagePath: '/dev/termination-log',
	terminationMessagePolicy: 'File',
}
const podSpec = {
	dnsPolicy: 'ClusterFirst',
	restartPolicy: 'Always',
	schedulerName: 'default-scheduler',
	securityContext: {},
	terminationGracePeriodSeconds: 30,
}
const template = { metadata: {}, spec: { containers: [{ name: 'a', image: 'a' }] } }
const templateOut = { metadata: {}, spec: { containers: [{ name: 'a', image: 'a', ...container }], ...podSpec } }

test('objects get the defaults of a real server', () => {
	const cases: [name: string, object: object, spec: object][] = [
		[
			'Pod: requests follow limits, probes, ports, volumes',
			{
				apiVersion: 'v1',
				kind: 'Pod',
				spec: {
					containers: [
						{
							name: 'a',
							image: 'r:5000/a:v1',
							ports: [{ containerPort: 80 }],
							resources: { limits: { cpu: '1000m', memory: '1024Mi' }, requests: { cpu: 0.5 } },
							readinessProbe: { httpGet: { port: 80 } },
							env: [{ name: 'IP', valueFrom: { fieldRef: { fieldPath: 'status.podIP' } } }],
						},
					],
					volumes: [{ name: 'v' }, { name: 's', secret: { secretName: 's' } }],
				},
			},
			{
				containers: [
					{
						name: 'a',
						image: 'r:5000/a:v1',
						ports: [{ containerPort: 80, protocol: 'TCP' }],
						env: [{ name: 'IP', valueFrom: { fieldRef: { apiVersion: 'v1', fieldPath: 'status.podIP' } } }],
						readinessProbe: {
							httpGet: { path: '/', port: 80, scheme: 'HTTP' },
							timeoutSeconds: 1,
							periodSeconds: 10,
							successThreshold: 1,
							failureThreshold: 3,
						},
						...container,
						...{ imagePullPolicy: 'IfNotPresent' },
						...{ resources: { limits: { cpu: '1', memory: '1Gi' }, requests: { cpu: '500m', memory: '1Gi' } } },
					},
				],
				volumes: [
					{ name: 'v', emptyDir: {} },
					{ name: 's', secret: { secretName: 's', defaultMode: 420 } },
				],
				enableServiceLinks: true,
				...podSpec,
			},
		],
		[
			'Pod on the host network: host ports are the container ports',
			{
				apiVersion: 'v1',
				kind: 'Pod',
				spec: { hostNetwork: true, containers: [{ name: 'a', image: 'a', ports: [{ containerPort: 80 }] }] },
			},
			{
				hostNetwork: true,
				containers: [
					{ name: 'a', image: 'a', ports: [{ containerPort: 80, hostPort: 80, protocol: 'TCP' }], ...container },
				],
				enableServiceLinks: true,
				...podSpec,
			},
		],
		[
			'Service',
			{
				apiVersion: 'v1',
				kind: 'Service',
				spec: { ports: [{ port: 80 }, { port: 53, protocol: 'UDP', targetPort: 'dns' }] },
			},
			{
				type: 'ClusterIP',
				sessionAffinity: 'None',
				internalTrafficPolicy: 'Cluster',
				ports: [
					{ port: 80, protocol: 'TCP', targetPort: 80 },
					{ port: 53, protocol: 'UDP', targetPort: 'dns' },
				],
			},
		],
		[
			'Service of type LoadBalancer with affinity',
			{
				apiVersion: 'v1',
				kind: 'Service',
				spec: { type: 'LoadBalancer', sessionAffinity: 'ClientIP', ports: [{ port: 80 }] },
			},
			{
				type: 'LoadBalancer',
				sessionAffinity: 'ClientIP',
				sessionAffinityConfig: { clientIP: { timeoutSeconds: 10800 } },
				internalTrafficPolicy: 'Cluster',
				externalTrafficPolicy: 'Cluster',
				allocateLoadBalancerNodePorts: true,
				ports: [{ port: 80, protocol: 'TCP', targetPort: 80 }],
			},
		],
		[
			'Service of type ExternalName',
			{ apiVersion: 'v1', kind: 'Service', spec: { type: 'ExternalName', externalName: 'a.b' } },
			{ type: 'ExternalName', externalName: 'a.b', sessionAffinity: 'None' },
		],
		[
			'Deployment',
			{ apiVersion: 'apps/v1', kind: 'Deployment', spec: { selector: {}, template } },
			{
				selector: {},
				replicas: 1,
				revisionHistoryLimit: 10,
				progressDeadlineSeconds: 600,
				strategy: { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: '25%', maxSurge: '25%' } },
				template: templateOut,
			},
		],
		[
			'DaemonSet',
			{ apiVersion: 'apps/v1', kind: 'DaemonSet', spec: { selector: {}, template } },
			{
				selector: {},
				revisionHistoryLimit: 10,
				updateStrategy: { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: 1, maxSurge: 0 } },
				template: templateOut,
			},
		],
		[
			'StatefulSet',
			{ apiVersion: 'apps/v1', kind: 'StatefulSet', spec: { selector: {}, serviceName: 's', template } },
			{
				selector: {},
				serviceName: 's',
				replicas: 1,
				revisionHistoryLimit: 10,
				podManagementPolicy: 'OrderedReady',
				updateStrategy: { type: 'RollingUpdate', rollingUpdate: { partition: 0 } },
				persistentVolumeClaimRetentionPolicy: { whenDeleted: 'Retain', whenScaled: 'Retain' },
				template: templateOut,
			},
		],
		[
			'Job',
			{ apiVersion: 'batch/v1', kind: 'Job', spec: { template } },
			{
				template: templateOut,
				completions: 1,
				parallelism: 1,
				backoffLimit: 6,
				completionMode: 'NonIndexed',
				suspend: false,
				podReplacementPolicy: 'TerminatingOrFailed',
			},
		],
		[
			'NetworkPolicy',
			{
				apiVersion: 'networking.k8s.io/v1',
				kind: 'NetworkPolicy',
				spec: { podSelector: {}, egress: [{ ports: [{ port: 53 }] }] },
			},
			{ podSelector: {}, egress: [{ ports: [{ port: 53, protocol: 'TCP' }] }], policyTypes: ['Ingress', 'Egress'] },
		],
	]
	for (const [name, object, spec] of cases) {
		const out = defaulted(object)
		assert.deepEqual(out.spec, spec, name)
		assert.deepEqual(applyDefaults(out), out, `${name}: a second time changes nothing`)
	}
})

test('EndpointSlice ports have a name and a protocol', () => {
	const slice = {
		apiVersion: 'discovery.k8s.io/v1',
		kind: 'EndpointSlice',
		addressType: 'IPv4',
		endpoints: [],
		ports: [{ port: 80 }],
	}
	assert.deepEqual(defaulted(slice).ports, [{ name: '', protocol: 'TCP', port: 80 }])
})

test('images of the tag latest are always pulled', () => {
	for (const [image, policy] of [
		['nginx', 'Always'],
		['nginx:latest', 'Always'],
		['nginx:1.2', 'IfNotPresent'],
		['registry:5000/nginx', 'Always'],
		['registry:5000/nginx:1', 'IfNotPresent'],
		['nginx@sha256:abc', 'IfNotPresent'],
		['', 'Always'],
	])
		assert.equal(pullPolicyOf(image), policy, image)
})

test('an object without rules is given back as it is', () => {
	const lease = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { name: 'a' } }
	assert.equal(applyDefaults(lease), lease)
})
