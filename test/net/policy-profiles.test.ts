// How policies are enforced where their API leaves a choice, on real kernels: each corner of each profile, established
// connections that are cut or go on, changed while the lab runs and kept when its daemon is another.

import assert from 'node:assert/strict'
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { createServer } from 'node:net'
import { after, afterEach, before, test } from 'node:test'
import { systemClock } from '../../src/base/clock.ts'
import type { Ip } from '../../src/base/ip.ts'
import { networkPolicies } from '../../src/kube/kinds.ts'
import type { NetworkPolicySpec } from '../../src/kube/objects/networking.ts'
import type { PolicyChoice } from '../../src/lab/policy-settings.ts'
import { signalProcess, waitForEnd } from '../../src/lab/process-identity.ts'
import { type LabRecord, readRecord } from '../../src/lab/record.ts'
import { bindTcp } from '../../src/linux/listen.ts'
import { inNetnsAt } from '../../src/linux/netns.ts'
import { build } from '../../src/model/build.ts'
import { policyProfiles } from '../../src/model/policy-profile.ts'
import { collectState } from '../../src/trace/collect.ts'
import { traceFlow } from '../../src/trace/run.ts'
import { createTestLab, podObject, skip, type TestLab } from './lab.ts'

let lab: TestLab
const where = { skip, concurrency: false }

/** What has to come about, within seconds; what must not gets the little time that a denied packet needs to be none. */
async function expect(netns: string, url: string, reached: boolean, what: string): Promise<void> {
	const look = () => {
		const got = inNetnsAt(netns, () => spawnSync('curl', ['-sS', '-o', '/dev/null', '--max-time', '0.5', url]))
		// 7: refused, by whoever it reached.
		return got.status === 0 || got.status === 7 ? true : undefined
	}
	if (reached) await lab.until(async () => look()).catch(() => assert.fail(`${what}: no connection`))
	else assert.equal(look(), undefined, `${what}: a connection`)
}

/** Written, and in force on node-1, where the pods it selects are. */
async function policy(name: string, spec: NetworkPolicySpec): Promise<void> {
	await lab.create({
		apiVersion: 'networking.k8s.io/v1',
		kind: 'NetworkPolicy',
		metadata: { name, namespace: 'default' },
		spec,
	})
	await lab.until(async () => ((await lab.rules('node-1')).includes(`default/${name}`) ? true : undefined))
}

const settings = async (policies: PolicyChoice) => (await lab.up({ policies })).status.policies

before(async () => {
	if (skip) return
	lab = await createTestLab('policy-profiles')
	for (const [name, node] of [
		['web', 'node-1'],
		['near', 'node-1'],
		['far', 'node-2'],
	] as const)
		await lab.create(podObject(name, { nodeName: node, terminationGracePeriodSeconds: 0 }))
	for (const name of ['web', 'near', 'far']) await lab.pod(name)
	await lab.create({
		apiVersion: 'v1',
		kind: 'Service',
		metadata: { name: 'web', namespace: 'default' },
		spec: { selector: { app: 'web' }, clusterIP: '10.96.7.8', ports: [{ port: 80 }] },
	})
})
after(() => lab?.remove())
afterEach(async () => {
	if (lab === undefined) return
	for (const { metadata } of (await lab.client.list(networkPolicies)).items)
		await lab.client.delete(networkPolicies, `default/${metadata.name}`)
	await lab.until(async () => ((await lab.rules('node-1')).includes('podwire-policy') ? undefined : true))
	await settings({ profile: 'default', cutEstablished: false })
})

/** What the kernel's rules are read back as decides as the model under the lab's profile does. */
async function agree(from: string, to: string, verdict: 'delivered' | 'denied-ingress' | 'denied-egress') {
	const { state } = await collectState(lab.client, { clock: systemClock })
	const report = await traceFlow({
		question: { from, to },
		flow: { from: { kind: 'pod', pod: `default/${from}` }, to: { ip: to as Ip }, protocol: 'TCP', port: 80 },
		model: build(state),
		agent: lab.handle.client.agent,
		probe: true,
		timeout: 500,
		policyEnforced: true,
		policyProfile: policyProfiles[(await lab.handle.client.status()).policies.profile],
	})
	assert.equal(report.disagreement, undefined, report.headline)
	assert.equal(report.disposition, verdict, report.headline)
	return JSON.stringify(report)
}

test('calico-like: a pod that asks its own Service needs the leave of its policies', where, async () => {
	const self = await lab.podNetns('web')
	const service = 'http://10.96.7.8/'
	await expect(self, service, true, 'no policy')
	await policy('near-only', {
		podSelector: { matchLabels: { app: 'web' } },
		ingress: [{ from: [{ podSelector: { matchLabels: { app: 'near' } } }] }],
	})
	await expect(self, service, true, 'default')
	assert.match(await agree('web', '10.96.7.8', 'delivered'), /a calico-like network would deny it/)
	assert.deepEqual(await settings({ profile: 'calico-like' }), { profile: 'calico-like', cutEstablished: false })
	await expect(self, service, false, 'calico-like')
	assert.match(await agree('web', '10.96.7.8', 'denied-ingress'), /a default network would allow it/)
	await expect(await lab.podNetns('near'), service, true, 'another, which is allowed')
	await policy('itself', {
		podSelector: { matchLabels: { app: 'web' } },
		ingress: [{ from: [{ podSelector: { matchLabels: { app: 'web' } } }] }],
	})
	await expect(self, service, true, 'calico-like, with its leave')
	await agree('web', '10.96.7.8', 'delivered')
})

test('cilium-like: a network means neither pods nor nodes, only who is outside', where, async () => {
	const web = await lab.podIp('web')
	const near = await lab.podNetns('near')
	await policy('into-web', {
		podSelector: { matchLabels: { app: 'web' } },
		ingress: [{ from: [{ ipBlock: { cidr: '10.0.0.0/8' } }, { ipBlock: { cidr: '172.18.0.0/16' } }] }],
	})
	await policy('out-of-near', {
		podSelector: { matchLabels: { app: 'near' } },
		policyTypes: ['Egress'],
		egress: [{ to: [{ ipBlock: { cidr: '0.0.0.0/0' } }] }],
	})
	const cases: readonly (readonly [string, string, string])[] = [
		['a pod, out of another and into this', near, web],
		['a pod of the other node', await lab.podNetns('far'), web],
		['the other node', lab.netns('node-2'), web],
		['to a node', near, '172.18.0.3'],
	]
	for (const [what, netns, to] of cases) await expect(netns, `http://${to}/`, true, `${what}, default`)
	await expect(near, 'http://203.0.113.1/', true, 'outside, default')
	assert.match(await agree('far', web, 'delivered'), /a cilium-like network would deny it/)
	assert.deepEqual(await settings({ profile: 'cilium-like' }), { profile: 'cilium-like', cutEstablished: false })
	for (const [what, netns, to] of cases) await expect(netns, `http://${to}/`, false, `${what}, cilium-like`)
	await expect(near, 'http://203.0.113.1/', true, 'outside, cilium-like')
	await agree('far', web, 'denied-ingress')
	await agree('near', '172.18.0.3', 'denied-egress')
	await expect(lab.netns('node-1'), `http://${web}/`, true, 'its own node, always')
})

/** A connection that stays open: what is said comes back as soon as the network lets it. */
function talk(netns: string, to: string, port: number) {
	const child: ChildProcess = inNetnsAt(netns, () =>
		spawn(
			process.execPath,
			[
				'-e',
				`const s = require('net').connect(${port}, '${to}', () => console.log('open')); s.on('data', (d) => process.stdout.write(d)); process.stdin.pipe(s)`,
			],
			{ stdio: ['pipe', 'pipe', 'inherit'] },
		),
	)
	let heard = ''
	child.stdout?.on('data', (d) => {
		heard += d
	})
	return {
		say: (text: string) => void child.stdin?.write(`${text}\n`),
		heard: (text: string, seconds: number) => lab.until(async () => (heard.includes(text) ? true : undefined), seconds),
		get all() {
			return heard
		},
		end: () => void child.kill('SIGKILL'),
	}
}

test(
	'established connections go on, or are cut: as asked, while the lab runs and after its daemon',
	where,
	async () => {
		const web = await lab.podIp('web')
		const echo = createServer((c) => c.on('error', () => {}).pipe(c))
		echo.listen({ fd: bindTcp(await lab.podNetns('web'), web as Ip, 7000) })
		const open = talk(await lab.podNetns('near'), web, 7000)
		/** Packets the end of web's chain dropped. */
		const dropped = async () =>
			Number(
				/counter packets (\d+) bytes \d+ drop comment "NetworkPolicy default\/deny"/.exec(
					await lab.rules('node-1'),
				)?.[1] ?? 0,
			)
		try {
			await open.heard('open', 10)
			await policy('deny', { podSelector: { matchLabels: { app: 'web' } }, policyTypes: ['Ingress'] })
			open.say('one')
			await open.heard('one', 10)
			assert.equal(await dropped(), 0, 'nothing of it is asked again')

			assert.deepEqual(await settings({ cutEstablished: true }), { profile: 'default', cutEstablished: true })
			open.say('two')
			await lab.until(async () => ((await dropped()) > 0 ? true : undefined))
			const daemon = (readRecord(lab.paths) as LabRecord).daemon
			assert.ok(signalProcess(daemon, 'SIGKILL'))
			assert.deepEqual(await waitForEnd([daemon], 5_000), [])
			assert.deepEqual((await lab.up()).status.policies, { profile: 'default', cutEstablished: true }, 'kept')
			const before = await dropped()
			open.say('three')
			await lab.until(async () => ((await dropped()) > before ? true : undefined), 30)
			assert.ok(!open.all.includes('two'), 'cut')

			assert.deepEqual(await settings({ cutEstablished: false }), { profile: 'default', cutEstablished: false })
			await open.heard('three', 60)
			assert.deepEqual(
				await settings({ profile: 'cilium-like' }),
				{ profile: 'cilium-like', cutEstablished: false },
				'what was said stays',
			)
		} finally {
			open.end()
			echo.close()
		}
	},
)
