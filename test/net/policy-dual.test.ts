// NetworkPolicy in a lab of both families: a policy that names pods holds for each of their addresses, an ipBlock for its
// own family; the node reaches its pods by both; the gateway is found under a policy that denies everything.

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

before(async () => {
	if (skip) return
	lab = await createTestLab('policy-dual', undefined, { nodes: 2, dataplane: 'kernel', ipFamily: 'dual' })
	await lab.create(podObject('web', { nodeName: 'node-1' }))
	await lab.create(podObject('far', { nodeName: 'node-2' }))
	await lab.pod('web')
	await lab.pod('far')
})
after(() => lab?.remove())

function reaches(netns: string, ip: string, seconds: number): boolean {
	const url = `http://${ip.includes(':') ? `[${ip}]` : ip}/`
	const args = ['-sS', '-g', '--max-time', String(seconds), url]
	return inNetnsAt(netns, () => spawnSync('curl', args, { timeout: 10_000 })).status === 0
}

async function policy(name: string, spec: NetworkPolicySpec): Promise<void> {
	await lab.create({
		apiVersion: 'networking.k8s.io/v1',
		kind: 'NetworkPolicy',
		metadata: { name, namespace: 'default' },
		spec,
	})
	await lab.until(async () => {
		const text = printProgram((await lab.handle.client.agent.read('node-1')).nftables)
		return text.includes(`default/${name}`) ? true : undefined
	})
}

test('each address of a pod, and its family alone for a network', where, async () => {
	const ips = (await lab.pod('web')).status?.podIPs?.map((p) => p.ip) ?? []
	assert.deepEqual(ips.map((ip) => ip.includes(':')).sort(), [false, true])
	const six = (ip: string) => ip.includes(':')
	const far = await lab.podNetns('far')
	const says = (expected: (ip: string) => boolean, when: string) => {
		for (const ip of ips) assert.equal(reaches(far, ip, expected(ip) ? 5 : 0.6), expected(ip), `${ip}, ${when}`)
		for (const ip of ips) assert.equal(reaches(lab.netns('node-1'), ip, 5), true, `${ip} from its node, ${when}`)
	}
	says(() => true, 'no policy')
	const subject = { podSelector: { matchLabels: { app: 'web' } } }
	await policy('deny', { ...subject, policyTypes: ['Ingress', 'Egress'] })
	says(() => false, 'denied')
	await policy('six', { ...subject, ingress: [{ from: [{ ipBlock: { cidr: '::/0' } }] }] })
	says(six, 'IPv6 by network')
	await policy('pods', { ...subject, ingress: [{ from: [{ podSelector: { matchLabels: { app: 'far' } } }] }] })
	says(() => true, 'by pod')
	for (const name of ['deny', 'six', 'pods']) await lab.client.delete(networkPolicies, `default/${name}`)
})
