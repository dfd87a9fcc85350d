// Names outside of the cluster in a trace: as far as the cluster's DNS server has answered them, and why policies that
// name domains allow or deny.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parse } from 'yaml'
import type { Ip } from '../base/ip.ts'
import { tableOf } from '../base/table.ts'
import { build } from '../model/build.ts'
import { emptyState, setObject } from '../model/state.ts'
import { walk } from './walk.ts'

const manifests = `
- apiVersion: v1
  kind: Node
  metadata: {name: n1}
  spec: {podCIDR: 10.244.0.0/24, podCIDRs: [10.244.0.0/24]}
  status: {addresses: [{type: InternalIP, address: 172.18.0.2}], conditions: [{type: Ready, status: "True"}]}
- {apiVersion: v1, kind: Namespace, metadata: {name: kube-system}}
- apiVersion: v1
  kind: Service
  metadata: {name: kube-dns, namespace: kube-system}
  spec: {clusterIP: 10.96.0.10, clusterIPs: [10.96.0.10], ports: [{name: dns, port: 53, protocol: UDP, targetPort: 53}]}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: kube-dns, namespace: kube-system, labels: {kubernetes.io/service-name: kube-dns}}
  addressType: IPv4
  ports: [{name: dns, port: 53, protocol: UDP}]
  endpoints: [{addresses: [10.244.0.2], conditions: {ready: true}, nodeName: n1, targetRef: {kind: Pod, name: coredns, namespace: kube-system}}]
- apiVersion: v1
  kind: Pod
  metadata: {name: coredns, namespace: kube-system, labels: {k8s-app: kube-dns}}
  spec: {nodeName: n1, containers: [{name: c}]}
  status: {phase: Running, podIPs: [{ip: 10.244.0.2}], conditions: [{type: Ready, status: "True"}]}
- apiVersion: v1
  kind: Pod
  metadata: {name: web, namespace: default, labels: {app: web}}
  spec: {nodeName: n1, containers: [{name: c}]}
  status: {phase: Running, podIPs: [{ip: 10.244.0.5}], conditions: [{type: Ready, status: "True"}]}
- apiVersion: policy.networking.k8s.io/v1alpha2
  kind: ClusterNetworkPolicy
  metadata: {name: names}
  spec:
    tier: Admin
    priority: 10
    subject: {pods: {podSelector: {matchLabels: {app: web}}}}
    egress:
      - {action: Accept, to: [{pods: {podSelector: {matchLabels: {k8s-app: kube-dns}}}}]}
      - {action: Accept, to: [{domainNames: ["*.example.com"]}]}
      - {action: Deny, to: [{networks: [0.0.0.0/0]}]}
`

function traceOf(
	to: { readonly ip: Ip } | { readonly name: string },
	names: Readonly<Record<string, readonly string[]>>,
) {
	let state = emptyState()
	for (const object of parse(manifests) as Parameters<typeof setObject>[1][]) state = setObject(state, object)
	const model = build({ ...state, resolvedNames: tableOf(Object.entries(names) as [string, Ip[]][]) })
	const from = { kind: 'pod', pod: 'default/web' } as const
	const traces = walk(model, { from, to, protocol: 'TCP', port: 443 }, { policyEnforced: true, tiersEnforced: true })
	return {
		ends: traces.map((t) => t.disposition),
		addresses: traces.flatMap((t) =>
			t.hops.flatMap((h) => h.steps.flatMap((s) => (s.step === 'resolve' ? [s.address] : []))),
		),
		notes: traces
			.flatMap((t) => t.hops.flatMap((h) => h.steps.flatMap((s) => (s.step === 'policy' ? (s.note ?? []) : []))))
			.join('\n'),
		findings: model.findings.map((f) => f.code),
	}
}

test('a name nobody has asked for leads out of the cluster, and its address is not open', () => {
	assert.deepEqual(traceOf({ name: 'api.example.com' }, {}).ends, ['left-cluster'])
	const { ends, notes, findings } = traceOf({ ip: '203.0.113.1' as Ip }, {})
	assert.deepEqual(ends, ['denied-egress'])
	assert.match(
		notes,
		/domainNames \*\.example\.com: the cluster's DNS server has answered with no address of such a name/,
	)
	assert.ok(findings.includes('PW0068'))
})

test('one that has been answered leads to its addresses, and the policy says which name let them pass', () => {
	const names = { 'api.example.com': ['203.0.113.1', '203.0.113.2'] }
	const named = traceOf({ name: 'api.example.com' }, names)
	assert.deepEqual(named.addresses, ['203.0.113.1', '203.0.113.2'])
	assert.deepEqual(named.ends, ['left-cluster', 'left-cluster'])
	assert.match(named.notes, /spec\.egress\[1\]: an address of api\.example\.com, as the cluster's DNS server answered/)
	assert.ok(!named.findings.includes('PW0068'))
	const other = traceOf({ ip: '203.0.113.9' as Ip }, names)
	assert.deepEqual(other.ends, ['denied-egress'])
	assert.match(other.notes, /api\.example\.com has 203\.0\.113\.1, 203\.0\.113\.2, not 203\.0\.113\.9/)
	assert.deepEqual(
		traceOf({ ip: '203.0.113.1' as Ip }, { 'example.com': ['203.0.113.1'] }).ends,
		['denied-egress'],
		'the apex',
	)
})
