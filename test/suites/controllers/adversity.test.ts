// The same work when things go wrong: controllers lost halfway, a server that refuses, watches that break.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import {
	configMaps,
	deployments,
	endpointSlices,
	namespaces,
	pods,
	replicaSets,
	services,
	statefulSets,
} from '../../../src/kube/kinds.ts'
import type { Transport } from '../../../src/kube/transport.ts'
import { openWorld, selecting, template, type World } from './world.ts'

const timeout = 60_000

/** Numbers between 0 and 1, the same in every run. */
function seeded(seed: number): () => number {
	return () => {
		seed = (seed + 0x6d2b79f5) | 0
		let t = Math.imul(seed ^ (seed >>> 15), 1 | seed)
		t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
		return ((t ^ (t >>> 14)) >>> 0) / 4294967296
	}
}

async function makeShop(world: World): Promise<void> {
	const { client } = world
	for (const name of ['a', 'b', 'c']) {
		await client.create(services, {
			metadata: { name, namespace: 'default' },
			spec: { selector: { app: name }, ports: [{ port: 80, targetPort: 8080 }] },
		})
		await client.create(deployments, {
			metadata: { name, namespace: 'default' },
			spec: { replicas: 5, selector: selecting(name), template: template(name) },
		})
	}
	await client.create(statefulSets, {
		metadata: { name: 'db', namespace: 'default' },
		spec: { replicas: 3, serviceName: 'db', selector: selecting('db'), template: template('db') },
	})
}

/** All that was asked for is there, and nothing more. */
async function expectShop(world: World, image: string): Promise<void> {
	for (const name of ['a', 'b', 'c']) {
		await world.until(
			deployments,
			`default/${name}`,
			(d) =>
				d?.status?.availableReplicas === 5 &&
				d.status.replicas === 5 &&
				d.status.updatedReplicas === 5 &&
				d.status.observedGeneration === d.metadata.generation,
		)
	}
	await world.until(
		statefulSets,
		'default/db',
		(s) => s?.status?.availableReplicas === 3 && s.status.updatedReplicas === 3,
	)
	await world.controllers.settled()
	const all = (await world.client.list(pods)).items
	assert.equal(all.length, 18)
	assert.ok(all.every((p) => p.metadata.labels?.app === 'db' || p.spec!.containers[0]!.image === image))
	const slices = (await world.client.list(endpointSlices)).items
	for (const name of ['a', 'b', 'c']) {
		const mine = slices.filter((s) => s.metadata.labels?.['kubernetes.io/service-name'] === name)
		const addresses = mine.flatMap((s) => s.endpoints ?? []).map((e) => e.addresses[0])
		const wanted = all.filter((p) => p.metadata.labels?.app === name).map((p) => p.status!.podIP)
		assert.deepEqual(addresses.sort(), wanted.sort())
	}
}

test('controllers lost in the middle of everything and started again finish it', { timeout }, async (t) => {
	const world = await openWorld(t)
	await makeShop(world)
	for (let i = 0; i < 5; i++) {
		await world.untilAll(pods, (all) => all.length >= 3 * i)
		await world.restart()
	}
	await expectShop(world, 'web')
	for (const name of ['a', 'b', 'c']) {
		await world.client.patch(deployments, `default/${name}`, { spec: { template: template(name, 'other') } })
	}
	await world.untilAll(replicaSets, (all) => all.length > 3)
	await world.restart()
	await expectShop(world, 'other')
	// What was deleted while nobody looked is collected.
	world.controllers.stop()
	await world.client.delete(deployments, 'default/a', { propagationPolicy: 'Background' })
	await world.client.delete(services, 'default/b')
	await world.restart()
	await world.untilAll(pods, (all) => !all.some((p) => p.metadata.labels?.app === 'a'))
	await world.untilAll(
		endpointSlices,
		(all) => !all.some((s) => s.metadata.labels?.['kubernetes.io/service-name'] === 'b'),
	)
})

for (const seed of [1, 2, 3]) {
	test(`a server that refuses one write in five, and one answer in ten lost (seed ${seed})`, { timeout }, async (t) => {
		const random = seeded(seed)
		const refuse = (code: number, reason: string) =>
			Response.json(
				{ kind: 'Status', apiVersion: 'v1', status: 'Failure', code, reason, message: 'by chance' },
				{ status: code },
			)
		const between =
			(transport: Transport): Transport =>
			async (request) => {
				if (request.method === 'GET') return transport(request)
				const chance = random()
				if (chance < 0.1) return refuse(500, 'InternalError')
				if (chance < 0.2) return refuse(409, 'Conflict')
				const answer = await transport(request)
				// Done, but nobody hears of it.
				return chance < 0.3 ? refuse(504, 'Timeout') : answer
			}
		const world = await openWorld(t, { between })
		await makeShop(world)
		await expectShop(world, 'web')
		for (const name of ['a', 'b', 'c']) {
			await world.client.patch(deployments, `default/${name}`, { spec: { template: template(name, 'other') } })
		}
		await expectShop(world, 'other')
	})
}

test('watches that break again and again', { timeout }, async (t) => {
	const random = seeded(7)
	const between =
		(transport: Transport): Transport =>
		async (request) => {
			const answer = await transport(request)
			if (!request.url.includes('watch=true') || answer.body === null) return answer
			let left = 1 + Math.floor(random() * 10)
			const cut = new TransformStream<Uint8Array, Uint8Array>({
				transform(chunk, controller) {
					controller.enqueue(chunk)
					if (--left === 0) controller.terminate()
				},
			})
			return new Response(answer.body.pipeThrough(cut), { status: answer.status, headers: answer.headers })
		}
	const world = await openWorld(t, { between })
	await makeShop(world)
	await expectShop(world, 'web')
})

/** Lets what the controllers see of some resources lag behind what is written. */
const lagging =
	(turns: number, resource = ''): ((transport: Transport) => Transport) =>
	(transport) =>
	async (request) => {
		const answer = await transport(request)
		if (!request.url.includes(`${resource}?watch=true`) || answer.body === null) return answer
		const late = new TransformStream<Uint8Array, Uint8Array>({
			async transform(chunk, controller) {
				for (let i = 0; i < turns; i++) await new Promise((resolve) => setImmediate(resolve))
				controller.enqueue(chunk)
			},
		})
		return new Response(answer.body.pipeThrough(late), { status: answer.status, headers: answer.headers })
	}

test('watches that lag: nothing is made twice', { timeout }, async (t) => {
	const world = await openWorld(t, { between: lagging(30) })
	const made = new Set<string>()
	const watching = (async () => {
		for await (const event of world.client.watch(pods, { signal: t.signal })) made.add(event.object.metadata.uid ?? '')
	})()
	void watching.catch(() => {})
	await makeShop(world)
	await expectShop(world, 'web')
	made.delete('')
	assert.equal(made.size, 18)
})

test('watches that lag: a namespace does not end before what nobody has seen yet', { timeout }, async (t) => {
	const world = await openWorld(t, { between: lagging(1000, '/configmaps') })
	await world.client.create(namespaces, { metadata: { name: 'brief' } })
	await Promise.all(
		Array.from({ length: 50 }, (_, i) =>
			world.client.create(configMaps, { metadata: { name: `late-${i}`, namespace: 'brief' } }),
		),
	)
	await world.client.delete(namespaces, 'brief')
	await world.until(namespaces, 'brief', (n) => n === undefined)
	assert.deepEqual((await world.client.list(configMaps, { namespace: 'brief' })).items, [])
})

test('many namespaces come and go at once', { timeout }, async (t) => {
	const world = await openWorld(t)
	const names = Array.from({ length: 10 }, (_, i) => `team-${i}`)
	await Promise.all(
		names.map(async (name) => {
			await world.client.create(namespaces, { metadata: { name } })
			await world.client.create(deployments, {
				metadata: { name: 'web', namespace: name },
				spec: { replicas: 3, selector: selecting('web'), template: template('web') },
			})
			// While its pods are being made.
			await world.client.delete(namespaces, name)
		}),
	)
	await world.untilAll(namespaces, (all) => !all.some((n) => names.includes(n.metadata.name)))
	await world.controllers.settled()
	assert.deepEqual((await world.client.list(pods)).items, [])
	assert.deepEqual((await world.client.list(replicaSets)).items, [])
})
