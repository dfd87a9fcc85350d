// What NetworkPolicies say about one connection, and which requirement of each rule decided or failed.
// networking.k8s.io/v1: isolation is per direction; rules only allow, and add up; replies need no rule.

import { cidrContains, type Ip } from '../base/ip.ts'
import type { Protocol } from '../base/packet.ts'
import { namespaceNameLabel } from './labels.ts'
import type {
	ContainerPort,
	Namespace,
	NetworkModel,
	NodeName,
	Pod,
	Policy,
	PolicyPeer,
	PolicyPort,
	PolicyRule,
} from './network.ts'
import { defaultOrigin, type Origin } from './origin.ts'
import { firstMismatch, isNothing, selectorMatches } from './selector.ts'

export type Direction = 'ingress' | 'egress'

/** The other side as the filter sees it: after destination translation, before source translation. */
export interface Peer {
	readonly ip: Ip
	/** Undefined for nodes, hostNetwork pods and what lies outside: only an ipBlock can name those. */
	readonly pod?: Pod
	/** The node itself (or a hostNetwork pod on it). */
	readonly node?: NodeName
}

export interface Question {
	readonly direction: Direction
	/** Whose policies are asked. */
	readonly pod: Pod
	readonly peer: Peer
	readonly protocol: Protocol
	/** Destination port, after translation. */
	readonly port: number
}

export interface Decision {
	readonly verdict: 'allow' | 'deny'
	/** Allow: the policy and the rule, or the default that allows. Deny: every policy that selects the pod. */
	readonly because: readonly Origin[]
	/** It is allowed only because every policy that denies it is on trial: the annotations that say so are in `because`. */
	readonly audited?: true
	/** Every policy that isolates the pod in this direction, by key, with what became of each rule. */
	readonly trials: readonly PolicyTrial[]
}

export interface PolicyTrial {
	readonly policy: Policy
	readonly rules: readonly RuleTrial[]
}

export interface RuleTrial {
	readonly rule: PolicyRule
	/** The first requirement that did not match; undefined: the rule allows the connection. */
	readonly failed?: Mismatch
}

export interface Mismatch {
	readonly part: 'peer' | 'port'
	readonly origin: Origin
	/** `podSelector wants app=web, has app=api`. */
	readonly text: string
}

type PolicyModel = Pick<NetworkModel, 'policies' | 'namespaces'>

const fromNode = defaultOrigin("traffic from the pod's own node is always allowed")
const fromSelf = defaultOrigin('a pod may always reach itself')
const hostNetwork = defaultOrigin('a hostNetwork pod is not subject to NetworkPolicy')
const notIsolated: Readonly<Record<Direction, Origin>> = {
	ingress: defaultOrigin('no policy selects the pod for ingress'),
	egress: defaultOrigin('no policy selects the pod for egress'),
}

/** `policies` narrows the search where the caller has them by namespace; all of the model otherwise. */
export function decide(
	model: PolicyModel,
	question: Question,
	policies: Iterable<Policy> = model.policies.values(),
): Decision {
	const { direction, pod, peer } = question
	if (pod.hostNetwork) return { verdict: 'allow', because: [hostNetwork], trials: [] }
	if (peer.pod?.key === pod.key) return { verdict: 'allow', because: [fromSelf], trials: [] }
	const trials = selecting(policies, pod, direction).map((policy) => tryPolicy(model, policy, question))
	if (trials.length === 0) return { verdict: 'allow', because: [notIsolated[direction]], trials }
	// The kubelet's probes, and whatever else the node itself sends, pass even where no rule allows them.
	if (direction === 'ingress' && peer.node !== undefined && peer.node === pod.node) {
		return { verdict: 'allow', because: [fromNode], trials }
	}
	for (const { policy, rules } of trials) {
		const rule = rules.find((r) => r.failed === undefined)?.rule
		if (rule !== undefined) return { verdict: 'allow', because: [policy.origin, rule.origin], trials }
	}
	// A policy that is in force denies by itself; one on trial does not, whatever it says.
	const trial = trials.flatMap(({ policy }) => policy.audit ?? [])
	if (trial.length === trials.length) return { verdict: 'allow', audited: true, because: trial, trials }
	return { verdict: 'deny', because: trials.map((t) => t.policy.origin), trials }
}

/** The policies that isolate the pod in this direction, by key. */
export function selecting(policies: Iterable<Policy>, pod: Pod, direction: Direction): Policy[] {
	const found: Policy[] = []
	for (const policy of policies) {
		if (policy.namespace !== pod.namespace || policy[direction] === undefined) continue
		if (selectorMatches(policy.subject, pod.labels)) found.push(policy)
	}
	return found.sort((a, b) => (a.key < b.key ? -1 : 1))
}

/** All policies by namespace: for those who ask about many pods. */
export function policiesByNamespace(policies: Iterable<Policy>): ReadonlyMap<string, readonly Policy[]> {
	const map = new Map<string, Policy[]>()
	for (const policy of policies) {
		const list = map.get(policy.namespace)
		if (list === undefined) map.set(policy.namespace, [policy])
		else list.push(policy)
	}
	return map
}

function tryPolicy(model: PolicyModel, policy: Policy, question: Question): PolicyTrial {
	const rules = policy[question.direction] ?? []
	return {
		policy,
		rules: rules.map((rule) => {
			const failed = peerMismatch(model, policy, rule, question) ?? portMismatch(rule, question)
			return failed === undefined ? { rule } : { rule, failed }
		}),
	}
}

function peerMismatch(model: PolicyModel, policy: Policy, rule: PolicyRule, question: Question): Mismatch | undefined {
	let nearest: (Mismatch & { readonly near: number }) | undefined
	for (const peer of rule.peers) {
		const failed = matchPeer(model, policy, peer, question.peer)
		if (failed === undefined) return undefined
		// Of several peers the one that got furthest explains best.
		if (nearest === undefined || failed.near > nearest.near) {
			nearest = { part: 'peer', origin: peer.origin, text: failed.text, near: failed.near }
		}
	}
	if (nearest === undefined) return undefined
	const { part, origin, text } = nearest
	return { part, origin, text }
}

/** Undefined: it matches. `near`: 0 not even the kind, 1 the kind only, 2 all but the last requirement. */
function matchPeer(
	model: PolicyModel,
	policy: Policy,
	peer: PolicyPeer,
	other: Peer,
): { readonly text: string; readonly near: number } | undefined {
	if (peer.kind === 'block') {
		if (!cidrContains(peer.cidr, other.ip))
			return { text: `ipBlock ${peer.cidr} does not contain ${other.ip}`, near: 0 }
		const except = peer.except.find((cidr) => cidrContains(cidr, other.ip))
		return except === undefined ? undefined : { text: `ipBlock ${peer.cidr} excepts ${except}`, near: 2 }
	}
	if (isNothing(peer.pods)) return { text: 'the peer cannot be read and matches nothing', near: 0 }
	const pod = other.pod
	if (pod === undefined || pod.hostNetwork)
		return { text: `selects pods, and ${other.ip} is not the address of a pod`, near: 0 }
	if (peer.namespaces === undefined) {
		if (pod.namespace !== policy.namespace) {
			return {
				text: `podSelector alone means pods of namespace "${policy.namespace}", the pod is in "${pod.namespace}"`,
				near: peer.pods !== undefined && selectorMatches(peer.pods, pod.labels) ? 2 : 1,
			}
		}
	} else {
		const failed = firstMismatch(peer.namespaces, namespaceLabels(model.namespaces.get(pod.namespace), pod.namespace))
		if (failed !== undefined) {
			return {
				text: `namespaceSelector ${failed} (namespace "${pod.namespace}")`,
				near: peer.pods === undefined || selectorMatches(peer.pods, pod.labels) ? 2 : 1,
			}
		}
	}
	const failed = peer.pods === undefined ? undefined : firstMismatch(peer.pods, pod.labels)
	return failed === undefined ? undefined : { text: `podSelector ${failed}`, near: 2 }
}

function namespaceLabels(namespace: Namespace | undefined, name: string): Readonly<Record<string, string>> {
	return namespace?.labels ?? { [namespaceNameLabel]: name }
}

function portMismatch(rule: PolicyRule, question: Question): Mismatch | undefined {
	if (rule.ports.length === 0) return undefined
	const destination = question.direction === 'ingress' ? question.pod : question.peer.pod
	if (rule.ports.some((port) => matchPort(port, question, destination))) return undefined
	const packet = question.protocol === 'ICMP' ? 'ICMP' : `${question.protocol}/${question.port}`
	return {
		part: 'port',
		origin: rule.ports[0]!.origin,
		text: `ports allow ${rule.ports.map((port) => portText(port, destination)).join(', ')}, the packet has ${packet}`,
	}
}

function matchPort(port: PolicyPort, question: Question, destination: Pod | undefined): boolean {
	if (port.protocol !== question.protocol) return false
	if (port.port === undefined) return true
	if (typeof port.port === 'string') return namedPorts(destination, port).some((p) => p.port === question.port)
	return question.port >= port.port && question.port <= (port.endPort ?? port.port)
}

/** A name is looked up on the pod that receives the connection, whichever side the policy stands on. */
function namedPorts(pod: Pod | undefined, port: PolicyPort): readonly ContainerPort[] {
	return pod?.ports.filter((p) => p.name === port.port && p.protocol === port.protocol) ?? []
}

function portText(port: PolicyPort, destination: Pod | undefined): string {
	if (port.port === undefined) return `${port.protocol} (all)`
	if (typeof port.port === 'number') {
		return `${port.protocol}/${port.port}${port.endPort === undefined ? '' : `-${port.endPort}`}`
	}
	const found = namedPorts(destination, port).map((p) => p.port)
	return `${port.protocol}/${port.port} (${found.length === 0 ? 'which the destination does not declare' : found.join(', ')})`
}
