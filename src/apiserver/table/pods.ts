// The row of a pod: how many containers are ready, and in one word what it is doing.

import type { UnknownObject } from '../../kube/objects/meta.ts'
import type { JsonObject } from '../../kube/schema/json.ts'
import { ageOf, at, type Cell, humanDuration, items, none, number, text } from './cells.ts'
import type { KindTable } from './table.ts'

export const podTable: KindTable = {
	columns: ['Name', 'Ready', 'Status', 'Restarts', 'Age', '+IP', '+Node', '+Nominated Node', '+Readiness Gates'],
	cells(pod, now) {
		const { ready, total, reason, restarts } = stateOf(pod, now)
		const status = at(pod, 'status')
		const gates = items(at(pod, 'spec', 'readinessGates'))
		const met = gates.filter((gate) => isTrue(pod, text(gate.conditionType)))
		return [
			pod.metadata.name,
			`${ready}/${total}`,
			reason,
			restarts,
			ageOf(pod.metadata.creationTimestamp, now),
			text(items(at(status, 'podIPs'))[0]?.ip, text(at(status, 'podIP'), none)),
			text(at(pod, 'spec', 'nodeName'), none),
			text(at(status, 'nominatedNodeName'), none),
			gates.length === 0 ? none : `${met.length}/${gates.length}`,
		]
	},
	conditions(pod) {
		const phase = at(pod, 'status', 'phase')
		if (phase === 'Succeeded') return [completed('Succeeded', 'The pod has completed successfully.')]
		if (phase === 'Failed') return [completed('Failed', 'The pod failed.')]
		return undefined
	},
}

function completed(reason: string, message: string): object {
	return { type: 'Completed', status: 'True', reason, message }
}

function isTrue(pod: UnknownObject, type: string): boolean {
	return items(at(pod, 'status', 'conditions')).some((c) => c.type === type && c.status === 'True')
}

function stateOf(
	pod: UnknownObject,
	now: number,
): { readonly ready: number; readonly total: number; readonly reason: string; readonly restarts: Cell } {
	const status = at(pod, 'status')
	const initContainers = items(at(pod, 'spec', 'initContainers'))
	const sidecars = new Set(initContainers.filter((c) => c.restartPolicy === 'Always').map((c) => c.name))
	const phase = text(at(status, 'phase'))
	let reason = text(at(status, 'reason'), phase)
	for (const c of items(at(status, 'conditions'))) {
		if (c.type === 'PodScheduled' && c.reason === 'SchedulingGated') reason = 'SchedulingGated'
	}
	let ready = 0
	let restarts = 0
	let sidecarRestarts = 0
	let last = 0
	let sidecarLast = 0
	let initializing = false
	for (const [i, container] of items(at(status, 'initContainerStatuses')).entries()) {
		const count = number(container.restartCount)
		restarts += count
		last = Math.max(last, finishedAt(container))
		const sidecar = sidecars.has(container.name)
		if (sidecar) {
			sidecarRestarts += count
			sidecarLast = Math.max(sidecarLast, finishedAt(container))
		}
		const terminated = at(container, 'state', 'terminated')
		const waiting = text(at(container, 'state', 'waiting', 'reason'))
		if (terminated !== undefined && number(at(terminated, 'exitCode')) === 0) continue
		if (sidecar && container.started === true) {
			if (container.ready === true) ready++
			continue
		}
		if (terminated !== undefined) reason = `Init:${endOf(terminated)}`
		else if (waiting !== '' && waiting !== 'PodInitializing') reason = `Init:${waiting}`
		else reason = `Init:${i}/${initContainers.length}`
		initializing = true
		break
	}
	if (!initializing || isTrue(pod, 'Initialized')) {
		restarts = sidecarRestarts
		last = sidecarLast
		let running = false
		for (const container of items(at(status, 'containerStatuses')).toReversed()) {
			restarts += number(container.restartCount)
			last = Math.max(last, finishedAt(container))
			const waiting = text(at(container, 'state', 'waiting', 'reason'))
			const terminated = at(container, 'state', 'terminated')
			if (waiting !== '') reason = waiting
			else if (terminated !== undefined) reason = endOf(terminated)
			else if (container.ready === true && at(container, 'state', 'running') !== undefined) {
				running = true
				ready++
			}
		}
		// One container has ended while another goes on.
		if (reason === 'Completed' && running) reason = isTrue(pod, 'Ready') ? 'Running' : 'NotReady'
	}
	if (pod.metadata.deletionTimestamp !== undefined) {
		if (at(status, 'reason') === 'NodeLost') reason = 'Unknown'
		else if (phase !== 'Succeeded' && phase !== 'Failed') reason = 'Terminating'
	}
	return {
		ready,
		total: items(at(pod, 'spec', 'containers')).length + sidecars.size,
		reason,
		restarts: restarts > 0 && last > 0 ? `${restarts} (${humanDuration(now - last)} ago)` : String(restarts),
	}
}

function finishedAt(container: JsonObject): number {
	const time = at(container, 'lastState', 'terminated', 'finishedAt')
	return typeof time === 'string' ? Date.parse(time) || 0 : 0
}

function endOf(terminated: ReturnType<typeof at>): string {
	const signal = number(at(terminated, 'signal'))
	return text(
		at(terminated, 'reason'),
		signal !== 0 ? `Signal:${signal}` : `ExitCode:${number(at(terminated, 'exitCode'))}`,
	)
}
