// Emptying a node: which pods have to go, which are in the way, and the eviction of those that go, as users know it
// from kubectl: disruption budgets are asked for each pod, again and again until they allow it.

import { isFailure, messageOf } from '../base/failure.ts'
import { isNotFound } from '../kube/answer.ts'
import type { KubeClient } from '../kube/client.ts'
import { daemonSets, pods } from '../kube/kinds.ts'
import { controllerOf, keyOf } from '../kube/objects/meta.ts'
import type { Pod } from '../kube/objects/pod.ts'

export interface DrainSettings {
	readonly ignoreDaemonSets: boolean
	/** Delete pods that nobody will make anew. */
	readonly force: boolean
	readonly deleteEmptyDir: boolean
	/** False: delete, whatever disruption budgets say. */
	readonly evict: boolean
	/** Seconds; absent: each pod's own. */
	readonly grace?: number
	/** Milliseconds; absent: for ever. */
	readonly timeout?: number
	readonly say: (line: string) => void
	readonly warn: (line: string) => void
}

export interface DrainPlan {
	readonly go: readonly Pod[]
	/** Why the node cannot be drained like this, a line each. */
	readonly refusals: readonly string[]
	readonly warnings: readonly string[]
}

/** `hasDaemonSet`: whether the DaemonSet that a pod names as its controller exists. */
export function planDrain(
	all: readonly Pod[],
	settings: Pick<DrainSettings, 'ignoreDaemonSets' | 'force' | 'deleteEmptyDir'>,
	hasDaemonSet: (pod: Pod) => boolean,
): DrainPlan {
	const go: Pod[] = []
	const daemons: Pod[] = []
	const alone: Pod[] = []
	const local: Pod[] = []
	for (const pod of all) {
		if (pod.metadata.annotations?.['kubernetes.io/config.mirror'] !== undefined) continue
		const ended = pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed'
		const owner = controllerOf(pod)
		if (owner?.kind === 'DaemonSet' && !ended && hasDaemonSet(pod)) {
			daemons.push(pod)
			continue
		}
		const orphan = owner === undefined || (owner.kind === 'DaemonSet' && !hasDaemonSet(pod))
		if (!ended && orphan) alone.push(pod)
		if (!ended && pod.spec?.volumes?.some((v) => 'emptyDir' in v)) local.push(pod)
		go.push(pod)
	}
	const names = (list: readonly Pod[]): string => list.map(keyOf).sort().join(', ')
	const refusals: string[] = []
	const warnings: string[] = []
	const judge = (list: readonly Pod[], allowed: boolean, refusal: string, warning: string): void => {
		if (list.length === 0) return
		if (allowed) warnings.push(`${warning}: ${names(list)}`)
		else refusals.push(`${refusal}: ${names(list)}`)
	}
	judge(
		daemons,
		settings.ignoreDaemonSets,
		'cannot delete DaemonSet-managed Pods (use --ignore-daemonsets to ignore)',
		'Warning: ignoring DaemonSet-managed Pods',
	)
	judge(
		local,
		settings.deleteEmptyDir,
		'cannot delete Pods with local storage (use --delete-emptydir-data to override)',
		'Warning: deleting Pods with local storage',
	)
	judge(
		alone,
		settings.force,
		'cannot delete Pods that declare no controller (use --force to override)',
		'Warning: deleting Pods that declare no controller',
	)
	return { go, refusals, warnings }
}

const retry = 5_000
const look = 100

/** Empties a cordoned node. Resolves to why it could not, or undefined when no pod is left that has to go. */
export async function drainNode(
	client: KubeClient,
	node: string,
	settings: DrainSettings,
): Promise<string | undefined> {
	const { items } = await client.list(pods, { fieldSelector: `spec.nodeName=${node}` })
	const sets = new Set((await client.list(daemonSets)).items.map((set) => set.metadata.uid))
	const plan = planDrain(items, settings, (pod) => sets.has(controllerOf(pod)?.uid))
	if (plan.refusals.length > 0) return plan.refusals.join('; ')
	for (const line of plan.warnings) settings.warn(line)
	const end = settings.timeout === undefined ? Number.POSITIVE_INFINITY : Date.now() + settings.timeout
	const results = await Promise.all(plan.go.map((pod) => remove(client, pod, settings, end)))
	const faults = results.filter((fault) => fault !== undefined)
	return faults.length === 0 ? undefined : faults.join('; ')
}

async function remove(client: KubeClient, pod: Pod, settings: DrainSettings, end: number): Promise<string | undefined> {
	const { name, namespace = '', uid } = pod.metadata
	const what = `pod ${keyOf(pod)}`
	const preconditions = uid === undefined ? {} : { uid }
	const options = {
		...(settings.grace === undefined ? {} : { gracePeriodSeconds: settings.grace }),
		preconditions,
	}
	settings.say(`${settings.evict ? 'evicting' : 'deleting'} ${what}`)
	for (;;) {
		try {
			if (settings.evict) {
				await client.raw(`/api/v1/namespaces/${namespace}/pods/${name}/eviction`, {
					method: 'POST',
					body: { apiVersion: 'policy/v1', kind: 'Eviction', metadata: { name, namespace }, deleteOptions: options },
				})
			} else await client.delete(pods, keyOf(pod), options)
			break
		} catch (e) {
			// Gone meanwhile, or another of the same name.
			if (isNotFound(e) || isFailure(e, 'Conflict')) break
			if (!isFailure(e, 'TooManyRequests')) return `error when evicting ${what}: ${messageOf(e)}`
			settings.warn(`error when evicting ${what} (will retry after ${retry / 1000}s): ${messageOf(e)}`)
			if (Date.now() + retry > end) return `${what}: timed out; ${messageOf(e)}`
			await sleep(retry)
		}
	}
	for (;;) {
		const now = await client.find(pods, keyOf(pod))
		if (now === undefined || now.metadata.uid !== uid) break
		if (Date.now() > end) return `${what}: timed out while it ends`
		await sleep(look)
	}
	settings.say(`pod/${name} ${settings.evict ? 'evicted' : 'deleted'}`)
	return undefined
}

function sleep(ms: number): Promise<void> {
	return new Promise((resolve) => setTimeout(resolve, ms))
}
