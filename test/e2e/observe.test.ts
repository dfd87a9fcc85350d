// `podwire observe` as a user runs it, against the shop: what was denied and by which line, what is carried, and how the
// command ends.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { parse } from 'yaml'
import type { FlowEvent } from '../../src/agent/flow-event.ts'
import { type Home, makeHome, reasonToSkip } from './support/home.ts'
import { type Running, root, run } from './support/run.ts'
import { type PodLine, podsOf } from './support/shop.ts'

const shop = join(root, 'examples/shop/shop.yaml')
const policies = join(root, 'examples/shop/policies.yaml')
const skip = reasonToSkip('kubectl')

suite('observe in a lab', { skip }, () => {
	let home: Home
	let web: PodLine
	let db: PodLine
	before(async () => {
		home = makeHome()
		await home.up('-f', shop, '-f', policies)
		const pods = await podsOf(home, 'shop')
		web = pods.find((p) => p.app === 'web') as PodLine
		db = pods.find((p) => p.app === 'db') as PodLine
	})
	after(() => home.remove())

	const observe = async (...args: string[]) => {
		const ran = await home.podwire(['observe', ...args])
		assert.equal(ran.code, 0, ran.text)
		assert.equal(ran.stderr, '', 'data on stdout, nothing else anywhere')
		return ran.stdout
	}
	const until = async <T>(look: () => Promise<T | undefined> | T | undefined): Promise<T> => {
		const end = Date.now() + 10_000
		for (;;) {
			const found = await look()
			if (found !== undefined) return found
			assert.ok(Date.now() < end, `nothing after 10 s: ${look}`)
			await new Promise((resolve) => setTimeout(resolve, 50))
		}
	}
	/** A follower that surely follows: what the kernel tells it of has been made for it. */
	const following = async (...args: string[]): Promise<Running> => {
		const running = home.startPodwire(['observe', '-f', ...args])
		await until(async () => {
			await home.exec(`shop/${web.name}`, 'curl', '-sS', '-m', '2', 'http://api.shop/')
			return running.stdout().includes('\n') ? true : undefined
		})
		return running
	}

	test('nothing happened: nothing is printed, and that is no error', async () => {
		assert.equal(await observe('--verdict', 'dropped'), '')
		const empty = JSON.parse(await observe('--verdict', 'dropped', '-o', 'json')) as { kind: string; items: unknown[] }
		assert.equal(empty.kind, 'FlowList')
		assert.deepEqual(empty.items, [])
	})

	test('what was denied: who, where to, by which policy, file and line; in every form', async () => {
		const ran = await home.exec(`shop/${web.name}`, 'curl', '-sS', '-m', '1', `http://${db.ip}:5432/`)
		assert.notEqual(ran.code, 0)
		const args = ['-n', 'shop', '--verdict', 'dropped', '--since', '5m']
		const line = await until(async () => (await observe(...args)) || undefined)
		assert.match(
			line,
			new RegExp(
				`^\\d\\d:\\d\\d:\\d\\d\\.\\d{3} shop/${web.name}:\\d+ -> shop/${db.name}:5432 DROPPED ingress TCP POLICY_DENIED ` +
					`by NetworkPolicy shop/db-from-api-only \\(\\S*policies\\.yaml:2\\)\n$`,
			),
		)
		assert.match(
			await observe(...args, '-o', 'wide'),
			/Deployment web\].* TCP Flags: SYN .* by ip podwire-policy ingress-shop-/,
		)
		const event = JSON.parse(await observe(...args, '-o', 'jsonl')) as FlowEvent
		assert.equal(event.flow.verdict, 'DROPPED')
		assert.equal(event.flow.drop_reason_desc, 'POLICY_DENIED')
		assert.equal(event.flow.source.pod_name, web.name)
		assert.deepEqual(event.flow.source.workloads, [{ name: 'web', kind: 'Deployment' }])
		assert.equal(event.node_name, db.node)
		const list = JSON.parse(await observe(...args, '-o', 'json')) as { items: FlowEvent[] }
		assert.deepEqual(list.items, [event])
		assert.deepEqual((parse(await observe(...args, '-o', 'yaml')) as { items: unknown }).items, [event])
		for (const [filter, found] of [
			[['--from', 'deploy/web', '--to', 'sts/db', '--port', '5432', '--protocol', 'tcp'], true],
			[['--pod', `shop/${web.name}`], true],
			[['--to', 'app=db'], true],
			[['--from', 'deploy/api'], false],
			[['--port', '80'], false],
			[['-n', 'kube-system'], false],
			[['--last', '0'], false],
		] as const)
			assert.equal((await observe('--verdict', 'dropped', ...filter)) !== '', found, filter.join(' '))
	})

	test('follow: what is carried, by its Service; an interrupt ends it well', async () => {
		const running = await following('--to', 'svc/api', '-o', 'jsonl')
		const lines = () =>
			running
				.stdout()
				.split('\n')
				.slice(0, -1)
				.map((line) => JSON.parse(line) as FlowEvent)
		assert.ok(
			lines().some(
				({ flow }) =>
					flow.verdict === 'FORWARDED' &&
					flow.source.pod_name === web.name &&
					flow.destination_service?.name === 'api' &&
					flow.traffic_direction === 'EGRESS',
			),
			running.stdout(),
		)
		running.kill('SIGINT')
		const ended = await running.done
		assert.equal(ended.code, 0, ended.text)
		assert.equal(ended.stderr, '')
	})

	test('usage: each mistake is said, on stderr, with 2', async () => {
		for (const [args, text] of [
			[['-o', 'xml'], /Unknown output format "xml"/],
			[['-f', '-o', 'json'], /cannot follow/],
			[['--verdict', 'maybe'], /Unknown verdict "maybe"/],
			[['--port', '0'], /--port must be a whole number/],
			[['--protocol', 'gre'], /Unknown protocol "gre"/],
			[['--since', 'yesterday'], /Cannot read the duration/],
			[['--from', 'a/b/c'], /--from: Cannot read "a\/b\/c"/],
			[['--name', 'nobody'], /There is no lab "nobody"/],
		] as const) {
			const ran = await home.podwire(['observe', ...args])
			assert.equal(ran.code, 2, `${args.join(' ')}: ${ran.text}`)
			assert.match(ran.stderr, text)
			assert.equal(ran.stdout, '')
		}
	})

	test('a live cluster has no agents to ask: said in a word, with 3', async () => {
		for (const args of [
			['--context', 'prod'],
			['--kubeconfig', 'nowhere', '-f', '-o', 'jsonpb'],
		]) {
			const ran = await home.podwire(['observe', ...args])
			assert.equal(ran.code, 3, ran.text)
			assert.match(ran.stderr, /has no podwire agent on its nodes: there is no kernel to ask for flows/)
			assert.equal(ran.stdout, '')
		}
	})

	test('the lab is killed under who follows: said, with 3; what was denied meanwhile is counted', async () => {
		const running = await following('-o', 'jsonpb')
		const { pid } = home.record().daemon
		process.kill(pid, 'SIGKILL')
		const ended = await running.done
		assert.equal(ended.code, 3, ended.text)
		assert.match(ended.stderr, /ended without podwire down/)
		const netns = `${home.runtime}/netns/pod-${web.uid}`
		// Of a lab inside a user namespace its files are not to be seen from here.
		const denied = process.getuid?.() === 0
		if (denied) await run('nsenter', [`--net=${netns}`, 'curl', '-sS', '-m', '0.5', `http://${db.ip}:5432/`])
		await home.up()
		const since = await home.podwire(['observe', '--since', '1h', '-o', 'json'])
		assert.equal(since.code, 0, since.text)
		const { lost } = JSON.parse(since.stdout) as {
			lost: { lost_events: { source: string; num_events_lost: number } }[]
		}
		const before = lost.find((l) => l.lost_events.source === 'AGENT_RESTART')
		assert.ok((before?.lost_events.num_events_lost ?? 0) >= (denied ? 2 : 1), since.stdout)
	})

	test('the end of the lab ends who follows', async () => {
		const running = await following()
		const down = await home.podwire(['down'])
		assert.equal(down.code, 0, down.text)
		const ended = await running.done
		assert.equal(ended.code, 0, ended.text)
	})
})
