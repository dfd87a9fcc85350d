// The plain way: every pair of pods, every protocol, and every port at which an answer may change, asked of `decide`.

import { familyOf, type Ip } from '../../src/base/ip.ts'
import type { Protocol } from '../../src/base/packet.ts'
import { hasPort } from '../../src/base/ports.ts'
import type { NetworkModel, Pod } from '../../src/model/network.ts'
import { decide, type Peer, policiesByNamespace } from '../../src/model/policy.ts'
import type { PolicyProfile } from '../../src/model/policy-profile.ts'
import { hasIdentity } from '../../src/reach/classes.ts'
import { connectionsText, pointOf } from '../../src/reach/connections.ts'
import type { Reach } from '../../src/reach/engine.ts'

interface Probe {
	readonly protocol: Protocol
	readonly port: number
}

/** A port below, at and above every boundary that a policy or a pod names. */
function probesOf(model: NetworkModel): readonly Probe[] {
	const ports = new Set([1, 65535])
	const near = (port: number) => {
		for (const p of [port - 1, port, port + 1]) if (p > 0 && p < 65536) ports.add(p)
	}
	for (const policy of model.policies.values())
		for (const rule of [...(policy.ingress ?? []), ...(policy.egress ?? [])])
			for (const port of rule.ports) {
				if (typeof port.port === 'number') near(port.port)
				if (port.endPort !== undefined) near(port.endPort)
			}
	for (const pod of model.pods.values()) for (const port of pod.ports) near(port.port)
	const list: Probe[] = [{ protocol: 'ICMP', port: 0 }]
	for (const protocol of ['TCP', 'UDP', 'SCTP'] as const) for (const port of ports) list.push({ protocol, port })
	return list
}

export const addresses = [
	'10.244.0.1',
	'10.244.1.200',
	'10.1.2.3',
	'172.18.0.2',
	'172.18.0.3',
	'172.18.0.77',
	'192.0.2.1',
	'192.0.2.200',
	'198.51.100.7',
	'203.0.113.9',
	'fd00::1',
	'2001:db8::1',
] as Ip[]

/** Asks `decide` for every pair (or every nth), and for addresses that are no pod's. */
export function disagreements(
	model: NetworkModel,
	reach: Reach,
	{ every = 1, profile }: { readonly every?: number; readonly profile?: PolicyProfile } = {},
): { readonly asked: number; readonly wrong: readonly string[] } {
	const policies = policiesByNamespace(model.policies.values())
	const probes = probesOf(model)
	const wrong: string[] = []
	let asked = 0
	const pods = [...model.pods.values()]
		.filter((pod) => hasIdentity(pod) && pod.ips.length > 0)
		.sort((a, b) => (a.key < b.key ? -1 : 1))
	const may = (direction: 'ingress' | 'egress', pod: Pod, peer: Peer, probe: Probe): boolean =>
		decide(model, { direction, pod, peer, ...probe }, policies.get(pod.namespace) ?? [], profile).verdict === 'allow'
	const classOf = (pod: Pod, ip: Ip) =>
		reach.classesOf(pod.key).find((id) => reach.classes[id]!.family === familyOf(ip))!
	const check = (says: number, truth: (probe: Probe) => boolean, what: () => string) => {
		const set = reach.pool.setOf(says)
		for (const probe of probes) {
			asked++
			const engine = hasPort(set, pointOf(probe.protocol, probe.port))
			if (engine !== truth(probe))
				wrong.push(`${what()} ${probe.protocol}/${probe.port}: engine ${engine} (${connectionsText(set)})`)
		}
	}
	// A node other than the pod's own: what its own sends is always let in, whatever the policies say.
	const owners = new Map(
		[...(model.nodes?.values() ?? [])].flatMap((node) => node.addresses.map((ip) => [ip, node.name] as const)),
	)
	let turn = 0
	for (const from of pods) {
		for (const to of pods) {
			if (from === to || turn++ % every !== 0) continue
			for (const ip of from.ips) {
				const there = to.ips.find((other) => familyOf(other) === familyOf(ip))
				if (there === undefined) continue
				check(
					reach.between(classOf(from, ip), classOf(to, there)),
					(probe) => may('egress', from, { ip: there, pod: to }, probe) && may('ingress', to, { ip, pod: from }, probe),
					() => `${from.key} → ${to.key}`,
				)
			}
		}
		if (turn % every !== 0) continue
		for (const ip of addresses) {
			const own = from.ips.find((other) => familyOf(other) === familyOf(ip))
			if (own === undefined || owners.get(ip) === from.node) continue
			for (const direction of ['ingress', 'egress'] as const)
				check(
					reach.withAddress(direction, classOf(from, own), ip),
					(probe) => may(direction, from, { ip, ...(owners.has(ip) ? { node: owners.get(ip)! } : {}) }, probe),
					() => `${direction} of ${from.key} with ${ip}`,
				)
		}
	}
	return { asked, wrong }
}
