// The program of policies by itself in a kernel: both families, as nft lists and loads it, what becomes of established
// connections and of errors, the log's rules, and transactions too large for one batch.

import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { test } from 'node:test'
import { type Ip, ipFromBytes } from '../../src/base/ip.ts'
import { createPolicy, type PolicyOptions } from '../../src/dataplane/policy/policy.ts'
import { inNetnsAt } from '../../src/linux/netns.ts'
import { printTable } from '../../src/linux/nft/print.ts'
import type { NftProgram } from '../../src/linux/nft/program.ts'
import { build } from '../../src/model/build.ts'
import type { NetworkModel } from '../../src/model/network.ts'
import { type ClusterState, emptyState, setObject } from '../../src/model/state.ts'
import { askTcp, askUdp, nodeAddress, podIp, reasonToSkip, type World, withWorld } from './services-world.ts'

const skip = reasonToSkip()

// biome-ignore lint/suspicious/noExplicitAny: objects as a manifest has them
type Any = any

const selector = (app: string) => ({ podSelector: { matchLabels: { app } } })

function pod(name: string, node: string, ips: readonly Ip[]): Any {
	return {
		apiVersion: 'v1',
		kind: 'Pod',
		metadata: { name, namespace: 'default', labels: { app: name }, uid: name },
		spec: { nodeName: node, containers: [{ name: 'c', ports: [{ name: 'web', containerPort: 8080 }] }] },
		status: { phase: 'Running', podIPs: ips.map((ip) => ({ ip })) },
	}
}

/** pod-0 `client` and pod-1 `server` on one node, both families. */
function modelOf(policies: Readonly<Record<string, Any>>, more: readonly Any[] = []): NetworkModel {
	const objects: Any[] = [
		{ apiVersion: 'v1', kind: 'Namespace', metadata: { name: 'default' } },
		{
			apiVersion: 'v1',
			kind: 'Node',
			metadata: { name: 'node-1' },
			status: { addresses: [{ type: 'InternalIP', address: nodeAddress }] },
		},
		pod('client', 'node-1', [podIp(0), podIp(0, 6)]),
		pod('server', 'node-1', [podIp(1), podIp(1, 6)]),
		...more,
		...Object.entries(policies).map(([name, spec]) => ({
			apiVersion: 'networking.k8s.io/v1',
			kind: 'NetworkPolicy',
			metadata: { name, namespace: 'default' },
			spec,
		})),
	]
	const empty: ClusterState = emptyState()
	return build(objects.reduce((state: ClusterState, object) => setObject(state, object), empty))
}

function planeIn(world: World, options: PolicyOptions = {}) {
	const plane = createPolicy({ netns: world.node, uplink: 'eth0', ...options })
	let have: NftProgram | undefined
	return {
		async bring(model: NetworkModel): Promise<NftProgram> {
			const want = plane.compile(model, 'node-1')
			const outcome = await plane.apply(plane.diff(have, want))
			if (!outcome.ok) throw outcome.error
			have = want
			return want
		},
		plane,
	}
}

const serverOnly = (from: readonly Any[], ports?: readonly Any[]) => ({
	...selector('server'),
	ingress: [{ from, ...(ports === undefined ? {} : { ports }) }],
})

test('both families: pods, networks, names of ports; errors of what was allowed come back', { skip }, async () => {
	await withWorld(2, async (world) => {
		world.serveTcp(world.pod(1), 8080, 'server')
		world.serveTcp(world.pod(1), 9090, 'server')
		world.serveUdp(world.pod(1), 53, 'server')
		const { bring, plane } = planeIn(world)
		const check = async (port: number, family: 4 | 6, wanted: 'server' | 'timeout', why: string) => {
			const said = await askTcp(world.pod(0), podIp(1, family), port, wanted === 'timeout' ? 300 : undefined)
			assert.equal(said.startsWith('server') ? 'server' : said, wanted, why)
		}
		for (const family of [4, 6] as const) {
			await check(8080, family, 'server', 'no policy')
			await bring(modelOf({ a: serverOnly([selector('nobody')]) }))
			await check(8080, family, 'timeout', 'denied')
			await bring(modelOf({ a: serverOnly([selector('client')], [{ port: 'web' }, { port: 53, protocol: 'UDP' }]) }))
			await check(8080, family, 'server', 'by name')
			await check(9090, family, 'timeout', 'not by that name')
			assert.match(await askUdp(world.pod(0), podIp(1, family), 53), /^server/)
			assert.equal(await askUdp(world.pod(0), podIp(1, family), 54, 300), 'timeout')
			const network = family === 4 ? '10.244.0.0/16' : 'fd00:10:244::/48'
			const hole = family === 4 ? `${podIp(0)}/32` : `${podIp(0, 6)}/128`
			await bring(modelOf({ a: serverOnly([{ ipBlock: { cidr: network, except: [hole] } }]) }))
			await check(8080, family, 'timeout', 'excepted')
			await bring(
				modelOf({
					a: serverOnly([{ ipBlock: { cidr: network } }]),
					mute: { ...selector('server'), policyTypes: ['Egress'] },
				}),
			)
			await check(8080, family, 'server', 'the network; what is asked is answered')
			assert.equal(await askUdp(world.pod(0), podIp(1, family), 4444), 'ECONNREFUSED', 'and refused')
			await bring(modelOf({}))
		}
		assert.equal((await plane.read()).tables.size, 0)
		plane.close()
	})
})

test('nft lists it as we print it, and loads its own listing again', { skip: skip || noNft() }, async () => {
	await withWorld(2, async (world) => {
		const { bring, plane } = planeIn(world, { log: { group: 7, allowed: true } })
		await bring(
			modelOf({
				in: serverOnly(
					[
						selector('client'),
						{ ipBlock: { cidr: '10.0.0.0/8', except: ['10.1.0.0/16'] } },
						{ ipBlock: { cidr: 'fd00::/8' } },
					],
					[
						{ port: 80 },
						{ port: 443 },
						{ port: 53, protocol: 'UDP' },
						{ port: 9000, endPort: 9100 },
						{ protocol: 'SCTP' },
					],
				),
				out: { ...selector('client'), policyTypes: ['Egress'], egress: [{ ports: [{ port: 'web' }] }] },
			}),
		)
		// The node's kernel speaks by itself, too: of multicast groups, of its neighbours.
		const uncounted = (text: string) => text.replace(/packets \d+ bytes \d+/g, 'packets 0 bytes 0')
		const nft = (...args: string[]) => inNetnsAt(world.node, () => spawnSync('nft', args, { encoding: 'utf8' }))
		const read = await plane.read()
		for (const family of ['ip', 'ip6']) {
			const table = read.tables.get(`${family} podwire-policy`)
			assert.ok(table)
			const listed = nft('list', 'table', family, 'podwire-policy')
			assert.equal(uncounted(listed.stdout), uncounted(printTable(table)), family)
			const again = inNetnsAt(world.node, () =>
				spawnSync(
					'sh',
					[
						'-c',
						`nft delete table ${family} podwire-policy && cat > /tmp/$$.nft && nft -f /tmp/$$.nft; s=$?; rm -f /tmp/$$.nft; exit $s`,
					],
					{
						input: listed.stdout,
						encoding: 'utf8',
					},
				),
			)
			assert.equal(again.status, 0, again.stderr)
			const relisted = nft('list', 'table', family, 'podwire-policy').stdout
			assert.equal(uncounted(relisted), uncounted(listed.stdout), `${family}, loaded again`)
		}
		plane.close()
	})
})

test('established connections go on when a policy comes, unless they are to be cut', { skip }, async () => {
	for (const cutEstablished of [false, true]) {
		await withWorld(2, async (world) => {
			const { bring, plane } = planeIn(world, { cutEstablished })
			// A policy of somebody else: connections are tracked from their beginning.
			await bring(modelOf({ other: { ...selector('server'), ingress: [{}] } }))
			const echo = inNetnsAt(world.pod(1), () =>
				spawn(
					process.execPath,
					['-e', `require('net').createServer((s) => s.pipe(s)).listen(7000, '::', () => console.log('up'))`],
					{
						stdio: ['ignore', 'pipe', 'inherit'],
					},
				),
			)
			await new Promise((resolve) => echo.stdout.once('data', resolve))
			const client = inNetnsAt(world.pod(0), () =>
				spawn(
					process.execPath,
					[
						'-e',
						`const s = require('net').connect(7000, '${podIp(1)}', () => console.log('open')); s.on('data', (d) => process.stdout.write(d)); process.stdin.pipe(s)`,
					],
					{ stdio: ['pipe', 'pipe', 'inherit'] },
				),
			)
			try {
				const hear = (within: number) =>
					new Promise<string>((resolve) => {
						const timer = setTimeout(() => resolve('nothing'), within)
						client.stdout.once('data', (d) => {
							clearTimeout(timer)
							resolve(String(d).trim())
						})
					})
				assert.equal(await hear(5000), 'open')
				client.stdin.write('one\n')
				assert.equal(await hear(5000), 'one')
				await bring(modelOf({ deny: { ...selector('server'), policyTypes: ['Ingress'] } }))
				client.stdin.write('two\n')
				assert.equal(await hear(cutEstablished ? 500 : 5000), cutEstablished ? 'nothing' : 'two')
				await bring(modelOf({ allow: { ...selector('server'), ingress: [{ from: [selector('client')] }] } }))
				// What was lost is sent again by TCP.
				if (!cutEstablished) client.stdin.write('three\n')
				assert.equal(await hear(10_000), cutEstablished ? 'two' : 'three')
			} finally {
				client.kill('SIGKILL')
				echo.kill('SIGKILL')
				plane.close()
			}
		})
	}
})

test('while policies change not one packet of a flood gets through', { skip }, async () => {
	await withWorld(2, async (world) => {
		const { bring, plane } = planeIn(world)
		const start = (pod: number, code: string) =>
			inNetnsAt(world.pod(pod), () =>
				spawn(process.execPath, ['-e', `const s = require('dgram').createSocket('udp4'); ${code}`], {
					stdio: ['pipe', 'pipe', 'inherit'],
				}),
			)
		const server = start(
			1,
			`let n = 0; s.on('message', () => n++); s.bind(5000, () => console.log('up')); process.stdin.on('data', () => console.log(n))`,
		)
		const said = async (program: typeof server) =>
			String(await new Promise((resolve) => program.stdout.once('data', resolve))).trim()
		let client: typeof server | undefined
		try {
			assert.equal(await said(server), 'up')
			const deny = { ...selector('server'), policyTypes: ['Ingress'] }
			await bring(modelOf({ deny }))
			client = start(
				0,
				`console.log('sends'); const go = () => { for (let i = 0; i < 64; i++) s.send('x', 5000, '${podIp(1)}'); setImmediate(go) }; go()`,
			)
			assert.equal(await said(client), 'sends')
			// With each the pod is isolated by another chain. One transaction for both let a packet pass in some 250 changes.
			for (let i = 0; i < 600; i++) {
				await bring(modelOf({ deny, [`other-${i}`]: deny }))
				await new Promise((resolve) => setImmediate(resolve))
			}
			server.stdin.write('?')
			assert.equal(await said(server), '0')
		} finally {
			client?.kill('SIGKILL')
			server.kill('SIGKILL')
			plane.close()
		}
	})
})

test('more elements than fit a batch of the unprivileged: nothing is ever open', { skip }, async () => {
	await withWorld(2, async (world) => {
		world.serveTcp(world.pod(1), 8080, 'server')
		const { bring, plane } = planeIn(world)
		const crowd = Array.from({ length: 30_000 }, (_, i) =>
			pod(`other-${i}`, 'node-2', [ipFromBytes(Uint8Array.of(10, 128 + (i >> 16), (i >> 8) & 255, i & 255))]),
		)
		const everyone = {
			namespaceSelector: {},
			podSelector: { matchExpressions: [{ key: 'app', operator: 'NotIn', values: ['client'] }] },
		}
		await bring(modelOf({ a: serverOnly([everyone]) }, crowd))
		assert.equal(await askTcp(world.pod(0), podIp(1), 8080, 300), 'timeout')
		const read = await plane.read()
		const sets = [...(read.tables.get('ip podwire-policy')?.sets.values() ?? [])]
		assert.ok(
			sets.some((set) => set.elements.size === 30_001),
			sets.map((s) => `${s.name} ${s.elements.size}`).join(),
		)
		plane.close()
	})
})

function noNft(): string | false {
	return spawnSync('nft', ['--version']).error === undefined ? false : 'the nft program is not here'
}
