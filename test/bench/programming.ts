// P3: from an EndpointSlice that is written through the API to the first connection that lands on the new endpoint,
// in a lab with 10,000 other Services. The whole way: store, watch, model, program, netlink, packet.

import { createServer, type Server } from 'node:net'
import { join } from 'node:path'
import { type Ip, ipToBytes } from '../../src/base/ip.ts'
import { endpointSlices, services } from '../../src/kube/kinds.ts'
import { bindTcp } from '../../src/linux/listen.ts'
import { inNetnsAt } from '../../src/linux/netns.ts'
import {
	AF_INET,
	close,
	connect,
	inetAddress,
	POLLOUT,
	SO_LINGER,
	SOCK_NONBLOCK,
	SOCK_STREAM,
	SOL_SOCKET,
	setsockopt,
	socket,
	waitReady,
} from '../../src/linux/syscalls.ts'
import { createTestLab, podObject, skip, type TestLab } from '../net/lab.ts'
import { quantile, type Row, spreadOf } from './row.ts'

const port = 7070
const others = 10_000

export async function run(options: { full: boolean }): Promise<Row[]> {
	const row = (name: string, samples: readonly number[], note: string, bar?: string): Row => ({
		group: 'programming',
		name,
		unit: 'ms',
		ours: quantile(samples, name.startsWith('p99') ? 0.99 : 0.5),
		...(bar === undefined ? {} : { bar }),
		spread: spreadOf(samples),
		repeats: samples.length,
		note,
	})
	if (skip !== false) return [{ ...row('p99', [Number.NaN], `not measured: ${skip}`), repeats: 0 }]
	const lab = await createTestLab('bench-programming', undefined, { nodes: 2 })
	try {
		const world = await prepare(lab)
		try {
			const rounds = options.full ? 500 : 200
			const empty = await measure(lab, world, rounds)
			await fill(lab)
			const crowded = await measure(lab, world, rounds)
			const text = 'EndpointSlice written (request sent) to the first connection at the new endpoint'
			return [
				row('p50 with no other Service', empty, text),
				row('p99 with no other Service', empty, text),
				row(`p50 with ${others} other Services`, crowded, text),
				row(`p99 with ${others} other Services`, crowded, text, '≤ 20 ms'),
			]
		} finally {
			for (const server of world.servers) server.close()
		}
	} finally {
		await lab.remove()
	}
}

interface World {
	readonly clusterIp: Ip
	readonly client: string
	readonly backends: readonly Ip[]
	readonly servers: readonly Server[]
	/** Resolves with the number of the backend that the next connection reaches. */
	landed(): Promise<number>
}

async function prepare(lab: TestLab): Promise<World> {
	for (const name of ['client', 'a', 'b']) await lab.create(podObject(name))
	const pods = await Promise.all(['client', 'a', 'b'].map((name) => lab.pod(name)))
	const netns = pods.map((pod) => join(lab.paths.namespaces, `pod-${pod.metadata.uid}`))
	const backends = pods.slice(1).map((pod) => pod.status?.podIP as Ip)
	let arrived: ((which: number) => void) | undefined
	const servers = backends.map((ip, which) => {
		const server = createServer((connection) => {
			connection.on('error', () => {})
			connection.destroy()
			arrived?.(which)
		})
		server.listen({ fd: bindTcp(netns[which + 1] as string, ip, port) })
		return server
	})
	const service = await lab.client.create(services, {
		apiVersion: 'v1',
		kind: 'Service',
		metadata: { name: 'target', namespace: 'default' },
		spec: { ports: [{ port }] },
	})
	await lab.client.create(endpointSlices, slice('target', backends[0] as Ip))
	return {
		clusterIp: service.spec?.clusterIP as Ip,
		client: netns[0] as string,
		backends,
		servers,
		landed: () =>
			new Promise((resolve) => {
				arrived = resolve
			}),
	}
}

function slice(service: string, ip: string) {
	return {
		apiVersion: 'discovery.k8s.io/v1' as const,
		kind: 'EndpointSlice' as const,
		metadata: {
			name: `${service}-1`,
			namespace: 'default',
			labels: { 'kubernetes.io/service-name': service, 'endpointslice.kubernetes.io/managed-by': 'bench' },
		},
		addressType: 'IPv4' as const,
		ports: [{ name: '', port, protocol: 'TCP' as const }],
		endpoints: [{ addresses: [ip], conditions: { ready: true } }],
	}
}

/** Connects again and again until a connection reaches backend `wanted`; when that one began. */
async function connectUntil(world: World, wanted: number): Promise<number> {
	for (;;) {
		const landed = world.landed()
		const begun = performance.now()
		const fd = inNetnsAt(world.client, () => socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0))
		try {
			connect(fd, inetAddress(ipToBytes(world.clusterIp), port))
			const [ready = 0] = await waitReady([{ fd, events: POLLOUT }], 2000)
			if (ready === 0) throw new Error('a connection to the Service took more than 2 s')
			if ((await landed) === wanted) return begun
		} finally {
			// Reset: no TIME_WAIT to run out of ports by.
			setsockopt(fd, SOL_SOCKET, SO_LINGER, new Uint8Array(new Int32Array([1, 0]).buffer))
			close(fd)
		}
	}
}

async function measure(lab: TestLab, world: World, rounds: number): Promise<number[]> {
	const samples: number[] = []
	for (let round = 0; round < rounds + 10; round++) {
		const wanted = (round + 1) % 2
		const before = performance.now()
		const writing = lab.client.patch(endpointSlices, 'default/target-1', {
			endpoints: [{ addresses: [world.backends[wanted]], conditions: { ready: true } }],
		})
		const reached = await connectUntil(world, wanted)
		await writing
		// The first ones warm everything up.
		if (round >= 10) samples.push(Math.max(0, reached - before))
	}
	return samples
}

async function fill(lab: TestLab): Promise<void> {
	let next = 0
	const worker = async () => {
		for (;;) {
			const i = next++
			if (i >= others) return
			const name = `other-${i}`
			await lab.client.create(services, {
				apiVersion: 'v1',
				kind: 'Service',
				metadata: { name, namespace: 'default' },
				spec: { ports: [{ port: 80 }] },
			})
			const ip = (k: number) => `10.128.${(i * 3 + k) >> 8}.${(i * 3 + k) & 255}`
			const object = slice(name, ip(0))
			await lab.client.create(endpointSlices, {
				...object,
				endpoints: [0, 1, 2].map((k) => ({ addresses: [ip(k)], conditions: { ready: true } })),
			})
		}
	}
	await Promise.all(Array.from({ length: 32 }, worker))
	await lab.handle.client.repair()
}
