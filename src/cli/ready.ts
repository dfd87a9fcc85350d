// Waits until the workloads of a cluster run: every pod that its controllers owe is Ready, and nothing is behind.

import { isFailure } from '../base/failure.ts'
import type { KubeClient } from '../kube/client.ts'
import { daemonSets, deployments, pods, statefulSets } from '../kube/kinds.ts'
import { keyOf } from '../kube/objects/meta.ts'
import type { Pod } from '../kube/objects/pod.ts'

export interface Readiness {
	readonly ready: number
	readonly wanted: number
	/** What is not ready, each with the reason where one is known. */
	readonly waiting: readonly string[]
}

/** Looks once. */
export async function readReadiness(client: KubeClient): Promise<Readiness> {
	const [podList, deploymentList, statefulSetList, daemonSetList] = await Promise.all([
		client.list(pods),
		client.list(deployments),
		client.list(statefulSets),
		client.list(daemonSets),
	])
	const waiting: string[] = []
	let wanted = 0
	let ready = 0
	const count = (kind: string, key: string, want: number, have: number, seen: boolean) => {
		wanted += want
		ready += Math.min(want, have)
		if (have < want || !seen) waiting.push(`${kind} ${key}: ${have} of ${want} pods ready`)
	}
	for (const d of deploymentList.items) {
		const seen = (d.status?.observedGeneration ?? 0) >= (d.metadata.generation ?? 0)
		count('Deployment', keyOf(d), d.spec?.replicas ?? 1, seen ? (d.status?.availableReplicas ?? 0) : 0, seen)
	}
	for (const s of statefulSetList.items) {
		const seen = (s.status?.observedGeneration ?? 0) >= (s.metadata.generation ?? 0)
		count('StatefulSet', keyOf(s), s.spec?.replicas ?? 1, seen ? (s.status?.readyReplicas ?? 0) : 0, seen)
	}
	for (const d of daemonSetList.items) {
		const seen = (d.status?.observedGeneration ?? 0) >= (d.metadata.generation ?? 0)
		count('DaemonSet', keyOf(d), d.status?.desiredNumberScheduled ?? 0, d.status?.numberReady ?? 0, seen)
	}
	for (const p of podList.items) {
		if ((p.metadata.ownerReferences ?? []).length > 0 || p.status?.phase === 'Succeeded') continue
		count('Pod', keyOf(p), 1, isReady(p) ? 1 : 0, true)
	}
	return { ready, wanted, waiting: [...waiting, ...podList.items.flatMap(troubleOf)] }
}

function isReady(pod: Pod): boolean {
	return (pod.status?.conditions ?? []).some((c) => c.type === 'Ready' && c.status === 'True')
}

function troubleOf(pod: Pod): string[] {
	if (isReady(pod) || pod.status?.phase === 'Succeeded') return []
	const unscheduled = (pod.status?.conditions ?? []).find((c) => c.type === 'PodScheduled' && c.status === 'False')
	if (unscheduled?.message !== undefined) return [`Pod ${keyOf(pod)}: ${unscheduled.message}`]
	return (pod.status?.containerStatuses ?? []).flatMap((c) => {
		const state = c.state?.waiting
		return state === undefined || state.message === undefined
			? []
			: [`Pod ${keyOf(pod)}: ${state.reason ?? ''} ${state.message}`]
	})
}

/** Looks again at each change of a pod or workload until all is ready or `signal` aborts; the last look is returned. */
export async function waitReady(
	client: KubeClient,
	options: { readonly signal: AbortSignal; readonly onProgress: (readiness: Readiness) => void },
): Promise<Readiness> {
	let last = await readReadiness(client)
	options.onProgress(last)
	if (last.waiting.length === 0) return last
	const stop = new AbortController()
	const signal = AbortSignal.any([options.signal, stop.signal])
	let wake: () => void = () => {}
	let changed = false
	let pause = 5
	const follow = async (kind: typeof pods | typeof deployments | typeof statefulSets) => {
		try {
			for await (const _ of client.watch(kind as typeof pods, { signal })) {
				changed = true
				wake()
			}
		} catch (e) {
			if (!signal.aborted && !isFailure(e)) throw e
		}
	}
	const watches = Promise.allSettled([follow(pods), follow(deployments), follow(statefulSets)])
	options.signal.addEventListener('abort', () => wake(), { once: true })
	try {
		while (last.waiting.length > 0 && !options.signal.aborted) {
			if (!changed) {
				await new Promise<void>((resolve) => {
					wake = resolve
				})
			}
			changed = false
			// One look for the changes of a few milliseconds; where a look takes long, the fewer looks.
			await new Promise((resolve) => setTimeout(resolve, pause))
			const begun = performance.now()
			last = await readReadiness(client)
			pause = Math.max(5, (performance.now() - begun) * 2)
			options.onProgress(last)
		}
		return last
	} finally {
		stop.abort()
		await watches
	}
}
