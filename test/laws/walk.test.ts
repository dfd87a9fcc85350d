// Laws of the walk on generated clusters: all chances are told, every end has its reason, an answer restores the
// addresses the client knows, and policies decide as a formula written only from the API's text does.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { cidrContains, type Ip } from '../../src/base/ip.ts'
import type { Packet } from '../../src/base/packet.ts'
import { build } from '../../src/model/build.ts'
import { frontendsOf } from '../../src/model/frontends.ts'
import type { LabelSelector, NetworkModel, Pod } from '../../src/model/network.ts'
import { decide, type Question } from '../../src/model/policy.ts'
import { zoneOf } from '../../src/model/zone.ts'
import type { Flow, FlowSource, Trace } from '../../src/walk/trace.ts'
import { walk } from '../../src/walk/walk.ts'
import { reverse, sameTuple } from '../../src/walk/way.ts'
import { edits, stateOf } from './cluster.ts'
import { externalAddresses } from './services.ts'
import './seed.ts'

function flowsOf(model: NetworkModel): Flow[] {
	const sources: FlowSource[] = [
		...[...model.pods.keys()].map((pod) => ({ kind: 'pod' as const, pod })),
		...[...model.nodes.keys()].map((node) => ({ kind: 'node' as const, node })),
		{ kind: 'outside', ip: '203.0.113.9' as Ip },
		{ kind: 'outside', ip: '2001:db8:1::9' as Ip },
	]
	const targets: Flow['to'][] = [
		...[...model.addresses.keys()].map((ip) => ({ ip })),
		...[...model.services.values()].map((s) => ({ name: `${s.name}.${s.namespace}` })),
		...externalAddresses.map((ip) => ({ ip: ip as Ip })),
		{ ip: '10.244.1.200' as Ip },
		{ ip: '10.96.9.9' as Ip },
		{ ip: '198.51.100.1' as Ip },
		{ name: 'nobody.default' },
	]
	const ports = [
		{ protocol: 'TCP', port: 80 },
		{ protocol: 'TCP', port: 8080 },
		{ protocol: 'UDP', port: 53 },
		{ protocol: 'SCTP', port: 80 },
		{ protocol: 'TCP', port: 30080 },
		{ protocol: 'TCP', port: 30180 },
		{ protocol: 'UDP', port: 30053 },
		{ protocol: 'TCP', port: 8088 },
	] as const
	return sources.flatMap((from) => targets.flatMap((to) => ports.map((port) => ({ from, to, ...port }))))
}

/** To what a Service of this cluster answers at, by a Service that has it or not. */
function flowsToServices(model: NetworkModel, all: readonly Flow[]): Flow[] {
	const frontends = new Set(
		[...model.services.values()].flatMap((s) =>
			s.ports.flatMap((p) =>
				frontendsOf(s, p).flatMap((f) =>
					(f.ip === undefined ? [...model.nodes.values()].flatMap((n) => n.addresses) : [f.ip]).map(
						(ip) => `${ip} ${f.protocol} ${f.port}`,
					),
				),
			),
		),
	)
	return all.filter((f) => 'ip' in f.to && frontends.has(`${f.to.ip} ${f.protocol} ${f.port}`))
}

/** A few flows of each cluster, chosen by the generator so that failures shrink. */
const some = fc.array(fc.nat(), { minLength: 40, maxLength: 40 })

test('every flow: chances sum to 1, ends are explained, answers restore what the client asked for', () => {
	const seen = new Map<string, number>()
	fc.assert(
		fc.property(edits, some, (list, picks) => {
			const model = build(stateOf(list))
			const zone = zoneOf(model)
			const flows = flowsOf(model)
			const toServices = flowsToServices(model, flows)
			for (const [i, pick] of picks.entries()) {
				const list = i % 2 === 0 && toServices.length > 0 ? toServices : flows
				const flow = list[pick % list.length]!
				const traces = walk(model, flow, { zone })
				assert.ok(traces.length > 0)
				const sum = traces.reduce((total, t) => total + t.chance, 0)
				assert.ok(Math.abs(sum - 1) < 1e-9, `chances of ${JSON.stringify(flow)} sum to ${sum}`)
				for (const trace of traces) {
					seen.set(trace.disposition, (seen.get(trace.disposition) ?? 0) + 1)
					for (const { step, ...rest } of trace.hops.flatMap((h) => h.steps)) {
						const kind = 'frontend' in rest ? rest.frontend : 'how' in rest && step === 'balance' ? rest.how : undefined
						if (kind !== undefined) seen.set(kind, (seen.get(kind) ?? 0) + 1)
					}
					checkTrace(trace)
				}
			}
		}),
		{ numRuns: 300 },
	)
	// The generator must reach what it is meant to reach.
	for (const needed of [
		'delivered',
		'no-endpoints',
		'unknown-service-port',
		'denied-ingress',
		'denied-egress',
		'unassigned-address',
		'no-route',
		'left-cluster',
		'next-hop-down',
		'denied-source-range',
		'external-ip',
		'load-balancer',
		'node-port',
		'announce',
		'forward',
	]) {
		assert.ok(seen.has(needed), `no generated flow was ${needed}: ${JSON.stringify([...seen])}`)
	}
})

function checkTrace(trace: Trace): void {
	assert.ok(trace.chance > 0)
	const steps = trace.hops.flatMap((h) => h.steps)
	const back = trace.reply.flatMap((h) => h.steps)
	for (const step of [...steps, ...back])
		assert.ok(step.because.length > 0, `step without a reason: ${JSON.stringify(step)}`)
	const end = [...steps, ...back].at(-1)!
	switch (trace.disposition) {
		case 'delivered':
			assert.ok(steps.some((s) => s.step === 'deliver'))
			assert.ok(end.step === 'deliver' || trace.flow.from.kind === 'outside')
			break
		case 'left-cluster':
			break
		default:
			assert.equal(end.step, 'drop', JSON.stringify(trace))
			assert.equal(end.step === 'drop' && end.disposition, trace.disposition)
	}
	const out = steps.filter((s) => s.step === 'translate')
	const restored = back.filter((s) => s.step === 'translate')
	if (trace.disposition !== 'delivered' || out.length === 0) return
	const asked: Packet = out[0]!.before
	const answer: Packet = restored.at(-1)!.after
	assert.ok(sameTuple(answer, reverse(asked)), `${JSON.stringify(asked)} is answered by ${JSON.stringify(answer)}`)
}

test('policies decide as the text of the API says', () => {
	fc.assert(
		fc.property(edits, (list) => {
			const model = build(stateOf(list))
			const pods = [...model.pods.values()]
			for (const pod of pods) {
				for (const peer of pods) {
					const ip = peer.ips[0]
					if (ip === undefined) continue
					for (const direction of ['ingress', 'egress'] as const) {
						for (const [protocol, port] of [
							['TCP', 8080],
							['TCP', 9090],
							['UDP', 53],
						] as const) {
							const other = peer.hostNetwork
								? { ip, ...(peer.node === undefined ? {} : { node: peer.node }) }
								: { ip, pod: peer }
							const question: Question = { direction, pod, peer: other, protocol, port }
							const { verdict, trials } = decide(model, question)
							assert.equal(verdict, allowed(model, question) ? 'allow' : 'deny', JSON.stringify(question))
							if (verdict === 'deny') assert.ok(trials.every((t) => t.rules.every((r) => r.failed !== undefined)))
						}
					}
				}
			}
		}),
		{ numRuns: 80 },
	)
})

/** NetworkPolicy as one formula, without any of the code it checks. */
function allowed(model: NetworkModel, q: Question): boolean {
	if (q.pod.hostNetwork || q.peer.pod?.key === q.pod.key) return true
	if (q.direction === 'ingress' && q.peer.node !== undefined && q.peer.node === q.pod.node) return true
	const mine = [...model.policies.values()].filter(
		(p) => p.namespace === q.pod.namespace && p[q.direction] !== undefined && holds(p.subject, q.pod.labels),
	)
	if (mine.length === 0) return true
	return mine.some((policy) =>
		policy[q.direction]!.some(
			(rule) =>
				(rule.peers.length === 0 ||
					rule.peers.some((peer) => {
						if (peer.kind === 'block')
							return cidrContains(peer.cidr, q.peer.ip) && !peer.except.some((c) => cidrContains(c, q.peer.ip))
						const other = q.peer.pod
						if (other === undefined) return false
						const home = model.namespaces.get(other.namespace)?.labels ?? {
							'kubernetes.io/metadata.name': other.namespace,
						}
						const inNamespace =
							peer.namespaces === undefined ? other.namespace === policy.namespace : holds(peer.namespaces, home)
						return inNamespace && (peer.pods === undefined || holds(peer.pods, other.labels))
					})) &&
				(rule.ports.length === 0 ||
					rule.ports.some((p) => {
						if (p.protocol !== q.protocol) return false
						if (p.port === undefined) return true
						const target: Pod | undefined = q.direction === 'ingress' ? q.pod : q.peer.pod
						const from =
							typeof p.port === 'number'
								? p.port
								: target?.ports.find((c) => c.name === p.port && c.protocol === p.protocol)?.port
						return from !== undefined && q.port >= from && q.port <= (p.endPort ?? from)
					})),
		),
	)
}

function holds(selector: LabelSelector, labels: Readonly<Record<string, string>>): boolean {
	return (
		Object.entries(selector.matchLabels).every(([k, v]) => labels[k] === v) &&
		selector.matchExpressions.every(({ key, operator, values }) => {
			const value = labels[key]
			if (operator === 'Exists') return value !== undefined
			if (operator === 'DoesNotExist') return value === undefined
			if (operator === 'In') return value !== undefined && values.includes(value)
			return value === undefined || !values.includes(value)
		})
	)
}
