// The recipes of the public collections (test/scenarios/stories/policy-recipes*) through the joints of the law: for every
// pod, node and stranger that asks every pod on every port that matters, oracle = walk = evaluated programs.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { test } from 'node:test'
import type { Ip } from '../../src/base/ip.ts'
import type { Hook, Packet, Protocol } from '../../src/base/packet.ts'
import { createPolicy, type PolicyDataplane } from '../../src/dataplane/policy/policy.ts'
import { build } from '../../src/model/build.ts'
import type { NetworkModel, Pod } from '../../src/model/network.ts'
import type { ClusterState } from '../../src/model/state.ts'
import { walk } from '../../src/walk/walk.ts'
import { loadState } from '../scenarios/load.ts'
import { type OracleCluster, type OraclePod, oracle } from './policy-oracle.ts'

const folder = join(import.meta.dirname, '../scenarios')
const asked: readonly (readonly [Protocol, number])[] = [
	['TCP', 80],
	['TCP', 8080],
	['TCP', 9100],
	['TCP', 6379],
	['TCP', 5432],
	['TCP', 32_000],
	['TCP', 53],
	['UDP', 53],
	['UDP', 8080],
	['ICMP', 0],
]
const stranger = '203.0.113.9'

for (const [story, recipes] of [
	['policy-recipes', 18],
	['policy-recipes-more', 19],
] as const) {
	test(`oracle = walk = programs: ${recipes} recipes of ${story}`, () => {
		const state = loadState(join(folder, 'base.yaml'), join(folder, 'stories', story, 'cluster.yaml'))
		const cluster = clusterOf(state)
		const namespaces = new Set(cluster.policies.map((p) => p.metadata.namespace))
		assert.equal(namespaces.size, recipes, [...namespaces].join())
		const model = build(state)
		const nodes = new Map<string, CompiledNode>()
		for (const node of model.nodes.keys()) {
			const plane = createPolicy({ uplink: 'eth0' })
			nodes.set(node, { plane, program: plane.compile(model, node) })
		}
		const seen: Record<string, number> = {}
		const ends = [
			...cluster.pods.map((pod) => ({ ip: pod.ip, pod, node: pod.node })),
			...Object.entries(cluster.nodes).map(([node, { ip }]) => ({ ip, node })),
			{ ip: stranger },
		] as readonly { readonly ip: string; readonly pod?: OraclePod; readonly node?: string }[]
		const side = ({ ip, pod, node }: (typeof ends)[number]) => ({
			ip,
			...(pod !== undefined ? { pod } : node === undefined ? {} : { node }),
		})
		for (const from of ends) {
			for (const to of ends) {
				if (from === to || (from.pod === undefined && to.pod === undefined)) continue
				// One recipe's pods do not ask another's.
				const between = [from, to].flatMap(({ pod }) => (pod === undefined ? [] : [pod.namespace]))
				if (new Set(between.filter((namespace) => namespaces.has(namespace))).size > 1) continue
				for (const [protocol, port] of asked) {
					const denies = (direction: 'egress' | 'ingress') => {
						const [of, other] = direction === 'egress' ? [from, to] : [to, from]
						if (of.pod === undefined) return false
						return oracle(cluster, { direction, pod: of.pod, other: side(other), protocol, port }).startsWith('deny')
					}
					const want = denies('egress') ? 'denied-egress' : denies('ingress') ? 'denied-ingress' : 'allowed'
					const about = `${from.ip} to ${to.ip} ${protocol}/${port}`
					assert.equal(met(nodes, from, to, protocol, port), want, `programs: ${about}`)
					seen[want] = (seen[want] ?? 0) + 1
					if (from.node === undefined) continue
					const source =
						from.pod === undefined
							? ({ kind: 'node', node: from.node } as const)
							: ({ kind: 'pod', pod: `${from.pod.namespace}/${from.pod.name}` } as const)
					const [trace] = walk(model, { from: source, to: { ip: to.ip as Ip }, protocol, port })
					const said = trace?.disposition.startsWith('denied-') === true ? trace.disposition : 'allowed'
					assert.equal(said, want, `walk: ${about}: ${trace?.disposition}`)
				}
			}
		}
		for (const end of ['denied-egress', 'denied-ingress', 'allowed'])
			assert.ok((seen[end] ?? 0) > 500, JSON.stringify(seen))
	})
}

/** The objects of a story as the oracle reads them: pods and nodes by their addresses, policies as they are written. */
function clusterOf(state: ClusterState): OracleCluster {
	const model: NetworkModel = build(state)
	return {
		namespaces: Object.fromEntries([...model.namespaces].map(([name, { labels }]) => [name, labels])),
		nodes: Object.fromEntries(
			[...model.nodes].map(([name, { addresses, labels }]) => [name, { ip: addresses[0] as string, labels }]),
		),
		pods: [...model.pods.values()].map(podOf),
		policies: [...state.networkPolicies.values()],
	}
}

function podOf({ name, namespace, labels, ips, node, hostNetwork, ports }: Pod): OraclePod {
	return {
		name,
		namespace,
		labels,
		ip: ips[0] as string,
		node: node ?? '',
		hostNetwork,
		ports: ports.map((p) => ({
			...(p.name === undefined ? {} : { name: p.name }),
			containerPort: p.port,
			protocol: p.protocol,
		})),
	}
}

interface CompiledNode {
	readonly plane: PolicyDataplane
	readonly program: ReturnType<PolicyDataplane['compile']>
}

function met(
	nodes: ReadonlyMap<string, CompiledNode>,
	from: { readonly ip: string; readonly pod?: OraclePod; readonly node?: string },
	to: { readonly ip: string; readonly pod?: OraclePod; readonly node?: string },
	protocol: Protocol,
	port: number,
): string {
	const packet: Packet = {
		protocol,
		source: from.ip as Ip,
		destination: to.ip as Ip,
		sourcePort: protocol === 'ICMP' ? 0 : 40_000,
		destinationPort: port,
		state: 'new',
		mark: 0,
	}
	const visits: (readonly [node: string, hook: Hook, inInterface?: string])[] = []
	if (from.node !== undefined) {
		if (from.pod === undefined) visits.push([from.node, 'output'])
		else visits.push([from.node, to.pod === undefined && to.node === from.node ? 'input' : 'forward', 'pw0'])
	}
	if (to.node !== undefined && to.node !== from.node)
		visits.push([to.node, to.pod === undefined ? 'input' : 'forward', 'eth0'])
	for (const [node, hook, inInterface] of visits) {
		const at = inInterface === undefined ? packet : { ...packet, inInterface }
		const { plane, program } = nodes.get(node)!
		const [outcome] = plane.evaluate(program, at, hook)
		if (outcome?.verdict !== 'accept') return `denied-${outcome?.rules.at(-1)?.chain.split('-')[0]}`
	}
	return 'allowed'
}
