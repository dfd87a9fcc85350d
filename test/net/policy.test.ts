// NetworkPolicy on real kernels: real packets between pods, nodes and what is outside; from the first instant, after a
// change, and while nobody tends the node.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { after, before, test } from 'node:test'
import { networkPolicies } from '../../src/kube/kinds.ts'
import type { NetworkPolicySpec } from '../../src/kube/objects/networking.ts'
import { inNetnsAt } from '../../src/linux/netns.ts'
import { printProgram } from '../../src/linux/nft/print.ts'
import { createTestLab, podObject, skip, type TestLab } from './lab.ts'

let lab: TestLab
const where = { skip, concurrency: false }

const nodeNs = (node: string) => `${lab.paths.namespaces}/${node}`
const podNs = async (name: string) => `${lab.paths.namespaces}/pod-${(await lab.pod(name)).metadata.uid}`
const ipOf = async (name: string) => (await lab.pod(name)).status?.podIP ?? ''

/** Whether a connection comes about; a denied one is dropped, so it takes the time that is given. */
function reaches(netns: string, url: string, seconds = 0.6): boolean {
	const got = inNetnsAt(netns, () =>
		spawnSync('curl', ['-sS', '-g', '--max-time', String(seconds), url], { encoding: 'utf8', timeout: 10_000 }),
	)
	// 7: refused, by whoever it reached. 28: no answer.
	return got.status === 0 || got.status === 7 || got.status === 52
}

/** Written, and in force on the nodes that have pods it selects. */
async function policy(
	name: string,
	spec: NetworkPolicySpec,
	{ nodes = ['node-1'], annotations = {} }: { nodes?: string[]; annotations?: Record<string, string> } = {},
): Promise<void> {
	await lab.create({
		apiVersion: 'networking.k8s.io/v1',
		kind: 'NetworkPolicy',
		metadata: { name, namespace: 'default', annotations },
		spec,
	})
	for (const node of nodes)
		await lab.until(async () => ((await tables(node)).includes(`default/${name}`) ? true : undefined))
}

async function tables(node: string): Promise<string> {
	return printProgram((await lab.handle.client.agent.read(node)).nftables)
}

async function withdraw(...names: string[]): Promise<void> {
	for (const name of names) await lab.client.delete(networkPolicies, `default/${name}`)
	for (const node of ['node-1', 'node-2'])
		await lab.until(async () => {
			const text = await tables(node)
			return names.some((name) => text.includes(`NetworkPolicy default/${name}`)) ? undefined : true
		})
}

before(async () => {
	if (skip) return
	lab = await createTestLab('policy')
	for (const [name, node] of [
		['web', 'node-1'],
		['near', 'node-1'],
		['far', 'node-2'],
	] as const)
		await lab.create(podObject(name, { nodeName: node, terminationGracePeriodSeconds: 0 }))
	for (const name of ['web', 'near', 'far']) await lab.pod(name)
})
after(() => lab?.remove())

test('default deny: nobody but the node and the pod itself; answers come back', where, async () => {
	const web = `http://${await ipOf('web')}/`
	const clients: Record<string, string> = {
		near: await podNs('near'),
		far: await podNs('far'),
		'the other node': nodeNs('node-2'),
		'its node': nodeNs('node-1'),
		itself: await podNs('web'),
	}
	for (const [who, netns] of Object.entries(clients)) assert.equal(reaches(netns, web, 3), true, `${who}, before`)
	await policy('deny', { podSelector: { matchLabels: { app: 'web' } }, policyTypes: ['Ingress'] })
	for (const [who, netns] of Object.entries(clients))
		assert.equal(reaches(netns, web), who === 'its node' || who === 'itself', `${who}, under deny`)
	assert.equal(reaches(await podNs('web'), `http://${await ipOf('far')}/`, 3), true, 'what it asks is answered')
	await policy('allow', {
		podSelector: { matchLabels: { app: 'web' } },
		ingress: [{ from: [{ podSelector: { matchLabels: { app: 'near' } } }], ports: [{ port: 80 }] }],
	})
	for (const [who, netns] of Object.entries(clients))
		assert.equal(reaches(netns, web), who !== 'far' && who !== 'the other node', `${who}, one allowed`)
	await withdraw('deny', 'allow')
	for (const [who, netns] of Object.entries(clients)) assert.equal(reaches(netns, web, 3), true, `${who}, after`)
	const { nftables } = await lab.handle.client.agent.read('node-1')
	assert.equal(nftables.tables.get('ip podwire-policy'), undefined, 'nothing is left')
})
