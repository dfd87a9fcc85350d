// Gives Services of type LoadBalancer their addresses and takes them back. What brings the traffic reads the status; this
// only says who has what. Rules and events: the service controller of k8s.io/cloud-provider; KEP-980 (finalizer),
// KEP-1959 (class: others' are not touched).

import type { Ip } from '../../base/ip.ts'
import { isNotFound } from '../../kube/answer.ts'
import { nodes, services } from '../../kube/kinds.ts'
import type { LoadBalancerIngress, Node, Service } from '../../kube/objects/core.ts'
import { balancerOf, cleanupFinalizer, isBalancedNode } from '../../kube/objects/load-balancer.ts'
import { keyOf, type ObjectKey } from '../../kube/objects/meta.ts'
import { type Cluster, type Controller, createController, type Turn } from '../controller.ts'
import { canonicalJson } from '../hash.ts'
import { addressesOf, planBalancer, sharingText } from './plan.ts'
import type { AddressPool } from './pools.ts'

const component = 'service-controller'
/** Milliseconds until a Service that waits for an address looks again by itself. */
const retry = 5_000

/** `pools`: those of now. A Service that waits looks again when another gives an address back. */
export function loadBalancerController(cluster: Cluster, pools: () => readonly AddressPool[]): Controller {
	const { recorder } = cluster
	const view = cluster.views.of(services)
	const nodeView = cluster.views.of(nodes)
	const holders = view.index('load-balancer-ip', addressesOf)
	const sharers = view.index('load-balancer-sharing', (service) => {
		const text = sharingText(service)
		return text === '' ? [] : [text]
	})
	const neighbours = { holdersOf: (ip: Ip) => holders.get(ip), sharersOf: (text: string) => sharers.get(text) }
	/** Why each that waits does. */
	const waiting = new Map<ObjectKey, string>()
	/** The nodes each load balancer was last told of. */
	const told = new Map<ObjectKey, string>()

	const controller = createController(cluster, {
		name: component,
		// One at a time: an address is given once.
		parallel: 1,
		async reconcile(key, turn) {
			const service = view.get(key)
			if (service === undefined) return forget(key)
			const wanted = balancerOf(service) !== undefined && service.metadata.deletionTimestamp === undefined
			const ours = service.metadata.finalizers?.includes(cleanupFinalizer) === true
			if (wanted) await ensure(service, turn)
			// Without our finalizer an address in the status is somebody else's.
			else if (ours && !isForeign(service)) await release(service, turn)
			if (!wanted) forget(key)
			// The pools may have changed meanwhile.
			return waiting.has(key) ? retry : undefined
		},
	})

	function forget(key: ObjectKey): undefined {
		waiting.delete(key)
		told.delete(key)
	}

	async function ensure(service: Service, turn: Turn): Promise<void> {
		const key = keyOf(service)
		const plan = planBalancer(service, pools(), neighbours)
		const have = service.status?.loadBalancer?.ingress ?? []
		if (!plan.ok) {
			if (waiting.get(key) !== plan.why) {
				recorder.record(component, service, 'Normal', 'EnsuringLoadBalancer', 'Ensuring load balancer')
				const message = `Error syncing load balancer: failed to ensure load balancer: ${plan.why}`
				recorder.record(component, service, 'Warning', 'SyncLoadBalancerFailed', message)
			}
			waiting.set(key, plan.why)
			if (have.length > 0) await writeIngress(await withFinalizer(service, turn), [], turn)
			return
		}
		waiting.delete(key)
		const hosts = hostsText(nodeView.values())
		const same = sameIngress(have, plan.ingress)
		if (same && service.metadata.finalizers?.includes(cleanupFinalizer)) {
			if (told.has(key) && told.get(key) !== hosts) {
				if (hosts === '') warnNoNodes(service)
				else
					recorder.record(component, service, 'Normal', 'UpdatedLoadBalancer', 'Updated load balancer with new hosts')
			}
			told.set(key, hosts)
			return
		}
		recorder.record(component, service, 'Normal', 'EnsuringLoadBalancer', 'Ensuring load balancer')
		if (hosts === '') warnNoNodes(service)
		const kept = await withFinalizer(service, turn)
		if (!same) await writeIngress(kept, plan.ingress, turn)
		told.set(key, hosts)
		recorder.record(component, service, 'Normal', 'EnsuredLoadBalancer', 'Ensured load balancer')
	}

	function warnNoNodes(service: Service): void {
		const message = 'There are no available nodes for LoadBalancer'
		recorder.record(component, service, 'Warning', 'UnAvailableLoadBalancer', message)
	}

	async function release(service: Service, turn: Turn): Promise<void> {
		recorder.record(component, service, 'Normal', 'DeletingLoadBalancer', 'Deleting load balancer')
		try {
			const emptied = addressesOf(service).length === 0 ? service : ((await writeIngress(service, [], turn)) as Service)
			const finalizers = (emptied.metadata.finalizers ?? []).filter((f) => f !== cleanupFinalizer)
			await turn.update(services, { ...emptied, metadata: { ...emptied.metadata, finalizers } })
		} catch (e) {
			if (!isNotFound(e)) throw e
		}
		recorder.record(component, service, 'Normal', 'DeletedLoadBalancer', 'Deleted load balancer')
	}

	// An address that comes free may be what another waits for; two that share must agree again when one changes.
	const giveWay = (ips: readonly Ip[], except: ObjectKey) => {
		for (const ip of ips)
			for (const other of holders.get(ip)) if (keyOf(other) !== except) controller.queue.add(keyOf(other))
		for (const key of waiting.keys()) if (key !== except) controller.queue.add(key)
	}
	view.onChange((key, before, after) => {
		if (before !== undefined && isConcerned(before)) giveWay(addressesOf(before), key)
		if (isConcerned(before) || isConcerned(after)) controller.queue.add(key)
	})
	nodeView.onChange((_, before, after) => {
		if (hostOf(before) === hostOf(after)) return
		for (const key of told.keys()) controller.queue.add(key)
	})
	return controller
}

/** Adds the finalizer before anything is given, so that what was given is taken back (KEP-980). */
async function withFinalizer(service: Service, turn: Turn): Promise<Service> {
	const finalizers = service.metadata.finalizers ?? []
	if (finalizers.includes(cleanupFinalizer)) return service
	const metadata = { ...service.metadata, finalizers: [...finalizers, cleanupFinalizer] }
	return turn.update(services, { ...service, metadata })
}

async function writeIngress(service: Service, ingress: readonly LoadBalancerIngress[], turn: Turn): Promise<Service> {
	const loadBalancer = ingress.length === 0 ? {} : { ingress }
	return turn.update(services, { ...service, status: { ...service.status, loadBalancer } }, { subresource: 'status' })
}

function sameIngress(a: readonly LoadBalancerIngress[], b: readonly LoadBalancerIngress[]): boolean {
	const plain = (list: readonly LoadBalancerIngress[]) =>
		canonicalJson(list.map(({ ip, hostname, ipMode }) => ({ ip, hostname, ipMode: ipMode ?? 'VIP' })))
	return plain(a) === plain(b)
}

function isConcerned(service: Service | undefined): boolean {
	return service?.spec?.type === 'LoadBalancer' || service?.metadata.finalizers?.includes(cleanupFinalizer) === true
}

function isForeign(service: Service): boolean {
	return service.spec?.type === 'LoadBalancer' && balancerOf(service) === undefined
}

function hostOf(node: Node | undefined): string {
	return node !== undefined && isBalancedNode(node) ? node.metadata.name : ''
}

function hostsText(all: Iterable<Node>): string {
	return [...all]
		.map(hostOf)
		.filter((name) => name !== '')
		.sort()
		.join(' ')
}
