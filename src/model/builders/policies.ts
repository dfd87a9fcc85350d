// NetworkPolicies of the model: defaults filled in, peers and ports as predicates, an origin for each rule.

import { type Cidr, tryParseCidr } from '../../base/ip.ts'
import { diffTables, emptyTable, type Table } from '../../base/table.ts'
import type * as meta from '../../kube/objects/meta.ts'
import { type KubeObject, namespacedKey, type ObjectKey } from '../../kube/objects/meta.ts'
import type {
	NetworkPolicy,
	NetworkPolicyEgressRule,
	NetworkPolicyIngressRule,
	NetworkPolicyPeer,
} from '../../kube/objects/networking.ts'
import { auditAnnotation } from '../labels.ts'
import type { LabelSelector, Policy, PolicyPeer, PolicyRule } from '../network.ts'
import type { Origin } from '../origin.ts'
import { nothing } from '../selector.ts'
import { share } from '../share.ts'
import { type ClusterState, originOf } from '../state.ts'
import { type BuildInput, changedKeys } from './input.ts'

export function buildPolicies(input: BuildInput): Table<ObjectKey, Policy> {
	const before = input.last?.parts.policies ?? emptyTable<ObjectKey, Policy>()
	return before.mutate((draft) => {
		const changed = changedKeys(input, 'NetworkPolicy', 'networkPolicies')
		const namespaces = changedTrials(input)
		if (namespaces.size > 0) {
			for (const [key, policy] of input.state.networkPolicies)
				if (namespaces.has(policy.metadata.namespace ?? '')) changed.add(key)
		}
		for (const key of changed) {
			const object = input.state.networkPolicies.get(key)
			if (object === undefined) draft.delete(key)
			else draft.set(key, share(draft.get(key), readPolicy(input.state, object)))
		}
	})
}

/** Namespaces whose policies are put on trial as a whole, or no longer are. */
function changedTrials({ state, last }: BuildInput): ReadonlySet<string> {
	const changed = new Set<string>()
	diffTables(last?.state.namespaces ?? emptyTable<string, KubeObject>(), state.namespaces, (name, a, b) => {
		if (isOnTrial(a) !== isOnTrial(b)) changed.add(name)
	})
	return changed
}

function isOnTrial(object: KubeObject | undefined): boolean {
	return object?.metadata.annotations?.[auditAnnotation] === 'true'
}

function trialOf(state: ClusterState, object: NetworkPolicy, key: ObjectKey, namespace: string): Origin | undefined {
	const field = `metadata.annotations.${auditAnnotation}`
	if (isOnTrial(object)) return originOf(state, 'NetworkPolicy', key, field)
	return isOnTrial(state.namespaces.get(namespace)) ? originOf(state, 'Namespace', namespace, field) : undefined
}

/** policyTypes absent: Ingress always, Egress where there is an egress rule (API: NetworkPolicySpec). */
function readPolicy(state: ClusterState, object: NetworkPolicy): Policy {
	const namespace = object.metadata.namespace ?? ''
	const key = namespacedKey(namespace, object.metadata.name)
	const spec = object.spec ?? {}
	const audit = trialOf(state, object, key, namespace)
	const types = spec.policyTypes?.length
		? spec.policyTypes
		: (spec.egress?.length ?? 0) > 0
			? ['Ingress', 'Egress']
			: ['Ingress']
	const rules = (direction: 'ingress' | 'egress', list: readonly Rule[]): PolicyRule[] =>
		list.map((rule, i) =>
			readRule(state, key, `spec.${direction}[${i}]`, direction === 'ingress' ? 'from' : 'to', rule),
		)
	return {
		key,
		namespace,
		subject: readSelector(spec.podSelector),
		...(types.includes('Ingress') ? { ingress: rules('ingress', spec.ingress ?? []) } : {}),
		...(types.includes('Egress') ? { egress: rules('egress', spec.egress ?? []) } : {}),
		...(audit === undefined ? {} : { audit }),
		origin: originOf(state, 'NetworkPolicy', key),
	}
}

type Rule = NetworkPolicyIngressRule & NetworkPolicyEgressRule

function readRule(state: ClusterState, key: ObjectKey, field: string, side: 'from' | 'to', rule: Rule): PolicyRule {
	return {
		peers: (rule[side] ?? []).map((peer, i) => readPeer(state, key, `${field}.${side}[${i}]`, peer)),
		ports: (rule.ports ?? []).map((port, i) => ({
			protocol: port.protocol ?? 'TCP',
			...(port.port === undefined ? {} : { port: port.port }),
			...(port.endPort === undefined ? {} : { endPort: port.endPort }),
			origin: originOf(state, 'NetworkPolicy', key, `${field}.ports[${i}]`),
		})),
		origin: originOf(state, 'NetworkPolicy', key, field),
	}
}

/** A peer that cannot be read matches nobody: dropping it could leave an empty list, which allows all. */
function readPeer(state: ClusterState, key: ObjectKey, field: string, peer: NetworkPolicyPeer): PolicyPeer {
	const origin = originOf(state, 'NetworkPolicy', key, field)
	if (peer.ipBlock !== undefined) {
		const cidr = tryParseCidr(peer.ipBlock.cidr, { mask: true })
		const except = (peer.ipBlock.except ?? []).map((text) => tryParseCidr(text, { mask: true }))
		if (cidr === undefined || except.includes(undefined)) return { kind: 'pods', pods: nothing, origin }
		return { kind: 'block', cidr, except: except as Cidr[], origin }
	}
	// A peer with neither selector is refused by the API server; on its own it says nothing, so it matches nobody.
	if (peer.podSelector === undefined && peer.namespaceSelector === undefined)
		return { kind: 'pods', pods: nothing, origin }
	return {
		kind: 'pods',
		...(peer.namespaceSelector === undefined ? {} : { namespaces: readSelector(peer.namespaceSelector) }),
		...(peer.podSelector === undefined ? {} : { pods: readSelector(peer.podSelector) }),
		origin,
	}
}

export function readSelector(selector: meta.LabelSelector | undefined): LabelSelector {
	return {
		matchLabels: selector?.matchLabels ?? {},
		matchExpressions: (selector?.matchExpressions ?? []).map(({ key, operator, values }) => ({
			key,
			operator,
			values: values ?? [],
		})),
	}
}
