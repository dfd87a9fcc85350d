// Promises about time: affinity and its end, connections that outlive a change, UDP that must not, ten thousand Services
// that change under traffic, an agent that begins again, others who use the same kernel.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import type { TestContext } from 'node:test'
import type { Ip } from '../../src/base/ip.ts'
import { inNetnsAt } from '../../src/linux/netns.ts'
import type { NetworkModel, Service } from '../../src/model/network.ts'
import type { Case } from './services-cases.ts'
import { clusterModel, externalIp, type Family, ipOf, type Place, podNames } from './services-cluster.ts'
import {
	at,
	clusterIp,
	expect,
	forgetUdp,
	nodePort,
	seenAs,
	service,
	servicePort,
	through,
	vips,
	type World,
} from './services-expect.ts'
import { echoServer, listenSctp, sendSctp, type Talk, talkTcp, talkUdp } from './services-flows.ts'
import { askTcp, askUdp } from './services-world.ts'

/** Servers on both nodes under several ports: many endpoints of few pods. */
function endpointsFrom(world: World, first: number, count: number) {
	const list = Array.from({ length: count }, (_, i) => ({
		at: (i % 2 === 0 ? 'p1b' : 'p2b') as 'p1b' | 'p2b',
		port: first + i,
	}))
	for (const { at, port } of list) world.serve(at, port)
	return list
}

/** The server that answers, without the source it saw. */
async function whoAnswers(world: World, from: Place, to: Ip, port = servicePort): Promise<string> {
	const answer = await askTcp(world.cluster.netns(from), to, port)
	return answer.split(' ')[0] as string
}

/** No new choice in ten connections. Returns the endpoint. */
async function staysWith(world: World, from: Place, to: Ip, port = servicePort): Promise<string> {
	const first = await whoAnswers(world, from, to, port)
	for (let i = 0; i < 10; i++) assert.equal(await whoAnswers(world, from, to, port), first, `${from} to ${to}`)
	return first
}

const families: readonly Family[] = [4, 6]

export const changeCases = {
	async 'session affinity: at every kind of address, for every client'(world) {
		const endpoints = endpointsFrom(world, 8300, 6)
		const make = (n: number, more: Partial<Service>) =>
			service({
				name: `sticky-${n}`,
				n,
				endpoints,
				type: 'LoadBalancer',
				vips: vips(n),
				more: { sessionAffinity: 10800, ...more },
			})
		await world.bring([make(30, {}), make(31, { externalTrafficPolicy: 'Local' })])
		for (const family of families) {
			for (const n of [30, 31]) {
				for (const from of ['p1a', 'node-1', 'outside'] as const) {
					await staysWith(world, from, at(n)(family))
					await staysWith(world, from, externalIp('node-1', n, family))
					const chosen = await staysWith(world, from, ipOf('node-1', family), nodePort(n))
					if (n === 31 && from === 'outside') assert.match(chosen, /^p1b/)
				}
			}
		}
	},

	async 'session affinity: to hostNetwork endpoints of the same node'(world) {
		const endpoints = Array.from({ length: 6 }, (_, i) => ({ at: 'node-1' as const, port: 9100 + i }))
		for (const { at, port } of endpoints) world.serve(at, port)
		await world.bring([service({ name: 'host', n: 46, endpoints, type: 'NodePort', more: { sessionAffinity: 60 } })])
		for (const family of families) {
			await staysWith(world, 'p1a', at(46)(family))
			await staysWith(world, 'outside', ipOf('node-1', family), nodePort(46))
		}
	},

	async 'session affinity: of UDP'(world) {
		await world.bring([
			service({ name: 'sticky', n: 32, endpoints: endpointsFrom(world, 8300, 6), more: { sessionAffinity: 60 } }),
		])
		const ask = () => askUdp(world.cluster.netns('p1a'), at(32)(4), servicePort)
		const first = await ask()
		for (let i = 0; i < 10; i++) assert.equal(await ask(), first)
	},

	async 'session affinity: its endpoint leaves, another one does, the policy becomes Local'(world) {
		const endpoints = endpointsFrom(world, 8300, 6)
		const make = (list: typeof endpoints, more: Partial<Service> = {}) =>
			service({
				name: 'sticky',
				n: 33,
				endpoints: list,
				type: 'LoadBalancer',
				vips: vips(33),
				more: { sessionAffinity: 10800, ...more },
			})
		const name = (e: (typeof endpoints)[number]) => `${e.at}:${e.port}`
		await world.bring([make(endpoints)])
		const first = await staysWith(world, 'p1a', at(33)(4))
		const spare = endpoints.find((e) => name(e) !== first)!
		await world.bring([make(endpoints.filter((e) => e !== spare))])
		assert.equal(await staysWith(world, 'p1a', at(33)(4)), first)
		await world.bring([make(endpoints.filter((e) => name(e) !== first))])
		assert.notEqual(await staysWith(world, 'p1a', at(33)(4)), first)
		const vip = externalIp('node-1', 33)
		// Until the client outside has one of the other node.
		for (let i = 0; i < 30; i++) {
			await world.bring([make(endpoints)])
			const remote = (await staysWith(world, 'outside', vip)).startsWith('p2b')
			await world.bring([make(endpoints, { externalTrafficPolicy: 'Local' })])
			assert.match(await staysWith(world, 'outside', vip), /^p1b/)
			if (remote) return
			await world.bring([])
		}
		assert.fail('thirty clients in a row got an endpoint of the node they came to')
	},

	async 'session affinity ends after its time without a connection'(world) {
		const endpoints = endpointsFrom(world, 8300, 8)
		await world.bring([service({ name: 'sticky', n: 34, endpoints, more: { sessionAffinity: 1 } })])
		// That a client stays with it is for longer times to tell: a busy machine may take a second between two requests.
		const first = await whoAnswers(world, 'p1a', at(34)(4))
		// One of eight times the new choice is the old one.
		for (let i = 0; i < 8; i++) {
			await new Promise((resolve) => setTimeout(resolve, 1300))
			if ((await whoAnswers(world, 'p1a', at(34)(4))) !== first) return
		}
		assert.fail(`${first} was kept`)
	},

	async 'an established connection outlives a source range; new ones do not begin'(world) {
		const server = echoServer(world.cluster.netns('p1b'), 8400, 'p1b')
		const make = (...sourceRanges: string[]) =>
			service({
				name: 'ranged',
				n: 47,
				endpoints: [{ at: 'p1b', port: 8400 }],
				type: 'LoadBalancer',
				vips: vips(47),
				sourceRanges,
			})
		let talk: Talk | undefined
		try {
			await world.bring([make('172.18.0.0/16')])
			talk = await talkTcp(world.cluster.netns('outside'), externalIp('node-1', 47), servicePort)
			assert.equal(await talk.ask(), 'p1b')
			await world.bring([make('192.0.2.0/24')])
			assert.equal(await talk.ask(), 'p1b')
			assert.equal(await askTcp(world.cluster.netns('outside'), externalIp('node-1', 47), servicePort, 250), 'timeout')
		} finally {
			talk?.close()
			server.close()
		}
	},

	async 'an established connection outlives its endpoint, its Service and the next one of the address'(world) {
		const servers = (['p1b', 'p2b'] as const).map((name) => echoServer(world.cluster.netns(name), 8400, name))
		const echo = (list: readonly ('p1b' | 'p2b')[]) =>
			service({
				name: 'echo',
				n: 35,
				endpoints: list.map((at) => ({ at, port: 8400 })),
				type: 'LoadBalancer',
				vips: vips(35),
			})
		const talks: Talk[] = []
		try {
			await world.bring([echo(['p1b'])])
			for (const [from, to] of [
				['p1a', at(35)(4)],
				['p1a', at(35)(6)],
				['node-1', at(35)(4)],
				['outside', externalIp('node-1', 35)],
				['outside', externalIp('node-1', 35, 6)],
			] as const)
				talks.push(await talkTcp(world.cluster.netns(from), to, servicePort))
			const still = async () => {
				assert.deepEqual(
					await Promise.all(talks.map((t) => t.ask())),
					talks.map(() => 'p1b'),
				)
			}
			await still()
			await world.bring([echo(['p2b'])])
			await still()
			const next = await talkTcp(world.cluster.netns('p1a'), at(35)(4), servicePort)
			assert.equal(await next.ask(), 'p2b')
			next.close()
			await world.bring([])
			await still()
			await world.bring([echo(['p2b'])])
			await still()
		} finally {
			for (const talk of talks) talk.close()
			for (const server of servers) server.close()
		}
	},

	async 'UDP: a client whose endpoint left keeps it without the flush, and moves with it'(world) {
		const one = (n: number, place: 'p1b' | 'p2b') =>
			service({ name: `udp-${n}`, n, endpoints: [place], type: 'LoadBalancer', vips: vips(n) })
		await world.bring([one(36, 'p1b')])
		const before = world.cluster.model
		const talks = [
			talkUdp(world.cluster.netns('p1a'), at(36)(4), servicePort),
			talkUdp(world.cluster.netns('p1a'), at(36)(6), servicePort),
			talkUdp(world.cluster.netns('outside'), externalIp('node-1', 36), servicePort),
			talkUdp(world.cluster.netns('outside'), ipOf('node-1'), nodePort(36)),
		]
		const answers = async () => (await Promise.all(talks.map((t) => t.ask()))).map((text) => text.split(' ')[0])
		try {
			assert.deepEqual(
				await answers(),
				talks.map(() => 'p1b'),
			)
			await world.bring([one(36, 'p2b')], () => {})
			assert.deepEqual(
				await answers(),
				talks.map(() => 'p1b'),
				'stale, as long as nobody forgets the entries',
			)
			for (const node of world.cluster.nodes) forgetUdp(node, before, world.cluster.model!)
			assert.deepEqual(
				await answers(),
				talks.map(() => 'p2b'),
			)
		} finally {
			for (const talk of talks) talk.close()
		}
	},

	async 'UDP: a client stays with an endpoint that drains, until that serves no more'(world) {
		const bring = async (leaving: {
			readonly ready: boolean
			readonly serving: boolean
			readonly terminating: boolean
		}) => {
			const before = world.cluster.model
			await world.bring([service({ name: 'udp', n: 47, endpoints: [{ at: 'p1b', ...leaving }, 'p2b'] })], () => {})
			for (const node of world.cluster.nodes) forgetUdp(node, before, world.cluster.model!)
		}
		await world.bring([service({ name: 'udp', n: 47, endpoints: ['p1b'] })])
		const talks = families.map((family) => talkUdp(world.cluster.netns('p1a'), at(47)(family), servicePort))
		const answers = async () => (await Promise.all(talks.map((t) => t.ask()))).map((text) => text.split(' ')[0])
		try {
			assert.deepEqual(await answers(), ['p1b', 'p1b'])
			await bring({ ready: false, serving: true, terminating: true })
			assert.deepEqual(await answers(), ['p1b', 'p1b'])
			await bring({ ready: false, serving: false, terminating: true })
			assert.deepEqual(await answers(), ['p2b', 'p2b'])
		} finally {
			for (const talk of talks) talk.close()
		}
	},

	async 'UDP: a client that asked before there was a Service reaches it after the flush'(world) {
		await world.bring([])
		const before = world.cluster.model
		const talk = talkUdp(world.cluster.netns('outside'), externalIp('node-1', 37), servicePort)
		try {
			assert.equal(await talk.ask(200), 'timeout')
			const early = service({ name: 'early', n: 37, endpoints: ['p1b'], type: 'LoadBalancer', vips: vips(37) })
			await world.bring([early], () => {})
			assert.equal(await talk.ask(200), 'timeout', 'stale, as long as nobody forgets the entry')
			for (const node of world.cluster.nodes) forgetUdp(node, before, world.cluster.model!)
			assert.match(await talk.ask(), /^p1b /)
		} finally {
			talk.close()
		}
	},

	async 'a restart loses no connection, neither old nor new'(world, t) {
		const servers = (['p1b', 'p2b'] as const).map((name) => echoServer(world.cluster.netns(name), 8400, name))
		const endpoints = (['p1b', 'p2b'] as const).map((at) => ({ at, port: 8400 }))
		const talks: Talk[] = []
		try {
			const bystanders = await affordable(world, 2000, t)
			await world.bring([
				service({ name: 'echo', n: 38, endpoints, type: 'LoadBalancer', vips: vips(38) }),
				service({ name: 'web', n: 39, endpoints: ['p1b', 'p2b'], type: 'LoadBalancer', vips: vips(39) }),
				...Array.from({ length: bystanders }, (_, i) => bystander(i, 0)),
			])
			for (const [from, to] of [
				['p1a', at(38)(4)],
				['p2a', at(38)(6)],
				['outside', externalIp('node-1', 38)],
			] as const)
				talks.push(await talkTcp(world.cluster.netns(from), to, servicePort))
			const names = await Promise.all(talks.map((talk) => talk.ask()))
			let running = true
			const wrong: string[] = []
			let asked = 0
			const keepAsking = async (from: Place, to: Ip) => {
				while (running) {
					const answer = await askTcp(world.cluster.netns(from), to, servicePort, patience)
					asked++
					if (!/^p[12]b /.test(answer)) wrong.push(`${from} to ${to}: ${answer}`)
				}
			}
			const keepTalking = async (talk: Talk, name: string | undefined) => {
				while (running) {
					const answer = await talk.ask(patience)
					if (answer !== name) wrong.push(`established with ${name}: ${answer}`)
				}
			}
			const traffic = [
				keepAsking('p1a', at(39)(4)),
				keepAsking('p2a', at(39)(6)),
				keepAsking('node-1', at(39)(4)),
				keepAsking('outside', externalIp('node-1', 39)),
				...talks.map((talk, i) => keepTalking(talk, names[i])),
			]
			for (let i = 0; i < 3; i++) {
				await world.cluster.restart()
				await new Promise((resolve) => setTimeout(resolve, 50))
			}
			running = false
			await Promise.all(traffic)
			t.diagnostic(`${asked} connections during three restarts`)
			assert.deepEqual(wrong, [])
		} finally {
			for (const talk of talks) talk.close()
			for (const server of servers) server.close()
		}
	},

	async '10,000 Services change while requests flow: no wrong endpoint'(world, t) {
		const churn = createChurn(world, await affordable(world, 10_000, t))
		await world.cluster.bringModel(churn.model)
		let running = true
		const wrong: string[] = []
		let asked = 0
		const keepAsking = async (from: Place, k: number, to: Ip) => {
			while (running) {
				const start = churn.inForce
				const answer = (await askTcp(world.cluster.netns(from), to, servicePort, patience)).split(' ')[0] as string
				asked++
				if (!churn.allowed(k, start).has(answer)) wrong.push(`${from} to watched Service ${k}: ${answer}`)
			}
		}
		const traffic = (['p1a', 'p2a', 'node-1', 'node-2', 'outside'] as const).flatMap((from, i) => [
			keepAsking(from, i, clusterIp(200 + i, 4)),
			keepAsking(from, i + 5, clusterIp(205 + i, i % 2 === 0 ? 6 : 4)),
		])
		const begun = performance.now()
		let rounds = 0
		// All of the bystanders once, and for at least two seconds; ten at most.
		while (rounds < 200 || performance.now() - begun < 2000) {
			if (performance.now() - begun > 10_000) break
			await churn.change(rounds++)
			await new Promise((resolve) => setTimeout(resolve, 2))
		}
		running = false
		await Promise.all(traffic)
		t.diagnostic(`${asked} connections during ${rounds} changes of ${churn.perRound} Services each`)
		assert.deepEqual(wrong.slice(0, 20), [])
		assert.ok(asked > 100)
	},

	async 'leaves marks and tables of others alone'(world, t) {
		if (spawnSync('nft', ['--version']).error !== undefined) {
			t.skip('needs the nft program')
			return
		}
		const nft = (netns: string, args: readonly string[], input = '') => {
			const done = inNetnsAt(netns, () => spawnSync('nft', args, { encoding: 'utf8', input }))
			assert.equal(done.status, 0, done.stderr)
			return done.stdout
		}
		const foreign = () => world.cluster.nodes.map(({ netns }) => nft(netns, ['list', 'table', 'inet', 'foreign']))
		try {
			for (const { netns } of world.cluster.nodes) nft(netns, ['-f', '/dev/stdin'], foreignTable)
			const before = foreign()
			const make = (n: number, more: Partial<Service> = {}) =>
				service({ name: `web-${n}`, n, endpoints: ['p1b', 'p2b'], type: 'LoadBalancer', vips: vips(n), more })
			await world.bring([make(40), make(41, { externalTrafficPolicy: 'Local', sessionAffinity: 60 })])
			await expect(world, [
				{ from: 'p1a', to: at(40), gives: seenAs('p1a', 'p1b', 'p2b') },
				{ from: 'node-1', to: at(40), gives: seenAs('node-1', 'p1b', 'p2b') },
				{ from: 'outside', to: at(40), gives: seenAs('node-1', 'p1b', 'p2b') },
				{ from: 'outside', to: through('node-1', 40), gives: seenAs('node-1', 'p1b', 'p2b') },
				{ from: 'outside', to: through('node-1', 41), gives: seenAs('outside', 'p1b') },
			])
			await world.cluster.restart()
			await world.cluster.clear()
			assert.deepEqual(foreign(), before, 'no packet lost its mark, no rule was touched')
		} finally {
			for (const { netns } of world.cluster.nodes)
				inNetnsAt(netns, () => spawnSync('nft', ['delete', 'table', 'inet', 'foreign']))
		}
	},

	async 'leaves nothing behind'(world) {
		await world.bring([
			service({
				name: 'web',
				n: 42,
				endpoints: ['p1b', 'p2b'],
				type: 'LoadBalancer',
				vips: vips(42),
				sourceRanges: ['0.0.0.0/1', '::/1'],
				more: { sessionAffinity: 60 },
			}),
		])
		await world.cluster.clear()
		for (const { planes } of world.cluster.nodes)
			for (const plane of planes) assert.deepEqual(plane.toJson(await plane.read()), plane.toJson(plane.empty))
		await expect(world, [{ from: 'p1a', to: at(42), gives: 'silence' }])
	},

	async 'SCTP: the first packet of an association'(world) {
		const sctp = (s: Service): Service => ({
			...s,
			ports: s.ports.slice(0, 1).map((p) => ({ ...p, protocol: 'SCTP' as const })),
		})
		const balanced = { type: 'LoadBalancer', vips: vips(43), more: { externalTrafficPolicy: 'Local' } } as const
		await world.bring([
			sctp(service({ name: 'sctp', n: 43, endpoints: ['p2b'], ...balanced })),
			sctp(service({ name: 'empty', n: 44, endpoints: [] })),
			sctp(service({ name: 'cluster', n: 45, endpoints: ['p2b'], type: 'NodePort' })),
		])
		const ear = listenSctp(world.cluster.netns('p2b'))
		try {
			const check = async (from: Place, to: Ip, port: number, said: 'sent' | 'ECONNREFUSED', heard?: string) => {
				// What is to come is waited for; for what is not, a moment must do.
				const refusal = await sendSctp(world.cluster.netns(from), to, port, said === 'sent' ? 100 : patience)
				const arrived = await ear.hear(heard === undefined ? 200 : patience)
				assert.deepEqual([refusal, arrived], [said, heard ?? 'silence'], `${from} to ${to} port ${port}`)
			}
			await check('p1a', at(43)(4), servicePort, 'sent', `${ipOf('p1a')} -> 8080`)
			await check('node-1', at(43)(4), servicePort, 'sent', `${ipOf('node-1')} -> 8080`)
			await check('outside', at(43)(4), servicePort, 'sent', `${ipOf('node-1')} -> 8080`)
			await check('outside', externalIp('node-2', 43), servicePort, 'sent', `${ipOf('outside')} -> 8080`)
			await check('outside', externalIp('node-1', 43), servicePort, 'sent')
			await check('outside', ipOf('node-2'), nodePort(43), 'sent', `${ipOf('outside')} -> 8080`)
			await check('outside', ipOf('node-1'), nodePort(45), 'sent', `${ipOf('node-1')} -> 8080`)
			await check('p1a', at(44)(4), servicePort, 'ECONNREFUSED')
			await check('p1a', at(43)(4), 81, 'ECONNREFUSED')
		} finally {
			ear.close()
		}
	},
} satisfies Record<string, Case>

/** Marks every packet and connection first of all; counts those that come out without. */
const foreignTable = `table inet foreign {
	chain in { type filter hook prerouting priority -300 ; meta mark set 0x51 ; }
	chain connections { type filter hook prerouting priority -140 ; ct mark set 0x52 ; }
	chain own { type filter hook output priority -140 ; ct mark set 0x52 ; meta mark set 0x51 ; }
	chain check {
		meta mark != 0x51 counter comment "packet mark"
		ct mark != 0x52 counter comment "connection mark"
	}
	chain forwarded { type filter hook forward priority 300 ; jump check ; }
	chain out { type filter hook postrouting priority 300 ; jump check ; }
	chain local { type filter hook input priority 300 ; jump check ; }
}
`

/** Milliseconds. Servers and data planes share this process: while one works, the others wait. */
const patience = 15_000

/** So many bystanders, or few where a single change takes long already: kube-proxy's old ways grow with their number. */
async function affordable(world: World, wanted: number, t: TestContext): Promise<number> {
	const few = 100
	const model = (version: number) =>
		clusterModel(Array.from({ length: few }, (_, i) => bystander(i, i === 0 ? version : 0)))
	await world.cluster.bringModel(model(0))
	let took = Number.POSITIVE_INFINITY
	// The best of three: the machine may be busy with something else.
	for (let version = 1; version <= 3; version++) {
		const begun = performance.now()
		await world.cluster.bringModel(model(version))
		took = Math.min(took, performance.now() - begun)
	}
	await world.bring([])
	if (took < 50) return wanted
	t.diagnostic(`${few} Services instead of ${wanted}: one change takes ${took.toFixed(0)} ms`)
	return few
}

/** A Service nobody asks; its endpoints are nowhere. */
function bystander(i: number, version: number): Service {
	const made = service({ name: `bystander-${i}`, n: 0, endpoints: [] })
	const port = made.ports[0]!
	const endpoints = Array.from({ length: 2 + ((i + version) % 3) }, (_, k) => ({
		ip: `10.245.${(i >> 8) & 255}.${i & 255}` as Ip,
		port: 1000 + k + version,
		node: 'node-2',
		ready: true,
		serving: true,
		terminating: false,
		hints: [],
		origin: made.origin,
	}))
	return {
		...made,
		clusterIps: [`10.96.${10 + (i >> 8)}.${i & 255}` as Ip],
		ports: [{ ...port, endpoints }],
	}
}

interface Churn {
	readonly model: NetworkModel
	readonly perRound: number
	/** The version that is in force on every node. */
	readonly inForce: number
	/** Endpoints the watched Service k has had since that version. */
	allowed(k: number, since: number): ReadonlySet<string>
	/** Changes bystanders and watched Services, and brings them. */
	change(round: number): Promise<void>
}

/** Services that nobody asks, and ten that are watched: each has a port of its own on all pods. */
function createChurn(world: World, bystanders: number): Churn {
	const watched = 10
	const perRound = 50
	const port = (k: number) => 8500 + k
	// From each to the next the number of endpoints changes, and who they are.
	const variants = [['p1b'], ['p2a', 'p2b'], ['p1a', 'p1b', 'p2a'], ['p2b']] as const
	for (let k = 0; k < watched; k++) for (const place of podNames) world.serve(place, port(k))
	const placesOf = (variant: number) => variants[variant % variants.length] ?? variants[0]
	const make = (k: number, variant: number) =>
		service({
			name: `watched-${k}`,
			n: 200 + k,
			endpoints: placesOf(variant).map((at) => ({ at, port: port(k) })),
		})
	const history: ReadonlySet<string>[][] = []
	const note = (k: number, variant: number) => new Set(placesOf(variant).map((place) => `${place}:${port(k)}`))
	history.push(Array.from({ length: watched }, (_, k) => note(k, 0)))
	let inForce = 0
	let model = clusterModel([
		...Array.from({ length: watched }, (_, k) => make(k, 0)),
		...Array.from({ length: bystanders }, (_, i) => bystander(i, 0)),
	])
	return {
		get model() {
			return model
		},
		perRound: perRound + watched / 2,
		get inForce() {
			return inForce
		},
		allowed: (k, since) => new Set(history.slice(since).flatMap((sets) => [...(sets[k] ?? [])])),
		async change(round) {
			const sets = [...(history.at(-1) ?? [])]
			const services = model.services.mutate((draft) => {
				for (let j = 0; j < perRound; j++) {
					const s = bystander((round * perRound + j) % bystanders, round + 1)
					draft.set(s.key, s)
				}
				for (let k = round % 2; k < watched; k += 2) {
					const variant = (round >> 1) + k
					const s = make(k, variant)
					sets[k] = note(k, variant)
					draft.set(s.key, s)
				}
			})
			model = { ...model, services }
			history.push(sets)
			await world.cluster.bringModel(model)
			inForce = history.length - 1
		},
	}
}
