// A real application under its own policies, with real packets: Online Boutique and its 13 NetworkPolicies. What its
// architecture declares works; every other pair is cut off; and for each the three witnesses say the same.

import assert from 'node:assert/strict'
import { constants } from 'node:os'
import { after, before, test } from 'node:test'
import { isFailure } from '../../src/base/failure.ts'
import { type Ip, ipToBytes } from '../../src/base/ip.ts'
import { applyItems, sourcesOf } from '../../src/cli/apply.ts'
import { loadManifests } from '../../src/cli/manifests.ts'
import { pods, services } from '../../src/kube/kinds.ts'
import type { Service } from '../../src/kube/objects/core.ts'
import type { Pod } from '../../src/kube/objects/pod.ts'
import { inNetnsAt } from '../../src/linux/netns.ts'
import { printProgram } from '../../src/linux/nft/print.ts'
import {
	AF_INET,
	AF_INET6,
	close,
	connect,
	getsockoptInt,
	inetAddress,
	POLLOUT,
	poll,
	SO_ERROR,
	SOCK_NONBLOCK,
	SOCK_STREAM,
	SOL_SOCKET,
	socket,
} from '../../src/linux/syscalls.ts'
import { application, callers, isMeant, skip as noManifests, policies } from '../boutique.ts'
import { createTestLab, skip as noRights, type TestLab } from '../net/lab.ts'

const skip = noRights || noManifests

let lab: TestLab
before(async () => {
	if (skip !== false) return
	lab = await createTestLab('boutique', undefined, { ipFamily: 'dual' })
	const { items } = await loadManifests([application, policies], 'default')
	assert.deepEqual(await applyItems(lab.client, items, () => {}), [])
	await lab.handle.client.putSources(sourcesOf(items))
	await lab.until(async () => {
		const all = (await lab.client.list(pods)).items.filter((p) => p.metadata.namespace === 'default')
		const ready = all.filter((p) => p.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True'))
		return all.length >= 12 && ready.length === all.length ? true : undefined
	}, 60)
})
after(() => lab?.remove())

test('exactly the declared calls come about', { skip, timeout: 120_000 }, async () => {
	const workloads = (await lab.client.list(pods)).items.flatMap((p) =>
		p.metadata.namespace === 'default'
			? [{ key: `default/${p.metadata.name}`, app: p.metadata.labels?.app ?? '' }]
			: [],
	)
	const asked = (await lab.client.list(services)).items.filter(
		(s): s is Service => s.metadata.namespace === 'default' && s.spec?.selector !== undefined,
	)
	assert.ok(workloads.length >= 12 && asked.length >= 12, `${workloads.length} pods, ${asked.length} Services`)
	const pairs = workloads.flatMap((from) => asked.map((service) => ({ from, service })))
	const wrong: string[] = []
	let worked = 0
	const worker = async () => {
		for (let pair = pairs.shift(); pair !== undefined; pair = pairs.shift()) {
			const { from, service } = pair
			const app = service.spec?.selector?.app ?? ''
			const meant = isMeant(from.app, app)
			const { outcome } = await lab.handle.client.agent.probe({
				from: { pod: from.key },
				to: service.spec?.clusterIP as Ip,
				port: service.spec?.ports?.[0]?.port ?? 0,
				protocol: 'TCP',
				nodes: [],
				timeout: meant ? 3000 : 200,
				observe: false,
			})
			if (outcome === 'connected') worked++
			if (outcome !== (meant ? 'connected' : 'timeout'))
				wrong.push(`${from.app} → ${service.metadata.name}: ${outcome}`)
		}
	}
	await Promise.all(Array.from({ length: 6 }, worker))
	assert.deepEqual(wrong, [])
	assert.ok(worked > 30, `${worked} worked`)
})

test('every pair of pods and nodes, on every port that any of them declares, by both families', {
	skip: skip || (process.getuid?.() === 0 ? false : 'needs root to enter namespaces from outside'),
	timeout: 240_000,
}, async () => {
	const all = (await lab.client.list(pods)).items.filter((p) => p.metadata.namespace === 'default')
	const appOf = (pod: Pod) => pod.metadata.labels?.app ?? ''
	const declared = (pod: Pod) => pod.spec?.containers.flatMap((c) => c.ports ?? []).map((p) => p.containerPort) ?? []
	const ports = [...new Set(all.flatMap(declared))].sort((a, b) => a - b)
	assert.ok(ports.length >= 8, ports.join())
	const nodes = ['node-1', 'node-2']
	const asked = all.flatMap((to) =>
		(to.status?.podIPs ?? []).flatMap(({ ip }) =>
			ports.flatMap((port) => [
				...all.map((pod) => ({ from: { pod }, to, ip, port })),
				...nodes.map((node) => ({ from: { node }, to, ip, port })),
			]),
		),
	)
	/** Policies let it in; whether somebody listens is another matter. */
	const isAllowed = ({ from, to, port }: (typeof asked)[number]): boolean => {
		const app = appOf(to)
		if (app === 'frontend') return true
		if ('node' in from) return from.node === to.spec?.nodeName
		if (from.pod === to) return true
		return callers[app]?.includes(`${appOf(from.pod)} TCP ${port}`) === true
	}
	const netnsOf = ({ from }: (typeof asked)[number]) =>
		`${lab.paths.namespaces}/${'node' in from ? from.node : `pod-${from.pod.metadata.uid}`}`
	const wrong: string[] = []
	const seen: Record<string, number> = {}
	while (asked.length > 0) {
		const some = asked.splice(0, 300).map((question) => {
			const { to, port } = question
			const expected = !isAllowed(question) ? 'silence' : declared(to).includes(port) ? 'connected' : 'refused'
			return { question, expected, knock: knockAt(netnsOf(question), question.ip as Ip, port) }
		})
		// What is denied never comes, however long one waits: a moment is enough, after what is allowed has come.
		const begun = Date.now()
		for (;;) {
			for (const { knock } of some) knock.look()
			const waiting = some.some(({ expected, knock }) => expected !== 'silence' && knock.outcome === 'silence')
			const passed = Date.now() - begun
			if (passed > 20_000 || (!waiting && passed > 150)) break
			await new Promise((resolve) => setTimeout(resolve, 5))
		}
		for (const { question, expected, knock } of some) {
			knock.close()
			const { from, to, ip, port } = question
			seen[knock.outcome] = (seen[knock.outcome] ?? 0) + 1
			const who = 'node' in from ? from.node : appOf(from.pod)
			if (knock.outcome !== expected)
				wrong.push(`${who} → ${appOf(to)} ${ip}:${port}: ${knock.outcome}, not ${expected}`)
		}
	}
	assert.deepEqual(wrong, [])
	assert.ok((seen.connected ?? 0) > 60 && (seen.refused ?? 0) > 100 && (seen.silence ?? 0) > 1500, JSON.stringify(seen))
})

interface Knock {
	readonly outcome: 'silence' | 'connected' | 'refused' | 'error'
	look(): void
	close(): void
}

/** A connection that nobody waits for. */
function knockAt(netns: string, ip: Ip, port: number): Knock {
	const family = ip.includes(':') ? AF_INET6 : AF_INET
	const fd = inNetnsAt(netns, () => socket(family, SOCK_STREAM | SOCK_NONBLOCK, 0))
	let outcome: Knock['outcome'] = 'silence'
	const end = (errno: number) => {
		outcome = errno === 0 ? 'connected' : errno === constants.errno.ECONNREFUSED ? 'refused' : 'error'
	}
	try {
		connect(fd, inetAddress(ipToBytes(ip), port))
	} catch (e) {
		if (!isFailure(e)) throw e
		outcome = e.code === 'ECONNREFUSED' ? 'refused' : 'error'
	}
	return {
		get outcome() {
			return outcome
		},
		look() {
			if (outcome !== 'silence') return
			const [ready = 0] = poll([{ fd, events: POLLOUT }])
			if (ready !== 0) end(getsockoptInt(fd, SOL_SOCKET, SO_ERROR))
		},
		close: () => close(fd),
	}
}

test('each rule in the kernel names the line of its policy', { skip }, async () => {
	const text = (
		await Promise.all(
			['node-1', 'node-2'].map(async (n) => printProgram((await lab.handle.client.agent.read(n)).nftables)),
		)
	).join('')
	for (const name of ['cartservice', 'checkoutservice', 'redis-cart', 'paymentservice'])
		assert.match(
			text,
			new RegExp(`return comment "NetworkPolicy default/${name} spec\\.ingress\\[0\\] .*network-policies\\.yaml:\\d+"`),
		)
	assert.match(
		text,
		/drop comment "NetworkPolicy default\/\S+, default\/deny-all"|drop comment "NetworkPolicy default\/.*deny-all/,
	)
})
