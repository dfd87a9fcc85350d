// What a node tells of a pod as events, in the words of kubelet, which people and tools know.

import { type Failure, messageOf } from '../../base/failure.ts'
import type { EventRecorder } from '../../controllers/events.ts'
import type { Container, Pod } from '../../kube/objects/pod.ts'
import type { ContainerStatus } from '../workloads/protocol.ts'
import { type ContainerPlan, planText } from './containers.ts'

export const kubeletComponent = 'kubelet'

export interface PodEvents {
	sandboxFailed(pod: Pod, e: unknown): void
	mountFailed(pod: Pod, e: Failure): void
	createFailed(pod: Pod, e: unknown): void
	/** Not again for a container that the pod's status has with an id: it runs since before. */
	started(pod: Pod, container: Container, plan: ContainerPlan): void
	/** Once for each restart of a container that waits for the next. */
	backedOff(pod: Pod, status: ContainerStatus): void
	killing(pod: Pod): void
	preStopSkipped(pod: Pod, container: Container, why: string): void
	preStopFailed(pod: Pod, why: string): void
}

export function createPodEvents(recorder: EventRecorder | undefined): PodEvents {
	/** Restarts of each container that an event has told of. */
	const backedOff = new Map<string, number>()
	const normal = (pod: Pod, reason: string, text: string) =>
		recorder?.record(kubeletComponent, pod, 'Normal', reason, text)
	const warning = (pod: Pod, reason: string, text: string) =>
		recorder?.record(kubeletComponent, pod, 'Warning', reason, text)
	return {
		sandboxFailed(pod, e) {
			const text = `Failed to create pod sandbox: plugin type="podwire" failed (add): ${messageOf(e)}`
			warning(pod, 'FailedCreatePodSandBox', text)
		},
		mountFailed: (pod, e) => warning(pod, e.code, `MountVolume.SetUp failed: ${messageOf(e)}`),
		createFailed: (pod, e) => warning(pod, 'Failed', `Error: ${messageOf(e)}`),
		started(pod, container, plan) {
			const statuses = pod.status?.containerStatuses ?? []
			if (statuses.some((s) => s.name === container.name && s.containerID !== undefined)) return
			const text = planText(container.image ?? '', plan)
			normal(pod, 'Pulled', text[0]!.toUpperCase() + text.slice(1))
			normal(pod, 'Created', `Created container: ${container.name}`)
			normal(pod, 'Started', `Started container ${container.name}`)
		},
		backedOff(pod, { name, state, restarts }) {
			if (state.state !== 'waiting' || state.reason !== 'CrashLoopBackOff' || backedOff.get(name) === restarts) return
			backedOff.set(name, restarts)
			const text = `Back-off restarting failed container ${name} in pod ${pod.metadata.name}: ${state.message ?? ''}`
			warning(pod, 'BackOff', text)
		},
		killing(pod) {
			for (const { name } of pod.spec?.containers ?? []) normal(pod, 'Killing', `Stopping container ${name}`)
		},
		preStopSkipped: (pod, { name }, why) => normal(pod, 'PreStopHookSkipped', `Container ${name}: ${why}`),
		preStopFailed: (pod, why) => warning(pod, 'FailedPreStopHook', `PreStopHook failed: ${why}`),
	}
}
