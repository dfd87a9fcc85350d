// NetworkPolicy on real kernels: real packets between pods, nodes and what is outside; from the first instant, after a
// change, and while nobody tends the node.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { createServer, type Server } from 'node:net'
import { after, afterEach, before, test } from 'node:test'
import { systemClock } from '../../src/base/clock.ts'
import type { Ip } from '../../src/base/ip.ts'
import { serviceProxies } from '../../src/dataplane/proxies/service-proxies.ts'
import { namespaces, networkPolicies, pods } from '../../src/kube/kinds.ts'
import type { NetworkPolicySpec } from '../../src/kube/objects/networking.ts'
import { signalProcess, waitForEnd } from '../../src/lab/process-identity.ts'
import { type LabRecord, readRecord } from '../../src/lab/record.ts'
import { bindTcp } from '../../src/linux/listen.ts'
import { inNetnsAt } from '../../src/linux/netns.ts'
import { build } from '../../src/model/build.ts'
import { collectState } from '../../src/trace/collect.ts'
import { traceFlow } from '../../src/trace/run.ts'
import type { Flow } from '../../src/walk/trace.ts'
import { createTestLab, podObject, skip, type TestLab } from './lab.ts'
import { startTraffic } from './policy-traffic.ts'

let lab: TestLab
const where = { skip, concurrency: false }

const nodeIps: Readonly<Record<string, string>> = { 'node-1': '172.18.0.2', 'node-2': '172.18.0.3' }

/** Whether a connection comes about; a denied one is dropped, so it takes the time that is given. */
function reaches(netns: string, url: string, seconds = 0.6): boolean {
	const got = inNetnsAt(netns, () =>
		spawnSync('curl', ['-sS', '-g', '--max-time', String(seconds), url], { encoding: 'utf8', timeout: 10_000 }),
	)
	// 7: refused, by whoever it reached. 28: no answer.
	return got.status === 0 || got.status === 7 || got.status === 52
}

/** `reaches`, with the time a busy machine takes where an answer is to come. */
function check(netns: string, url: string, expected: boolean, why?: string): void {
	assert.equal(reaches(netns, url, expected ? 5 : 0.6), expected, why)
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
		await lab.until(async () => ((await lab.rules(node)).includes(`default/${name}`) ? true : undefined))
}

/** In the node's namespace: the socket is made there, whatever listens. */
function listenOn(node: string, port: number): Server {
	const server = createServer((connection) => connection.on('error', () => {}).end())
	return server.listen({ fd: bindTcp(lab.netns(node), nodeIps[node] as Ip, port) })
}

async function withdraw(...names: string[]): Promise<void> {
	for (const name of names) await lab.client.delete(networkPolicies, `default/${name}`)
	for (const node of ['node-1', 'node-2'])
		await lab.until(async () => {
			const text = await lab.rules(node)
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
// Each test has its own policies, also after one that failed.
afterEach(async () => {
	if (lab === undefined) return
	await withdraw(...(await lab.client.list(networkPolicies)).items.map((p) => p.metadata.name))
})

test('default deny: nobody but the node and the pod itself; answers come back', where, async () => {
	const web = `http://${await lab.podIp('web')}/`
	const clients: Record<string, string> = {
		near: await lab.podNetns('near'),
		far: await lab.podNetns('far'),
		'the other node': lab.netns('node-2'),
		'its node': lab.netns('node-1'),
		itself: await lab.podNetns('web'),
	}
	for (const [who, netns] of Object.entries(clients)) check(netns, web, true, `${who}, before`)
	await policy('deny', { podSelector: { matchLabels: { app: 'web' } }, policyTypes: ['Ingress'] })
	for (const [who, netns] of Object.entries(clients))
		check(netns, web, who === 'its node' || who === 'itself', `${who}, under deny`)
	check(await lab.podNetns('web'), `http://${await lab.podIp('far')}/`, true, 'what it asks is answered')
	await policy('allow', {
		podSelector: { matchLabels: { app: 'web' } },
		ingress: [{ from: [{ podSelector: { matchLabels: { app: 'near' } } }], ports: [{ port: 80 }] }],
	})
	for (const [who, netns] of Object.entries(clients))
		check(netns, web, who !== 'far' && who !== 'the other node', `${who}, one allowed`)
	await withdraw('deny', 'allow')
	for (const [who, netns] of Object.entries(clients)) check(netns, web, true, `${who}, after`)
	const { nftables } = await lab.handle.client.agent.read('node-1')
	assert.equal(nftables.tables.get('ip podwire-policy'), undefined, 'nothing is left')
})

test('egress: cut off from Services, the node and everybody; what is allowed is not', where, async () => {
	await lab.create({
		apiVersion: 'v1',
		kind: 'Service',
		metadata: { name: 'web', namespace: 'default' },
		spec: { selector: { app: 'web' }, clusterIP: '10.96.7.8', ports: [{ port: 80 }] },
	})
	const near = await lab.podNetns('near')
	const [web, far] = [await lab.podIp('web'), await lab.podIp('far')]
	await lab.until(async () => (reaches(near, 'http://10.96.7.8/', 3) ? true : undefined))
	const targets = {
		web: `http://${web}/`,
		far: `http://${far}/`,
		'its node': 'http://172.18.0.2:7777/',
		'the other node': 'http://172.18.0.3:1/',
		'the Service of web': 'http://10.96.7.8/',
	}
	const says = (expected: readonly string[], when: string) => {
		for (const [who, url] of Object.entries(targets)) check(near, url, expected.includes(who), `${who}, ${when}`)
	}
	says(Object.keys(targets), 'before')
	await policy('mute', { podSelector: { matchLabels: { app: 'near' } }, policyTypes: ['Egress'] })
	says([], 'under deny')
	check(await lab.podNetns('far'), `http://${await lab.podIp('near')}/`, true, 'what it is asked it answers')
	await policy('some', {
		podSelector: { matchLabels: { app: 'near' } },
		policyTypes: ['Egress'],
		egress: [
			{ to: [{ ipBlock: { cidr: '10.244.0.0/16', except: [`${web}/32`] } }] },
			{ to: [{ ipBlock: { cidr: '172.18.0.2/32' } }], ports: [{ port: 7000, endPort: 8000 }] },
			// A Service's address is no longer on the packet when policies are asked.
			{ to: [{ ipBlock: { cidr: '10.96.0.0/16' } }] },
		],
	})
	says(['far', 'its node'], 'some allowed')
	await withdraw('mute', 'some')
	says(Object.keys(targets), 'after')
})

test('named ports are what they are on each pod; a Service is seen by its endpoints', where, async () => {
	const named = (name: string, node: string, port: number) =>
		podObject(
			name,
			{
				nodeName: node,
				terminationGracePeriodSeconds: 0,
				containers: [
					{ name: 'c', image: 'nginx', ports: [{ name: 'api', containerPort: port }, { containerPort: 9999 }] },
				],
			},
			{ app: 'api' },
		)
	await lab.create(named('api-1', 'node-1', 8081))
	await lab.create(named('api-2', 'node-2', 8082))
	await lab.create({
		apiVersion: 'v1',
		kind: 'Service',
		metadata: { name: 'api', namespace: 'default' },
		spec: { selector: { app: 'api' }, clusterIP: '10.96.7.7', ports: [{ port: 80, targetPort: 'api' }] },
	})
	const ips = [await lab.podIp('api-1'), await lab.podIp('api-2')]
	const near = await lab.podNetns('near')
	await lab.until(async () => (reaches(near, 'http://10.96.7.7/', 3) ? true : undefined))
	const only = { podSelector: { matchLabels: { app: 'near' } }, policyTypes: ['Egress' as const] }
	await policy('named', { ...only, egress: [{ to: [{ podSelector: {} }], ports: [{ port: 'api' }] }] })
	const expect = (answers: readonly boolean[], when: string) => {
		const urls = [`${ips[0]}:8081`, `${ips[0]}:8082`, `${ips[1]}:8082`, `${ips[1]}:8081`, `${ips[1]}:9999`]
		for (const [i, url] of urls.entries()) check(near, `http://${url}/`, answers[i]!, `${url}, ${when}`)
		for (let i = 0; i < 6; i++) check(near, 'http://10.96.7.7/', answers[0]!, `the Service, ${when}`)
	}
	expect([true, false, true, false, false], 'out of one, by name')
	await withdraw('named')
	const into = { podSelector: { matchLabels: { app: 'api' } } }
	await policy('named', { ...into, ingress: [{ ports: [{ port: 'api' }] }] }, { nodes: ['node-1', 'node-2'] })
	expect([true, false, true, false, false], 'into both, by name')
	await withdraw('named')
	expect([true, true, true, true, true], 'after')
	for (const name of ['api-1', 'api-2']) await lab.client.delete(pods, `default/${name}`)
})

test('labels decide at once: of pods and of namespaces', where, async () => {
	const web = `http://${await lab.podIp('web')}/`
	const far = await lab.podNetns('far')
	const label = (what: 'pod' | 'namespace', labels: Record<string, string | null>) =>
		what === 'pod'
			? lab.client.patch(pods, 'default/far', { metadata: { labels } }, { type: 'merge' })
			: lab.client.patch(namespaces, 'default', { metadata: { labels } }, { type: 'merge' })
	await policy('labelled', {
		podSelector: { matchLabels: { app: 'web' } },
		ingress: [
			{ from: [{ namespaceSelector: { matchLabels: { team: 'red' } }, podSelector: { matchLabels: { role: 'x' } } }] },
		],
	})
	check(far, web, false, 'neither')
	await label('pod', { role: 'x' })
	check(far, web, false, 'the pod only')
	await label('namespace', { team: 'red' })
	await lab.until(async () => (reaches(far, web, 3) ? true : undefined))
	await label('namespace', { team: null })
	await lab.until(async () => (reaches(far, web, 0.2) ? undefined : true))
	await label('namespace', { team: 'red' })
	await lab.until(async () => (reaches(far, web, 3) ? true : undefined))
	await label('pod', { role: null })
	await lab.until(async () => (reaches(far, web, 0.2) ? undefined : true))
	await label('namespace', { team: null })
	await withdraw('labelled')
})

test('on trial nothing is dropped, and it is counted', where, async () => {
	const web = `http://${await lab.podIp('web')}/`
	const far = await lab.podNetns('far')
	const deny = { podSelector: { matchLabels: { app: 'web' } }, policyTypes: ['Ingress' as const] }
	await policy('trial', deny, { annotations: { 'podwire.dev/audit': 'true' } })
	check(far, web, true)
	assert.match(
		await lab.rules('node-1'),
		/counter packets [1-9]\d* bytes \d+ return comment "NetworkPolicy default\/trial"/,
	)
	await policy('real', deny)
	check(far, web, false, 'one that is in force beside it')
	await withdraw('real')
	check(far, web, true)
	await lab.client.patch(
		networkPolicies,
		'default/trial',
		{ metadata: { annotations: { 'podwire.dev/audit': null } } },
		{ type: 'merge' },
	)
	await lab.until(async () => (reaches(far, web, 0.2) ? undefined : true))
	await lab.client.patch(
		namespaces,
		'default',
		{ metadata: { annotations: { 'podwire.dev/audit': 'true' } } },
		{ type: 'merge' },
	)
	await lab.until(async () => (reaches(far, web, 3) ? true : undefined))
	await lab.client.patch(
		namespaces,
		'default',
		{ metadata: { annotations: { 'podwire.dev/audit': null } } },
		{ type: 'merge' },
	)
	await lab.until(async () => (reaches(far, web, 0.2) ? undefined : true))
	await withdraw('trial')
})

test('policies come, change and go under traffic: nothing opens, nothing allowed is cut', where, async () => {
	const web = await lab.podIp('web')
	const deny: NetworkPolicySpec = { podSelector: { matchLabels: { app: 'web' } }, policyTypes: ['Ingress'] }
	const from = (...apps: string[]): NetworkPolicySpec => ({
		podSelector: { matchLabels: { app: 'web' } },
		ingress: [{ from: apps.map((app) => ({ podSelector: { matchLabels: { app } } })) }],
	})
	await policy('deny', deny)
	await policy('near', from('near'))
	const allowed = startTraffic(await lab.podNetns('near'), [[web, 80]])
	const denied = startTraffic(await lab.podNetns('far'), [[web, 80]])
	for (let i = 0; i < 12; i++) {
		await policy(`other-${i}`, i % 2 === 0 ? deny : from('near', `nobody-${i}`))
		await lab.client.patch(networkPolicies, 'default/near', { spec: { ...from('near', `n-${i}`) } }, { type: 'merge' })
		await lab.create(podObject(`guest-${i}`, { nodeName: 'node-1', terminationGracePeriodSeconds: 0 }))
		await lab.pod(`guest-${i}`)
		if (i % 3 === 2) await withdraw(`other-${i}`, `other-${i - 1}`)
		await lab.client.delete(pods, `default/guest-${i}`)
	}
	await withdraw('deny')
	const [a, d] = [await allowed.stop(), await denied.stop()]
	assert.equal(d.reached, 0, `denied ${JSON.stringify(d)}`)
	assert.equal(a.failed, 0, `allowed ${JSON.stringify(a)}`)
	assert.ok(a.reached > 100 && d.failed > 100, JSON.stringify([a, d]))
})

test('a pod is isolated from its first instant to its last', where, async () => {
	await policy('late', { podSelector: { matchLabels: { app: 'late' } }, policyTypes: ['Ingress'] }, { nodes: [] })
	// Addresses are given in turn: those after the newest pod's are the ones that come next.
	const last = Number((await lab.podIp('web')).split('.')[3])
	const targets = Array.from({ length: 20 }, (_, i) => [`10.244.0.${last + i + 1}`, 80] as const).filter(
		async ([host]) => host !== (await lab.podIp('near')),
	)
	const near = await lab.podIp('near')
	const traffic = startTraffic(
		await lab.podNetns('far'),
		targets.filter(([host]) => host !== near),
		{ every: 1 },
	)
	const seen = new Set<string>()
	for (let i = 0; i < 15; i++) {
		await lab.create(podObject(`late-${i}`, { nodeName: 'node-1', terminationGracePeriodSeconds: 0 }, { app: 'late' }))
		seen.add((await lab.pod(`late-${i}`)).status?.podIP ?? '')
		await lab.client.delete(pods, `default/late-${i}`)
	}
	const tally = await traffic.stop()
	assert.equal(tally.reached, 0, JSON.stringify(tally))
	assert.ok(
		[...seen].some((ip) => targets.some(([host]) => host === ip)),
		`pods had ${[...seen]}`,
	)
	assert.ok((tally.errors.timeout ?? 0) > 10, `some came to a pod that is there: ${JSON.stringify(tally)}`)
	await withdraw('late')
})

for (const mode of ['iptables', 'ipvs', 'ebpf', 'nftables'] as const) {
	test(`whoever carries Services, policies see endpoints: ${mode}`, where, async (t) => {
		const why = await serviceProxies[mode]?.usable()
		if (why !== undefined) return t.skip(why)
		await lab.handle.client.setServiceProxy(mode)
		const [web, far] = [await lab.podIp('web'), await lab.podIp('far')]
		const near = await lab.podNetns('near')
		await lab.until(async () => (reaches(near, 'http://10.96.7.8/', 3) ? true : undefined))
		await policy('only-web', {
			podSelector: { matchLabels: { app: 'near' } },
			policyTypes: ['Egress'],
			egress: [{ to: [{ podSelector: { matchLabels: { app: 'web' } } }], ports: [{ port: 80 }] }],
		})
		check(near, 'http://10.96.7.8/', true, 'the Service of web, out')
		check(near, `http://${web}/`, true, 'web, out')
		check(near, `http://${far}/`, false, 'far, out')
		await policy('not-near', {
			podSelector: { matchLabels: { app: 'web' } },
			ingress: [{ from: [{ podSelector: { matchLabels: { app: 'far' } } }] }],
		})
		check(near, 'http://10.96.7.8/', false, 'the Service of web, in')
		check(await lab.podNetns('far'), 'http://10.96.7.8/', true, 'the Service of web, in from far')
		check(lab.netns('node-1'), 'http://10.96.7.8/', true, 'the Service of web, in from its node')
		await policy('not-web', {
			podSelector: { matchLabels: { app: 'near' } },
			policyTypes: ['Egress'],
			egress: [{ to: [{ podSelector: { matchLabels: { app: 'far' } } }] }],
		})
		await withdraw('only-web', 'not-near')
		check(near, 'http://10.96.7.8/', false, 'the Service of web, not out')
		check(near, `http://${far}/`, true, 'far, out now')
		await withdraw('not-web')
	})
}

test('the three witnesses agree, whatever is denied and by whom', where, async () => {
	const [web, far] = [await lab.podIp('web'), await lab.podIp('far')]
	await policy('in', {
		podSelector: { matchLabels: { app: 'web' } },
		ingress: [{ from: [{ podSelector: { matchLabels: { app: 'near' } } }], ports: [{ port: 80 }] }],
	})
	await policy('out', {
		podSelector: { matchLabels: { app: 'near' } },
		policyTypes: ['Egress'],
		egress: [{ to: [{ podSelector: { matchLabels: { app: 'web' } } }] }],
	})
	await policy(
		'mute',
		{
			podSelector: { matchLabels: { app: 'far' } },
			policyTypes: ['Egress'],
			egress: [{ to: [{ ipBlock: { cidr: `${web}/32` } }] }],
		},
		{ nodes: ['node-2'] },
	)
	const { state } = await collectState(lab.client, { clock: systemClock })
	const model = build(state)
	const servers = ['node-1', 'node-2'].map((n) => listenOn(n, 7777))
	const ends: string[] = []
	const wrong: string[] = []
	for (const from of ['near', 'far', 'web', 'node-1', 'node-2']) {
		for (const [to, port] of [
			[web, 80],
			[web, 81],
			['10.96.7.8', 80],
			[far, 80],
			['172.18.0.2', 7777],
			['172.18.0.3', 7777],
		] as const) {
			const source: Flow['from'] = from.startsWith('node-')
				? { kind: 'node', node: from }
				: { kind: 'pod', pod: `default/${from}` }
			if (model.pods.get(`default/${from}`)?.ips.includes(to as Ip) === true) continue
			const ask = (timeout: number) =>
				traceFlow({
					question: { from, to: `${to}:${port}` },
					flow: { from: source, to: { ip: to as Ip }, protocol: 'TCP', port },
					model,
					agent: lab.handle.client.agent,
					probe: true,
					timeout,
					policyEnforced: true,
				})
			const hasty = await ask(300)
			// A busy machine may take longer; what is denied is not answered then either.
			const report = hasty.disagreement === undefined ? hasty : await ask(5000)
			ends.push(report.disposition)
			if (report.disagreement !== undefined) wrong.push(`${from} to ${to}:${port}: ${report.headline}`)
			const denied = /^denied-(egress|ingress)$/.exec(report.disposition)?.[1]
			if (denied === undefined) continue
			const row = report.stages.find((r) => r.stage === denied)
			for (const witness of ['should', 'would', 'did'] as const)
				if (row?.[witness]?.result !== 'deny')
					wrong.push(`${from} to ${to}:${port}: ${witness} does not deny at ${denied}`)
		}
	}
	for (const server of servers) server.close()
	assert.deepEqual(wrong, [])
	for (const end of ['denied-egress', 'denied-ingress', 'delivered', 'refused'])
		assert.ok(ends.includes(end), `${end}: ${ends}`)
	await withdraw('in', 'out', 'mute')
})

test('while nobody tends the node, and when somebody does again, what is denied stays denied', where, async () => {
	const web = await lab.podIp('web')
	await policy('deny', { podSelector: { matchLabels: { app: 'web' } }, policyTypes: ['Ingress'] })
	await policy('near', {
		podSelector: { matchLabels: { app: 'web' } },
		ingress: [{ from: [{ podSelector: { matchLabels: { app: 'near' } } }] }],
	})
	const allowed = startTraffic(await lab.podNetns('near'), [[web, 80]])
	const denied = startTraffic(await lab.podNetns('far'), [[web, 80]])
	const daemon = (readRecord(lab.paths) as LabRecord).daemon!
	await lab.until(async () => ((await allowed.tally()).reached > 20 ? true : undefined))
	assert.ok(signalProcess(daemon, 'SIGKILL'))
	assert.deepEqual(await waitForEnd([daemon], 5_000), [])
	const atCrash = (await allowed.tally()).reached
	await lab.until(async () => ((await allowed.tally()).reached > atCrash + 50 ? true : undefined))
	await lab.up()
	const atUp = (await allowed.tally()).reached
	await lab.until(async () => ((await allowed.tally()).reached > atUp + 50 ? true : undefined))
	const [a, d] = [await allowed.stop(), await denied.stop()]
	assert.equal(d.reached, 0, `denied ${JSON.stringify(d)}`)
	assert.equal(a.failed, 0, `allowed ${JSON.stringify(a)}`)
	assert.match(await lab.rules('node-1'), /NetworkPolicy default\/near/)
})

test('somebody takes a rule, or all of it: the next look puts it back', where, async () => {
	const web = `http://${await lab.podIp('web')}/`
	const far = await lab.podNetns('far')
	await policy('deny', { podSelector: { matchLabels: { app: 'web' } }, policyTypes: ['Ingress'] })
	check(far, web, false, 'before')
	const delete_ = (...what: string[]) => {
		const done = inNetnsAt(lab.netns('node-1'), () => spawnSync('nft', ['delete', ...what], { encoding: 'utf8' }))
		assert.equal(done.status, 0, done.stderr)
	}
	delete_('element', 'ip', 'podwire-policy', 'ingress-pods', `{ ${await lab.podIp('web')} }`)
	check(far, web, true, 'open')
	await lab.handle.client.repair()
	check(far, web, false, 'the element is there again')
	delete_('table', 'ip', 'podwire-policy')
	check(far, web, true, 'open')
	await lab.handle.client.repair()
	check(far, web, false, 'the table is there again')
})
