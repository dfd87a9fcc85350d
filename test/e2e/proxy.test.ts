// Another data plane takes the Services over while the lab runs: established connections go on, no new one fails, every
// witness agrees, and nothing of the old one is left in the kernel. Also when the daemon is killed in the middle.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import type { ServiceProxyMode } from '../../src/dataplane/dataplane.ts'
import { serviceProxies } from '../../src/dataplane/proxies/service-proxies.ts'
import { type Home, makeHome, reasonToSkip } from './support/home.ts'
import { leavingsIn } from './support/leavings.ts'
import { type Running, root, run, start, until } from './support/run.ts'
import { podsOf } from './support/shop.ts'

const shop = join(root, 'examples/shop/shop.yaml')
const skip = reasonToSkip('kubectl', 'curl', 'nsenter', 'nft')

/** The kernel's own words: what of each mode is there on a node. */
const traces: Readonly<Record<ServiceProxyMode, (netns: string) => boolean>> = {
	nftables: (netns) => /table ip6? podwire \{/.test(inside(netns, 'nft', 'list', 'ruleset')),
	ebpf: () => false,
	iptables: (netns) =>
		['iptables-nft-save', 'iptables-legacy-save', 'ip6tables-nft-save', 'ip6tables-legacy-save'].some((program) =>
			/KUBE-/.test(inside(netns, program)),
		),
	ipvs: (netns) => /kube-ipvs0/.test(inside(netns, 'ip', 'link')),
}

function inside(netns: string, ...words: string[]): string {
	return spawnSync('nsenter', [`--net=${netns}`, ...words], { encoding: 'utf8' }).stdout ?? ''
}

/** In mode ebpf nftables stays beside it. */
const carriedBy = (mode: ServiceProxyMode): ServiceProxyMode[] => (mode === 'ebpf' ? ['nftables', 'ebpf'] : [mode])

suite('podwire proxy switch', { skip }, () => {
	let home: Home
	let client: readonly string[]
	let api: string
	const modes: ServiceProxyMode[] = []
	before(async () => {
		for (const [mode, proxy] of Object.entries(serviceProxies) as [
			ServiceProxyMode,
			NonNullable<(typeof serviceProxies)[ServiceProxyMode]>,
		][]) {
			if ((await proxy.usable()) === undefined) modes.push(mode)
		}
		home = makeHome()
		await home.up('-f', shop)
		await home.ask('run', 'client', '-n', 'shop', '--image=example.com/client', '--labels=app=client')
		await home.ask('wait', '-n', 'shop', '--for=condition=Ready', 'pod/client', '--timeout=20s')
		const [pod] = await podsOf(home, 'shop', 'app=client')
		client = ['nsenter', `--net=${join(home.runtime, 'netns', `pod-${pod?.uid}`)}`]
		api = await home.ask('get', 'svc', '-n', 'shop', 'api', '-o', 'jsonpath={.spec.clusterIP}')
	})
	after(() => home.remove())

	const node = (n: number) => join(home.runtime, 'netns', `node-${n}`)

	/** One connection held open, a line there and back every 10 ms; new ones made all the time, counted. */
	function traffic(): { readonly talking: Running; readonly calling: Running; end(): Promise<void> } {
		const flag = home.write('go-on', '')
		const [command, ...args] = client as [string, ...string[]]
		const talk = `exec 3<>/dev/tcp/${api}/80; n=0; while [ -e ${flag} ]; do n=$((n+1)); echo "line $n" >&3; IFS= read -r -t 5 -u 3 back || exit 9; [ "$back" = "line $n" ] || exit 8; echo "$n"; sleep 0.01; done; echo end`
		const call = `while [ -e ${flag} ]; do curl -sS --max-time 3 http://${api}/ >/dev/null || exit 7; echo ok; done; echo end`
		const talking = start(command, [...args, 'bash', '-c', talk])
		const calling = start(command, [...args, 'bash', '-c', call])
		return {
			talking,
			calling,
			async end() {
				rmSync(flag, { force: true })
				for (const [what, running] of [
					['the connection that was open', talking],
					['the new connections', calling],
				] as const) {
					const ran = await running.done
					assert.equal(ran.code, 0, `${what}: ${ran.text}`)
					assert.match(ran.stdout, /end\n$/)
				}
			},
		}
	}

	const lines = (running: Running) => running.stdout().split('\n').length

	function checkKernel(mode: ServiceProxyMode): void {
		for (const n of [1, 2, 3]) {
			for (const [other, there] of Object.entries(traces) as [ServiceProxyMode, (netns: string) => boolean][]) {
				if (other === 'ebpf') continue
				assert.equal(
					there(node(n)),
					carriedBy(mode).includes(other),
					`${other} on node-${n} while ${mode} carries Services`,
				)
			}
		}
	}

	test('from each to each that this machine has, under traffic', async () => {
		assert.ok(modes.length >= 2, `only ${modes} here`)
		const ways = modes.flatMap((from) => modes.filter((to) => to !== from).map((to) => [from, to] as const))
		// A tour that takes each way from one to the next at least once.
		const tour: ServiceProxyMode[] = ['nftables']
		const left = new Set(ways.map((w) => w.join(' ')))
		while (left.size > 0) {
			const at = tour.at(-1) as ServiceProxyMode
			const next =
				ways.find(([from, to]) => from === at && left.has(`${from} ${to}`))?.[1] ?? modes.find((m) => m !== at)
			left.delete(`${at} ${next}`)
			tour.push(next as ServiceProxyMode)
		}
		const { talking, calling, end } = traffic()
		await until('the connection is open', () => lines(talking) > 3 && lines(calling) > 3)
		for (const mode of tour.slice(1)) {
			const ran = await home.podwire(['proxy', 'switch', mode, '-o', 'json'])
			assert.equal(ran.code, 0, ran.text)
			assert.equal(JSON.parse(ran.stdout).after, mode)
			checkKernel(mode)
			const [talked, called] = [lines(talking), lines(calling)]
			await until(`traffic goes on with ${mode}`, () => lines(talking) > talked + 3 && lines(calling) > called + 3)
		}
		await end()
	})

	test('every witness agrees, whoever carries Services', async () => {
		for (const mode of modes) {
			const switched = await home.podwire(['proxy', 'switch', mode])
			assert.equal(switched.code, 0, switched.text)
			for (const [to, code] of [
				['api:80', 0],
				['legacy:80', 1],
				['db-0.db:5432', 0],
			] as const) {
				const ran = await home.podwire(['trace', '-n', 'shop', 'deploy/web', to, '-o', 'json'])
				assert.equal(ran.code, code, `${mode} ${to}: ${ran.text}`)
				for (const result of JSON.parse(ran.stdout).items) {
					assert.equal(result.disagreement, undefined, `${mode} ${to}: ${result.disagreement?.text}`)
					for (const witness of ['should', 'would', 'did'] as const) {
						assert.equal(result[witness].silent, undefined, `${mode} ${to}: ${witness} ${result[witness].silent}`)
					}
				}
			}
			const status = JSON.parse((await home.podwire(['status', '-o', 'json'])).stdout)
			assert.equal(status.items[0].serviceProxy, mode)
		}
	})

	test('a change of endpoints arrives, whoever carries Services', async () => {
		for (const [i, mode] of modes.entries()) {
			await home.podwire(['proxy', 'switch', mode])
			await home.ask('scale', '-n', 'shop', 'deploy/api', `--replicas=${i % 2 === 0 ? 5 : 2}`)
			await home.ask('rollout', 'status', '-n', 'shop', 'deploy/api', '--timeout=20s')
			const pods = (await podsOf(home, 'shop', 'app=api')).filter((p) => p.ready).map((p) => p.name)
			const seen = new Set<string>()
			await until(`all ${pods.length} endpoints answer with ${mode}, and no other`, async () => {
				const [command, ...args] = client as [string, ...string[]]
				const ran = await run(command, [...args, 'curl', '-sS', '--max-time', '2', `http://${api}/`])
				if (ran.code !== 0) return false
				const { pod } = JSON.parse(ran.stdout)
				// One that is about to go answers until its leave is in force.
				if (pods.includes(pod)) seen.add(pod)
				else seen.clear()
				return pods.every((name) => seen.has(name))
			})
		}
	})

	test('a mode nobody knows, and one that this machine lacks, are refused, and nothing changes', async () => {
		const before = JSON.parse((await home.podwire(['status', '-o', 'json'])).stdout).items[0].serviceProxy
		const unknown = await home.podwire(['proxy', 'switch', 'magic'])
		assert.equal(unknown.code, 2, unknown.text)
		assert.match(unknown.stderr, /nftables, ebpf, iptables, ipvs or auto/)
		for (const [mode, proxy] of Object.entries(serviceProxies)) {
			const why = await proxy?.usable()
			if (why === undefined) continue
			const ran = await home.podwire(['proxy', 'switch', mode])
			assert.equal(ran.code, 3, ran.text)
			assert.ok(ran.stderr.includes(why), ran.text)
		}
		assert.equal(JSON.parse((await home.podwire(['status', '-o', 'json'])).stdout).items[0].serviceProxy, before)
	})

	test('killed in the middle of the change: up goes on with one of the two, and nothing is left of the other', async () => {
		const other =
			modes.find((m) => m !== 'nftables' && m !== 'ebpf') ?? (modes.find((m) => m !== 'nftables') as ServiceProxyMode)
		for (const delay of [5, 60, 200]) {
			await home.podwire(['proxy', 'switch', 'nftables'])
			const { talking, calling, end } = traffic()
			await until('the connection is open', () => lines(talking) > 3 && lines(calling) > 3)
			const switching = home.startPodwire(['proxy', 'switch', other])
			await new Promise((resolve) => setTimeout(resolve, delay + 150))
			process.kill(home.record().daemon.pid, 'SIGKILL')
			await switching.done
			const ran = await home.podwire(['up'])
			assert.equal(ran.code, 0, ran.text)
			const mode = JSON.parse((await home.podwire(['status', '-o', 'json'])).stdout).items[0].serviceProxy
			assert.ok([other, 'nftables'].includes(mode), mode)
			checkKernel(mode)
			await end()
		}
	})

	test('down leaves nothing of any', async () => {
		const down = await home.podwire(['down'])
		assert.equal(down.code, 0, down.text)
		const left = leavingsIn(home.folder)
		assert.deepEqual([left.processes, left.mounts], [[], []])
	})
})
