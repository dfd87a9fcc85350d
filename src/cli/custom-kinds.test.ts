// Manifests with definitions and objects of the kinds they define, brought to an API server.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { type ApiServer, createApiServer } from '../apiserver/server.ts'
import { createStore } from '../apiserver/store.ts'
import { systemClock } from '../base/clock.ts'
import { createKubeClient, type KubeClient } from '../kube/client.ts'
import type { KubeObject } from '../kube/objects/meta.ts'
import type { ObjectSource } from '../model/state.ts'
import { applyItems, claimItems, type Item, sortItems } from './apply.ts'

const definition = (group: string, more: object = {}) =>
	({
		apiVersion: 'apiextensions.k8s.io/v1',
		kind: 'CustomResourceDefinition',
		metadata: { name: `doors.${group}` },
		spec: {
			group,
			scope: 'Namespaced',
			names: { plural: 'doors', kind: 'Door' },
			versions: [
				{
					name: 'v1',
					served: true,
					storage: true,
					schema: {
						openAPIV3Schema: {
							type: 'object',
							properties: {
								spec: { type: 'object', properties: { width: { type: 'integer', minimum: 1 } } },
							},
						},
					},
				},
			],
			...more,
		},
	}) as unknown as KubeObject
const door = (group: string, name: string, width: number, namespace?: string) =>
	({
		apiVersion: `${group}/v1`,
		kind: 'Door',
		metadata: { name, ...(namespace === undefined ? {} : { namespace }) },
		spec: { width },
	}) as unknown as KubeObject
const source: ObjectSource = { file: 'doors.yaml', lines: { '': 1 } }
const from = (...objects: KubeObject[]) => objects.map((object) => ({ object, source }))

let server: ApiServer
let client: KubeClient
before(async () => {
	server = await createApiServer({ store: createStore(), clock: systemClock })
	client = createKubeClient(server.transport)
})
after(() => server.close())

const names = (items: readonly Item[]) => items.map((i) => `${i.object.kind} ${i.object.metadata.name}`)
const doors = async (group: string) =>
	(await client.raw<{ items: KubeObject[] }>(`/apis/${group}/v1/doors`)).items.map(
		(o) => `${o.metadata.namespace}/${o.metadata.name}`,
	)

test('kinds of definitions among the manifests are known, and come after them', async () => {
	const { items, ignored } = sortItems(
		from(door('a.example', 'front', 2), definition('a.example'), door('b.example', 'other', 1)),
		'default',
	)
	assert.deepEqual(names(items), ['CustomResourceDefinition doors.a.example', 'Door front'])
	assert.deepEqual(
		ignored.map((i) => i.apiVersion),
		['b.example/v1'],
	)
	assert.deepEqual(await applyItems(client, items, () => {}), [])
	assert.deepEqual(await doors('a.example'), ['default/front'])
})

test('kinds the cluster has already are known once it is asked', async () => {
	const loaded = sortItems(from(door('a.example', 'back', 1), door('b.example', 'other', 1)), 'default')
	assert.equal(loaded.items.length, 0)
	const { items, ignored } = await claimItems(client, loaded, 'default')
	assert.deepEqual([names(items), ignored.length], [['Door back'], 1])
	assert.deepEqual(await applyItems(client, items, () => {}), [])
	assert.deepEqual(await doors('a.example'), ['default/back', 'default/front'])
})

test('an object its definition forbids is refused before anything but definitions is applied', async () => {
	const { items } = sortItems(
		from(
			{ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'late' } } as KubeObject,
			definition('c.example'),
			door('c.example', 'good', 1),
			door('c.example', 'bad', 0),
		),
		'default',
	)
	const refusals = await applyItems(client, items, () => {})
	assert.deepEqual(
		refusals.flatMap((r) => r.lines),
		[
			'doors.yaml:1: Door default/bad: spec.width: Invalid value: 0: spec.width in body should be greater than or equal to 1',
		],
	)
	assert.deepEqual(await doors('c.example'), [])
	await assert.rejects(client.raw('/api/v1/namespaces/default/configmaps/late'))
})

test('a new namespace and objects of a new kind in it', async () => {
	const { items } = sortItems(
		from(door('d.example', 'gate', 3, 'castle'), definition('d.example'), {
			apiVersion: 'v1',
			kind: 'Namespace',
			metadata: { name: 'castle' },
		} as KubeObject),
		'default',
	)
	assert.deepEqual(await applyItems(client, items, () => {}), [])
	assert.deepEqual(await doors('d.example'), ['castle/gate'])
})

test('a definition whose names are taken is refused, and why', async () => {
	const { items } = sortItems(
		from({
			...definition('a.example', { names: { plural: 'gates', kind: 'Door' } }),
			metadata: { name: 'gates.a.example' },
		} as KubeObject),
		'default',
	)
	const refusals = await applyItems(client, items, () => {})
	assert.deepEqual(
		refusals.flatMap((r) => r.lines),
		['CustomResourceDefinition gates.a.example is not served: "DoorList" is already in use'],
	)
})
