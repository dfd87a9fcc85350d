// How pods end, with real processes: hooks, order, TERM and KILL, readiness until the end, and what the API is told.

import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { pods } from '../../src/kube/kinds.ts'
import type { Container, Pod, PodSpec } from '../../src/kube/objects/pod.ts'
import { emptyConfig } from '../../src/lab/config.ts'
import { createTestLab, podObject, skip, type TestLab } from './lab.ts'

const timeout = 60_000
let lab: TestLab
const dir = mkdtempSync(join(tmpdir(), 'pw-end-'))

before(async () => {
	if (!skip) lab = await createTestLab('end', { ...emptyConfig, allowCommands: true })
})
after(async () => {
	if (!skip) await lab.remove()
	rmSync(dir, { recursive: true, force: true })
})

const file = (name: string) => join(dir, name)
const said = (name: string) => {
	try {
		return readFileSync(file(name), 'utf8').trim().split('\n')
	} catch {
		return []
	}
}
/** A program that says `NAME begins`, and at TERM `NAME ends` after `seconds`; what it says goes to `to`. */
const obedient = (name: string, to: string, more: Partial<Container> = {}, seconds = 0): Container => ({
	name,
	image: 'x',
	command: [
		'sh',
		'-c',
		`trap 'sleep ${seconds}; echo ${name} ends >>${file(to)}; exit 0' TERM; echo ${name} begins >>${file(to)}; while :; do sleep 0.1; done`,
	],
	...more,
})
/** Kept by a finalizer, so that its last status can be read. */
const kept = (name: string, spec: Partial<PodSpec>) => {
	const object = podObject(name, spec)
	return { ...object, metadata: { ...object.metadata, finalizers: ['example.com/kept'] } }
}
const release = (name: string) => lab.client.patch(pods, `default/${name}`, { metadata: { finalizers: null } })
const find = (name: string) => lab.client.find(pods, `default/${name}`)
const isReady = (pod: Pod) => pod.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True') === true

test('hooks first, then TERM, sidecars after the others and backwards; the last status tells it', {
	skip,
	timeout,
}, async () => {
	const hook = (name: string) => ({
		preStop: { exec: { command: ['sh', '-c', `echo ${name} hook >>${file('order')}`] } },
	})
	await lab.create(
		kept('order', {
			initContainers: [
				obedient('s1', 'order', { restartPolicy: 'Always', lifecycle: hook('s1') }),
				obedient('s2', 'order', { restartPolicy: 'Always' }),
			],
			containers: [obedient('a', 'order', { lifecycle: hook('a') }, 0.5)],
		}),
	)
	await lab.pod('order')
	await lab.until(async () => (said('order').length === 3 ? true : undefined))
	await lab.client.delete(pods, 'default/order')
	const pod = await lab.until(async () => {
		const found = await find('order')
		return found?.status?.phase === 'Succeeded' ? found : undefined
	})
	const all = said('order')
	assert.deepEqual(all.slice(0, 3).sort(), ['a begins', 's1 begins', 's2 begins'])
	assert.deepEqual(all.slice(3, 5).sort(), ['a hook', 's1 hook'], 'hooks of all begin at once')
	assert.deepEqual(all.slice(5), ['a ends', 's2 ends', 's1 ends'])
	const states = [...(pod.status?.initContainerStatuses ?? []), ...(pod.status?.containerStatuses ?? [])]
	assert.deepEqual(
		states.map((s) => [s.name, s.state?.terminated?.exitCode, s.restartCount]),
		[
			['s1', 0, 0],
			['s2', 0, 0],
			['a', 0, 0],
		],
	)
	await release('order')
	await lab.until(async () => ((await find('order')) === undefined ? true : undefined))
})

test('what ignores TERM is killed when the grace is over; grace 0 asks nobody', { skip, timeout }, async () => {
	const deaf = (name: string): Container => ({
		name,
		image: 'x',
		command: [
			'sh',
			'-c',
			`trap 'echo heard >>${file(name)}' TERM; echo up >>${file(name)}; while :; do sleep 0.1; done`,
		],
		lifecycle: { preStop: { exec: { command: ['sh', '-c', `echo hook >>${file(name)}`] } } },
	})
	await lab.create(kept('deaf', { terminationGracePeriodSeconds: 1, containers: [deaf('deaf')] }))
	await lab.create(podObject('hasty', { terminationGracePeriodSeconds: 0, containers: [deaf('hasty')] }))
	for (const name of ['deaf', 'hasty']) {
		await lab.pod(name)
		await lab.until(async () => (said(name).includes('up') ? true : undefined))
		await lab.client.delete(pods, `default/${name}`)
	}
	const pod = await lab.until(async () => {
		const found = await find('deaf')
		return found?.status?.phase === 'Failed' ? found : undefined
	})
	assert.equal(pod.status?.containerStatuses?.[0]?.state?.terminated?.exitCode, 137)
	assert.deepEqual(said('deaf'), ['up', 'hook', 'heard'])
	assert.deepEqual(said('hasty'), ['up'])
	await release('deaf')
})

test('less patience later: the pod ends sooner', { skip, timeout }, async () => {
	await lab.create(
		podObject('patient', {
			terminationGracePeriodSeconds: 600,
			containers: [{ name: 'c', image: 'nginx', lifecycle: { preStop: { sleep: { seconds: 300 } } } }],
		}),
	)
	await lab.pod('patient')
	await lab.client.delete(pods, 'default/patient')
	assert.notEqual((await find('patient'))?.metadata.deletionTimestamp, undefined)
	await lab.client.delete(pods, 'default/patient', { gracePeriodSeconds: 1 })
	await lab.until(async () => ((await find('patient')) === undefined ? true : undefined))
})

test('a hook that sleeps keeps it going and ready; readiness is asked until the end', { skip, timeout }, async () => {
	const ready = file('ready')
	await lab.create(
		kept('leaving', {
			containers: [
				{
					...obedient('c', 'leaving'),
					readinessProbe: { exec: { command: ['test', '!', '-e', ready] }, periodSeconds: 1, failureThreshold: 1 },
					livenessProbe: { exec: { command: ['test', '!', '-e', ready] }, periodSeconds: 1, failureThreshold: 1 },
					lifecycle: { preStop: { exec: { command: ['sh', '-c', `sleep 0.5; touch ${ready}; sleep 4`] } } },
				},
			],
		}),
	)
	await lab.pod('leaving')
	await lab.client.delete(pods, 'default/leaving')
	const going = await find('leaving')
	assert.ok(going?.metadata.deletionTimestamp !== undefined && isReady(going), 'still ready while it ends')
	const unready = await lab.until(async () => {
		const found = await find('leaving')
		return found !== undefined && !isReady(found) ? found : undefined
	})
	assert.ok(unready.status?.containerStatuses?.[0]?.state?.running !== undefined, 'not ready, but running')
	const over = await lab.until(async () => {
		const found = await find('leaving')
		return found?.status?.phase === 'Succeeded' ? found : undefined
	})
	assert.equal(over.status?.containerStatuses?.[0]?.restartCount, 0, 'liveness is not asked any more')
	await release('leaving')
})

test('work that is done ends its sidecars, and each container has its own policy', { skip, timeout }, async () => {
	await lab.create(
		podObject('work', {
			restartPolicy: 'Never',
			initContainers: [obedient('s', 'work', { restartPolicy: 'Always' })],
			containers: [{ name: 'c', image: 'x', command: ['sh', '-c', `sleep 0.3; echo done >>${file('work')}`] }],
		}),
	)
	const pod = await lab.until(async () => {
		const found = await find('work')
		return found?.status?.phase === 'Succeeded' ? found : undefined
	})
	assert.deepEqual(said('work'), ['s begins', 'done', 's ends'])
	assert.equal(pod.status?.initContainerStatuses?.[0]?.state?.terminated?.exitCode, 0)
	assert.equal(pod.status?.conditions?.find((c) => c.type === 'Initialized')?.status, 'True')
})

test('a failed liveness probe runs the preStop hook before the next run', { skip, timeout }, async () => {
	await lab.create(
		podObject('ill', {
			containers: [
				{
					...obedient('c', 'ill'),
					livenessProbe: {
						exec: { command: ['false'] },
						periodSeconds: 1,
						failureThreshold: 1,
						initialDelaySeconds: 1,
					},
					lifecycle: { preStop: { exec: { command: ['sh', '-c', `echo hook >>${file('ill')}`] } } },
				},
			],
		}),
	)
	await lab.until(async () => (said('ill').length >= 4 ? true : undefined))
	assert.deepEqual(said('ill').slice(0, 4), ['c begins', 'hook', 'c ends', 'c begins'])
	await lab.client.delete(pods, 'default/ill', { gracePeriodSeconds: 0 })
})
