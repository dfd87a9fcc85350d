// The flow log with real packets: what policies deny, what they would, what is carried; who is told, how often, and what
// a flood costs.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { after, before, test } from 'node:test'
import { type FlowEvent, type FlowMessage, isLost } from '../../src/agent/flow-event.ts'
import type { FlowFilter } from '../../src/agent/flow-filter.ts'
import { logRate } from '../../src/dataplane/policy/log.ts'
import { namespaces, networkPolicies } from '../../src/kube/kinds.ts'
import { inNetnsAt } from '../../src/linux/netns.ts'
import { AF_INET, close, inetAddress, SOCK_DGRAM, sendto, socket } from '../../src/linux/syscalls.ts'
import { createTestLab, podObject, skip, type TestLab } from './lab.ts'

let lab: TestLab
const where = { skip, concurrency: false }

function curl(netns: string, url: string, seconds: number): number | null {
	const words = ['-sS', '-o', '/dev/null', '--max-time', String(seconds), url]
	return inNetnsAt(netns, () => spawnSync('curl', words, { encoding: 'utf8', timeout: 20_000 })).status
}

async function remembered(filter: FlowFilter): Promise<FlowEvent[]> {
	const found: FlowEvent[] = []
	for await (const message of lab.handle.client.flows({ filter, follow: false }))
		if (!isLost(message)) found.push(message)
	return found
}

/** The kernel gathers events for a moment before it sends them. */
function told(count: number, filter: FlowFilter): Promise<FlowEvent[]> {
	return lab.until(async () => {
		const found = await remembered(filter)
		return found.length >= count ? found : undefined
	})
}

/** Follows from now on; what came, when `stop` resolves. */
function follow(filter: FlowFilter): { readonly seen: FlowMessage[]; stop(): Promise<void> } {
	const abort = new AbortController()
	const seen: FlowMessage[] = []
	const reading = (async () => {
		for await (const message of lab.handle.client.flows({ filter, follow: true, last: 0 }, abort.signal))
			seen.push(message)
	})()
	return {
		seen,
		async stop() {
			abort.abort()
			await reading
		},
	}
}

async function policy(name: string, app: string, annotations: Record<string, string> = {}): Promise<void> {
	await lab.create({
		apiVersion: 'networking.k8s.io/v1',
		kind: 'NetworkPolicy',
		metadata: { name, namespace: 'default', annotations },
		spec: { podSelector: { matchLabels: { app } }, policyTypes: ['Ingress'] },
	})
	await lab.until(async () => ((await lab.rules('node-1')).includes(`default/${name}`) ? true : undefined))
}

async function withdraw(name: string): Promise<void> {
	await lab.client.delete(networkPolicies, `default/${name}`)
	await lab.until(async () => ((await lab.rules('node-1')).includes(`default/${name}`) ? undefined : true))
}

before(async () => {
	if (skip) return
	lab = await createTestLab('flows')
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
		spec: { selector: { app: 'web' }, clusterIP: '10.96.7.8', ports: [{ port: 81, targetPort: 80 }] },
	})
	const far = await lab.podNetns('far')
	await lab.until(async () => (curl(far, 'http://10.96.7.8:81/', 1) === 0 ? true : undefined))
})
after(() => lab?.remove())

test('without a policy nothing listens, and nothing is logged', where, async () => {
	assert.doesNotMatch(await lab.rules('node-1'), /log prefix/)
	assert.deepEqual(await remembered({}), [])
})

test(
	'what is denied is told without an observer: both ends, the policy, the rule; a SYN sent again is no other flow',
	where,
	async () => {
		await policy('deny', 'web')
		const web = await lab.podIp('web')
		assert.equal(curl(await lab.podNetns('far'), `http://${web}/`, 1.5), 28)
		const [event, ...more] = await remembered({ verdicts: ['DROPPED'] })
		assert.deepEqual(more, [])
		assert.ok(event)
		const { flow, podwire } = event
		assert.equal(flow.drop_reason_desc, 'POLICY_DENIED')
		assert.equal(flow.traffic_direction, 'INGRESS')
		assert.equal(event.node_name, 'node-1')
		assert.deepEqual([flow.source.namespace, flow.source.pod_name], ['default', 'far'])
		assert.deepEqual([flow.destination.namespace, flow.destination.pod_name], ['default', 'web'])
		assert.ok(flow.source.labels.includes('k8s:app=far'))
		assert.deepEqual(flow.IP, { source: await lab.podIp('far'), destination: web, ipVersion: 'IPv4' })
		assert.equal(flow.l4.TCP?.destination_port, 80)
		assert.equal(flow.l4.TCP?.flags?.SYN, true)
		assert.deepEqual(flow.ingress_denied_by, [{ name: 'deny', namespace: 'default', kind: 'NetworkPolicy' }])
		assert.deepEqual(podwire.because, [{ kind: 'NetworkPolicy', key: 'default/deny' }])
		assert.match(podwire.rule?.chain ?? '', /^ingress-default-[0-9a-f]{12}$/)
		assert.equal(podwire.repeats, 1, 'the second SYN, after a second')
		assert.ok(Math.abs(Date.parse(event.time) - Date.now()) < 10_000)
		assert.deepEqual(await remembered({ verdicts: ['DROPPED'], from: { kind: 'pod', name: 'near' } }), [])
		await withdraw('deny')
		assert.doesNotMatch(await lab.rules('node-1'), /log prefix/)
		assert.equal((await remembered({ verdicts: ['DROPPED'] })).length, 1, 'it is remembered after the policy')
	},
)

test('what is allowed is told to who observes: by its Service, at both nodes, and its end', where, async () => {
	const observer = follow({ port: 81, ended: true })
	const arriving = follow({ to: { kind: 'pod', name: 'web' }, port: 80, verdicts: ['FORWARDED'] })
	const far = await lab.podNetns('far')
	// Who follows is told of what begins from then on, if not of the first of these.
	const [out] = await lab.until(async () => {
		assert.equal(curl(far, 'http://10.96.7.8:81/', 3), 0)
		return observer.seen.length > 0 && arriving.seen.length > 0 ? (observer.seen as FlowEvent[]) : undefined
	})
	assert.ok(out)
	assert.equal(out.flow.verdict, 'FORWARDED')
	assert.equal(out.node_name, 'node-2')
	assert.equal(out.flow.traffic_direction, 'EGRESS')
	assert.equal(out.flow.source.pod_name, 'far')
	assert.equal(out.flow.destination.pod_name, 'web')
	assert.deepEqual(out.flow.destination_service, { name: 'web', namespace: 'default' })
	assert.deepEqual(out.podwire.asked, { ip: '10.96.7.8', port: 81 })
	assert.equal(out.flow.l4.TCP?.destination_port, 80)
	const into = await lab.until(async () => (arriving.seen as FlowEvent[]).find((e) => e.node_name === 'node-1'))
	assert.equal(into.flow.traffic_direction, 'INGRESS')
	assert.equal(into.flow.source.pod_name, 'far')
	await Promise.all([observer.stop(), arriving.stop()])
	// Nobody observes, nobody is told: once the nodes have heard that the observers left.
	const all = async () => (await remembered({ verdicts: ['FORWARDED'] })).length
	await lab.until(async () => {
		const before = await all()
		assert.equal(curl(far, 'http://10.96.7.8:81/', 3), 0)
		return (await all()) === before ? true : undefined
	})
})

test('on trial: told as what would be denied, and carried', where, async () => {
	await policy('trial', 'web', { 'podwire.dev/audit': 'true' })
	assert.equal(curl(await lab.podNetns('near'), `http://${await lab.podIp('web')}/`, 3), 0)
	const [event, ...more] = await told(1, { verdicts: ['AUDIT'] })
	assert.deepEqual(more, [])
	assert.equal(event?.flow.source.pod_name, 'near')
	assert.equal(event?.flow.drop_reason, undefined)
	assert.deepEqual(
		event?.podwire.because.map((o) => 'key' in o && o.key),
		['default/trial'],
	)
	await withdraw('trial')
})

test('a namespace on trial: each of its policies is, and none beside it', where, async () => {
	const annotate = (value: string | null) =>
		lab.client.patch(
			namespaces,
			'default',
			{ metadata: { annotations: { 'podwire.dev/audit': value } } },
			{ type: 'merge' },
		)
	await annotate('true')
	await policy('whole', 'web')
	await lab.until(async () =>
		(await lab.rules('node-1')).includes('podwire audit ingress-default') ? true : undefined,
	)
	assert.equal(curl(await lab.podNetns('near'), `http://${await lab.podIp('web')}/`, 3), 0)
	const audits = async () =>
		(await remembered({ verdicts: ['AUDIT'] })).filter((e) =>
			e.podwire.because.some((o) => 'key' in o && o.key === 'default/whole'),
		)
	const [event] = await lab.until(async () => ((await audits()).length > 0 ? await audits() : undefined))
	assert.equal(event?.flow.source.pod_name, 'near')
	assert.equal(event?.flow.drop_reason, undefined)
	await annotate(null)
	await lab.until(async () => ((await lab.rules('node-1')).includes('podwire deny ingress-default') ? true : undefined))
	assert.equal(curl(await lab.podNetns('near'), `http://${await lab.podIp('web')}/`, 1), 28)
	const denied = { verdicts: ['DROPPED' as const], from: { kind: 'pod' as const, name: 'near' } }
	const [dropped] = await told(1, denied)
	assert.deepEqual(dropped?.flow.ingress_denied_by, [{ name: 'whole', namespace: 'default', kind: 'NetworkPolicy' }])
	await withdraw('whole')
})

test('a flood is dropped whole and told in part: limited in the kernel, bounded here', where, async () => {
	await policy('deny', 'web')
	const web = await lab.podIp('web')
	const bytes = new Uint8Array(web.split('.').map(Number))
	const count = 3_000
	const fd = inNetnsAt(await lab.podNetns('near'), () => socket(AF_INET, SOCK_DGRAM, 0))
	for (let i = 0; i < count; i++) sendto(fd, new Uint8Array(8), inetAddress(bytes, 10_000 + i))
	close(fd)
	const text = await lab.until(async () => {
		const all = await lab.rules('node-1')
		return all.includes(`counter packets ${count} `) ? all : undefined
	})
	const logged = Number(/counter packets (\d+) bytes \d+ log prefix/.exec(text)?.[1])
	assert.ok(logged >= logRate.burst && logged < count, `${logged} of ${count} logged`)
	const events = await told(logged, { verdicts: ['DROPPED'], protocol: 'UDP' })
	assert.equal(events.length, logged)
	assert.equal(new Set(events.map((e) => e.flow.l4.UDP?.destination_port)).size, logged)
	const quiet: FlowMessage[] = []
	for await (const message of lab.handle.client.flows({ filter: {}, follow: false }))
		if (isLost(message)) quiet.push(message)
	assert.deepEqual(
		quiet.map((m) => isLost(m) && [m.node_name, m.lost_events]),
		[['node-1', { source: 'RATE_LIMIT', num_events_lost: count - logged }]],
	)
	const metrics = inNetnsAt(lab.netns('node-1'), () =>
		spawnSync('curl', ['-sS', 'http://127.0.0.1:10249/metrics'], { encoding: 'utf8', timeout: 10_000 }),
	).stdout
	assert.match(metrics, new RegExp(`^hubble_drop_total\\{reason="POLICY_DENIED",protocol="UDP"\\} ${logged}$`, 'm'))
	assert.match(
		metrics,
		new RegExp(`^hubble_flows_processed_total\\{verdict="DROPPED",protocol="UDP"\\} ${logged}$`, 'm'),
	)
	assert.match(metrics, /^podwire_flow_events_lost_total 0$/m)
	const unlogged = new RegExp(`^podwire_flow_packets_unlogged_total\\{verdict="DROPPED"\\} ${count - logged}$`, 'm')
	assert.match(metrics, unlogged)
	await withdraw('deny')
	const after: FlowMessage[] = []
	for await (const message of lab.handle.client.flows({ filter: { node: 'node-1' }, follow: false }))
		if (isLost(message)) after.push(message)
	assert.deepEqual(
		after.map((m) => isLost(m) && m.lost_events),
		[{ source: 'RATE_LIMIT', num_events_lost: count - logged }],
		'it is known after the rules that counted it',
	)
})
