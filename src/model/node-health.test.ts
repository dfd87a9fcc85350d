// What counts as health of a node: ready endpoints there, each pod once.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { KubeObject } from '../kube/objects/meta.ts'
import { build } from './build.ts'
import { nodeHealth } from './node-health.ts'
import { emptyState, setObjects } from './state.ts'

const service = {
	apiVersion: 'v1',
	kind: 'Service',
	metadata: { name: 'web', namespace: 'default' },
	spec: {
		clusterIPs: ['10.96.0.1', 'fd00::1'],
		ports: [
			{ name: 'a', port: 80 },
			{ name: 'b', port: 81 },
		],
	},
} as unknown as KubeObject

/** A slice with both ports and one endpoint of each condition: `node ready|terminating|not-ready`. */
function slice(addressType: 'IPv4' | 'IPv6', ...endpoints: [ip: string, node: string, state: string][]): KubeObject {
	return {
		apiVersion: 'discovery.k8s.io/v1',
		kind: 'EndpointSlice',
		metadata: { name: addressType, namespace: 'default', labels: { 'kubernetes.io/service-name': 'web' } },
		addressType,
		ports: [
			{ name: 'a', port: 8080 },
			{ name: 'b', port: 8081 },
		],
		endpoints: endpoints.map(([ip, nodeName, state]) => ({
			addresses: [ip],
			nodeName,
			conditions: { ready: state === 'ready', serving: state !== 'not-ready', terminating: state === 'terminating' },
		})),
	} as unknown as KubeObject
}

function counts(...slices: KubeObject[]): number[] {
	const model = build(
		setObjects(
			emptyState(),
			[service, ...slices].map((object) => ({ object })),
		),
	)
	return ['near', 'far'].map((node) => nodeHealth(model.services.get('default/web')!, node).localEndpoints)
}

test('ready endpoints of the node, each once whatever its ports', () => {
	assert.deepEqual(counts(), [0, 0])
	assert.deepEqual(counts(slice('IPv4', ['10.244.0.5', 'near', 'ready'], ['10.244.0.6', 'near', 'ready'])), [2, 0])
	assert.deepEqual(counts(slice('IPv4', ['10.244.0.5', 'near', 'not-ready'], ['10.244.1.5', 'far', 'ready'])), [0, 1])
})

test('those that end do not count, though they still serve', () => {
	assert.deepEqual(counts(slice('IPv4', ['10.244.0.5', 'near', 'terminating'])), [0, 0])
})

test('a pod with both families is one', () => {
	const both = [slice('IPv4', ['10.244.0.5', 'near', 'ready']), slice('IPv6', ['fd00:1::5', 'near', 'ready'])]
	assert.deepEqual(counts(...both), [1, 0])
})
