// What reach says, and what packets do: every pair of pods, and from the nodes themselves, on ports that policies allow,
// deny, name, range over and do not speak of. The table, the query and the kernel say the same.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { systemClock } from '../../src/base/clock.ts'
import type { Ip } from '../../src/base/ip.ts'
import { hasPort } from '../../src/base/ports.ts'
import type { NetworkPolicySpec } from '../../src/kube/objects/networking.ts'
import type { ContainerPort } from '../../src/kube/objects/pod.ts'
import { build } from '../../src/model/build.ts'
import { pointOf } from '../../src/reach/connections.ts'
import { Reach } from '../../src/reach/engine.ts'
import { allowedBetween, type Party, partiesOf } from '../../src/reach/parties.ts'
import { answerQuery } from '../../src/reach/query.ts'
import { collectState } from '../../src/trace/collect.ts'
import { createTestLab, podObject, skip, type TestLab } from './lab.ts'

interface Workload {
	readonly namespace: string
	readonly name: string
	readonly node: 'node-1' | 'node-2'
	readonly labels: Readonly<Record<string, string>>
	readonly ports: readonly Partial<ContainerPort>[]
	readonly hostNetwork?: true
}

/** Equal labels, other nodes: a block tells the two of `web` apart. */
const workloads: readonly Workload[] = [
	{
		namespace: 'shop',
		name: 'web-a',
		node: 'node-1',
		labels: { app: 'web' },
		ports: [{ name: 'http', containerPort: 8080 }],
	},
	{
		namespace: 'shop',
		name: 'web-b',
		node: 'node-2',
		labels: { app: 'web' },
		ports: [{ name: 'http', containerPort: 8080 }],
	},
	{
		namespace: 'shop',
		name: 'api',
		node: 'node-2',
		labels: { app: 'api' },
		ports: [
			{ containerPort: 9000 },
			{ name: 'metrics', containerPort: 9090 },
			{ containerPort: 5353, protocol: 'UDP' },
		],
	},
	{ namespace: 'shop', name: 'db', node: 'node-1', labels: { app: 'db' }, ports: [{ containerPort: 5432 }] },
	{
		namespace: 'ops',
		name: 'prom',
		node: 'node-1',
		labels: { role: 'prom' },
		ports: [{ name: 'http', containerPort: 9000 }],
	},
	{ namespace: 'ops', name: 'batch', node: 'node-2', labels: { role: 'batch' }, ports: [{ containerPort: 8080 }] },
	{ namespace: 'ops', name: 'free', node: 'node-2', labels: {}, ports: [{ containerPort: 5432 }] },
	{
		namespace: 'ops',
		name: 'agent',
		node: 'node-1',
		labels: { role: 'agent' },
		ports: [{ containerPort: 9090 }],
		hostNetwork: true,
	},
]

const policies: Readonly<Record<string, NetworkPolicySpec>> = {
	'shop/deny': { podSelector: {}, policyTypes: ['Ingress'] },
	'shop/web': { podSelector: { matchLabels: { app: 'web' } }, ingress: [{ ports: [{ port: 'http' }] }] },
	'shop/api': {
		podSelector: { matchExpressions: [{ key: 'app', operator: 'In', values: ['api', 'gateway'] }] },
		ingress: [
			{
				from: [{ podSelector: { matchLabels: { app: 'web' } } }],
				ports: [
					{ port: 8990, endPort: 9010 },
					{ port: 5353, protocol: 'UDP' },
				],
			},
			{
				from: [
					{
						namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'ops' } },
						podSelector: { matchExpressions: [{ key: 'role', operator: 'NotIn', values: ['batch'] }] },
					},
				],
				ports: [{ port: 'metrics' }],
			},
		],
	},
	'shop/db': {
		podSelector: { matchLabels: { app: 'db' } },
		ingress: [
			{
				from: [
					{ ipBlock: { cidr: '10.244.0.0/16', except: ['10.244.1.0/24'] } },
					{ ipBlock: { cidr: '172.18.0.3/32' } },
				],
				ports: [{ port: 5432 }],
			},
		],
	},
	'ops/batch': {
		podSelector: { matchLabels: { role: 'batch' } },
		policyTypes: ['Egress'],
		egress: [
			{ to: [{ namespaceSelector: { matchLabels: { team: 'shop' } } }], ports: [{ port: 8080 }, { port: 9000 }] },
		],
	},
	'ops/free': {
		podSelector: { matchExpressions: [{ key: 'role', operator: 'DoesNotExist' }] },
		policyTypes: ['Ingress', 'Egress'],
		ingress: [{ from: [{ podSelector: {} }] }],
		egress: [{ to: [{ ipBlock: { cidr: '10.244.0.0/24' } }] }, { ports: [{ protocol: 'UDP' }] }],
	},
}

const questions = [
	{ protocol: 'TCP', port: 8080 },
	{ protocol: 'TCP', port: 9000 },
	{ protocol: 'TCP', port: 9090 },
	{ protocol: 'TCP', port: 5432 },
	{ protocol: 'UDP', port: 5353 },
] as const

let lab: TestLab
before(async () => {
	if (skip !== false) return
	lab = await createTestLab('reach')
	for (const [name, labels] of [
		['shop', { team: 'shop' }],
		['ops', {}],
	] as const)
		await lab.create({ apiVersion: 'v1', kind: 'Namespace', metadata: { name, labels } })
	for (const { namespace, name, node, labels, ports, hostNetwork } of workloads) {
		const object = podObject(name, {
			nodeName: node,
			terminationGracePeriodSeconds: 0,
			...(hostNetwork === undefined ? {} : { hostNetwork }),
			containers: [{ name: 'c', image: 'nginx', ports: ports as ContainerPort[] }],
		})
		await lab.create({ ...object, metadata: { name, namespace, labels } })
	}
	for (const { namespace, name } of workloads) await lab.pod(name, namespace)
	for (const [key, spec] of Object.entries(policies)) {
		const [namespace = '', name = ''] = key.split('/')
		await lab.create({ apiVersion: 'networking.k8s.io/v1', kind: 'NetworkPolicy', metadata: { name, namespace }, spec })
	}
})
after(() => lab?.remove())

test('every pair, as the table, the query and the kernel have it', { skip, timeout: 180_000 }, async () => {
	const { state } = await collectState(lab.client, { clock: systemClock })
	const model = build(state)
	const reach = new Reach({ model })
	const parties = partiesOf(model, reach)
	const partyOf = ({ namespace, name }: Workload) => parties.find((p) => p.name === `${namespace}/pod/${name}`) as Party
	const table = (from: Workload, to: Workload): number =>
		allowedBetween(reach, partyOf(from).members, partyOf(to).members)?.some ?? 0
	const sources = ['node-1', 'node-2', ...workloads] as const
	// The ports it listens on, and in turn one of the others.
	const jobs = sources.flatMap((from, i) =>
		workloads.flatMap((to, j) => {
			if (from === to) return []
			const isOwn = ({ protocol, port }: (typeof questions)[number]) =>
				to.ports.some((p) => p.containerPort === port && (p.protocol ?? 'TCP') === protocol)
			const others = questions.filter((question) => !isOwn(question))
			return [...questions.filter(isOwn), others[(i + j) % others.length]!].map((question) => ({
				from,
				to,
				...question,
			}))
		}),
	)
	const wrong: string[] = []
	const tally = { allowed: 0, denied: 0, reached: 0 }
	const ask = async ({ from, to, protocol, port }: (typeof jobs)[number]) => {
		const source = typeof from === 'string' ? `node/${from}` : `${from.namespace}/pod/${from.name}`
		const query = `${source} -> ${to.namespace}/pod/${to.name}:${protocol.toLowerCase()}/${port}`
		const { allowed } = answerQuery({ model, reach, parties }, query)
		if (allowed) tally.allowed++
		else tally.denied++
		// The table is of workloads.
		const listed =
			typeof from === 'string' ? allowed : hasPort(reach.pool.setOf(table(from, to)), pointOf(protocol, port))
		if (listed !== allowed) wrong.push(`${query}: the table says ${listed}, the query ${allowed}`)
		const target = model.pods.get(`${to.namespace}/${to.name}`)?.ips[0] as Ip
		// Policies are in force soon after they are written, and a busy machine is slow: what is meant has to come about.
		const end = Date.now() + 10_000
		for (;;) {
			const { outcome } = await lab.handle.client.agent.probe({
				from: typeof from === 'string' ? { node: from } : { pod: `${from.namespace}/${from.name}` },
				to: target,
				port,
				protocol,
				nodes: [],
				timeout: allowed ? 3000 : 250,
				observe: false,
			})
			// Refused by the pod's own kernel: the packet got there.
			const got = outcome === 'connected' || outcome === 'refused'
			if (got && allowed && outcome === 'connected') tally.reached++
			if (got === allowed && outcome !== 'error') return
			if (Date.now() < end) continue
			wrong.push(`${query}: ${allowed ? 'allowed' : 'denied'}, and the packet: ${outcome}`)
			return
		}
	}
	const worker = async () => {
		for (let job = jobs.shift(); job !== undefined; job = jobs.shift()) await ask(job)
	}
	await Promise.all(Array.from({ length: 8 }, worker))
	assert.deepEqual(wrong.sort(), [])
	assert.ok(tally.allowed > 50 && tally.denied > 50 && tally.reached > 30, JSON.stringify(tally))
})
