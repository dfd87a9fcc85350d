// Runs DaemonSets: the revision of the template, then the plan, then the status.

import { controllerRevisions, daemonSets, nodes, pods } from '../../kube/kinds.ts'
import type { DaemonSet } from '../../kube/objects/apps.ts'
import type { Node } from '../../kube/objects/core.ts'
import { keyOf } from '../../kube/objects/meta.ts'
import type { Pod } from '../../kube/objects/pod.ts'
import { matchesLabelSelector } from '../../kube/selector.ts'
import { byController, claimChildren, onChildChange, onOrphan } from '../children.ts'
import { type Cluster, type Controller, createController, inBatches, writeStatus } from '../controller.ts'
import { canonicalJson } from '../hash.ts'
import { isPodTerminal } from '../pods.ts'
import { isNamespaceGoing } from '../replicaset/controller.ts'
import { hashOf, planRevision, revisionHashLabel, surplusRevisions } from '../revisions.ts'
import { writeRevision } from '../statefulset/controller.ts'
import { planDaemonSet } from './plan.ts'
import { makeDaemon } from './pods.ts'

const component = 'daemonset-controller'

export function daemonSetController(cluster: Cluster): Controller {
	const sets = cluster.views.of(daemonSets)
	const podView = cluster.views.of(pods)
	const nodeView = cluster.views.of(nodes)
	const revisionsOf = byController(cluster.views.of(controllerRevisions))
	const selects = (set: DaemonSet, pod: Pod): boolean => matchesLabelSelector(set.spec?.selector, pod.metadata.labels)

	const controller = createController(cluster, {
		name: component,
		async reconcile(key, turn) {
			const set = sets.get(key)
			if (set === undefined) return undefined
			const mine = await claimChildren(turn, set, pods, podView, (pod) => selects(set, pod))
			const planned = planRevision(set, [...revisionsOf.get(set.metadata.uid!)])
			const revision = await writeRevision(cluster, turn, daemonSets, set, planned)
			if (revision === undefined) return undefined
			const facts = { set, pods: mine, nodes: [...nodeView.values()], hash: hashOf(revision), now: turn.now }
			const plan = planDaemonSet(facts)
			const { error } = await inBatches(plan.create.length, async (i) => {
				const made = await turn.create(pods, makeDaemon(set, set.spec!.template, revision, plan.create[i]!))
				cluster.recorder.record(component, set, 'Normal', 'SuccessfulCreate', `Created pod: ${made.metadata.name}`)
			})
			await Promise.all(
				plan.remove.map(async (pod) => {
					if (isPodTerminal(pod)) {
						const what = pod.status?.phase === 'Failed' ? 'failed' : 'succeeded'
						const reason = pod.status?.phase === 'Failed' ? 'FailedDaemonPod' : 'SucceededDaemonPod'
						const message = `Found ${what} daemon pod ${keyOf(pod)} on node ${pod.spec?.nodeName}, will try to kill it`
						cluster.recorder.record(component, set, 'Warning', reason, message)
					}
					await turn.delete(pods, pod)
					cluster.recorder.record(component, set, 'Normal', 'SuccessfulDelete', `Deleted pod: ${pod.metadata.name}`)
				}),
			)
			await writeStatus(turn, daemonSets, set, plan.status)
			const used = new Set(mine.map((pod) => pod.metadata.labels?.[revisionHashLabel]))
			const surplus = surplusRevisions(
				planned.history,
				(r) => r.metadata.name === revision.metadata.name || used.has(hashOf(r)),
				set.spec!.revisionHistoryLimit ?? 10,
			)
			await Promise.all(surplus.map((r) => turn.delete(controllerRevisions, r)))
			if (error !== undefined && !isNamespaceGoing(error)) throw error
			return plan.after
		},
	})
	const due = controller.queue.add
	sets.onChange(due)
	onChildChange(podView, 'DaemonSet', due)
	onOrphan(sets, podView, selects, due)
	nodeView.onChange((_, before, after) => {
		if (before !== undefined && after !== undefined && placeText(before) === placeText(after)) return
		for (const set of sets.values()) due(keyOf(set))
	})
	return controller
}

/** What of a node decides whether it wants a daemon. */
function placeText({ metadata, spec }: Node): string {
	return canonicalJson([metadata.labels, spec?.taints, spec?.unschedulable])
}
