// `podwire up --ip-family`: a real application in a dual-stack lab and in one of IPv6 alone, seen with kubectl, curl and
// dig, and every flow explained by three witnesses that agree.

import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { type Home, makeHome, reasonToSkip } from './support/home.ts'
import { leavingsIn } from './support/leavings.ts'
import { root, start, until } from './support/run.ts'
import { podsOf, requestsIn } from './support/shop.ts'

const shop = join(root, 'examples/shop/shop.yaml')
const skip =
	reasonToSkip('kubectl', 'curl', 'dig', 'nft', 'nsenter') ||
	(existsSync('/proc/net/if_inet6') ? false : 'no IPv6 in this kernel')
/** A pod that asks, and that nothing else touches. */
const client = 'shop/client'

async function bringShop(home: Home, family: string): Promise<void> {
	await home.up('-f', shop, '--ip-family', family)
	await home.ask('run', 'client', '-n', 'shop', '--image=example.com/client', '--labels=app=client')
	await home.ask('wait', '-n', 'shop', '--for=condition=Ready', 'pod/client', '--timeout=20s')
}

async function dig(home: Home, ...words: string[]): Promise<readonly string[]> {
	const ran = await home.exec(client, 'dig', '+short', '+tries=1', '+time=3', ...words)
	assert.equal(ran.code, 0, ran.text)
	return ran.stdout.trimEnd().split('\n').filter(Boolean).sort()
}

interface Report {
	readonly verdict: string
	readonly disposition: string
	readonly headline: string
	readonly stages: readonly { readonly stage: string; readonly did?: { readonly result: string } }[]
	readonly should: Testimony
	readonly would: Testimony
	readonly did: Testimony
}
type Testimony = { readonly silent?: string; readonly missing?: readonly string[] }

/** Traces, and fails where not all three witnesses are heard and agree. */
async function traceAgreed(home: Home, from: string, to: string, disposition = 'delivered'): Promise<Report> {
	const ran = await home.podwire(['trace', '-n', 'shop', from, to, '-o', 'json'])
	assert.equal(ran.code, disposition === 'delivered' ? 0 : 1, ran.text)
	const [report] = (JSON.parse(ran.stdout) as { items: [Report] }).items
	for (const name of ['should', 'would', 'did'] as const) {
		assert.equal(report[name].silent, undefined, `${from} to ${to}: ${name}`)
		assert.deepEqual(report[name].missing, [], `${from} to ${to}: ${name}`)
	}
	assert.match(report.headline, /should, would and did agree/, `${from} to ${to}: ${ran.stdout}`)
	assert.equal(report.disposition, disposition, `${from} to ${to}`)
	return report
}

const serviceIps = async (home: Home, name: string) =>
	JSON.parse(await home.ask('get', 'svc', '-n', 'shop', name, '-o', 'jsonpath={.spec.clusterIPs}')) as string[]

suite('a dual-stack lab', { skip }, () => {
	let home: Home
	before(async () => {
		home = makeHome()
		await bringShop(home, 'dual')
		const both = JSON.stringify({ spec: { ipFamilyPolicy: 'RequireDualStack' } })
		for (const name of ['api', 'db', 'legacy']) await home.ask('patch', 'svc', '-n', 'shop', name, '-p', both)
		const ports = JSON.stringify({ spec: { ipFamilyPolicy: 'PreferDualStack', type: 'NodePort' } })
		await home.ask('patch', 'svc', '-n', 'shop', 'web', '-p', ports)
		await until(
			'names of both families',
			async () => (await dig(home, 'AAAA', 'web.shop.svc.cluster.local')).length === 1,
		)
	})
	after(() => home.remove())

	test('status shows both families', async () => {
		const text = (await home.podwire(['status'])).stdout
		assert.match(text, /IP family +dual/)
		assert.match(text, /networks 10\.244\.0\.0\/16, fd00:10:244::\/56, Services 10\.96\.0\.0\/16, fd00:10:96::\/112/)
		assert.match(text, /node-3 +172\.18\.0\.4,fd00:172:18::4 +10\.244\.2\.0\/24,fd00:10:244:2::\/64 +yes/)
		const [lab] = JSON.parse((await home.podwire(['status', '-o', 'json'])).stdout).items
		assert.equal(lab.ipFamily, 'dual')
		assert.deepEqual(lab.nodes[0].ips, ['172.18.0.2', 'fd00:172:18::2'])
	})

	test('a pod has both addresses, in its hosts file and interface; its resolver is of the primary family', async () => {
		const pod = await home.get<{ status: { podIPs: { ip: string }[] } }>('pod', '-n', 'shop', 'client')
		const ips = pod.status.podIPs.map(({ ip }) => ip)
		const hosts = (await home.exec(client, 'cat', '/etc/hosts')).stdout
		assert.deepEqual(
			hosts.split('\n').filter((line) => line.endsWith('\tclient')),
			ips.map((ip) => `${ip}\tclient`),
		)
		const resolver = (await home.exec(client, 'cat', '/etc/resolv.conf')).stdout
		assert.match(resolver, /^nameserver 10\.96\.0\.10$/m)
		const addresses = (await home.exec(client, 'hostname', '-I')).stdout.trim().split(' ')
		assert.deepEqual(addresses, ips)
	})

	test('names: AAAA beside A, headless pods, SRV, PTR under ip6.arpa; the server answers on its IPv6 address, too', async () => {
		const api = await serviceIps(home, 'api')
		const name = 'api.shop.svc.cluster.local'
		assert.equal(api.length, 2)
		assert.deepEqual(await dig(home, 'A', name), [api[0]])
		assert.deepEqual(await dig(home, 'AAAA', name), [api[1]])
		assert.deepEqual(await dig(home, '@fd00:10:96::a', 'AAAA', name), [api[1]])
		assert.deepEqual(await dig(home, '@fd00:10:96::a', '+tcp', 'A', name), [api[0]])
		assert.deepEqual(await dig(home, '-x', api[1] ?? ''), [`${name}.`])
		const pods = await home.get<{ items: { status: { podIPs: { ip: string }[] } }[] }>(
			...['pods', '-n', 'shop', '-l', 'app=db'],
		)
		const six = pods.items.map((p) => p.status.podIPs[1]?.ip ?? '')
		assert.deepEqual(await dig(home, 'AAAA', 'db.shop.svc.cluster.local'), six.toSorted())
		assert.deepEqual(await dig(home, 'AAAA', 'db-0.db.shop.svc.cluster.local'), [six[0]])
		assert.deepEqual(await dig(home, '-x', six[0] ?? ''), ['db-0.db.shop.svc.cluster.local.'])
		assert.deepEqual(await dig(home, 'SRV', `_http._tcp.${name}`), [`0 100 80 ${name}.`])
		// A Service of one family has no name of the other, but it exists.
		const ran = await home.exec(client, 'dig', 'AAAA', 'kubernetes.default.svc.cluster.local')
		assert.match(ran.stdout, /status: NOERROR.*\n.*ANSWER: 0/)
	})

	test('programs take IPv6 by name, and IPv4 where they want it; every endpoint gets its share', async () => {
		const pods = (await podsOf(home, 'shop', 'app=api')).map((p) => p.name)
		const answers = await requestsIn(home, client, 'http://api/', 40)
		assert.ok(answers.every((a) => a.ok))
		assert.deepEqual([...new Set(answers.map((a) => a.pod))].sort(), pods.toSorted())
		const six = await home.curl(client, 'http://api/')
		assert.match(six.client, /^\[fd00:10:244:/)
		const four = await home.exec(client, 'curl', '-4', '-sS', 'http://api/')
		assert.match(four.stdout, /"client":"10\.244\./)
	})

	test('what a pod is told of Services in its environment is of the primary family', async () => {
		await home.ask('run', 'late', '-n', 'shop', '--image=example.com/late')
		await home.ask('wait', '-n', 'shop', '--for=condition=Ready', 'pod/late', '--timeout=20s')
		const env = (await home.exec('shop/late', 'env')).stdout
		const [first] = await serviceIps(home, 'api')
		assert.match(env, new RegExp(`^API_SERVICE_HOST=${first}$`, 'm'))
		assert.match(env, new RegExp(`^API_PORT=tcp://${first}:80$`, 'm'))
	})

	test('three witnesses agree on flows of IPv6: by name, to Services, pods, node ports, from outside', async () => {
		const [, api] = await serviceIps(home, 'api')
		const [, empty] = await serviceIps(home, 'legacy')
		const named = await traceAgreed(home, 'pod/client', 'api:80')
		assert.equal(named.stages.find((s) => s.stage === 'name')?.did?.result, api)
		await traceAgreed(home, 'pod/client', `[${api}]:80`)
		await traceAgreed(home, 'pod/client', `[${api}]:udp/9001`)
		await traceAgreed(home, 'pod/client', 'db-1.db:5432')
		await traceAgreed(home, 'pod/client', '10.96.0.10:udp/53')
		await traceAgreed(home, 'pod/client', '[fd00:10:96::a]:udp/53')
		await traceAgreed(home, 'node/node-1', `[${api}]:80`)
		const port = await home.ask('get', 'svc', '-n', 'shop', 'web', '-o', 'jsonpath={.spec.ports[0].nodePort}')
		for (const from of ['pod/client', 'node/node-2', 'outside']) {
			await traceAgreed(home, from, `[fd00:172:18::2]:${port}`)
		}
		await traceAgreed(home, 'outside', `172.18.0.2:${port}`)
		await traceAgreed(home, 'pod/client', `[${empty}]:80`, 'no-endpoints')
		await traceAgreed(home, 'pod/client', `[${api}]:81`, 'unknown-service-port')
		await traceAgreed(home, 'pod/client', '[fd00:10:244:1::99]:80', 'unassigned-address')
	})

	test('an address that a node announces: both families', async () => {
		const service = {
			apiVersion: 'v1',
			kind: 'Service',
			metadata: { name: 'announced', namespace: 'shop' },
			spec: {
				type: 'LoadBalancer',
				loadBalancerClass: 'podwire.dev/l2',
				ipFamilyPolicy: 'RequireDualStack',
				selector: { app: 'web' },
				ports: [{ port: 80, targetPort: 'http' }],
			},
		}
		await home.ask('apply', '-f', home.write('announced.json', JSON.stringify(service)))
		const ips = await until('addresses', async () => {
			const path = 'jsonpath={.status.loadBalancer.ingress[*].ip}'
			const found = (await home.ask('get', 'svc', '-n', 'shop', 'announced', '-o', path)).split(' ')
			return found.length === 2 ? found : undefined
		})
		for (const ip of ips) await traceAgreed(home, 'outside', `${ip.includes(':') ? `[${ip}]` : ip}:80`)
	})

	test('a lab keeps its families: asking for others is refused with the way there', async () => {
		const other = await home.podwire(['up', '--ip-family', 'ipv4'])
		assert.equal(other.code, 2, other.text)
		assert.match(other.stderr, /Cannot make lab ".*" ipv4: it is dual/)
		assert.match(other.stderr, /podwire down --name/)
		const unknown = await home.podwire(['up', '--ip-family', 'v6'])
		assert.equal(unknown.code, 2)
		assert.match(unknown.stderr, /use ipv4, ipv6, dual/)
		assert.equal((await home.podwire(['up', '-q', '--ip-family', 'dual'])).code, 0)
	})
})

suite('a lab of IPv6 alone', { skip }, () => {
	let home: Home
	before(async () => {
		home = makeHome()
		await bringShop(home, 'ipv6')
	})
	after(async () => {
		if (!home) return
		await home.remove()
		assert.deepEqual(leavingsIn(home.folder), { processes: [], mounts: [], files: [] })
	})

	test('the shop runs on it as it does on IPv4', async () => {
		const pods = await podsOf(home, 'shop')
		assert.equal(pods.length, 8)
		for (const pod of pods) {
			assert.ok(pod.ready, pod.name)
			const share = Number(pod.node.slice('node-'.length)) - 1
			assert.match(pod.ip, share === 0 ? /^fd00:10:244::[0-9a-f]+$/ : new RegExp(`^fd00:10:244:${share}::[0-9a-f]+$`))
		}
		const answers = await requestsIn(home, client, 'http://api/', 30)
		assert.ok(answers.every((a) => a.ok))
		assert.equal(new Set(answers.map((a) => a.pod)).size, 3)
		const resolver = (await home.exec(client, 'cat', '/etc/resolv.conf')).stdout
		assert.match(resolver, /^nameserver fd00:10:96::a$/m)
		assert.deepEqual(await dig(home, 'A', 'api.shop.svc.cluster.local'), [])
	})

	test('the API server answers inside, by the variables a pod is told', async () => {
		const said = await home.exec(
			client,
			...['sh', '-c', 'curl -ksS "https://[$KUBERNETES_SERVICE_HOST]:$KUBERNETES_SERVICE_PORT/version"'],
		)
		assert.match(said.stdout, /"gitVersion"/, said.text)
	})

	test('probes ask the pod at its address, port-forward its loopback', async () => {
		const pod = {
			apiVersion: 'v1',
			kind: 'Pod',
			metadata: { name: 'probed', namespace: 'shop' },
			spec: {
				containers: [
					{
						name: 'c',
						image: 'example.com/probed',
						ports: [{ containerPort: 8080 }],
						readinessProbe: { httpGet: { path: '/ready', port: 8080 } },
						livenessProbe: { tcpSocket: { port: 8080 } },
					},
				],
			},
		}
		await home.ask('apply', '-f', home.write('probed.json', JSON.stringify(pod)))
		await home.ask('wait', '-n', 'shop', '--for=condition=Ready', 'pod/probed', '--timeout=20s')
		const logs = await home.ask('logs', '-n', 'shop', 'probed')
		assert.match(logs, /^\[fd00:10:244:.*\]:\d+ "GET \/ready HTTP\/1\.1" 200/m)
		const words = ['kubectl', 'port-forward', '-n', 'shop', 'pod/probed', ':8080']
		const forward = start(words[0]!, words.slice(1), { env: home.env })
		try {
			const port = await until('port-forward', () => /127\.0\.0\.1:(\d+) ->/.exec(forward.stdout())?.[1])
			const answer = await fetch(`http://127.0.0.1:${port}/`)
			assert.equal(((await answer.json()) as { pod: string }).pod, 'probed')
		} finally {
			forward.kill('SIGTERM')
			await forward.done
		}
	})

	test('three witnesses agree', async () => {
		await traceAgreed(home, 'pod/client', 'api:80')
		await traceAgreed(home, 'deploy/web', 'db-0.db:5432')
		await traceAgreed(home, 'pod/client', 'legacy:80', 'no-endpoints')
		await home.ask('patch', 'svc', '-n', 'shop', 'web', '-p', '{"spec":{"type":"NodePort"}}')
		await traceAgreed(home, 'outside', 'svc/web:80')
	})
})
