// Explanations as data: which field of which rule wanted what, who had what instead, every rule that allows, the edits,
// and where another implementation decides otherwise.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parse } from 'yaml'
import type { Ip } from '../base/ip.ts'
import { build } from '../model/build.ts'
import type { NetworkModel } from '../model/network.ts'
import { decide, type Peer, type Question } from '../model/policy.ts'
import { type ProfileName, policyProfiles } from '../model/policy-profile.ts'
import { emptyState, setObject } from '../model/state.ts'
import { adviceText, commandText, explainPolicy, requirementText } from './explain.ts'

const base = `
- {apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: Web}}}
- {apiVersion: v1, kind: Namespace, metadata: {name: data}}
- apiVersion: v1
  kind: Node
  metadata: {name: n1, labels: {zone: a}}
  status: {addresses: [{type: InternalIP, address: 172.18.0.2}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: web, namespace: shop, labels: {app: web, pod-template-hash: abc}}
  spec: {nodeName: n1, containers: [{name: c}]}
  status: {phase: Running, podIPs: [{ip: 10.244.0.5}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: db, namespace: data, labels: {app: db}}
  spec: {nodeName: n2, containers: [{name: c, ports: [{name: sql, containerPort: 5432}]}]}
  status: {phase: Running, podIPs: [{ip: 10.244.1.5}]}
`

function modelOf(policies: string): NetworkModel {
	let state = emptyState()
	for (const object of [...parse(base), ...parse(policies)] as Parameters<typeof setObject>[1][])
		state = setObject(state, object)
	return build(state)
}

function explain(policies: string, more: Partial<Pick<Question, 'direction' | 'port'>> & { peer?: Peer } = {}) {
	const model = modelOf(policies)
	const web = model.pods.get('shop/web')!
	const db = model.pods.get('data/db')!
	const egress = more.direction === 'egress'
	const question: Question = {
		direction: 'ingress',
		pod: egress ? web : db,
		peer: egress ? { ip: db.ips[0]!, pod: db } : { ip: web.ips[0]!, pod: web },
		protocol: 'TCP',
		port: 5432,
		...more,
	}
	return explainPolicy(model, question, decide(model, question))
}

const policy = (spec: string, name = 'db') =>
	`- {apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: ${name}, namespace: data}, spec: {podSelector: {}, ${spec}}}\n`

test('the first thing that failed, as a field of the API with what is there', () => {
	const texts = (rules: string) =>
		explain(policy(`ingress: [${rules}]`)).policies.flatMap((p) =>
			p.rules.map((r) => (r.failed?.requirement === undefined ? 'none' : requirementText(r.failed.requirement))),
		)
	assert.deepEqual(texts('{from: [{namespaceSelector: {matchLabels: {team: web}}}]}'), [
		'from[0].namespaceSelector.matchLabels.team wants team=web: namespace "shop" has team=Web',
	])
	assert.deepEqual(
		texts(
			'{from: [{ipBlock: {cidr: 192.0.2.0/24}}, {namespaceSelector: {}, podSelector: {matchExpressions: [{key: app, operator: In, values: [a, b]}]}}]}',
		),
		['from[1].podSelector.matchExpressions[0] wants app in (a, b): pod "shop/web" has app=web'],
	)
	assert.deepEqual(texts('{ports: [{port: 80}, {port: 443}]}'), [
		'ports wants TCP/80, TCP/443: the connection is TCP/5432',
	])
	assert.deepEqual(texts('{from: [{podSelector: {}}]}'), [
		'from[0].podSelector wants namespace data: pod "shop/web" has namespace shop',
	])
})

test('every rule that allows is named, of every policy', () => {
	const { verdict, tier, allowing, edits } = explain(
		policy('ingress: [{from: [{podSelector: {}}]}, {ports: [{port: sql}]}]', 'a') + policy('ingress: [{}]', 'b'),
	)
	assert.deepEqual([verdict, tier, edits], ['allow', 'NetworkPolicy', []])
	assert.deepEqual(
		allowing.map((o) => ('default' in o ? o.default : `${o.key} ${o.field}`)),
		['data/a spec.ingress[1]', 'data/b spec.ingress[0]'],
	)
})

test('the label that is missing, the port, the peer and the rule are offered; labels of a rollout are not asked for', () => {
	const { edits } = explain(
		policy('ingress: [{from: [{namespaceSelector: {matchLabels: {team: web}}}], ports: [{port: 5432}]}]'),
	)
	assert.deepEqual(
		edits.map((e) => [e.kind, e.opens]),
		[
			['peer', 0],
			['label', 0],
			['rule', 0],
		],
	)
	const label = edits.find((e) => e.kind === 'label')!
	assert.deepEqual(label.patch, [{ op: 'add', path: '/metadata/labels/team', value: 'web' }])
	assert.equal(
		commandText(label),
		`kubectl patch namespace shop --type json -p '[{"op":"add","path":"/metadata/labels/team","value":"web"}]'`,
	)
	assert.deepEqual(parse(edits[0]!.yaml), {
		from: [
			{
				namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'shop' } },
				podSelector: { matchLabels: { app: 'web' } },
			},
		],
	})
})

test('an admin rule that denies: one before it, passing where the next tier allows, accepting where it does not', () => {
	const admin = `- {apiVersion: policy.networking.k8s.io/v1alpha2, kind: ClusterNetworkPolicy, metadata: {name: deny}, spec: {tier: Admin, priority: 1, subject: {namespaces: {}}, ingress: [{name: all, action: Deny, from: [{namespaces: {}}]}]}}\n`
	const actions = (more: string) =>
		explain(admin + more).edits.map((e) => (e.patch[0]!.value as { action: string }).action)
	assert.deepEqual(actions(''), ['Pass'])
	assert.deepEqual(actions(policy('ingress: [{}]')), ['Pass'])
	assert.deepEqual(actions(policy('ingress: []')), ['Accept'])
	const { tier, policies } = explain(admin + policy('ingress: [{}]'))
	assert.deepEqual([tier, policies.map((p) => p.tier)], ['Admin', ['Admin', 'NetworkPolicy']])
})

test('profiles differ where the API leaves it open, and each says so', () => {
	const block = policy('ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0}}]}]')
	const verdicts = (policies: string, peer?: Peer) => {
		const model = modelOf(policies)
		const db = model.pods.get('data/db')!
		const web = model.pods.get('shop/web')!
		const question: Question = {
			direction: 'ingress',
			pod: db,
			peer: peer ?? { ip: web.ips[0]!, pod: web },
			protocol: 'TCP',
			port: 5432,
		}
		const of = (name: ProfileName) => decide(model, question, undefined, policyProfiles[name]).verdict
		return [of('default'), of('calico-like'), of('cilium-like')]
	}
	assert.deepEqual(verdicts(block), ['allow', 'allow', 'deny'])
	assert.deepEqual(verdicts(block, { ip: '172.18.0.2' as Ip, node: 'n1' }), ['allow', 'allow', 'deny'])
	assert.deepEqual(verdicts(block, { ip: '192.0.2.1' as Ip }), ['allow', 'allow', 'allow'])
	// To itself through a Service.
	const self = { ip: '10.244.1.5' as Ip, pod: modelOf('[]').pods.get('data/db')! }
	assert.deepEqual(verdicts(policy('ingress: []'), self), ['allow', 'deny', 'allow'])
	assert.deepEqual(adviceText(explain(block)), ['a cilium-like network would deny it: the API leaves this open'])
	assert.deepEqual(adviceText(explain(policy('ingress: [{}]'))), [])
})
