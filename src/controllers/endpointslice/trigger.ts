// Since when a change of the endpoints is there that a slice is to show: what the annotation last-change-trigger-time
// tells, by which the time from a pod's change to the nodes' rules is measured (the network programming latency SLI of
// Kubernetes' SIG Scalability).

import type { Service } from '../../kube/objects/core.ts'
import { keyOf, type ObjectKey } from '../../kube/objects/meta.ts'
import type { Pod } from '../../kube/objects/pod.ts'
import { podCondition } from '../pods.ts'

export interface TriggerTimes {
	/** The earliest change since the last call for this Service; undefined: none that says when it was. */
	next(service: Service, pods: Iterable<Pod>): string | undefined
	forget(service: ObjectKey): void
}

export function createTriggerTimes(): TriggerTimes {
	const known = new Map<ObjectKey, { readonly uid: string | undefined; readonly pods: ReadonlyMap<string, string> }>()
	return {
		next(service, pods) {
			const key = keyOf(service)
			const found = known.get(key)
			const before = found?.uid === service.metadata.uid ? found : undefined
			const times = new Map<string, string>()
			let earliest = before === undefined ? service.metadata.creationTimestamp : undefined
			for (const pod of pods) {
				const uid = pod.metadata.uid ?? ''
				const time = podCondition(pod, 'Ready')?.lastTransitionTime
				if (time === undefined || time === null) continue
				times.set(uid, time)
				// Pods that were there before the Service was are not what has changed.
				if (before === undefined || !(time > (before.pods.get(uid) ?? ''))) continue
				if (earliest === undefined || time < earliest) earliest = time
			}
			known.set(key, { uid: service.metadata.uid, pods: times })
			return earliest
		},
		forget: (service) => void known.delete(service),
	}
}
