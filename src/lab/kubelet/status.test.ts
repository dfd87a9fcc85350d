import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Pod, PodSpec, PodStatus } from '../../kube/objects/pod.ts'
import type { ContainerState, ContainerStatus } from '../workloads/protocol.ts'
import { type PodFacts, podStatusOf } from './status.ts'

const running: ContainerState = { state: 'running', startedAt: 1_000 }
const ended = (exitCode: number): ContainerState => ({
	state: 'terminated',
	startedAt: 0,
	finishedAt: 1_000,
	exitCode,
	reason: exitCode === 0 ? 'Completed' : 'Error',
})
const crashing: ContainerState = { state: 'waiting', reason: 'CrashLoopBackOff' }

function facts(spec: Partial<PodSpec>, states: Record<string, ContainerState>, status?: PodStatus): PodFacts {
	const pod: Pod = {
		apiVersion: 'v1',
		kind: 'Pod',
		metadata: { name: 'p', namespace: 'd', uid: 'u' },
		spec: { containers: [{ name: 'a', image: 'x' }], ...spec },
		...(status === undefined ? {} : { status }),
	}
	const containers = new Map<string, ContainerStatus>(
		Object.entries(states).map(([name, state]) => [name, { name, state, restarts: 0 }]),
	)
	return { pod, hostIps: ['172.18.0.2'], podIps: ['10.244.0.2'], containers, restartsBefore: new Map(), now: 5_000 }
}
const condition = (status: PodStatus, type: string) => status.conditions?.find((c) => c.type === type)

test('the phase by restart policy and what the containers do', () => {
	const cases: [Partial<PodSpec>, Record<string, ContainerState>, string][] = [
		[{}, {}, 'Pending'],
		[{}, { a: running }, 'Running'],
		[{}, { a: crashing }, 'Running'],
		[{}, { a: ended(0) }, 'Running'],
		[{ restartPolicy: 'Never' }, { a: ended(0) }, 'Succeeded'],
		[{ restartPolicy: 'Never' }, { a: ended(1) }, 'Failed'],
		[{ restartPolicy: 'OnFailure' }, { a: ended(0) }, 'Succeeded'],
		[{ restartPolicy: 'OnFailure' }, { a: ended(1) }, 'Running'],
		[{ restartPolicy: 'Never', initContainers: [{ name: 'i' }] }, { i: ended(1) }, 'Failed'],
		[{ initContainers: [{ name: 'i' }] }, { i: running }, 'Pending'],
		[{ containers: [{ name: 'a', restartPolicy: 'Never' }] }, { a: ended(0) }, 'Succeeded'],
		[{ containers: [{ name: 'a', restartPolicy: 'OnFailure' }], restartPolicy: 'Never' }, { a: ended(1) }, 'Running'],
		[
			{ restartPolicy: 'Never', initContainers: [{ name: 'i', restartPolicy: 'Always' }] },
			{ i: running, a: ended(0) },
			'Running',
		],
		[
			{ restartPolicy: 'Never', initContainers: [{ name: 'i', restartPolicy: 'Always' }] },
			{ i: ended(143), a: ended(0) },
			'Succeeded',
		],
		[{ initContainers: [{ name: 'i' }] }, { i: ended(0), a: running }, 'Running'],
	]
	for (const [spec, states, phase] of cases) {
		assert.equal(podStatusOf(facts(spec, states)).phase, phase, JSON.stringify([spec, states]))
	}
})

test('ready only when all containers run and the gates are open', () => {
	const two = { containers: [{ name: 'a' }, { name: 'b' }] }
	assert.equal(condition(podStatusOf(facts(two, { a: running, b: running })), 'Ready')?.status, 'True')
	const one = podStatusOf(facts(two, { a: running, b: crashing }))
	assert.equal(condition(one, 'Ready')?.status, 'False')
	assert.equal(condition(one, 'Ready')?.message, 'containers with unready status: [b]')
	const gated = { ...two, readinessGates: [{ conditionType: 'example.com/gate' }] }
	const closed = podStatusOf(facts(gated, { a: running, b: running }))
	assert.equal(condition(closed, 'ContainersReady')?.status, 'True')
	assert.equal(condition(closed, 'Ready')?.status, 'False')
	assert.equal(condition(closed, 'Ready')?.reason, 'ReadinessGatesNotReady')
	const open = podStatusOf(
		facts(gated, { a: running, b: running }, { conditions: [{ type: 'example.com/gate', status: 'True' }] }),
	)
	assert.equal(condition(open, 'Ready')?.status, 'True')
	assert.equal(condition(open, 'example.com/gate')?.status, 'True', "others' conditions stay")
})

test('the same facts give the same status, and a condition keeps its time until it changes', () => {
	const first = podStatusOf(facts({}, { a: running }))
	const again = podStatusOf({ ...facts({}, { a: running }, first), now: 99_000 })
	assert.deepEqual(again, first)
	const later = podStatusOf({ ...facts({}, { a: crashing }, first), now: 99_000 })
	assert.equal(condition(later, 'Ready')?.lastTransitionTime, '1970-01-01T00:01:39Z')
	assert.equal(condition(later, 'PodScheduled')?.lastTransitionTime, '1970-01-01T00:00:05Z')
})

test('addresses, container ids and restarts', () => {
	const status = podStatusOf({
		...facts({}, {}),
		containers: new Map([['a', { name: 'a', state: running, last: ended(1), restarts: 2 }]]),
		restartsBefore: new Map([['a', 3]]),
	})
	assert.equal(status.podIP, '10.244.0.2')
	assert.deepEqual(status.hostIPs, [{ ip: '172.18.0.2' }])
	const [container] = status.containerStatuses ?? []
	assert.equal(container?.restartCount, 5)
	assert.equal(container?.containerID, 'podwire://u/a/2')
	assert.equal(container?.lastState?.terminated?.exitCode, 1)
})

test('of a pod that was deleted and whose containers are over', () => {
	const cases: [Partial<PodSpec>, Record<string, ContainerState>, string][] = [
		[{}, { a: ended(0) }, 'Succeeded'],
		[{}, { a: ended(143) }, 'Failed'],
		[{ restartPolicy: 'OnFailure' }, { a: ended(1) }, 'Failed'],
		[{ initContainers: [{ name: 'i', restartPolicy: 'Always' }] }, { i: ended(137), a: ended(0) }, 'Succeeded'],
	]
	for (const [spec, states, phase] of cases) {
		const status = podStatusOf({ ...facts(spec, states), over: true })
		assert.equal(status.phase, phase, JSON.stringify([spec, states]))
		assert.equal(condition(status, 'Ready')?.status, 'False')
	}
})
