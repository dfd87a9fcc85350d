// What a load balancer does with connections whose node dies, and what it does with SCTP: real packets through a lab.

import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import type { Ip } from '../../src/base/ip.ts'
import { pods } from '../../src/kube/kinds.ts'
import { openConntrack, readConntrack } from '../../src/linux/conntrack.ts'
import { inNetnsAt } from '../../src/linux/netns.ts'
import { ask, asOutside, balanced, inForce, openEcho } from './external-client.ts'
import { createTestLab, podObject, skip, type TestLab } from './lab.ts'
import { listenSctp, sendSctp } from './services-flows.ts'

suite('load balancers: dead nodes, SCTP', { skip, timeout: 120_000 }, () => {
	let lab: TestLab
	before(async () => {
		if (skip) return
		lab = await createTestLab('death', undefined, { nodes: 3, dataplane: 'kernel' })
		const containers = [{ name: 'c', image: 'nginx', ports: [{ containerPort: 80 }] }]
		// Not on node-3, which dies.
		for (const number of [1, 2])
			await lab.create(podObject(`web-${number}`, { nodeName: `node-${number}`, containers }, { app: 'web' }))
		for (const number of [1, 2]) await lab.pod(`web-${number}`)
	})
	after(() => lab?.remove())

	test('TCP: what goes to a dead node is reset, what goes to others lives on', async () => {
		const ip = await balanced(lab, 'web', {})
		await inForce(lab, ip)
		// One through each of the three nodes.
		const all = await Promise.all(Array.from({ length: 3 }, () => openEcho(lab, ip)))
		for (const { echo } of all) assert.equal(await echo('before\n'), 'before\n')
		const ports = new Set(throughNode('172.18.0.4', ip))
		const doomed = all.filter(({ socket }) => ports.has(socket.localPort ?? 0))
		assert.equal(doomed.length, 1, `of three in turn one goes through node-3: ${[...ports]}`)
		const ends = doomed.map(({ socket }) => {
			const errors: string[] = []
			socket.on('error', (e: NodeJS.ErrnoException) => errors.push(e.code ?? e.message))
			return new Promise<string>((resolve) => socket.on('close', () => resolve(errors.join())))
		})
		await lab.handle.client.stopNode('node-3')
		const sending = setInterval(() => {
			for (const { socket } of doomed) if (socket.writable) socket.write('after\n')
		}, 200)
		try {
			// A quarter of an hour without.
			const [how] = await Promise.race([Promise.all(ends), late(20_000)])
			assert.equal(how, 'ECONNRESET')
			for (const other of all) if (!doomed.includes(other)) assert.equal(await other.echo('after\n'), 'after\n')
		} finally {
			clearInterval(sending)
			for (const { socket } of all) socket.destroy()
		}
		await lab.handle.client.startNode('node-3')
		await lab.until(
			async () => (await ask(lab, '172.18.0.4', { port: 10256, from: asOutside })).outcome === 'connected' || undefined,
			20,
		)
	})

	test('SCTP: an association begins through the appliance, and is refused where nobody has the port', async () => {
		const ip = await balanced(lab, 'sctp', { ports: [{ port: 80, targetPort: 8080, protocol: 'SCTP' }] })
		const ears = await Promise.all(
			[1, 2].map(async (number) => {
				const { metadata } = await lab.client.get(pods, `default/web-${number}`)
				return listenSctp(`${lab.paths.namespaces}/pod-${metadata.uid}`)
			}),
		)
		const outside = `${lab.paths.namespaces}/outside`
		try {
			const heard = await lab.until(async () => {
				await sendSctp(outside, ip as Ip, 80, 50)
				const said = await Promise.all(ears.map((ear) => ear.hear(200)))
				return said.find((text) => text !== 'silence')
			})
			// Policy Cluster: the node's own address.
			assert.match(heard, /^172\.18\.0\.[234] -> 8080$/)
			assert.equal(await sendSctp(outside, ip as Ip, 81, 2000), 'ECONNREFUSED')
		} finally {
			for (const ear of ears) ear.close()
		}
	})

	/** Clients' ports of the connections to `to` that the router hands to the node. */
	function throughNode(node: string, to: string): number[] {
		return inNetnsAt(`${lab.paths.namespaces}/underlay`, () => {
			const conntrack = openConntrack()
			try {
				const filter = { original: { protocol: 'TCP', destination: to as Ip } } as const
				return readConntrack(conntrack, filter).flatMap((c) =>
					c.reply.source === node && c.state === 'ESTABLISHED' ? [c.original.sourcePort] : [],
				)
			} finally {
				conntrack.close()
			}
		})
	}
})

function late(milliseconds: number): Promise<never> {
	return new Promise((_, reject) => {
		setTimeout(() => reject(new Error(`nothing after ${milliseconds} ms`)), milliseconds).unref()
	})
}
