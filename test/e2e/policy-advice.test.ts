// What a trace advises where policies deny is a command: run by the user's own kubectl, it lets the packet through.

import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { type Home, makeHome, reasonToSkip } from './support/home.ts'
import { until } from './support/run.ts'

const skip = reasonToSkip('kubectl', 'bash')

const pod = (namespace: string, name: string, ports: readonly object[]) => ({
	apiVersion: 'v1',
	kind: 'Pod',
	metadata: { name, namespace, labels: { app: name, tier: namespace } },
	spec: { containers: [{ name: 'main', image: `example.com/${name}`, ports }] },
})

const world = [
	...['web', 'data'].map((name) => ({
		apiVersion: 'v1',
		kind: 'Namespace',
		metadata: { name, labels: { team: name } },
	})),
	pod('web', 'front', []),
	pod('data', 'db', [
		{ name: 'sql', containerPort: 5432 },
		{ name: 'sync', containerPort: 5433, protocol: 'UDP' },
	]),
	{
		apiVersion: 'v1',
		kind: 'Service',
		metadata: { name: 'db', namespace: 'data' },
		spec: {
			selector: { app: 'db' },
			ports: [
				{ name: 'sql', port: 80, targetPort: 'sql' },
				{ name: 'sync', port: 81, protocol: 'UDP', targetPort: 'sync' },
			],
		},
	},
]

const list = (items: readonly object[]) => JSON.stringify({ apiVersion: 'v1', kind: 'List', items })

const policy = (namespace: string, spec: object) => ({
	apiVersion: 'networking.k8s.io/v1',
	kind: 'NetworkPolicy',
	metadata: { name: `of-${namespace}`, namespace },
	spec: { podSelector: {}, ...spec },
})
const into = (...ingress: readonly object[]) => policy('data', { policyTypes: ['Ingress'], ingress })
const outOf = (...egress: readonly object[]) => policy('web', { policyTypes: ['Egress'], egress })
const team = (name: string) => ({ namespaceSelector: { matchLabels: { team: name } } })

/** `edits`: how many are needed, one after the other. */
const denied: readonly {
	readonly name: string
	readonly policies: readonly object[]
	readonly to?: string
	readonly edits?: number
}[] = [
	{ name: 'no rule into the pod', policies: [into()] },
	{ name: 'no rule out of the pod', policies: [outOf()] },
	{ name: 'neither', policies: [into(), outOf()], edits: 2 },
	{ name: "another namespace's label", policies: [into({ from: [team('Web')] })] },
	{
		name: 'both selectors of a peer must match',
		policies: [into({ from: [{ ...team('web'), podSelector: { matchLabels: { app: 'back' } } }] })],
	},
	{
		name: 'an expression that excludes the pod',
		policies: [
			into({
				from: [
					{ namespaceSelector: {}, podSelector: { matchExpressions: [{ key: 'tier', operator: 'DoesNotExist' }] } },
				],
			}),
		],
	},
	{
		name: 'a block with a hole',
		policies: [into({ from: [{ ipBlock: { cidr: '0.0.0.0/0', except: ['10.244.0.0/16'] } }] })],
	},
	{ name: "the Service's port instead of the pod's", policies: [into({ from: [team('web')], ports: [{ port: 80 }] })] },
	{ name: 'a name that the port does not have', policies: [into({ from: [team('web')], ports: [{ port: 'http' }] })] },
	{
		name: 'another protocol',
		policies: [into({ from: [team('web')], ports: [{ port: 'sql' }] })],
		to: 'ns/data/svc/db:udp/81',
	},
	{
		name: "the Service's address instead of the pod's",
		policies: [outOf({ to: [{ ipBlock: { cidr: '10.96.0.0/16' } }] })],
	},
	{ name: 'a forgotten name server', policies: [outOf({ to: [team('data')] })], to: 'db.data.svc.cluster.local:80' },
]

interface Traced {
	readonly verdict: string
	readonly disposition: string
	readonly headline: string
	readonly disagreement?: { readonly text: string }
	readonly stages: readonly { readonly should?: { readonly advice?: readonly string[] } }[]
}

suite('the advice of a trace, followed', { skip }, () => {
	let home: Home
	let address: string
	before(async () => {
		home = makeHome()
		await home.up('-f', home.write('world.json', list(world)))
		address = await home.ask('get', 'svc', '-n', 'data', 'db', '-o', 'jsonpath={.spec.clusterIP}')
	})
	after(() => home?.remove())

	async function trace(to: string): Promise<Traced> {
		const ran = await home.podwire(['trace', '-n', 'web', 'pod/front', to, '-o', 'json', '--timeout', '500ms'])
		assert.ok(ran.code <= 1, ran.text)
		return JSON.parse(ran.stdout).items[0] as Traced
	}

	for (const { name, policies, to, edits = 1 } of denied) {
		test(name, { timeout: 60_000 }, async () => {
			await home.ask('delete', 'networkpolicy', '--all', '-A')
			const file = home.write('policies.json', list(policies))
			await home.ask('apply', '-f', file)
			const asked = to ?? `${address}:80`
			let traced = await trace(asked)
			for (let edit = 0; edit < edits; edit++) {
				assert.match(traced.disposition, /^denied-/, traced.headline)
				assert.equal(traced.disagreement, undefined, traced.disagreement?.text)
				assert.match(traced.headline, /should, would and did agree$/)
				const advice = traced.stages.flatMap((stage) => stage.should?.advice ?? [])
				const line = advice.map((text) => text.trim()).find((text) => text.startsWith('kubectl '))
				assert.ok(line !== undefined, `no command in ${JSON.stringify(traced.stages)}`)
				const before = traced.headline
				const words = /^kubectl patch (\S+) (\S+) -n (\S+) --type json -p '(.*)'$/.exec(line)
				assert.ok(words !== null, line)
				const [, kind, object, namespace, patch] = words
				await home.ask('patch', `${kind}`, `${object}`, '-n', `${namespace}`, '--type', 'json', '-p', `${patch}`)
				await until('it is in force', async () => {
					traced = await trace(asked)
					return traced.verdict === 'delivered' || traced.headline !== before
				})
			}
			assert.equal(traced.verdict, 'delivered', traced.headline)
			assert.equal(traced.disagreement, undefined, traced.disagreement?.text)
		})
	}
})
