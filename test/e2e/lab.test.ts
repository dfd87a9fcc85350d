// The main job as its user does it: one command brings a real application up, and pods, Services and names work as
// Kubernetes means them. Real kubectl outside, real curl and dig inside the pods.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { application, skip as noBoutique } from '../boutique.ts'
import { type Home, makeHome, reasonToSkip } from './support/home.ts'
import { hostNetwork, leavingsIn, namespacesAlive, namespacesIn } from './support/leavings.ts'
import { root, run, until } from './support/run.ts'
import { type Endpoints, endpointsOf, type PodLine, podsOf, requestsIn, requestsWhile } from './support/shop.ts'

const shop = join(root, 'examples/shop/shop.yaml')
const skip = reasonToSkip('kubectl', 'curl', 'dig', 'nft', 'nsenter', 'ip')

suite('a lab', { skip }, () => {
	let home: Home
	/** A pod that asks, and that nothing else touches. */
	const client = 'shop/client'
	let host: string
	before(async () => {
		host = hostNetwork()
		home = makeHome()
		await home.up('-f', shop)
		await home.ask('run', 'client', '-n', 'shop', '--image=example.com/client', '--labels=app=client')
		await home.ask('wait', '-n', 'shop', '--for=condition=Ready', 'pod/client', '--timeout=20s')
	})
	after(() => home.remove())

	test('pods are Running on all nodes, each with an address of its node', async () => {
		const table = await home.ask('get', 'pods', '-n', 'shop', '-o', 'wide')
		assert.match(table, /^NAME +READY +STATUS +RESTARTS +AGE +IP +NODE/)
		const pods = await podsOf(home, 'shop')
		assert.equal(pods.length, 8)
		assert.ok(pods.every((p) => p.ready))
		assert.deepEqual([...new Set(pods.map((p) => p.node))].sort(), ['node-1', 'node-2', 'node-3'])
		for (const pod of pods) {
			const number = Number(pod.node.slice('node-'.length))
			assert.match(pod.ip, new RegExp(`^10\\.244\\.${number - 1}\\.\\d+$`), pod.name)
		}
		assert.equal(new Set(pods.map((p) => p.ip)).size, pods.length)
	})

	test('status says the same as a document', async () => {
		const ran = await home.podwire(['status', '-o', 'json'])
		assert.equal(ran.code, 0, ran.text)
		const list = JSON.parse(ran.stdout)
		assert.equal(list.apiVersion, 'podwire.dev/v1alpha1')
		assert.equal(list.kind, 'LabList')
		assert.equal(list.items.length, 1)
		const [lab] = list.items
		assert.equal(lab.name, home.name)
		assert.equal(lab.phase, 'running')
		assert.equal(lab.dataplane, 'kernel')
		assert.equal(lab.rights, 'root')
		assert.deepEqual(
			lab.nodes.map((n: { name: string; ip: string; ready: boolean }) => [n.name, n.ip, n.ready]),
			[1, 2, 3].map((i) => [`node-${i}`, `172.18.0.${i + 1}`, true]),
		)
		assert.equal(lab.pods.ready, lab.pods.total)
		assert.deepEqual(lab.trouble, [])
		const text = await home.podwire(['status'])
		assert.match(text.stdout, /running/)
		assert.match(text.stdout, /node-3 +172\.18\.0\.4 +10\.244\.2\.0\/24 +yes/)
	})

	test('a pod has its name, its hosts file and its resolver as the kubelet writes them', async () => {
		const [pod] = await podsOf(home, 'shop', 'app=client')
		const hostname = await home.exec(client, 'hostname')
		assert.equal(hostname.stdout, 'client\n', hostname.text)
		const resolver = await home.exec(client, 'cat', '/etc/resolv.conf')
		assert.equal(
			resolver.stdout,
			'search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n',
		)
		const hosts = (await home.exec(client, 'cat', '/etc/hosts')).stdout
		assert.match(hosts, /^127\.0\.0\.1\tlocalhost$/m)
		assert.match(hosts, new RegExp(`^${pod?.ip.replaceAll('.', '\\.')}\tclient$`, 'm'))
	})

	test('exec gives back output, error output and exit code', async () => {
		const ran = await home.exec(client, 'sh', '-c', 'echo out; echo err >&2; exit 7')
		assert.equal(ran.code, 7, ran.text)
		assert.equal(ran.stdout, 'out\n')
		assert.match(ran.stderr, /^err\n/)
		const missing = await home.exec(client, 'no-such-program')
		assert.notEqual(missing.code, 0)
		assert.match(missing.stderr, /no-such-program/)
		const stdin = await home.kubectl(['exec', '-i', '-n', 'shop', 'client', '--', 'sha256sum'], {
			input: 'abc',
		})
		assert.match(stdin.stdout, /^ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad/, stdin.text)
	})

	test('logs show what a stand-in answered', async () => {
		const answer = await home.curl(client, 'http://api/once-more')
		const logs = await home.ask('logs', '-n', 'shop', answer.pod)
		assert.match(logs, new RegExp(`${answer.client} "GET /once-more HTTP/1\\.1" 200`))
	})

	test('pods on different nodes reach each other without translation', async () => {
		const pods = await podsOf(home, 'shop')
		const from = pods.find((p) => p.app === 'web') as PodLine
		for (const to of pods.filter((p) => p.app === 'api')) {
			const answer = await home.curl(`shop/${from.name}`, `http://${to.ip}:9000/`)
			assert.equal(answer.pod, to.name)
			assert.equal(answer.node, to.node)
			assert.equal(answer.client.split(':')[0], from.ip)
		}
		assert.ok(pods.some((p) => p.app === 'api' && p.node !== from.node))
	})

	test('through a ClusterIP a server sees the address of the client pod, and every endpoint gets its share', async () => {
		const [from] = await podsOf(home, 'shop', 'app=client')
		const answers = await requestsIn(home, client, 'http://api/', 60)
		assert.ok(
			answers.every((a) => a.ok),
			JSON.stringify(answers.find((a) => !a.ok)),
		)
		assert.ok(answers.every((a) => a.client === from?.ip))
		const counts = Map.groupBy(answers, (a) => a.pod)
		// 60 draws of 3: one endpoint with none at all has a chance of 1 in 10^10.
		assert.equal(counts.size, 3)
	})

	test('a pod reaches itself through its own Service', async () => {
		await home.ask('-n', 'shop', 'create', 'deployment', 'alone', '--image=example.com/alone', '--port=8080')
		await home.ask('-n', 'shop', 'expose', 'deployment', 'alone', '--port=80', '--target-port=8080')
		await home.ask('-n', 'shop', 'rollout', 'status', 'deploy/alone', '--timeout=20s')
		await until(
			'the Service has its endpoint',
			async () => (await endpointsOf(home, 'shop', 'alone')).ready.length === 1,
		)
		const [pod] = await podsOf(home, 'shop', 'app=alone')
		// What the API says is in force on the node, and known to the name server, a moment later.
		const answer = await until('it answers', () => home.curl(`shop/${pod?.name}`, 'http://alone/'))
		assert.equal(answer.pod, pod?.name)
		await home.ask('-n', 'shop', 'delete', 'deploy/alone', 'svc/alone')
	})

	test('a Service without endpoints refuses at once, a port it does not have too', async () => {
		for (const url of ['http://legacy/', 'http://api:81/']) {
			const ran = await home.exec(
				client,
				'curl',
				'-sS',
				'--max-time',
				'5',
				'-w',
				'%{time_namelookup} %{time_total}',
				'-o',
				'/dev/null',
				url,
			)
			assert.equal(ran.code, 7, ran.text)
			// A packet that is sent again is sent after a second.
			const [asked = 0, refused = 0] = ran.stdout.split(' ').map(Number)
			assert.ok(refused - asked < 1, ran.text)
		}
	})

	test('UDP goes through a ClusterIP and comes back from it', async () => {
		const [service] = (await home.ask('get', 'svc', '-n', 'shop', 'api', '-o', 'jsonpath={.spec.clusterIP}')).split(
			'\n',
		)
		// One read takes one datagram: dd, because a shell reads byte by byte and loses the rest.
		const script = `exec 3<>/dev/udp/${service}/9001; printf 'ping-42\\n' >&3; timeout 3 dd bs=65536 count=1 <&3 2>/dev/null`
		const ran = await home.exec(client, 'bash', '-c', script)
		assert.equal(ran.code, 0, ran.text)
		const [who, echo] = ran.stdout.split('\n')
		assert.match(JSON.parse(who ?? '').pod, /^api-/)
		assert.equal(JSON.parse(who ?? '').protocol, 'UDP')
		assert.equal(echo, 'ping-42')
	})

	test('names answer over UDP and TCP: Services, pods of a headless Service, SRV, reverse, none', async () => {
		const ip = await home.ask('get', 'svc', '-n', 'shop', 'api', '-o', 'jsonpath={.spec.clusterIP}')
		const db = await podsOf(home, 'shop', 'app=db')
		const dig = async (...words: string[]) => {
			const ran = await home.exec(client, 'dig', '+short', '+tries=1', '+time=3', ...words)
			assert.equal(ran.code, 0, ran.text)
			return ran.stdout
				.split('\n')
				.filter((l) => l !== '')
				.sort()
		}
		for (const transport of ['+notcp', '+tcp']) {
			assert.deepEqual(await dig(transport, 'api.shop.svc.cluster.local'), [ip], transport)
			assert.deepEqual(await dig(transport, 'db.shop.svc.cluster.local'), db.map((p) => p.ip).sort())
			for (const pod of db) assert.deepEqual(await dig(transport, `${pod.name}.db.shop.svc.cluster.local`), [pod.ip])
		}
		assert.deepEqual(await dig('+search', 'api'), [ip])
		const srv = await dig('SRV', '_sql._tcp.db.shop.svc.cluster.local')
		// The DNS specification leaves the weight open, as long as all have the same.
		assert.deepEqual(
			srv.map((line) => line.replace(/^0 \d+ /, '')),
			['5432 db-0.db.shop.svc.cluster.local.', '5432 db-1.db.shop.svc.cluster.local.'],
		)
		assert.deepEqual(await dig('-x', ip), ['api.shop.svc.cluster.local.'])
		const none = await home.exec(client, 'dig', '+tries=1', '+time=3', 'nobody.shop.svc.cluster.local')
		assert.match(none.stdout, /status: NXDOMAIN/, none.text)
		const answer = await home.curl(client, 'http://db-1.db:5432/')
		assert.equal(answer.pod, 'db-1')
	})

	test('the rules of a node are readable and say which object each is for', async () => {
		const ran = await run('nsenter', [`--net=${join(home.runtime, 'netns/node-1')}`, 'nft', 'list', 'ruleset'])
		assert.equal(ran.code, 0, ran.text)
		const ip = await home.ask('get', 'svc', '-n', 'shop', 'api', '-o', 'jsonpath={.spec.clusterIP}')
		assert.ok(ran.stdout.includes(ip), ran.stdout)
		assert.match(ran.stdout, /comment "[^"]*shop\/api/)
		assert.doesNotMatch(ran.stderr, /./)
	})

	test('endpoints and packets follow when a Deployment is scaled', async () => {
		for (const replicas of [5, 2, 3]) {
			await home.ask('-n', 'shop', 'scale', 'deploy/api', `--replicas=${replicas}`)
			await home.ask('-n', 'shop', 'rollout', 'status', 'deploy/api', '--timeout=20s')
			const { ready } = await until(`${replicas} endpoints`, async (): Promise<Endpoints | false> => {
				const seen = await endpointsOf(home, 'shop', 'api')
				return seen.ready.length === replicas && seen.all.length === replicas && seen
			})
			const answers = await requestsIn(home, client, 'http://api/', 15 * replicas)
			assert.deepEqual(
				answers.filter((a) => !a.ok),
				[],
			)
			assert.deepEqual([...new Set(answers.map((a) => a.ip))].sort(), [...ready].sort())
		}
	})

	test('no request fails when a pod is deleted', async () => {
		const [victim] = await podsOf(home, 'shop', 'app=api')
		const requests = await requestsWhile(home, client, 'http://api/', async () => {
			await home.ask('-n', 'shop', 'delete', 'pod', victim?.name ?? '', '--wait=true')
			await home.ask('-n', 'shop', 'rollout', 'status', 'deploy/api', '--timeout=20s')
		})
		assert.ok(requests.length > 20, `only ${requests.length} requests`)
		assert.deepEqual(
			requests.filter((r) => !r.ok),
			[],
		)
		assert.ok(
			requests.some((r) => r.pod === victim?.name),
			'it never answered while it lived',
		)
		assert.notEqual(requests.at(-1)?.pod, victim?.name)
	})

	test('no request fails while a Deployment is restarted', async () => {
		const old = (await podsOf(home, 'shop', 'app=api')).map((p) => p.name)
		const requests = await requestsWhile(home, client, 'http://api/', async () => {
			await home.ask('-n', 'shop', 'rollout', 'restart', 'deploy/api')
			await home.ask('-n', 'shop', 'rollout', 'status', 'deploy/api', '--timeout=30s')
			await until('the old pods are gone', async () => {
				const now = await podsOf(home, 'shop', 'app=api')
				return now.length === 3 && now.every((p) => !old.includes(p.name))
			})
		})
		assert.ok(requests.length > 20, `only ${requests.length} requests`)
		assert.deepEqual(
			requests.filter((r) => !r.ok),
			[],
		)
		const last = requests.slice(-5)
		assert.ok(
			last.every((r) => r.pod !== undefined && !old.includes(r.pod)),
			JSON.stringify(last),
		)
	})

	test('up again changes nothing; with a changed manifest it does', async () => {
		const pods = (await podsOf(home, 'shop')).map((p) => `${p.name} ${p.ip}`)
		const again = await home.up('-f', shop)
		assert.match(again.stderr, /was up/)
		assert.deepEqual(
			(await podsOf(home, 'shop')).map((p) => `${p.name} ${p.ip}`),
			pods,
		)
		const changed = home.write(
			'changed.yaml',
			readFileSync(shop, 'utf8')
				.replace('replicas: 2', 'replicas: 4')
				.replace(
					'port: 80\n      targetPort: http\n    - name: events',
					'port: 8088\n      targetPort: http\n    - name: events',
				),
		)
		await home.up('-f', changed)
		assert.equal((await podsOf(home, 'shop', 'app=web')).length, 4)
		await until(
			'the new port is served',
			async () => (await home.exec(client, 'curl', '-sS', '--max-time', '2', 'http://api:8088/')).code === 0,
		)
		const old = await home.exec(client, 'curl', '-sS', '--max-time', '2', 'http://api/')
		assert.equal(old.code, 7, old.text)
		await home.up('-f', shop)
	})

	test('a second lab beside it has the same addresses and is another network', async () => {
		const other = `${home.name}-b`
		const manifest = home.write(
			'other.yaml',
			readFileSync(shop, 'utf8').replaceAll('app: api', 'app: api2').replaceAll('name: api\n', 'name: api2\n'),
		)
		const ran = await home.podwire(['up', '--name', other, '--nodes', '2', '--no-kubeconfig', '-f', manifest])
		assert.equal(ran.code, 0, ran.text)
		const list = JSON.parse((await home.podwire(['status', '-o', 'json', '--name', ''])).stdout)
		assert.deepEqual(
			list.items.map((l: { name: string }) => l.name),
			[home.name, other],
		)
		assert.equal(new Set(list.items.map((l: { api: string }) => l.api)).size, 2)
		const kubeconfig = await home.podwire([
			'trace',
			'--name',
			other,
			'-n',
			'shop',
			'deploy/web',
			'api2:80',
			'-o',
			'json',
		])
		assert.equal(kubeconfig.code, 0, kubeconfig.text)
		assert.equal(JSON.parse(kubeconfig.stdout).items[0].disagreement, undefined)
		assert.equal((await home.curl(client, 'http://api/')).namespace, 'shop')
		const stranger = await home.exec(client, 'curl', '-sS', '--max-time', '2', 'http://api2/')
		assert.equal(stranger.code, 6, stranger.text)
		const down = await home.podwire(['down', '--name', other])
		assert.equal(down.code, 0, down.text)
		assert.deepEqual(
			leavingsIn(home.folder).files.filter((f) => f.includes(other)),
			[],
		)
		assert.equal((await home.curl(client, 'http://api/')).namespace, 'shop')
	})

	test('down leaves nothing, and down again has nothing to do', async () => {
		const inodes = [...namespacesIn(join(home.runtime, 'netns')).values()]
		assert.ok(inodes.length > 10 && namespacesAlive(inodes, home.folder).length > 10)
		const context = await home.ask('config', 'get-contexts', '-o', 'name')
		assert.equal(context, `podwire-${home.name}\n`)
		const busy = home.startExec(client, 'sleep', '600')
		await until('the command runs', () => leavingsIn(home.folder).processes.some((p) => p.includes('sleep 600')))
		const ran = await home.podwire(['down'])
		assert.equal(ran.code, 0, ran.text)
		assert.ok(ran.seconds < 20, `the time that pods are given to end is not waited for: ${ran.text}`)
		await busy.done
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
		const again = await home.podwire(['down'])
		assert.equal(again.code, 0, again.text)
		assert.match(again.stderr, /nothing to remove/)
	})
})

suite('Online Boutique', { skip: skip || noBoutique }, () => {
	let home: Home
	before(async () => {
		home = makeHome()
		await home.up('-f', application)
	})
	after(() => home.remove())

	test('everything is ready', async () => {
		const deployments = await home.get<{
			items: { metadata: { name: string }; spec: { replicas: number }; status: { availableReplicas?: number } }[]
		}>('deploy')
		assert.equal(deployments.items.length, 12)
		for (const d of deployments.items) assert.equal(d.status.availableReplicas, d.spec.replicas, d.metadata.name)
		const table = await home.ask('get', 'pods', '-o', 'wide')
		assert.equal(table.split('\n').filter((l) => /\b1\/1 +Running\b.*\bnode-[123]\b/.test(l)).length, 12, table)
	})

	test('the frontend reaches each Service it is configured with, by name, and the right pod answers', async () => {
		const env = (await home.exec('default/deploy/frontend', 'env')).stdout
		const addresses = [...env.matchAll(/^[A-Z_]+_SERVICE_ADDR=(([a-z]+):\d+)$/gm)].map((m) => [m[2], m[1]] as const)
		assert.equal(addresses.length, 8, env)
		const [frontend] = await podsOf(home, 'default', 'app=frontend')
		const nodes = new Set<string>()
		for (const [service, address] of addresses) {
			// The manifests configure an assistant that they do not bring.
			if (service === 'shoppingassistantservice') {
				const ran = await home.exec('default/deploy/frontend', 'curl', '-sS', '--max-time', '5', `http://${address}/`)
				assert.equal(ran.code, 6, ran.text)
				continue
			}
			const answer = await home.curl('default/deploy/frontend', `http://${address}/`)
			assert.match(answer.pod, new RegExp(`^${service}-`))
			assert.equal(answer.client.split(':')[0], frontend?.ip)
			nodes.add(answer.node)
		}
		assert.ok(nodes.size > 1, 'all on one node')
	})

	test('every Service answers from the checkout', async () => {
		const services = await home.get<{
			items: {
				metadata: { name: string }
				spec: { selector?: Record<string, string>; ports: { port: number }[] }
			}[]
		}>('svc')
		const called = services.items.filter((s) => s.spec.selector !== undefined)
		assert.equal(called.length, 12)
		for (const s of called) {
			const answer = await home.curl(
				'default/deploy/checkoutservice',
				`http://${s.metadata.name}:${s.spec.ports[0]?.port}/`,
			)
			assert.match(answer.pod, new RegExp(`^${s.spec.selector?.app}-`), s.metadata.name)
		}
	})
})
