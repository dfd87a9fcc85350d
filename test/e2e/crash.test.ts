// Killed at any moment, on a full or read-only disk, without rights: what was acknowledged stays, the network goes on
// forwarding, `up` goes on where it ended, `down` leaves nothing, and each trouble is said in one clear message.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chownSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { type Home, type LabFile, logOf, makeHome, reasonToSkip } from './support/home.ts'
import { hostNetwork, leavingsIn, namespacesAlive, namespacesIn } from './support/leavings.ts'
import { objectsIn, podsIn } from './support/objects.ts'
import { type Ran, type Running, root, run, start, until } from './support/run.ts'
import { podsOf } from './support/shop.ts'

const shop = join(root, 'examples/shop/shop.yaml')
const skip = reasonToSkip('kubectl', 'curl', 'nsenter')

/** Sends SIGKILL to processes of the lab, known by pid from its own record. */
function kill(home: Home, ...which: ('daemon' | 'workloads')[]): LabFile {
	const record = home.record()
	for (const name of which) {
		const pid = record[name]?.pid
		assert.ok(pid !== undefined && pid > 1, `no ${name} in ${JSON.stringify(record)}`)
		process.kill(pid, 'SIGKILL')
	}
	return record
}

/** One clear message, whatever went wrong. */
function clear(ran: Ran, code: number, say: RegExp): void {
	assert.equal(ran.code, code, ran.text)
	assert.match(ran.stderr, say, ran.text)
	assert.doesNotMatch(ran.stderr, /internal error|^ +at .*:\d+:\d+\)?$/m, ran.text)
}

suite('killed', { skip }, () => {
	let home: Home
	let host: string
	before(async () => {
		host = hostNetwork()
		home = makeHome()
		await home.up('-f', shop)
		await home.ask('run', 'client', '-n', 'shop', '--image=example.com/client', '--labels=app=client')
		await home.ask('wait', '-n', 'shop', '--for=condition=Ready', 'pod/client', '--timeout=20s')
	})
	after(() => home.remove())

	const addressOf = (service: string) =>
		home.ask('get', 'svc', '-n', 'shop', service, '-o', 'jsonpath={.spec.clusterIP}')
	/** A command in the namespace of the client pod, without the daemon's help. */
	const inClient = async () => {
		const [client] = await podsOf(home, 'shop', 'app=client')
		return ['nsenter', `--net=${join(home.runtime, 'netns', `pod-${client?.uid}`)}`] as const
	}
	const answers = async () => {
		for (const url of ['http://api/', 'http://web/', 'http://db-1.db:5432/']) await home.curl('shop/client', url)
	}

	test('the daemon alone: the network goes on, open connections live, and nothing is lost', async () => {
		const [objects, pods] = [await objectsIn(home), await podsIn(home)]
		const [nsenter, net] = await inClient()
		const api = await addressOf('api')
		// One connection through the ClusterIP, held open all the time: a line there and back every 20 ms.
		const flag = home.write('go-on', '')
		const talk = `exec 3<>/dev/tcp/${api}/80; n=0; while [ -e ${flag} ]; do n=$((n+1)); echo "line $n" >&3; IFS= read -r -t 5 -u 3 back || exit 9; [ "$back" = "line $n" ] || exit 8; echo "$n"; sleep 0.02; done; echo end`
		const talking = start(nsenter, [net, 'bash', '-c', talk])
		const lines = () => talking.stdout().split('\n').length
		await until('the connection is open', () => lines() > 3)

		kill(home, 'daemon')
		const status = await home.podwire(['status'])
		assert.equal(status.code, 1, status.text)
		assert.match(status.stdout, /crashed/)
		assert.match(status.stdout, /podwire up --name \S+ goes on with it/)
		const seen = lines()
		await until('the connection goes on without the daemon', () => lines() > seen + 3)
		const fresh = await run(nsenter, [net, 'curl', '-sS', '--max-time', '3', `http://${api}/`])
		assert.equal(fresh.code, 0, fresh.text)
		const question = await run(nsenter, [
			net,
			'dig',
			'+short',
			'+time=2',
			'+tries=1',
			'@10.96.0.10',
			'api.shop.svc.cluster.local',
		])
		assert.equal(question.stdout.trim(), api, question.text)

		const again = await home.up()
		assert.match(again.stderr, /is up/)
		assert.deepEqual(await podsIn(home), pods)
		assert.deepEqual(await objectsIn(home), objects)
		await answers()
		const now = lines()
		await until('the connection goes on with the new daemon', () => lines() > now + 3)
		rmSync(flag)
		const ran = await talking.done
		assert.equal(ran.code, 0, ran.text)
		assert.match(ran.stdout, /end\n$/)
	})

	test('the workloads alone: the daemon starts them again, each pod keeps its name and address', async () => {
		const pods = await podsIn(home)
		const { workloads } = kill(home, 'workloads')
		await until('there is another workloads process', () => {
			const now = home.record().workloads
			return now !== undefined && now.pid !== workloads?.pid
		})
		await until('all pods answer again', () => answers().then(() => true))
		assert.deepEqual(await podsIn(home), pods)
		const ready = await home.podwire(['up'])
		assert.equal(ready.code, 0, ready.text)
	})

	test('both at once: up brings back every pod under its name and address', async () => {
		const [objects, pods] = [await objectsIn(home), await podsIn(home)]
		kill(home, 'daemon', 'workloads')
		await home.up()
		assert.deepEqual(await podsIn(home), pods)
		assert.deepEqual(await objectsIn(home), objects)
		await answers()
	})

	test('under load: whatever was acknowledged is there afterwards', async () => {
		const acknowledged = new Set<string>()
		for (const [round, enough] of [7, 60, 140].entries()) {
			const names = Array.from({ length: 200 }, (_, i) => `r${round}-${i}`)
			const manifest = names
				.map((n) => `apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: ${n}\ndata:\n  is: "${n}"\n`)
				.join('---\n')
			const loading: Running = start(
				'kubectl',
				['create', '--validate=false', '-f', home.write('many.yaml', manifest)],
				{ env: home.env },
			)
			const created = () => [...loading.stdout().matchAll(/^configmap\/(\S+) created$/gm)].map((m) => m[1] ?? '')
			await until('some are created', () => created().length >= enough)
			kill(home, 'daemon')
			await loading.done
			for (const name of created()) acknowledged.add(name)
			assert.ok(created().length < names.length, 'it was over before it was killed')
			await home.up('--no-wait')
			const list = await home.get<{ items: { metadata: { name: string }; data?: { is?: string } }[] }>('configmaps')
			const there = new Map(list.items.map((c) => [c.metadata.name, c.data?.is]))
			assert.deepEqual(
				[...acknowledged].filter((n) => there.get(n) !== n),
				[],
			)
		}
	})

	test('a change acknowledged just before reaches the packets afterwards', async () => {
		await home.ask('-n', 'shop', 'scale', 'deploy/api', '--replicas=5')
		kill(home, 'daemon')
		await home.up()
		assert.equal((await podsOf(home, 'shop', 'app=api')).filter((p) => p.ready).length, 5)
		await home.ask('-n', 'shop', 'delete', 'svc', 'web', '--wait=false')
		kill(home, 'daemon')
		await home.up()
		const gone = await home.exec('shop/client', 'curl', '-sS', '--max-time', '2', 'http://web/')
		assert.equal(gone.code, 6, gone.text)
		await answers().catch((e: Error) => assert.match(e.message, /web/))
	})

	test('trace says what is the matter, and does not hang', async () => {
		kill(home, 'daemon')
		const ran = await home.podwire(['trace', '-n', 'shop', 'deploy/web', 'api:80'])
		clear(ran, 3, /not running.*podwire down[\s\S]*podwire up --name/)
		assert.ok(ran.seconds < 30, ran.text)
	})

	test('down after a crash of both leaves nothing', async () => {
		await home.up()
		const inodes = [...namespacesIn(join(home.runtime, 'netns')).values()]
		const running = home.startExec('shop/client', 'sleep', '600')
		await until('the command runs', () => leavingsIn(home.folder).processes.some((p) => p.includes('sleep 600')))
		kill(home, 'daemon', 'workloads')
		const ran = await home.podwire(['down'])
		assert.equal(ran.code, 0, ran.text)
		await running.done
		const left = leavingsIn(home.folder)
		assert.deepEqual(left.processes, [])
		assert.deepEqual(left.mounts, [])
		assert.deepEqual(
			left.files.filter((f) => f.includes('podwire')),
			[],
		)
		assert.deepEqual(namespacesAlive(inodes, home.folder), [])
		assert.equal(await home.ask('config', 'get-contexts', '-o', 'name'), '')
		assert.equal(hostNetwork(), host)
	})
})

suite('killed while it starts', { skip }, () => {
	let home: Home
	before(() => {
		home = makeHome()
	})
	after(() => home.remove())

	// Milliseconds after the daemon is there; a start takes some hundred of them.
	for (const [i, delay] of [0, 40, 150, 300, 600].entries()) {
		const victims = [['daemon'], ['daemon', 'workloads'], ['daemon'], ['daemon', 'workloads'], ['daemon']][i] as (
			| 'daemon'
			| 'workloads'
		)[]
		test(`${victims.join(' and ')} after ${delay} ms: up says so, and up again ends well`, async () => {
			const record = join(home.runtime, 'lab.json')
			rmSync(record, { force: true })
			const starting = home.startPodwire(['up', '-f', shop])
			await until('a daemon is there', () => existsSync(record))
			await new Promise((resolve) => setTimeout(resolve, delay))
			const { workloads } = home.record()
			kill(home, ...victims.filter((v) => v === 'daemon' || workloads !== undefined))
			const ran = await starting.done
			// At the end of the row it may have been ready before.
			if (ran.code !== 0) {
				assert.ok(ran.code === 3 || ran.code === 1, ran.text)
				assert.match(ran.stderr, /^podwire: /m, ran.text)
				assert.doesNotMatch(ran.stderr, /internal error/, ran.text)
			}
			const again = await home.podwire(['up', '-f', shop])
			assert.equal(again.code, 0, `${again.text}\n${logOf(home)}`)
			const ready = JSON.parse((await home.podwire(['status', '-o', 'json'])).stdout).items[0]
			assert.equal(ready.pods.ready, 9)
			await home.curl('shop/deploy/web', 'http://api/')
			const down = await home.podwire(['down'])
			assert.equal(down.code, 0, down.text)
			const left = leavingsIn(home.folder)
			assert.deepEqual([left.processes, left.mounts], [[], []])
		})
	}

	test('the command itself is killed: the lab goes on, and up finds it', async () => {
		const starting = home.startPodwire(['up', '-f', shop])
		await until('a daemon is there', () => existsSync(join(home.runtime, 'lab.json')))
		starting.kill('SIGKILL')
		await starting.done
		const again = await home.podwire(['up', '-f', shop])
		assert.equal(again.code, 0, again.text)
		await home.curl('shop/deploy/web', 'http://api/')
	})
})

suite('a disk that is full or read-only', { skip: skip !== false ? skip : reasonToSkip('unshare', 'mount') }, () => {
	let home: Home
	/** Holds a mount namespace in which the state folder is a small disk of its own. */
	let holder: Running
	before(async () => {
		const prefix: string[] = []
		home = makeHome({ prefix })
		const state = home.env.XDG_STATE_HOME ?? ''
		holder = start(
			'unshare',
			['-m', 'sh', '-c', `mount -t tmpfs -o size=4m,mode=700 tmpfs ${state} && echo ready && exec sleep 1000`],
			{
				timeout: 300_000,
			},
		)
		await until('the disk is there', () => holder.stdout().includes('ready'))
		prefix.push('nsenter', '-m', `--target=${holder.pid}`, '--')
	})
	after(async () => {
		try {
			await home.remove()
		} finally {
			holder.kill('SIGKILL')
			await holder.done
		}
	})
	const onDisk = async (script: string) => {
		const ran = await run('nsenter', [
			'-m',
			`--target=${holder.pid}`,
			'--',
			'sh',
			'-c',
			`cd ${home.env.XDG_STATE_HOME} && ${script}`,
		])
		return ran
	}
	const fill = () => onDisk('cat /dev/zero > filler; true')
	const free = () => onDisk('rm -f filler')

	test('full from the start: up says so, and works once there is room', async () => {
		await fill()
		const ran = await home.podwire(['up', '--nodes', '1'])
		clear(ran, 3, /ENOSPC|no space left|full/i)
		assert.ok(ran.stderr.includes(home.env.XDG_STATE_HOME ?? ''), ran.text)
		await free()
		await home.up('--nodes', '1')
	})

	test('full while it runs: a write is refused, what was acknowledged stays, and room is all it needs', async () => {
		await home.ask('create', 'configmap', 'before', '--from-literal=a=b')
		await fill()
		const acknowledged: string[] = ['before']
		let refused: Ran | undefined
		for (let i = 0; i < 40 && refused === undefined; i++) {
			const manifest = `apiVersion: v1\nkind: ConfigMap\nmetadata: {name: big-${i}}\ndata: {x: "${'x'.repeat(200_000)}"}\n`
			const ran = await home.kubectl(['create', '-f', '-'], { input: manifest })
			if (ran.code === 0) acknowledged.push(`big-${i}`)
			else refused = ran
		}
		assert.ok(refused !== undefined, 'the disk never got full')
		assert.match(refused.stderr, /no space|full/i, refused.text)
		const names = async () => (await home.ask('get', 'cm', '-o', 'name')).split('\n')
		for (const name of acknowledged) assert.ok((await names()).includes(`configmap/${name}`), name)
		process.kill(home.record().daemon.pid, 'SIGKILL')
		await free()
		await home.up()
		for (const name of acknowledged) assert.ok((await names()).includes(`configmap/${name}`), name)
		await home.ask('create', 'configmap', 'afterwards', '--from-literal=a=b')
		const down = await home.podwire(['down'])
		assert.equal(down.code, 0, down.text)
	})

	test('read-only: up says which folder', async () => {
		const state = home.env.XDG_STATE_HOME ?? ''
		const readOnly = await onDisk(`cd / && mount -o remount,ro ${state}`)
		assert.equal(readOnly.code, 0, readOnly.text)
		const ran = await home.podwire(['up'])
		clear(ran, 3, /read-only/i)
		assert.ok(ran.stderr.includes(state), ran.text)
		// There is an empty folder of the lab on the disk: it cannot go either, and that is said.
		const stuck = await home.podwire(['down'])
		if (stuck.code !== 0) clear(stuck, 3, /Cannot remove .*read-only/i)
		await onDisk(`cd / && mount -o remount,rw ${state}`)
	})

	test('a folder in which nothing can be made', async () => {
		// Root may write anywhere but into /proc.
		const ran = await home.podwire(['up'], { env: { XDG_STATE_HOME: '/proc/1' } })
		clear(ran, 3, /Cannot make folder "\/proc\/1\/podwire/)
	})
})

const nobody = ['setpriv', '--reuid=65534', '--regid=65534', '--clear-groups', '--']

function reasonWithoutUserNamespaces(): string | false {
	if (skip !== false) return skip
	const tool = reasonToSkip('setpriv', 'unshare')
	if (tool !== false) return tool
	const [program, ...args] = [...nobody, 'unshare', '-U', '-r', '-n', '-m', 'true']
	const attempt = spawnSync(program ?? '', args, { encoding: 'utf8' })
	if (attempt.status !== 0) return `users may not make user namespaces here: ${attempt.stderr.trim()}`
	return spawnSync('setpriv', [
		...nobody.slice(1),
		process.execPath,
		'-e',
		`require('fs').accessSync(${JSON.stringify(join(root, 'bin/podwire.js'))})`,
	]).status === 0
		? false
		: 'another user may not read this checkout'
}

suite('without rights', { skip: reasonWithoutUserNamespaces() }, () => {
	const owner = 65534
	let cache: string
	before(() => {
		cache = mkdtempSync('/tmp/pw-')
		chownSync(cache, owner, owner)
	})
	after(() => rmSync(cache, { recursive: true, force: true }))

	test('a user brings up the same network in a user namespace, found by itself', async () => {
		const host = hostNetwork()
		const home = makeHome({ prefix: nobody, owner, cache })
		try {
			await home.up('-f', shop)
			const [lab] = JSON.parse((await home.podwire(['status', '-o', 'json'])).stdout).items
			assert.equal(lab.dataplane, 'kernel')
			assert.equal(lab.rights, 'user namespace')
			const answer = await home.curl('shop/deploy/web', 'http://api/')
			assert.match(answer.pod, /^api-/)
			const trace = await home.podwire(['trace', '-n', 'shop', 'deploy/web', 'api:80'])
			assert.equal(trace.code, 0, trace.text)
			assert.match(trace.stdout, /should, would and did agree/)
			const pods = await podsIn(home)
			kill(home, 'daemon')
			await home.up()
			assert.deepEqual(await podsIn(home), pods)
			assert.match((await home.curl('shop/deploy/web', 'http://api/')).pod, /^api-/)
			// All of the user namespace is gone with its last process: the same objects on a new network.
			const objects = await objectsIn(home)
			kill(home, 'daemon', 'workloads')
			await home.up()
			assert.deepEqual(await podsIn(home), pods)
			assert.deepEqual(await objectsIn(home), objects)
			assert.match((await home.curl('shop/deploy/web', 'http://api/')).pod, /^api-/)
			const down = await home.podwire(['down'])
			assert.equal(down.code, 0, down.text)
			const left = leavingsIn(home.folder)
			assert.deepEqual(left.processes, [])
			assert.deepEqual(
				left.files.filter((f) => f.startsWith('s/') || f.startsWith('r/')),
				[],
			)
			assert.equal(hostNetwork(), host)
		} finally {
			await home.remove()
		}
	})

	test('where user namespaces are refused, too: the paper data plane, said in one line', async () => {
		// uid 0 of a user namespace that allows no further one, and whose capabilities are all given up.
		const confine = join('/tmp', `pw-confine-${process.pid}`)
		writeFileSync(
			confine,
			'#!/bin/sh\necho 0 > /proc/sys/user/max_user_namespaces || exit 99\nexec setpriv --securebits=+noroot,+noroot_locked --bounding-set=-all --inh-caps=-all -- "$@"\n',
			{ mode: 0o755 },
		)
		const home = makeHome({ prefix: [...nobody, 'unshare', '-U', '-r', confine], owner, cache })
		try {
			const ran = await home.up('-f', shop)
			const lines = ran.stderr.split('\n').filter((l) => l.includes('paper data plane'))
			assert.equal(lines.length, 1, ran.text)
			assert.match(lines[0] ?? '', /may not make network namespaces.*no packet moves/)
			const pods = await podsOf(home, 'shop')
			assert.equal(pods.filter((p) => p.ready && p.ip.startsWith('10.244.')).length, 7)
			const trace = await home.podwire(['trace', '-n', 'shop', 'deploy/web', 'api:80'])
			assert.equal(trace.code, 0, trace.text)
			assert.match(trace.stdout, /delivered \(should\)/)
			assert.match(trace.stdout, /paper data plane: there are no rules and no packets/)
			const exec = await home.exec('shop/deploy/web', 'true')
			assert.notEqual(exec.code, 0)
			assert.match(exec.stderr, /paper data plane/)
			const forced = await home.podwire(['up', '--name', `${home.name}-k`, '--dataplane', 'kernel'])
			clear(forced, 3, /Cannot use the kernel data plane: .*may not make network namespaces/)
			assert.match(forced.stderr, /podwire doctor/)
			const doctor = await home.podwire(['doctor'])
			assert.notEqual(doctor.code, 10, doctor.text)
			assert.match(doctor.stdout, /namespace/)
		} finally {
			await home.remove()
			rmSync(confine, { force: true })
		}
	})

	test('a state folder of somebody else: up says which', async () => {
		const home = makeHome({ prefix: nobody, owner, cache })
		try {
			const ran = await home.podwire(['up'], { env: { XDG_STATE_HOME: '/root' } })
			clear(ran, 3, /Cannot make folder "\/root\/podwire.*(permission denied)/i)
		} finally {
			await home.remove()
		}
	})

	test('--dataplane paper needs no rights at all, and survives a kill', async () => {
		const home = makeHome({ prefix: nobody, owner, cache })
		try {
			await home.up('--dataplane', 'paper', '-f', shop)
			const pods = await podsIn(home)
			kill(home, 'daemon')
			await home.up('--dataplane', 'paper')
			assert.deepEqual(await podsIn(home), pods)
			assert.ok(readFileSync(join(home.runtime, 'lab.json'), 'utf8').includes('"paper"'))
		} finally {
			await home.remove()
		}
	})
})
