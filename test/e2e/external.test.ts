// Load balancers as a user meets them: EXTERNAL-IP and events by kubectl, any program as the client outside, and
// `podwire trace outside`, whose three witnesses must agree whatever becomes of the packet.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { type Answer, type Home, makeHome, reasonToSkip } from './support/home.ts'
import { root, start } from './support/run.ts'

const skip = reasonToSkip('kubectl', 'nsenter', 'curl')

interface Report {
	readonly verdict: string
	readonly disposition: string
	readonly headline: string
	readonly disagreement?: { readonly text: string }
}

suite('load balancers', { skip }, () => {
	let home: Home
	before(async () => {
		home = makeHome()
		await home.up('-f', join(root, 'examples/external'))
	})
	after(() => home.remove())

	const curl = async (url: string): Promise<Answer> => {
		const netns = join(home.runtime, 'netns', 'outside')
		const ran = await start('nsenter', [`--net=${netns}`, 'curl', '-sf', '--max-time', '5', url]).done
		assert.equal(ran.code, 0, ran.text)
		return JSON.parse(ran.stdout) as Answer
	}
	const trace = async (to: string, code: number, from = 'outside'): Promise<Report> => {
		const ran = await home.podwire(['trace', '--timeout', '700ms', from, to, '-o', 'json'])
		assert.equal(ran.code, code, ran.text)
		const [report] = (JSON.parse(ran.stdout) as { items: Report[] }).items as [Report]
		assert.equal(report.disagreement, undefined, report.disagreement?.text)
		assert.match(report.headline, /should, would and did agree/)
		return report
	}
	const apply = async (object: unknown) => {
		const ran = await home.kubectl(['apply', '-f', '-'], { input: JSON.stringify(object) })
		assert.equal(ran.code, 0, ran.text)
	}
	const service = (name: string, spec: object, annotations = {}) => ({
		apiVersion: 'v1',
		kind: 'Service',
		metadata: { name, annotations },
		spec: { type: 'LoadBalancer', selector: { app: 'web' }, ports: [{ port: 80 }], ...spec },
	})
	const addressOf = async (name: string): Promise<string> => {
		const path = '{.status.loadBalancer.ingress[0].ip}'
		const wait = ['wait', '--timeout=10s', `--for=jsonpath=${path}`, `service/${name}`]
		const ran = await home.kubectl(wait)
		assert.equal(ran.code, 0, ran.text)
		return home.ask('get', 'service', name, '-o', `jsonpath=${path}`)
	}

	test('kubectl shows address and events; any program is the client', async () => {
		const lines = (await home.ask('get', 'service')).split('\n')
		assert.match(lines.find((l) => l.startsWith('web ')) ?? '', /LoadBalancer +\S+ +172\.18\.255\.10 +80:3\d{4}\/TCP/)
		assert.match(
			await home.ask('describe', 'service', 'web'),
			/EnsuringLoadBalancer .* service-controller +Ensuring load balancer[\s\S]*EnsuredLoadBalancer/,
		)
		assert.match((await curl('http://172.18.255.10/')).client, /^172\.18\.0\.[234]:/)
		assert.match((await curl('http://172.18.255.11/')).client, /^203\.0\.113\.1:/)
		assert.match((await curl('http://172.18.255.12/')).client, /^172\.18\.0\.[234]:/)
	})

	for (const [what, address, name] of [
		['the appliance', '172.18.255.10', 'web'],
		['the appliance, policy Local', '172.18.255.11', 'web-local'],
		['a node that announces', '172.18.255.12', 'web-l2'],
	] as const) {
		test(`a trace from outside through ${what}`, async () => {
			assert.equal((await trace(`${address}:80`, 0)).verdict, 'delivered')
			// A Service outside is its load balancer's address.
			assert.equal((await trace(`svc/${name}`, 0)).verdict, 'delivered')
		})
	}

	test('what has no way in, and why', async () => {
		await apply(service('intern', {}, { 'podwire.dev/internal': 'true' }))
		await apply(service('ranged', { loadBalancerSourceRanges: ['198.51.100.0/24'] }))
		await apply(service('empty', { selector: { app: 'nobody' }, externalTrafficPolicy: 'Local' }))
		const [intern, ranged, empty] = [await addressOf('intern'), await addressOf('ranged'), await addressOf('empty')]
		const dns = await home.ask('get', 'service', '-n', 'kube-system', 'kube-dns', '-o', 'jsonpath={.spec.clusterIP}')
		for (const [to, disposition] of [
			['172.18.255.10:81', 'unknown-service-port'],
			[`${intern}:80`, 'no-route'],
			[`${ranged}:80`, 'denied-source-range'],
			[`${empty}:80`, 'no-endpoints'],
			['172.18.255.99:80', 'no-route'],
			[`${dns}:53`, 'no-route'],
		] as const) {
			assert.equal((await trace(to, 1)).disposition, disposition, to)
		}
	})

	test('asked from inside: by the rules of the node, or with ipMode Proxy at the load balancer itself', async () => {
		await apply(service('proxy', {}, { 'podwire.dev/ip-mode': 'Proxy' }))
		const proxy = await addressOf('proxy')
		for (const from of ['deploy/web', 'node/node-2']) {
			for (const to of ['172.18.255.10', '172.18.255.11', '172.18.255.12', proxy]) {
				assert.equal((await trace(`${to}:80`, 0, from)).verdict, 'delivered', `${from} to ${to}`)
			}
		}
	})

	test('given up with the Service, which is gone then', async () => {
		const ran = await home.kubectl(['delete', 'service', 'web-l2', '--timeout=10s'])
		assert.equal(ran.code, 0, ran.text)
		assert.equal((await trace('172.18.255.12:80', 1)).disposition, 'no-route')
	})
})
