// The smallest changes of the manifests that would allow a connection which policies deny: a port or a peer in a rule, a
// label, a rule. Every one is tried on the model before it is offered, and what else it would open is counted.

import { hostCidr } from '../base/ip.ts'
import type { Table } from '../base/table.ts'
import { controllerLabels, namespaceNameLabel } from '../model/labels.ts'
import type {
	LabelSelector,
	NetworkModel,
	Pod,
	Policy,
	PolicyPeer,
	TieredPolicy,
	TieredRule,
} from '../model/network.ts'
import { type ObjectKey, type Origin, objectOrigin } from '../model/origin.ts'
import { type Decision, decide, policiesByNamespace, type Question } from '../model/policy.ts'
import { labelsOf, onlyLabelMissing } from '../model/policy-match.ts'
import type { PolicyProfile } from '../model/policy-profile.ts'
import { selectorMatches } from '../model/selector.ts'
import { countOpened } from './policy-opens.ts'
import { blockText, type Data } from './yaml-block.ts'

export interface PolicyEdit {
	readonly kind: 'port' | 'peer' | 'label' | 'rule'
	/** `add the label team=web to namespace "shop"`. */
	readonly text: string
	readonly object: {
		readonly apiVersion: string
		readonly kind: string
		readonly namespace?: string
		readonly name: string
	}
	/** The place in the manifest, where it is known. */
	readonly at: Origin
	/** RFC 6902. */
	readonly patch: readonly PatchOperation[]
	/** What to write there, in block style. */
	readonly yaml: string
	/**
	 * How many other connections (pod, pod, port asked or declared; the same of other replicas aside) the policies of this direction would let through, for
	 * a label those of both; undefined: too many pods to count.
	 */
	readonly opens?: number
	/** How many they would no longer let through: a label can bring a pod under another policy. */
	readonly closes?: number
}

export interface PatchOperation {
	readonly op: 'add' | 'replace'
	/** JSON pointer. */
	readonly path: string
	readonly value: Data
}

/** The parts of the model that decisions read. */
export type EditModel = Pick<
	NetworkModel,
	'pods' | 'policies' | 'tieredPolicies' | 'namespaces' | 'nodes' | 'resolvedNames'
>

/** An edit and the model as it would be with it. */
export interface Candidate {
	readonly edit: PolicyEdit
	readonly after: EditModel
	/** Whose connections may change, by the side that changes: the subjects of a policy, or pods with other labels. */
	readonly touched: { readonly side: 'subjects' | 'relabelled'; pods(): readonly Pod[] }
}

const mostEdits = 4
const everyPort = ', which is for every port'

/** Empty where the connection is allowed, or where no single edit of these kinds would do. The one that opens least is first. */
export function policyEdits(
	model: EditModel,
	question: Question,
	decision: Decision,
	profile: PolicyProfile,
): readonly PolicyEdit[] {
	if (decision.verdict === 'allow') return []
	// A copy of the whole model would compute its findings.
	const { pods, policies, tieredPolicies, namespaces, nodes, resolvedNames } = model
	const parts = { pods, policies, tieredPolicies, namespaces, nodes, ...(resolvedNames && { resolvedNames }) }
	const found: PolicyEdit[] = []
	for (const candidate of candidates(parts, question, decision)) {
		const { after, edit } = candidate
		if (!isAllowed(after, question, profile)) continue
		if (edit.kind === 'rule' && found.some((e) => e.kind === 'rule' && sameText(e, edit))) continue
		found.push({ ...edit, ...countOpened(model, question, candidate, profile) })
	}
	const rank = ['port', 'peer', 'label', 'rule']
	const weight = (edit: PolicyEdit) => [edit.closes ?? 0, edit.opens ?? 1e9, isWide(edit) ? 9 : rank.indexOf(edit.kind)]
	return found
		.map((edit, i) => ({ edit, key: [...weight(edit), i] }))
		.sort((a, b) => a.key.map((n, i) => n - b.key[i]!).find((n) => n !== 0) ?? 0)
		.slice(0, mostEdits)
		.map(({ edit }) => edit)
}

/** Ports that no pod declares are not counted, yet open. */
function isWide(edit: PolicyEdit): boolean {
	return edit.text.endsWith(everyPort)
}

function sameText(a: PolicyEdit, b: PolicyEdit): boolean {
	return a.text === b.text
}

function isAllowed(after: EditModel, question: Question, profile: PolicyProfile): boolean {
	return decide(after, questionIn(after, question), after.policies.values(), profile).verdict === 'allow'
}

/** The same question of a model in which pods may have other labels. */
export function questionIn(model: Pick<EditModel, 'pods'>, question: Question): Question {
	const { pod, peer } = question
	const other = peer.pod === undefined ? undefined : (model.pods.get(peer.pod.key) ?? peer.pod)
	return {
		...question,
		pod: model.pods.get(pod.key) ?? pod,
		peer: { ...peer, ...(other === undefined ? {} : { pod: other }) },
	}
}

function* candidates(model: EditModel, question: Question, decision: Decision): Iterable<Candidate> {
	if (decision.tier === 'Admin' || decision.tier === 'Baseline') {
		yield* tierCandidates(model, question, decision)
		return
	}
	for (const { policy, rules } of decision.trials) {
		for (const [index, { failed }] of rules.entries()) {
			if (failed?.part === 'port') yield* portCandidate(model, question, policy, index)
			if (failed?.part !== 'peer') continue
			yield peerCandidate(model, question, policy, index)
			yield* labelCandidates(model, question, policy, index)
		}
		yield ruleCandidate(model, question, policy)
	}
}

function* portCandidate(model: EditModel, question: Question, policy: Policy, index: number): Iterable<Candidate> {
	const value = portsValue(question)[0]
	if (value === undefined) return
	const { direction } = question
	const rule = policy[direction]![index]!
	const { protocol, port } = question
	yield {
		edit: {
			kind: 'port',
			text: `allow ${protocol} port ${port} in ${direction} rule ${index} of NetworkPolicy "${policy.key}"`,
			object: objectOf('NetworkPolicy', policy),
			at: rule.ports.at(-1)?.origin ?? rule.origin,
			patch: [{ op: 'add', path: `/spec/${direction}/${index}/ports/-`, value }],
			yaml: blockText({ ports: [value] }),
		},
		...withRule(model, question, policy, index, {
			...rule,
			ports: [...rule.ports, { protocol, port, origin: rule.origin }],
		}),
	}
}

function peerCandidate(model: EditModel, question: Question, policy: Policy, index: number): Candidate {
	const { direction } = question
	const side = direction === 'ingress' ? 'from' : 'to'
	const rule = policy[direction]![index]!
	const { value, peer, text } = peerOf(question, policy.namespace, rule.origin)
	return {
		edit: {
			kind: 'peer',
			text: `add ${text} to ${direction} rule ${index} of NetworkPolicy "${policy.key}"${rule.ports.length === 0 ? everyPort : ''}`,
			object: objectOf('NetworkPolicy', policy),
			at: rule.peers.at(-1)?.origin ?? rule.origin,
			patch: [{ op: 'add', path: `/spec/${direction}/${index}/${side}/-`, value }],
			yaml: blockText({ [side]: [value] }),
		},
		...withRule(model, question, policy, index, { ...rule, peers: [...rule.peers, peer] }),
	}
}

function ruleCandidate(model: EditModel, question: Question, policy: Policy): Candidate {
	const { direction } = question
	const side = direction === 'ingress' ? 'from' : 'to'
	const rules = policy[direction] ?? []
	const { value, peer, text } = peerOf(question, policy.namespace, policy.origin)
	const ports = portsValue(question)
	const rule = { [side]: [value], ...(ports.length === 0 ? {} : { ports }) }
	const port = question.protocol === 'ICMP' ? 'ICMP (and all else)' : `${question.protocol} port ${question.port}`
	return {
		edit: {
			kind: 'rule',
			text: `add a rule to NetworkPolicy "${policy.key}": ${direction} ${side} ${text}, ${port}`,
			object: objectOf('NetworkPolicy', policy),
			at: rules.at(-1)?.origin ?? policy.origin,
			// Whether an empty list is spelled out or absent: adding the member does for both.
			patch: [
				rules.length === 0
					? { op: 'add', path: `/spec/${direction}`, value: [rule] }
					: { op: 'add', path: `/spec/${direction}/-`, value: rule },
			],
			yaml: blockText({ [direction]: [rule] }),
		},
		...withRule(model, question, policy, rules.length, {
			peers: [peer],
			ports: ports.map(() => ({ protocol: question.protocol, port: question.port, origin: policy.origin })),
			origin: policy.origin,
		}),
	}
}

type PolicyRules = NonNullable<Policy['ingress']>

function withRule(
	model: EditModel,
	{ direction }: Question,
	policy: Policy,
	index: number,
	rule: PolicyRules[number],
): Pick<Candidate, 'after' | 'touched'> {
	const rules = [...(policy[direction] ?? [])]
	rules[index] = rule
	const edited: Policy = { ...policy, [direction]: rules }
	return {
		after: { ...model, policies: model.policies.set(policy.key, edited) },
		touched: { side: 'subjects', pods: () => podsOf(model.pods, (pod) => isSubject(policy, pod)) },
	}
}

function isSubject(policy: Policy, pod: Pod): boolean {
	return pod.namespace === policy.namespace && selectorMatches(policy.subject, pod.labels)
}

function podsOf(pods: Table<ObjectKey, Pod>, test: (pod: Pod) => boolean): Pod[] {
	const found: Pod[] = []
	for (const pod of pods.values()) if (test(pod)) found.push(pod)
	return found
}

/** The other side as a peer, by the labels its author gave it: the narrowest there is. */
function peerOf(
	{ peer: { ip, pod } }: Question,
	namespace: string | undefined,
	origin: Origin,
): { readonly value: Readonly<Record<string, Data>>; readonly peer: PolicyPeer; readonly text: string } {
	if (pod === undefined || pod.hostNetwork) {
		const cidr = hostCidr(ip)
		return { value: { ipBlock: { cidr } }, peer: { kind: 'block', cidr, except: [], origin }, text: `ipBlock ${cidr}` }
	}
	const matchLabels = ownLabels(pod)
	const pods = { matchLabels, matchExpressions: [] }
	const podSelector: Data = Object.keys(matchLabels).length === 0 ? {} : { matchLabels }
	const text = `the pods with ${Object.entries(matchLabels).map(labelText).join(',') || 'any labels'}`
	if (pod.namespace === namespace)
		return { value: { podSelector }, peer: { kind: 'pods', pods, origin }, text: `${text} in its namespace` }
	const where = { matchLabels: { [namespaceNameLabel]: pod.namespace } }
	return {
		value: { namespaceSelector: where, podSelector },
		peer: { kind: 'pods', namespaces: { ...where, matchExpressions: [] }, pods, origin },
		text: `${text} in namespace "${pod.namespace}"`,
	}
}

function labelText([key, value]: readonly [string, string]): string {
	return `${key}=${value}`
}

/** Without those a controller made up: a selector with one of them ends with its pod or roll-out. */
function ownLabels(pod: Pod): Readonly<Record<string, string>> {
	return Object.fromEntries(Object.entries(pod.labels).filter(([key]) => !controllerLabels.has(key)))
}

/** Empty for what has no ports. */
function portsValue({ protocol, port }: Question): readonly Readonly<Record<string, Data>>[] {
	return protocol === 'ICMP' ? [] : [{ protocol, port }]
}

function* labelCandidates(model: EditModel, question: Question, policy: Policy, index: number): Iterable<Candidate> {
	const pod = question.peer.pod
	if (pod === undefined || pod.hostNetwork) return
	const namespace = model.namespaces.get(pod.namespace)
	const namespaceLabels = labelsOf(namespace, pod)
	for (const peer of policy[question.direction]![index]!.peers) {
		if (peer.kind !== 'pods') continue
		const podFits = peer.pods === undefined || selectorMatches(peer.pods, pod.labels)
		const namespaceFits =
			peer.namespaces === undefined
				? pod.namespace === policy.namespace
				: selectorMatches(peer.namespaces, namespaceLabels)
		if (podFits && !namespaceFits && namespace !== undefined) {
			const label = missingLabel(peer.namespaces, namespaceLabels)
			if (label !== undefined) {
				const labels = { ...namespace.labels, [label.label]: label.value }
				yield {
					edit: labelEdit({ kind: 'Namespace', key: namespace.name }, namespace.origin, label, namespace.labels),
					after: { ...model, namespaces: model.namespaces.set(namespace.name, { ...namespace, labels }) },
					touched: { side: 'relabelled', pods: () => podsOf(model.pods, (p) => p.namespace === namespace.name) },
				}
			}
		}
		if (!podFits && namespaceFits) yield* podLabelCandidate(model, pod, peer.pods)
	}
}

function missingLabel(selector: LabelSelector | undefined, labels: Readonly<Record<string, string>>) {
	const missing = onlyLabelMissing(selector, labels)
	// A namespace's name cannot be changed by its label.
	return missing?.label === namespaceNameLabel ? undefined : missing
}

/** Kinds whose template may get another label. */
const templated = ['Deployment', 'StatefulSet', 'DaemonSet', 'ReplicaSet']

function* podLabelCandidate(model: EditModel, pod: Pod, selector: LabelSelector | undefined): Iterable<Candidate> {
	const label = missingLabel(selector, pod.labels)
	if (label === undefined) return
	const { owner } = pod
	const alone = owner.kind === 'Pod'
	// A workload selects its pods by labels it cannot change: only one that is not there yet is safe to give.
	if (!alone && (!templated.includes(owner.kind) || Object.hasOwn(pod.labels, label.label))) return
	const relabelled = alone ? [pod] : podsOf(model.pods, (p) => p.owner.kind === owner.kind && p.owner.key === owner.key)
	let { pods } = model
	for (const p of relabelled) pods = pods.set(p.key, { ...p, labels: { ...p.labels, [label.label]: label.value } })
	yield {
		edit: labelEdit(alone ? { kind: 'Pod', key: pod.key } : owner, pod.origin, label, pod.labels),
		after: { ...model, pods },
		touched: { side: 'relabelled', pods: () => relabelled },
	}
}

function labelEdit(
	of: { readonly kind: string; readonly key: ObjectKey },
	origin: Origin,
	{ label, value }: { readonly label: string; readonly value: string },
	labels: Readonly<Record<string, string>>,
): PolicyEdit {
	const [namespace, name] = of.key.includes('/') ? (of.key.split('/') as [string, string]) : [undefined, of.key]
	const template = templated.includes(of.kind)
	const field = template ? 'spec.template.metadata.labels' : 'metadata.labels'
	const path = `/${field.replaceAll('.', '/')}`
	const before = Object.hasOwn(labels, label) ? labels[label] : undefined
	// A namespace's label of its name is there for the model even where no manifest writes it.
	const none = Object.keys(labels).every((key) => key === namespaceNameLabel) && before === undefined
	const metadata = { metadata: { labels: { [label]: value } } }
	const source = 'default' in origin ? undefined : origin.source
	const text =
		before === undefined
			? `give ${of.kind} "${of.key}" the label ${label}=${value}`
			: `change the label ${label} of ${of.kind} "${of.key}" from "${before}" to "${value}"`
	return {
		kind: 'label',
		text,
		object: {
			apiVersion: of.kind === 'Pod' || of.kind === 'Namespace' ? 'v1' : 'apps/v1',
			kind: of.kind,
			...(namespace === undefined ? {} : { namespace }),
			name,
		},
		at: objectOrigin(of.kind, of.key, field, source),
		patch: [
			none
				? { op: 'add', path, value: { [label]: value } }
				: { op: 'add', path: `${path}/${label.replaceAll('~', '~0').replaceAll('/', '~1')}`, value },
		],
		yaml: blockText(template ? { spec: { template: metadata } } : metadata),
	}
}

/** Most rules of one direction that each kind may have. */
const mostRules = { ClusterNetworkPolicy: 25, AdminNetworkPolicy: 100, BaselineAdminNetworkPolicy: 100 }

/** A rule before the one that denies: one that passes to the next tier where that would allow, one that accepts otherwise. */
function* tierCandidates(model: EditModel, question: Question, decision: Decision): Iterable<Candidate> {
	const { policy, rules } = decision.tiers.at(-1)!
	const { direction } = question
	if (policy[direction].length >= mostRules[policy.kind]) return
	const { pod, ip } = question.peer
	const isPod = pod !== undefined && !pod.hostNetwork
	if (!isPod && direction === 'ingress') return
	const { peer, text, value } = peerOf(question, undefined, policy.origin)
	const peerValue: Data = isPod ? { pods: value } : { networks: [hostCidr(ip)] }
	const accept = policy.kind === 'ClusterNetworkPolicy' ? 'Accept' : 'Allow'
	const index = rules.length - 1
	const side = direction === 'ingress' ? 'from' : 'to'
	const { protocol, port } = question
	const asked: Readonly<Record<string, Data>> =
		protocol === 'ICMP'
			? {}
			: policy.kind === 'ClusterNetworkPolicy'
				? { protocols: [{ [protocol.toLowerCase()]: { destinationPort: { number: port } } }] }
				: { ports: [{ portNumber: { protocol, port } }] }
	for (const action of policy.kind === 'BaselineAdminNetworkPolicy' ? [accept] : ['Pass', accept]) {
		const rule = { action, [side]: [peerValue], ...asked }
		const inserted: TieredRule = {
			action: action === 'Pass' ? 'Pass' : 'Accept',
			peers: [peer],
			ports: protocol === 'ICMP' ? [] : [{ protocol, port, origin: policy.origin }],
			origin: policy.origin,
		}
		const list = policy[direction]
		const edited: TieredPolicy = {
			...policy,
			[direction]: [...list.slice(0, index), inserted, ...list.slice(index)],
		}
		const tieredPolicies = model.tieredPolicies.set(`${policy.kind} ${policy.key}`, edited)
		yield {
			edit: {
				kind: 'rule',
				text: `put a rule before ${direction} rule ${index} of ${policy.kind} "${policy.key}": ${action} ${side} ${text}${protocol === 'ICMP' ? '' : `, ${protocol} port ${port}`}`,
				object: objectOf(policy.kind, policy),
				at: rules[index]!.rule.origin,
				patch: [{ op: 'add', path: `/spec/${direction}/${index}`, value: rule }],
				yaml: blockText({ [direction]: [rule] }),
			},
			after: { ...model, tieredPolicies },
			touched: { side: 'subjects', pods: () => podsOf(model.pods, () => true) },
		}
		if (isAllowedBy(model, tieredPolicies, question)) return
	}
}

function isAllowedBy(model: EditModel, tieredPolicies: EditModel['tieredPolicies'], question: Question): boolean {
	const policies = policiesByNamespace(model.policies.values()).get(question.pod.namespace) ?? []
	return decide({ ...model, tieredPolicies }, question, policies).verdict === 'allow'
}

const apiVersions = {
	NetworkPolicy: 'networking.k8s.io/v1',
	ClusterNetworkPolicy: 'policy.networking.k8s.io/v1alpha2',
	AdminNetworkPolicy: 'policy.networking.k8s.io/v1alpha1',
	BaselineAdminNetworkPolicy: 'policy.networking.k8s.io/v1alpha1',
}

function objectOf(kind: keyof typeof apiVersions, policy: Policy | TieredPolicy): PolicyEdit['object'] {
	const name = policy.key.slice(policy.key.indexOf('/') + 1)
	const where = 'namespace' in policy ? { namespace: policy.namespace } : {}
	return { apiVersion: apiVersions[kind], kind, ...where, name }
}
