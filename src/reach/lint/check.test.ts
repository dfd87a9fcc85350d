// Each finding of `policy lint` in the smallest manifests that have it, and its nearest relative that is right.
// UPDATE_GOLDENS=1 writes what is found anew.

import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { loadTexts } from '../../../test/scenarios/load.ts'
import { parseManifests } from '../../kube/manifests.ts'
import { build } from '../../model/build.ts'
import type { Finding } from '../../model/finding.ts'
import { originText } from '../../model/origin.ts'
import { Reach } from '../engine.ts'
import { backendsOf } from '../ingresses.ts'
import { declaredNeeds } from '../needs.ts'
import { partiesOf } from '../parties.ts'
import { lint } from './check.ts'
import { titles } from './titles.ts'

/** `web` with a named port behind a Service 80 → http, `db` without declared ports behind 5432 → 15432; `shop` and `other`. */
const base = `
apiVersion: v1
kind: Namespace
metadata: { name: shop, labels: { team: red } }
---
apiVersion: v1
kind: Namespace
metadata: { name: other, labels: { team: blue } }
---
apiVersion: v1
kind: Pod
metadata: { name: web, namespace: shop, labels: { app: web } }
spec:
  containers: [{ name: c, ports: [{ name: http, containerPort: 8080 }] }]
status: { phase: Running, podIP: 10.244.1.2 }
---
apiVersion: v1
kind: Pod
metadata: { name: db, namespace: shop, labels: { app: db } }
spec:
  containers: [{ name: c }]
status: { phase: Running, podIP: 10.244.1.3 }
---
apiVersion: v1
kind: Pod
metadata: { name: client, namespace: other, labels: { app: client } }
spec:
  containers: [{ name: c, env: [{ name: WEB_URL, value: 'http://web.shop' }] }]
status: { phase: Running, podIP: 10.244.2.2 }
---
apiVersion: v1
kind: Service
metadata: { name: web, namespace: shop }
spec: { clusterIP: 10.96.0.20, selector: { app: web }, ports: [{ port: 80, targetPort: http }] }
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: { name: web-1, namespace: shop, labels: { kubernetes.io/service-name: web } }
addressType: IPv4
ports: [{ port: 8080 }]
endpoints: [{ addresses: [10.244.1.2], targetRef: { kind: Pod, name: web, namespace: shop } }]
---
apiVersion: v1
kind: Service
metadata: { name: db, namespace: shop }
spec: { clusterIP: 10.96.0.21, selector: { app: db }, ports: [{ port: 5432, targetPort: 15432 }] }
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: deny, namespace: other }
spec: { podSelector: {} }
`

interface Story {
	readonly name: string
	/** The spec of a policy \`p\` in \`shop\`, or whole documents. */
	readonly policy?: string
	readonly more?: string
	/** Codes that must be found, and no others of this lint. */
	readonly codes: readonly string[]
}

const fromClient =
	'{ namespaceSelector: { matchLabels: { team: blue } }, podSelector: { matchLabels: { app: client } } }'
/** Selects all, so that nothing is open, and lets in what is needed. */
const whole = `podSelector: {}, ingress: [{ from: [${fromClient}], ports: [{ port: http }] }`

const stories: readonly Story[] = [
	{ name: 'nothing wrong', policy: `{ ${whole}] }`, codes: [] },
	{
		name: 'a rule that another contains',
		policy: `{ ${whole}, { from: [${fromClient}], ports: [{ port: http }] }] }`,
		codes: ['PW0041'],
	},
	{
		name: 'a narrower rule in another policy',
		policy: `{ ${whole}] }`,
		more: `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: q, namespace: shop }
spec: { podSelector: { matchLabels: { app: web } }, ingress: [{ from: [{ namespaceSelector: { matchLabels: { team: blue } }, podSelector: { matchLabels: { app: client, tier: x } } }], ports: [{ port: http }] }] }`,
		codes: ['PW0016', 'PW0041'],
	},
	{
		name: 'a wider rule elsewhere is no shadow of a rule for more pods',
		policy: `{ ${whole}] }`,
		more: `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: q, namespace: shop }
spec: { podSelector: { matchLabels: { app: web } }, ingress: [{ from: [{ namespaceSelector: {} }] }] }`,
		codes: [],
	},
	{
		name: 'egress rules without the type',
		policy: `{ ${whole}], policyTypes: [Ingress], egress: [{ to: [{ podSelector: {} }] }] }`,
		codes: ['PW0042'],
	},
	{
		name: 'a port name nobody has',
		policy: `{ ${whole}, { from: [{ podSelector: {} }], ports: [{ port: https }] }] }`,
		codes: ['PW0043'],
	},
	{
		name: 'a port name of another protocol',
		policy: `{ ${whole}, { from: [{ podSelector: {} }], ports: [{ port: http, protocol: UDP }] }] }`,
		codes: ['PW0043'],
	},
	{
		name: 'a port name of addresses outside',
		policy: `{ ${whole}], egress: [{ to: [{ ipBlock: { cidr: 192.0.2.0/24 } }], ports: [{ port: http }] }], policyTypes: [Ingress, Egress] }`,
		codes: ['PW0043', 'PW0050'],
	},
	{
		name: 'the port of the Service before pods that declare none',
		policy: `{ ${whole}] }`,
		more: `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: q, namespace: shop }
spec: { podSelector: { matchLabels: { app: db } }, ingress: [{ from: [{ podSelector: { matchLabels: { app: web } } }], ports: [{ port: 5432 }] }] }`,
		codes: ['PW0044'],
	},
	{
		name: 'a value that no namespace has',
		policy: `{ ${whole}, { from: [{ namespaceSelector: { matchLabels: { team: Blue } } }] }] }`,
		codes: ['PW0045'],
	},
	{
		name: 'a namespace by a label it does not have',
		policy: `{ ${whole}, { from: [{ namespaceSelector: { matchLabels: { name: other } } }] }] }`,
		codes: ['PW0045'],
	},
	{
		name: 'pods of another namespace',
		policy: `{ ${whole}, { from: [{ podSelector: { matchLabels: { app: client } } }] }] }`,
		codes: ['PW0046'],
	},
	{
		name: 'either instead of both',
		policy: `{ podSelector: {}, ingress: [{ from: [{ namespaceSelector: { matchLabels: { team: blue } } }, { podSelector: { matchLabels: { app: client } } }] }] }`,
		codes: ['PW0047'],
	},
	{
		name: 'addresses of pods',
		policy: `{ ${whole}, { from: [{ ipBlock: { cidr: 10.244.2.0/24 } }] }] }`,
		codes: ['PW0048'],
	},
	{ name: 'a namespace without policies', codes: ['PW0049'] },
	{ name: 'some pods without policies', policy: `{ podSelector: { matchLabels: { app: db } } }`, codes: ['PW0049'] },
	{
		name: 'a range of ports',
		policy: `{ ${whole}, { from: [{ podSelector: {} }], ports: [{ port: 9000, endPort: 9100 }] }] }`,
		codes: ['PW0050'],
	},
	{
		name: 'SCTP',
		policy: `{ ${whole}, { from: [{ podSelector: {} }], ports: [{ port: 36412, protocol: SCTP }] }] }`,
		codes: ['PW0050'],
	},
	{
		name: 'hostNetwork pods',
		policy: `{ ${whole}] }`,
		more: `
apiVersion: v1
kind: Pod
metadata: { name: agent, namespace: shop, labels: { app: agent } }
spec: { hostNetwork: true, nodeName: node-1, containers: [{ name: c }] }
status: { phase: Running, podIP: 172.18.0.2 }
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: q, namespace: shop }
spec: { podSelector: { matchLabels: { app: agent } } }`,
		codes: ['PW0051'],
	},
	{ name: 'a need that is denied', policy: `{ podSelector: {} }`, codes: ['PW0052'] },
	{
		name: 'a need that both sides deny',
		policy: `{ podSelector: {} }`,
		more: `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: q, namespace: other }
spec: { podSelector: {}, policyTypes: [Egress] }`,
		codes: ['PW0052'],
	},
	{
		name: 'an Ingress whose controller is not named',
		policy: `{ ${whole}] }`,
		more: `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: { name: web, namespace: shop }
spec: { rules: [{ host: shop.example, http: { paths: [{ path: /, pathType: Prefix, backend: { service: { name: web, port: { number: 80 } } } }] } }] }`,
		codes: ['PW0053'],
	},
]

function findingsOf(story: Story): readonly Finding[] {
	const policy =
		story.policy === undefined
			? ''
			: `apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: { name: p, namespace: shop }\nspec: ${story.policy}\n`
	const texts = [
		{ file: 'base.yaml', text: base },
		{ file: 'policy.yaml', text: policy },
		{ file: 'more.yaml', text: story.more ?? '' },
	]
	const state = loadTexts(...texts)
	const model = build(state)
	const reach = new Reach({ model })
	const parties = partiesOf(model, reach)
	const objects = texts.flatMap(({ file, text }) => parseManifests(text, file).objects.map((o) => o.object))
	const ingresses = backendsOf(model, state, objects)
	const needs = declaredNeeds({ state, model, parties, ingresses, configMaps: [] })
	return lint({ state, model, reach, parties, ingresses, needs })
}

for (const story of stories) {
	test(story.name, () => {
		const codes = [...new Set(findingsOf(story).map((f) => f.code))].sort()
		assert.deepEqual(codes, story.codes)
	})
}

test('titles are the headings of their pages', () => {
	for (const [code, title] of Object.entries(titles)) {
		const page = readFileSync(join(import.meta.dirname, `../../../docs/findings/${code}.md`), 'utf8')
		assert.equal(page.split('\n')[0], `# ${code}: ${title}`)
	}
	for (const story of stories) for (const code of story.codes) assert.ok(titles[code] !== undefined, code)
})

test('what it says', () => {
	const text = stories
		.map((story) => {
			const lines = findingsOf(story).map(
				(f) => `${f.severity} ${f.code} ${f.text}\n${f.because.map((o) => `    ${originText(o)}\n`).join('')}`,
			)
			return `## ${story.name}\n${lines.join('')}`
		})
		.join('\n')
	const golden = join(import.meta.dirname, '../../../test/reach/lint.golden.txt')
	if (process.env.UPDATE_GOLDENS === '1') writeFileSync(golden, text)
	assert.equal(text, readFileSync(golden, 'utf8'))
})
