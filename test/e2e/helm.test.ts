// Real Helm, 4 and 3, with a chart of ours (test/data/chart): install, upgrade, rollback, test, uninstall, and waiting.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { carriedTool } from '../tools.ts'
import { type Home, makeHome, reasonToSkip } from './support/home.ts'
import { type Ran, root, run } from './support/run.ts'

const chart = join(root, 'test/data/chart')
const skip = reasonToSkip('kubectl', 'curl')

suite('helm', { skip }, () => {
	let home: Home
	before(async () => {
		home = makeHome()
		const config = home.write('podwire.yaml', 'apiVersion: podwire.dev/v1alpha1\nkind: Config\nallowCommands: true\n')
		await home.up('--nodes', '2', '--config', config)
	})
	after(() => home?.remove())

	for (const [version, minor] of [
		['4', 35],
		['3', 29],
	] as const) {
		suite(`version ${version}`, () => {
			const namespace = `helm-${version}`
			let helm = ''
			before(async () => {
				helm = await carriedTool('helm', minor)
			})
			const tryHelm = (...args: string[]): Promise<Ran> =>
				run(helm, ['-n', namespace, ...args], { env: home.env, timeout: 120_000 })
			const ok = async (...args: string[]): Promise<string> => {
				const ran = await tryHelm(...args)
				assert.equal(ran.code, 0, ran.text)
				return ran.stdout
			}
			const ask = (...args: string[]) => home.ask('-n', namespace, ...args)
			const wait = ['--wait', '--timeout', '60s']
			const history = async () =>
				(JSON.parse(await ok('history', 'a', '-o', 'json')) as { status: string }[]).map((r) => r.status)

			test('install: hooks, the definitions first, and all of it ready', async () => {
				const out = await ok('install', 'a', chart, '--create-namespace', ...wait)
				assert.match(out, /STATUS: deployed/)
				assert.match(out, /a-echo says hello\./)
				assert.equal(await ask('get', 'deploy', 'a-echo', '-o', 'jsonpath={.status.availableReplicas}'), '2')
				assert.equal(await ask('get', 'greeting', 'a-echo', '-o', 'jsonpath={.spec.text}'), 'hello')
				assert.match(await ask('logs', 'job/a-echo-pre-install'), /pre-install hello/)
				const list = JSON.parse(await ok('list', '-o', 'json')) as { name: string; status: string; chart: string }[]
				assert.deepEqual(
					list.map((r) => [r.name, r.status, r.chart]),
					[['a', 'deployed', 'echo-0.1.0']],
				)
				assert.match((await tryHelm('install', 'a', chart)).stderr, /cannot re-?use a name that is still in use/)
			})

			test('helm test: a pod that reaches the Service, let in by the policy', async () => {
				assert.match(await ok('test', 'a', '--timeout', '60s'), /Phase: +Succeeded/)
			})

			test('upgrade: new values, new pods, and what others changed stays or is said', async () => {
				await ok('upgrade', 'a', chart, '--set', 'greeting=good day,replicas=3', ...wait)
				assert.equal(await ask('get', 'cm', 'a-echo', '-o', 'jsonpath={.data.GREETING}'), 'good day')
				const available = '{.status.availableReplicas} {.status.updatedReplicas}'
				assert.equal(await ask('get', 'deploy', 'a-echo', '-o', `jsonpath=${available}`), '3 3')
				assert.match(await ask('logs', 'job/a-echo-post-upgrade'), /post-upgrade good day/)
				assert.deepEqual(await history(), ['superseded', 'deployed'])
			})

			test('an upgrade that the server refuses fails and leaves the release', async () => {
				const ran = await tryHelm('upgrade', 'a', chart, '--set', `greeting=${'x'.repeat(41)}`)
				assert.notEqual(ran.code, 0)
				assert.match(ran.stderr, /spec\.text: Too long: may not be (?:longer|more) than 40/)
				assert.equal((await history()).at(-1), 'failed')
			})

			test('rollback', async () => {
				await ok('rollback', 'a', '1', ...wait)
				assert.equal(await ask('get', 'cm', 'a-echo', '-o', 'jsonpath={.data.GREETING}'), 'hello')
				assert.equal(await ask('get', 'deploy', 'a-echo', '-o', 'jsonpath={.spec.replicas}'), '2')
				assert.deepEqual((await history()).slice(-2), ['failed', 'deployed'])
			})

			test('upgrade --install, get, status, dry run on the server', async () => {
				await ok('upgrade', '--install', 'b', chart, '--set', 'replicas=1', ...wait)
				assert.match(await ok('get', 'values', 'b'), /replicas: 1/)
				assert.match(await ok('get', 'manifest', 'b'), /kind: NetworkPolicy/)
				assert.match(await ok('status', 'b'), /STATUS: deployed/)
				assert.match(await ok('install', 'c', chart, '--dry-run=server'), /kind: Greeting/)
				assert.equal((await home.kubectl(['-n', namespace, 'get', 'deploy', 'c-echo'])).code, 1)
			})

			test('helm template, and kubectl apply of what it prints', async () => {
				const text = await ok('template', 'd', chart, '--no-hooks')
				const applied = await home.kubectl(['-n', namespace, 'apply', '-f', '-'], { input: text })
				assert.equal(applied.code, 0, applied.text)
				assert.match(applied.stdout, /deployment\.apps\/d-echo created/)
				await ask('rollout', 'status', 'deploy/d-echo', '--timeout=60s')
				const again = await home.kubectl(['-n', namespace, 'apply', '-f', '-'], { input: text })
				assert.doesNotMatch(again.stdout, /created|configured/, again.text)
			})

			test('uninstall: nothing of the release is left, the definitions stay', async () => {
				await ok('uninstall', 'a', '--wait')
				await ok('uninstall', 'b', '--wait')
				assert.deepEqual(JSON.parse(await ok('list', '-o', 'json')), [])
				const left = await ask(
					'get',
					'deploy,svc,cm,netpol,greetings',
					'-l',
					'app.kubernetes.io/instance=a',
					'-o',
					'name',
				)
				assert.equal(left, '')
				assert.match(await ask('get', 'crd', 'greetings.chart.example.com', '-o', 'name'), /greetings/)
			})
		})
	}
})
