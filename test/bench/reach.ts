// P8: who can talk to whom, of 10,000 pods under 1,000 policies: all of it from the model, and again after one change.
// "All" is what the answer is made of: every class with every class, every class with every piece of the address space.

import { spawnSync } from 'node:child_process'
import type { NetworkPolicy } from '../../src/kube/objects/networking.ts'
import { build } from '../../src/model/build.ts'
import type { NetworkModel } from '../../src/model/network.ts'
import { type ClusterState, deleteObject, setObject } from '../../src/model/state.ts'
import { Reach, type ReachChange } from '../../src/reach/engine.ts'
import { partiesOf } from '../../src/reach/parties.ts'
import { disagreements } from '../reach/oracle.ts'
import { makeWorld } from '../reach/world.ts'
import { quantile, type Row, spreadOf } from './row.ts'

const pods = 10_000
const policies = 1_000

/** Every answer about the classes, or about those that changed. Returns how many pairs may talk. */
function readAll(reach: Reach, only?: ReadonlySet<number>): number {
	const { classes, space } = reach
	const there = classes.filter((c) => c.pods.size > 0).map((c) => c.id)
	const changed = only === undefined ? there : there.filter((id) => only.has(id))
	const same = only === undefined ? [] : there.filter((id) => !only.has(id))
	let pairs = 0
	// The few within the many: what is read of one row lies together.
	for (const b of there) for (const a of changed) if (reach.between(a, b) !== 0) pairs++
	for (const b of same) for (const a of changed) if (reach.between(b, a) !== 0) pairs++
	for (const a of changed)
		for (const direction of ['ingress', 'egress'] as const)
			for (let piece = 0; piece < space.size; piece++) if (reach.withPiece(direction, a, piece) !== 0) pairs++
	return pairs
}

export async function run(options: { full: boolean }): Promise<Row[]> {
	const rounds = options.full ? 15 : 5
	const world = makeWorld({ seed: 42, pods, policies, namespaces: 100, replicas: 10, nodes: 100 })
	const state = world.state
	const model = build(state)
	const full: number[] = []
	let reach = new Reach({ model })
	let pairs = 0
	for (let round = 0; round < rounds + 1; round++) {
		const start = performance.now()
		reach = new Reach({ model })
		pairs = readAll(reach)
		// The first is the compiler's.
		if (round > 0) full.push(performance.now() - start)
	}
	const shape = `${reach.classes.length - 1} classes, ${reach.profileCount} lists of rules, ${reach.space.size} pieces of the address space, ${pairs} pairs that may talk`
	const row = (name: string, samples: readonly number[], bar: string | undefined, note: string, at = 0.5): Row => ({
		group: 'reach',
		name,
		unit: 'ms',
		ours: quantile(samples, at),
		...(bar === undefined ? {} : { bar }),
		spread: spreadOf(samples),
		repeats: samples.length,
		note,
	})
	const rows = [row(`all of ${pods} pods × ${policies} policies`, full, '≤ 1000 ms', shape)]

	const parties: number[] = []
	for (let round = 0; round < rounds; round++) {
		const start = performance.now()
		partiesOf(model, reach)
		parties.push(performance.now() - start)
	}
	rows.push(row('workloads of the pods', parties, undefined, 'pods counted by workload and class, for the table'))

	const changes = makeChanges(state)
	for (const [name, make] of Object.entries(changes)) {
		const update: number[] = []
		let before = state
		let last: NetworkModel = model
		let change: ReachChange | undefined
		let rebuilt = 0
		for (let round = 0; round < rounds * 4; round++) {
			const next = make(before, round)
			const now = build(next, { state: before, model: last })
			const start = performance.now()
			change = reach.update({ model: now })
			readAll(reach, change.classes)
			update.push(performance.now() - start)
			if (change.rebuilt) rebuilt++
			before = next
			last = now
		}
		// Back to where all began.
		reach.update({ model })
		readAll(reach)
		rows.push(
			row(
				`after ${name}`,
				update,
				'≤ 50 ms',
				`update and every answer of what changed; ${rebuilt} of ${update.length} made anew; the figure is the 95th percentile`,
				0.95,
			),
		)
	}
	return [...rows, ...(options.full ? [oracle()] : []), ...rivals()]
}

/** Every pair of 300 pods, every port at which an answer may change. */
function oracle(): Row {
	const { state } = makeWorld({ seed: 7, pods: 300, policies: 60, namespaces: 6, replicas: 4, odd: true })
	const model = build(state)
	const { asked, wrong } = disagreements(model, new Reach({ model }))
	return {
		group: 'reach',
		name: 'disagreements with an exhaustive oracle, 300 pods',
		unit: '',
		ours: wrong.length,
		bar: '0',
		spread: [wrong.length, wrong.length],
		repeats: 1,
		note: `${asked} questions: every pair, every port at which an answer may change${wrong.length === 0 ? '' : `; first: ${wrong[0]}`}`,
	}
}

function makeChanges(state: ClusterState): Record<string, (state: ClusterState, round: number) => ClusterState> {
	const keys = [...state.networkPolicies.keys()].sort()
	const podKeys = [...state.pods.keys()].sort()
	const namespaces = [...state.namespaces.keys()].sort()
	const other = makeWorld({ seed: 43, pods, policies, namespaces: 100, replicas: 10, nodes: 100 }).state
	return {
		'a policy written anew': (s, i) => setObject(s, other.networkPolicies.get(keys[(i * 37) % keys.length]!)!),
		'a policy taken away': (s, i) => deleteObject(s, 'NetworkPolicy', keys[(i * 41) % keys.length]!),
		// The worst there is: a network that no policy named before begins inside of classes.
		'a policy that divides classes': (s, i) =>
			setObject(s, {
				apiVersion: 'networking.k8s.io/v1',
				kind: 'NetworkPolicy',
				metadata: { name: 'divides', namespace: namespaces[0]! },
				spec: { podSelector: {}, ingress: [{ from: [{ ipBlock: { cidr: `10.244.${(i % 90) + 2}.0/25` } }] }] },
			} as NetworkPolicy),
		"a pod's labels": (s, i) => {
			const pod = s.pods.get(podKeys[(i * 97) % podKeys.length]!)!
			return setObject(s, {
				...pod,
				metadata: { ...pod.metadata, labels: { ...pod.metadata.labels, tier: `new-${i % 3}` } },
			})
		},
		'a pod gone': (s, i) => deleteObject(s, 'Pod', podKeys[(i * 89) % podKeys.length]!),
		"a namespace's labels": (s, i) => {
			const namespace = s.namespaces.get(namespaces[(i * 7) % namespaces.length]!)!
			return setObject(s, {
				...namespace,
				metadata: { ...namespace.metadata, labels: { team: ['red', 'blue', 'green'][i % 3]! } },
			})
		},
	}
}

/** Programs that answer the same question, where the machine has them. */
function rivals(): Row[] {
	return ['netpol-analyzer', 'cyclonus'].map((name): Row => {
		const there = spawnSync('sh', ['-c', `command -v ${name}`]).status === 0
		return {
			group: 'reach',
			name,
			unit: 'ms',
			ours: Number.NaN,
			spread: [Number.NaN, Number.NaN],
			repeats: 0,
			note: there ? 'is on this machine, and has no way to be asked in one process' : 'is not on this machine',
		}
	})
}
