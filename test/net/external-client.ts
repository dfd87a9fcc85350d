// The client outside of a test lab: requests through its namespace, what the stand-ins answer, an open connection.

import assert from 'node:assert/strict'
import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import type { ProbeRequest, ProbeResult } from '../../src/agent/protocol.ts'
import type { Ip } from '../../src/base/ip.ts'
import { services } from '../../src/kube/kinds.ts'
import type { ServiceSpec } from '../../src/kube/objects/core.ts'
import { dialInside } from '../../src/lab/kubelet/dial.ts'
import { inNetnsAt } from '../../src/linux/netns.ts'
import { AF_INET, bind, inetAddress, SOCK_DGRAM, SOCK_NONBLOCK, socket } from '../../src/linux/syscalls.ts'
import type { TestLab } from './lab.ts'

/** What a stand-in says of itself and of who asked it. */
export interface Answer {
	readonly pod: string
	readonly node: string
	/** Its client's address. */
	readonly client: string
}

export const asOutside = { outside: true } as const

/** One request; undefined where nobody answered, with what became of it in `outcome`. */
export async function ask(
	lab: TestLab,
	to: string,
	options: { port?: number; udp?: boolean; from?: ProbeRequest['from'] } = {},
): Promise<{ readonly outcome: ProbeResult['outcome']; readonly answer?: Answer }> {
	const { port = 80, udp = false, from = asOutside } = options
	const said = udp ? 'hello\n' : `GET / HTTP/1.1\r\nHost: ${to}\r\nConnection: close\r\n\r\n`
	const { outcome, answer } = await lab.handle.client.agent.probe({
		from,
		to: to as Ip,
		port,
		protocol: udp ? 'UDP' : 'TCP',
		nodes: [],
		timeout: 700,
		observe: false,
		payload: Buffer.from(said).toString('base64'),
	})
	const line = answer?.split('\n').find((text) => text.startsWith('{'))
	if (line === undefined) return { outcome }
	const { pod, node, client } = JSON.parse(line) as Answer
	return { outcome, answer: { pod, node, client: client.slice(0, client.lastIndexOf(':')) } }
}

/** `count` answers; each must come. */
export async function askMany(lab: TestLab, to: string, count: number, port = 80): Promise<Answer[]> {
	const answers: Answer[] = []
	for (let i = 0; i < count; i++) {
		const { outcome, answer } = await ask(lab, to, { port })
		assert.ok(answer !== undefined, `request ${i} to ${to}: ${outcome}`)
		answers.push(answer)
	}
	return answers
}

/**
 * Resolves when every node carries the Service and a client outside is answered. A load balancer hands connections to
 * its nodes in turn, and each node learns of endpoints by itself: one answer does not tell that the next one will come.
 */
export async function inForce(lab: TestLab, to: string): Promise<void> {
	for (const { name } of lab.handle.status.nodes)
		await lab.until(async () => (await ask(lab, to, { from: { node: name } })).answer)
	await lab.until(async () => (await ask(lab, to)).answer)
}

/** Milliseconds until a request is answered. */
export async function askUntil(lab: TestLab, to: string, seconds: number): Promise<number> {
	const start = performance.now()
	for (;;) {
		if ((await ask(lab, to)).answer !== undefined) return performance.now() - start
		assert.ok(performance.now() - start < seconds * 1000, `no answer from ${to} in ${seconds} s`)
	}
}

/** Creates a Service of type LoadBalancer and resolves with its addresses, as soon as it is answered at. */
export async function balanced(
	lab: TestLab,
	name: string,
	spec: ServiceSpec,
	annotations: Record<string, string> = {},
): Promise<string> {
	await lab.create({
		apiVersion: 'v1',
		kind: 'Service',
		metadata: { name, namespace: 'default', annotations },
		spec: { type: 'LoadBalancer', selector: { app: 'web' }, ports: [{ port: 80 }], ...spec },
	})
	return addressOf(lab, name)
}

export function addressOf(lab: TestLab, name: string): Promise<string> {
	return lab.until(async () => {
		const object = await lab.client.get(services, `default/${name}`)
		return object.status?.loadBalancer?.ingress?.[0]?.ip
	})
}

/** A connection from outside that stand-ins echo on. */
export async function openEcho(
	lab: TestLab,
	to: string,
): Promise<{ echo(text: string): Promise<string>; readonly socket: Socket }> {
	const dialled = await dialInside(lab.netns('outside'), to as Ip, 80, 2000)
	dialled.on('error', () => {})
	return {
		socket: dialled,
		async echo(text) {
			dialled.write(text)
			const [data] = (await once(dialled, 'data', { signal: AbortSignal.timeout(2000) })) as [Buffer]
			return data.toString('utf8')
		},
	}
}

/** One socket outside: whatever it asks comes from the same port. */
export function openDatagrams(
	lab: TestLab,
	to: string,
	port: number,
): { ask(): Promise<Answer | undefined>; close(): void } {
	const fd = inNetnsAt(lab.netns('outside'), () => {
		const made = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0)
		bind(made, inetAddress(new Uint8Array(4), 0))
		return made
	})
	const udp = createSocket('udp4')
	udp.bind({ fd })
	return {
		async ask() {
			udp.send('hello\n', port, to)
			try {
				const [data] = (await once(udp, 'message', { signal: AbortSignal.timeout(300) })) as [Buffer]
				const { pod, node, client } = JSON.parse(data.toString('utf8').split('\n')[0]!) as Answer
				return { pod, node, client }
			} catch (e) {
				if ((e as Error).name !== 'AbortError') throw e
				return undefined
			}
		},
		close: () => udp.close(),
	}
}

export function countBy<T>(list: readonly T[], key: (item: T) => string): Record<string, number> {
	const counts: Record<string, number> = {}
	for (const item of list) counts[key(item)] = (counts[key(item)] ?? 0) + 1
	return counts
}
