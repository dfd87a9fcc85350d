// Questions that several tests ask of a running application: its pods, its endpoints, its answers to many requests.

import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import type { Answer, Home } from './home.ts'
import { until } from './run.ts'

export interface PodLine {
	readonly name: string
	readonly app: string
	readonly ip: string
	readonly node: string
	readonly uid: string
	readonly ready: boolean
}

interface PodObject {
	metadata: { name: string; uid: string; labels?: Record<string, string>; deletionTimestamp?: string }
	spec: { nodeName?: string }
	status: { podIP?: string; conditions?: { type: string; status: string }[] }
}

/** The pods of a namespace that are not being deleted, by name. */
export async function podsOf(home: Home, namespace: string, selector?: string): Promise<readonly PodLine[]> {
	const list = await home.get<{ items: PodObject[] }>('pods', '-n', namespace, ...(selector ? ['-l', selector] : []))
	return list.items
		.filter((p) => p.metadata.deletionTimestamp === undefined)
		.map((p) => ({
			name: p.metadata.name,
			app: p.metadata.labels?.app ?? '',
			ip: p.status.podIP ?? '',
			node: p.spec.nodeName ?? '',
			uid: p.metadata.uid,
			ready: p.status.conditions?.some((c) => c.type === 'Ready' && c.status === 'True') === true,
		}))
		.sort((a, b) => (a.name < b.name ? -1 : 1))
}

export interface Endpoints {
	readonly all: readonly string[]
	readonly ready: readonly string[]
}

/** Addresses in the EndpointSlices of a Service. */
export async function endpointsOf(home: Home, namespace: string, service: string): Promise<Endpoints> {
	const list = await home.get<{
		items: { endpoints: { addresses: string[]; conditions: { ready?: boolean } }[] | null }[]
	}>('endpointslices', '-n', namespace, '-l', `kubernetes.io/service-name=${service}`)
	const endpoints = list.items.flatMap((s) => s.endpoints ?? [])
	return {
		all: endpoints.flatMap((e) => e.addresses),
		ready: endpoints.filter((e) => e.conditions.ready === true).flatMap((e) => e.addresses),
	}
}

/** One request of a row of them; `ok` when a stand-in answered. */
export interface Request {
	readonly ok: boolean
	/** curl's exit code. */
	readonly code: number
	readonly pod?: string
	readonly ip?: string
	readonly client?: string
}

function parseRequests(text: string): readonly Request[] {
	return text
		.split('\n')
		.filter((line) => /^\d+ /.test(line) || /^\d+$/.test(line))
		.map((line) => {
			const space = line.indexOf(' ')
			const code = Number(space < 0 ? line : line.slice(0, space))
			const body = space < 0 ? '' : line.slice(space + 1)
			if (code !== 0 || body === '') return { ok: false, code }
			const answer = JSON.parse(body) as Answer
			return { ok: true, code, pod: answer.pod, ip: answer.ip, client: answer.client.split(':')[0] ?? '' }
		})
}

const oneRequest = (url: string) => `body=$(curl -sS --max-time 3 '${url}'); echo "$? $body"`

/** `count` requests from inside a pod, each on a connection of its own. */
export async function requestsIn(home: Home, pod: string, url: string, count: number): Promise<readonly Request[]> {
	const ran = await home.exec(pod, 'sh', '-c', `for i in $(seq ${count}); do ${oneRequest(url)}; done`)
	assert.equal(ran.code, 0, ran.text)
	const requests = parseRequests(ran.stdout)
	assert.equal(requests.length, count, ran.text)
	return requests
}

/** Requests from inside a pod, one after the other while `act` runs; then a few more, and all of them are returned. */
export async function requestsWhile(
	home: Home,
	pod: string,
	url: string,
	act: () => Promise<void>,
): Promise<readonly Request[]> {
	const flag = home.write('go-on', '')
	const loop = `while [ -e '${flag}' ]; do ${oneRequest(url)}; done; for i in $(seq 10); do ${oneRequest(url)}; done`
	const running = home.startExec(pod, 'sh', '-c', loop)
	try {
		await until('requests flow', () => parseRequests(running.stdout()).length >= 20)
		await act()
	} finally {
		rmSync(flag, { force: true })
	}
	const ran = await running.done
	assert.equal(ran.code, 0, ran.text)
	return parseRequests(ran.stdout)
}
