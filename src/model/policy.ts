// What the policies of all tiers say about one connection, and which requirement of each rule decided or failed.
// Admin tier → NetworkPolicy (v1: isolation is per direction; rules only allow, and add up; final for the pods it
// isolates) → Baseline tier → allowed. Replies need no rule.

import type { Ip } from '../base/ip.ts'
import type { Protocol } from '../base/packet.ts'
import type { Table } from '../base/table.ts'
import type { NetworkModel, NodeName, Pod, Policy, PolicyRule, TieredPolicy, TieredRule } from './network.ts'
import { defaultOrigin, type Origin } from './origin.ts'
import {
	type MatchContext,
	type MatchModel,
	type Mismatch,
	namesMeant,
	ruleMismatch,
	tierSelects,
} from './policy-match.ts'
import { type PolicyProfile, policyProfiles } from './policy-profile.ts'
import { selectorMatches } from './selector.ts'

export type { Mismatch, Requirement } from './policy-match.ts'

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

export type DecidingTier = 'Admin' | 'NetworkPolicy' | 'Baseline' | 'default'

export interface Decision {
	readonly verdict: 'allow' | 'deny'
	/**
	 * Allow: the policy and the rule, or the default that allows. Deny by NetworkPolicy: every policy that selects the
	 * pod; by a tier: the policy and the rule.
	 */
	readonly because: readonly Origin[]
	/** Who decided. default: no policy did (or none is asked: a pod's own node, the pod itself, hostNetwork). */
	readonly tier: DecidingTier
	/** The rule that decided; undefined where no single one did: the default of a tier or of the cluster. */
	readonly rule?: Origin
	/** It is allowed only because every policy that denies it is on trial: the annotations that say so are in `because`. */
	readonly audited?: true
	/** Every NetworkPolicy that isolates the pod in this direction, by key, with what became of each rule. */
	readonly trials: readonly PolicyTrial[]
	/** The policies of the tiers that select the pod and have rules for the direction, as far as they were asked. */
	readonly tiers: readonly TierTrial[]
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

export interface TierTrial {
	readonly policy: TieredPolicy
	/** In order, up to the one that matched. */
	readonly rules: readonly TierRuleTrial[]
}

export interface TierRuleTrial {
	readonly rule: TieredRule
	/** Undefined: the rule matched, and its action was taken. */
	readonly failed?: Mismatch
	/** Names of domains by which it matched, as the cluster's DNS server answered. */
	readonly names?: readonly string[]
}

type PolicyModel = MatchModel & Pick<NetworkModel, 'policies'> & Partial<Pick<NetworkModel, 'tieredPolicies'>>

const fromNode = defaultOrigin("traffic from the pod's own node is always allowed")
const fromSelf = defaultOrigin('a pod may always reach itself')
const hostNetwork = defaultOrigin('a hostNetwork pod is not subject to NetworkPolicy')
const notIsolated: Readonly<Record<Direction, Origin>> = {
	ingress: defaultOrigin('no policy selects the pod for ingress'),
	egress: defaultOrigin('no policy selects the pod for egress'),
}
const noneMatched = defaultOrigin('no rule of a tier matches, and no NetworkPolicy selects the pod')

/**
 * What all policies say. A connection needs the egress of its source and the ingress of its destination: ask twice.
 * `policies` narrows the search of NetworkPolicies where the caller has them by namespace; all of the model otherwise.
 * The tiers are those of the model; a model without them has none. `profile` fills in what the API leaves open.
 */
export function decide(
	model: PolicyModel,
	question: Question,
	policies: Iterable<Policy> = model.policies.values(),
	profile: PolicyProfile = policyProfiles.default,
): Decision {
	const { direction, pod, peer } = question
	const allowed = (because: Origin, trials: readonly PolicyTrial[], tiers: readonly TierTrial[] = []): Decision => ({
		verdict: 'allow',
		because: [because],
		tier: 'default',
		trials,
		tiers,
	})
	if (pod.hostNetwork) return allowed(hostNetwork, [])
	if (peer.pod?.key === pod.key && profile.hairpin === 'allowed') return allowed(fromSelf, [])
	const trials = selecting(policies, pod, direction).map((policy) => tryPolicy(model, policy, question, profile))
	const tiered = tieredOf(model).filter((policy) => policy[direction].length > 0 && tierSelects(policy, model, pod))
	if (trials.length === 0 && tiered.length === 0) return allowed(notIsolated[direction], trials)
	// The kubelet's probes, and whatever else the node itself sends, pass even where no rule allows them.
	if (direction === 'ingress' && peer.node !== undefined && peer.node === pod.node) return allowed(fromNode, trials)

	const admin = tryTier(model, tiered, 'Admin', question, profile)
	if (admin.decided !== undefined) return { ...admin.decided, trials, tiers: admin.trials }
	for (const { policy, rules } of trials) {
		const rule = rules.find((r) => r.failed === undefined)?.rule
		if (rule === undefined) continue
		const because = [policy.origin, rule.origin]
		return { verdict: 'allow', because, tier: 'NetworkPolicy', rule: rule.origin, trials, tiers: admin.trials }
	}
	// A policy that is in force denies by itself; one on trial does not, whatever it says.
	const trial = trials.flatMap(({ policy }) => policy.audit ?? [])
	if (trial.length < trials.length) {
		const because = trials.map((t) => t.policy.origin)
		return { verdict: 'deny', because, tier: 'NetworkPolicy', trials, tiers: admin.trials }
	}
	const baseline = tryTier(model, tiered, 'Baseline', question, profile)
	const tiers = [...admin.trials, ...baseline.trials]
	if (baseline.decided?.verdict === 'deny') return { ...baseline.decided, trials, tiers }
	if (trials.length > 0)
		return { verdict: 'allow', audited: true, because: trial, tier: 'NetworkPolicy', trials, tiers }
	return baseline.decided === undefined ? allowed(noneMatched, trials, tiers) : { ...baseline.decided, trials, tiers }
}

const actions = { Accept: 'allow', Deny: 'deny' } as const

/** The first rule that matches decides, in the order of the policies; a Pass leaves the tier. */
function tryTier(
	model: PolicyModel,
	policies: readonly TieredPolicy[],
	tier: TieredPolicy['tier'],
	question: Question,
	profile: PolicyProfile,
): { readonly decided?: Omit<Decision, 'trials' | 'tiers'>; readonly trials: readonly TierTrial[] } {
	const context: MatchContext = { model, profile, noPeers: 'nobody' }
	const trials: TierTrial[] = []
	for (const policy of policies) {
		if (policy.tier !== tier) continue
		const rules: TierRuleTrial[] = []
		trials.push({ policy, rules })
		for (const rule of policy[question.direction]) {
			const failed = ruleMismatch(context, rule, question)
			const names = failed === undefined ? namesMeant(context, rule, question) : []
			rules.push(failed === undefined ? { rule, ...(names.length === 0 ? {} : { names }) } : { rule, failed })
			if (failed !== undefined) continue
			if (rule.action === 'Pass') return { trials }
			const because = [policy.origin, rule.origin]
			return { decided: { verdict: actions[rule.action], because, tier, rule: rule.origin }, trials }
		}
	}
	return { trials }
}

/** By priority, then name, then kind: the API leaves ties open, and an answer must not depend on the day. */
export function inOrder(policies: Iterable<TieredPolicy>): readonly TieredPolicy[] {
	const text = ({ key, kind }: TieredPolicy) => `${key} ${kind}`
	return [...policies].sort((a, b) => a.priority - b.priority || (text(a) < text(b) ? -1 : 1))
}

/** The same table is asked again and again. */
const ordered = new WeakMap<Table<string, TieredPolicy>, readonly TieredPolicy[]>()

function tieredOf({ tieredPolicies }: PolicyModel): readonly TieredPolicy[] {
	if (tieredPolicies === undefined) return []
	let list = ordered.get(tieredPolicies)
	if (list === undefined) ordered.set(tieredPolicies, (list = inOrder(tieredPolicies.values())))
	return list
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

function tryPolicy(model: PolicyModel, policy: Policy, question: Question, profile: PolicyProfile): PolicyTrial {
	const rules = policy[question.direction] ?? []
	const context: MatchContext = { model, profile, namespace: policy.namespace, noPeers: 'anybody' }
	return {
		policy,
		rules: rules.map((rule) => {
			const failed = ruleMismatch(context, rule, question)
			return failed === undefined ? { rule } : { rule, failed }
		}),
	}
}
