// NetworkPolicies that do not mean what was meant.

import { cidrAddress, cidrContains, tryParseCidr } from '../../base/ip.ts'
import type { Finding } from '../finding.ts'
import type { Pod, Policy, PolicyPeer, PolicyPort, PolicyRule, Service } from '../network.ts'
import { decide, policiesByNamespace } from '../policy.ts'
import { isNothing, selectorMatches, selectorText } from '../selector.ts'
import { originOf } from '../state.ts'
import type { CheckInput } from './check.ts'
import { nearestPod } from './nearest.ts'
import { declared } from './services.ts'

export function* checkPolicies(input: CheckInput): Iterable<Finding> {
	for (const policy of input.model.policies.values()) {
		const subjects = input.pods.select(policy.namespace, policy.subject)
		if (subjects.length === 0) yield selectsNothing(input, policy)
		for (const rule of policy.ingress ?? []) {
			yield* checkPeers(input, policy, rule)
			yield* checkPorts(input, policy, rule, subjects)
		}
		for (const rule of policy.egress ?? []) {
			yield* checkPeers(input, policy, rule)
			const peers = rule.peers.flatMap((peer) => peerPods(input, policy, peer))
			yield* checkPorts(input, policy, rule, peers)
		}
		yield* checkBlocks(input, policy)
		yield* checkReadable(input, policy)
	}
	yield* checkDns(input)
}

/** PW0015 */
function selectsNothing(input: CheckInput, policy: Policy): Finding {
	const near = nearestPod(input.pods.inNamespace(policy.namespace), policy.subject)
	const hint = near === undefined ? '' : `: the nearest pod "${near.pod.key}" differs: ${near.difference}`
	return {
		code: 'PW0015',
		severity: 'warning',
		text: `NetworkPolicy "${policy.key}" selects no pod of namespace "${policy.namespace}" with ${selectorText(policy.subject)}${hint}`,
		because: [originOf(input.state, 'NetworkPolicy', policy.key, 'spec.podSelector')],
	}
}

/** PW0016 */
function* checkPeers(input: CheckInput, policy: Policy, rule: PolicyRule): Iterable<Finding> {
	for (const peer of rule.peers) {
		if (peer.kind === 'block' || isNothing(peer.pods) || peerPods(input, policy, peer).length > 0) continue
		yield {
			code: 'PW0016',
			severity: 'info',
			text: `NetworkPolicy "${policy.key}" names a peer that no pod matches now: ${peerText(policy, peer)}`,
			because: [peer.origin],
		}
	}
}

/** PW0017: policies see the port of the pod, never that of the Service in front of it. */
function* checkPorts(input: CheckInput, policy: Policy, rule: PolicyRule, targets: readonly Pod[]): Iterable<Finding> {
	for (const port of rule.ports) {
		const { port: number } = port
		if (typeof number !== 'number') continue
		const some = targets.find((pod) => pod.ports.length > 0)
		if (
			some === undefined ||
			targets.some((pod) => pod.ports.some((p) => p.protocol === port.protocol && covers(port, p.port)))
		)
			continue
		const service = findService(input, port.protocol, number, targets)
		if (service === undefined) continue
		yield {
			code: 'PW0017',
			severity: 'error',
			text: `NetworkPolicy "${policy.key}" allows port ${number}, which is the port of Service "${service.key}"; policies see the port of the pod: "${some.key}" declares ${declared(some)}`,
			because: [port.origin, service.origin],
		}
	}
}

function covers(port: PolicyPort, number: number): boolean {
	return typeof port.port === 'number' && number >= port.port && number <= (port.endPort ?? port.port)
}

function findService(input: CheckInput, protocol: string, port: number, pods: readonly Pod[]): Service | undefined {
	const namespaces = new Set(pods.map((pod) => pod.namespace))
	let first: Service | undefined
	for (const service of input.model.services.values()) {
		const { selector } = service
		if (selector === undefined || !namespaces.has(service.namespace)) continue
		if (!service.ports.some((p) => p.protocol === protocol && p.port === port && p.targetPort !== port)) continue
		const chosen = { matchLabels: selector, matchExpressions: [] }
		if (!pods.some((pod) => pod.namespace === service.namespace && selectorMatches(chosen, pod.labels))) continue
		if (first === undefined || service.key < first.key) first = service
	}
	return first
}

/** PW0018: after translation no packet has a ClusterIP as its destination, so such a block never matches. */
function* checkBlocks(input: CheckInput, policy: Policy): Iterable<Finding> {
	for (const rule of policy.egress ?? []) {
		for (const peer of rule.peers) {
			if (peer.kind !== 'block') continue
			const inside = input.model.config.serviceCidrs.find((cidr) => cidrContains(cidr, cidrAddress(peer.cidr)))
			if (inside === undefined) continue
			yield {
				code: 'PW0018',
				severity: 'warning',
				text: `NetworkPolicy "${policy.key}" allows egress to ${peer.cidr}, in the Service network ${inside}: policies see the address of the pod behind the Service, so this block matches nothing`,
				because: [peer.origin],
			}
		}
	}
}

/** PW0020 */
function* checkReadable({ state }: CheckInput, policy: Policy): Iterable<Finding> {
	const spec = state.networkPolicies.get(policy.key)?.spec
	const peers = [
		...(spec?.ingress ?? []).map((rule, i) => ({ field: `spec.ingress[${i}].from`, list: rule.from })),
		...(spec?.egress ?? []).map((rule, i) => ({ field: `spec.egress[${i}].to`, list: rule.to })),
	]
	for (const { field, list } of peers) {
		for (const [i, peer] of (list ?? []).entries()) {
			if (peer.ipBlock === undefined) continue
			for (const text of [peer.ipBlock.cidr, ...(peer.ipBlock.except ?? [])]) {
				if (tryParseCidr(text, { mask: true }) !== undefined) continue
				yield {
					code: 'PW0020',
					severity: 'error',
					text: `NetworkPolicy "${policy.key}" has an ipBlock with "${text}", which is no CIDR: the peer matches nothing`,
					because: [originOf(state, 'NetworkPolicy', policy.key, `${field}[${i}].ipBlock`)],
				}
			}
		}
	}
}

/** PW0019: a pod whose egress policies do not allow the cluster DNS can resolve no name. Told once for each workload. */
function* checkDns(input: CheckInput): Iterable<Finding> {
	const { model, state } = input
	const dns = model.services.get(state.config.dnsService)
	const servers = dns?.ports.find((p) => p.protocol === 'UDP')?.endpoints ?? []
	if (dns === undefined || servers.length === 0) return
	const policies = policiesByNamespace(model.policies.values())
	const told = new Set<string>()
	for (const pod of [...model.pods.values()].sort((a, b) => (a.key < b.key ? -1 : 1))) {
		const owner = `${pod.owner.kind} ${pod.owner.key}`
		if (told.has(owner) || !dns.clusterIps.some((ip) => pod.dns.nameservers.includes(ip))) continue
		told.add(owner)
		const decisions = servers.map((server) => {
			const peer = server.pod === undefined ? undefined : model.pods.get(server.pod)
			return decide(
				model,
				{
					direction: 'egress',
					pod,
					peer: peer === undefined || peer.hostNetwork ? { ip: server.ip } : { ip: server.ip, pod: peer },
					protocol: 'UDP',
					port: server.port,
				},
				policies.get(pod.namespace) ?? [],
			)
		})
		if (decisions.some((d) => d.verdict === 'allow')) continue
		yield {
			code: 'PW0019',
			severity: 'warning',
			text: `${owner.replace(' ', ' "')}" cannot resolve names: its egress policies do not allow UDP port ${servers[0]!.port} to the pods of Service "${dns.key}"`,
			because: decisions[0]!.because,
		}
	}
}

function peerPods(input: CheckInput, policy: Policy, peer: PolicyPeer): readonly Pod[] {
	if (peer.kind === 'block') return []
	const pods = peer.pods ?? { matchLabels: {}, matchExpressions: [] }
	if (peer.namespaces === undefined) return input.pods.select(policy.namespace, pods)
	const { namespaces } = peer
	return [...input.model.namespaces.values()]
		.filter((namespace) => selectorMatches(namespaces, namespace.labels))
		.flatMap((namespace) => input.pods.select(namespace.name, pods))
}

function peerText(policy: Policy, peer: Extract<PolicyPeer, { kind: 'pods' }>): string {
	const where =
		peer.namespaces === undefined
			? `namespace "${policy.namespace}"`
			: `namespaces with ${selectorText(peer.namespaces)}`
	return `pods with ${selectorText(peer.pods ?? { matchLabels: {}, matchExpressions: [] })} in ${where}`
}
