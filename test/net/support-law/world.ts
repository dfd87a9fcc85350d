// One lab for all generated clusters: brings a plan into force and says so only when the API is at rest, the
// EndpointSlices and the model are what the pods mean, and every node's kernel holds what the model compiles to.

import assert from 'node:assert/strict'
import { systemClock } from '../../../src/base/clock.ts'
import { createNftables } from '../../../src/dataplane/nftables/nftables.ts'
import { createPolicy } from '../../../src/dataplane/policy/policy.ts'
import * as kinds from '../../../src/kube/kinds.ts'
import type { EndpointSlice } from '../../../src/kube/objects/discovery.ts'
import { keyOf } from '../../../src/kube/objects/meta.ts'
import type { Pod } from '../../../src/kube/objects/pod.ts'
import { build } from '../../../src/model/build.ts'
import type { NetworkModel } from '../../../src/model/network.ts'
import { podAddresses } from '../../../src/model/network.ts'
import { collectState } from '../../../src/trace/collect.ts'
import type { TestLab } from '../lab.ts'
import {
	containersRun,
	deploymentOf,
	expectedEndpoints,
	foundEndpoints,
	podsOf,
	policyOf,
	serviceOf,
	slicesOf,
} from './objects.ts'
import type { Deletion, Plan } from './plan.ts'

export interface Snapshot {
	readonly model: NetworkModel
	/** All pods of the cluster. */
	readonly pods: readonly Pod[]
}

const options = { fieldManager: 'law', force: true } as const
/** Where the lab's nodes log to: src/agent/flows.ts. */
const logGroup = 5771
const patience = 20_000

/** Applies the plan over the one before it, and waits until it is in force. */
export async function bringUp(
	lab: TestLab,
	plan: Plan,
	before?: Plan,
	deletions: readonly Deletion[] = [],
): Promise<Snapshot> {
	const { client } = lab
	if (before === undefined) {
		await Promise.all(
			plan.namespaces.map((name) =>
				client.apply(kinds.namespaces, { apiVersion: 'v1', kind: 'Namespace', metadata: { name } }, options),
			),
		)
	}
	const doomed = before === undefined ? [] : victims(before, deletions, await listPods(lab))
	await Promise.all([
		...plan.groups.map((group) => client.apply(kinds.deployments, deploymentOf(group), options)),
		...doomed.map((pod) => client.delete(kinds.pods, keyOf(pod))),
	])
	await until('the pods are those of the plan', async () => {
		const pods = await listPods(lab)
		const late = plan.groups.flatMap((group) => {
			const members = podsOf(plan, `${group.namespace}/${group.name}`, pods)
			const done =
				members.length === group.replicas &&
				members.every((p) => p.metadata.deletionTimestamp === undefined && containersRun(p)) &&
				!members.some((p) => doomed.some((d) => d.metadata.uid === p.metadata.uid))
			return done ? [] : [`${group.namespace}/${group.name}: ${members.length} of ${group.replicas}`]
		})
		return late
	})
	const pods = await listPods(lab)
	const gone = (before?.services ?? []).filter(
		(old) => !plan.services.some((s) => s.namespace === old.namespace && s.name === old.name),
	)
	const withdrawn = (before?.policies ?? []).filter(
		(old) => !plan.policies.some((p) => p.namespace === old.namespace && p.name === old.name),
	)
	await Promise.all([
		...plan.policies.map((policy) => client.apply(kinds.networkPolicies, policyOf(policy), options)),
		...withdrawn.map((old) => client.delete(kinds.networkPolicies, `${old.namespace}/${old.name}`)),
		...plan.services.map((service) => client.apply(kinds.services, serviceOf(service), options)),
		...plan.services
			.flatMap((service) => slicesOf(plan, service, pods))
			.map((slice) => client.apply(kinds.endpointSlices, slice, options)),
		...staleSlices(plan, before).map((key) => client.delete(kinds.endpointSlices, key)),
		...gone.map((old) => client.delete(kinds.services, `${old.namespace}/${old.name}`)),
	])
	await until('the EndpointSlices say what the pods are', async () => {
		const [now, slices] = await Promise.all([listPods(lab), client.list<EndpointSlice>(kinds.endpointSlices)])
		return plan.services.flatMap((service) => {
			if (service.selector === undefined) return []
			const own = slices.items.filter(
				(s) =>
					s.metadata.namespace === service.namespace &&
					s.metadata.labels?.['kubernetes.io/service-name'] === service.name,
			)
			const [want, have] = [expectedEndpoints(service, now).join('\n'), foundEndpoints(own).join('\n')]
			return want === have ? [] : [`${service.namespace}/${service.name}:\n${have}\nshould be\n${want}`]
		})
	})
	const snapshot = await inForce(lab)
	for (const service of plan.services) {
		if (service.selector === undefined) continue
		const ports = snapshot.model.services.get(`${service.namespace}/${service.name}`)?.ports ?? []
		const known = ports.flatMap((port) =>
			port.endpoints.map((e) => `${port.name} ${port.protocol} ${e.ip}:${e.port} ${e.ready}`),
		)
		const expected = expectedEndpoints(service, snapshot.pods)
		assert.deepEqual(known.sort(), expected, `endpoints of ${service.namespace}/${service.name} in the model`)
	}
	return snapshot
}

/** Deletes everything of the plan; resolves when no rule of any node names it. */
export async function takeDown(lab: TestLab, plan: Plan): Promise<Snapshot> {
	await Promise.all(plan.namespaces.map((name) => lab.client.delete(kinds.namespaces, name)))
	await until('the namespaces are gone', async () =>
		(await lab.client.list(kinds.namespaces)).items
			.map((n) => n.metadata.name)
			.filter((name) => plan.namespaces.includes(name)),
	)
	return inForce(lab)
}

/** The cluster as the API has it, once every node's kernel holds exactly what it compiles to. */
export async function inForce(lab: TestLab): Promise<Snapshot> {
	const { client: control } = lab.handle
	const nftables = createNftables()
	const policy = createPolicy({ uplink: 'eth0', log: { group: logGroup, allowed: false } })
	let snapshot: Snapshot | undefined
	await until('the programs are in force', async () => {
		const sources = await control.getSources()
		const { state, missing } = await collectState(lab.client, { clock: systemClock, sources })
		assert.deepEqual(missing, [])
		const model = build(state)
		snapshot = { model, pods: [...state.pods].map(([, pod]) => pod) }
		const late: string[] = []
		for (const { name } of [...model.nodes].map(([, node]) => node)) {
			const programs = await control.agent.read(name)
			const changes = nftables.diff(programs.nftables, nftables.compile(model, name))
			if (changes.length > 0) late.push(`${name}: ${JSON.stringify(changes).slice(0, 1000)}`)
			const denials = policy.diff(programs.nftables, policy.compile(model, name))
			if (denials.length > 0) late.push(`${name}, policies: ${JSON.stringify(denials).slice(0, 1000)}`)
			const here = [...model.pods].flatMap(([, p]) => (p.node === name && podAddresses(p).length > 0 ? [p.key] : []))
			const wired = [...programs.links.attachments].map(([, a]) => a.pod)
			if (here.sort().join() !== wired.sort().join()) late.push(`${name} has wired ${wired}, it should ${here}`)
		}
		return late
	})
	assert.ok(snapshot)
	return snapshot
}

export async function listPods(lab: TestLab): Promise<readonly Pod[]> {
	return (await lab.client.list<Pod>(kinds.pods)).items
}

function victims(plan: Plan, deletions: readonly Deletion[], pods: readonly Pod[]): Pod[] {
	return deletions.flatMap(({ group, index }) => podsOf(plan, group, pods)[index] ?? [])
}

function staleSlices(plan: Plan, before: Plan | undefined): string[] {
	const keys = (p: Plan) => p.services.flatMap((s) => s.slices.map((_, i) => `${s.namespace}/${s.name}-${i}`))
	const wanted = new Set(keys(plan))
	return before === undefined ? [] : keys(before).filter((key) => !wanted.has(key))
}

/** Looks until nothing is left to say; fails with what was said last. */
async function until(what: string, look: () => Promise<readonly string[]>): Promise<void> {
	const end = performance.now() + patience
	for (;;) {
		const left = await look()
		if (left.length === 0) return
		if (performance.now() > end) throw new Error(`not within ${patience} ms: ${what}\n${left.join('\n')}`)
		await new Promise((resolve) => setTimeout(resolve, 25))
	}
}
