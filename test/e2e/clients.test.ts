// Programs of others, unmodified, as Go builds them: a manager on controller-runtime with client-go, and the newest
// kubectl. To compile them takes a minute or more of both processors: only with PODWIRE_GO=1 (CONTRIBUTING.md).

import assert from 'node:assert/strict'
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { type Home, makeHome, reasonToSkip } from './support/home.ts'
import { root, run } from './support/run.ts'

const sources = join(root, 'test/clients/go')
const programs = join(root, '.cache/tools/go')
const asked = process.env.PODWIRE_GO === '1'
const skip = asked ? reasonToSkip('go', 'kubectl') : 'set PODWIRE_GO=1 to run it'

suite('programs built on client-go', { skip, timeout: 900_000 }, () => {
	let home: Home
	before(async () => {
		mkdirSync(programs, { recursive: true })
		// Others need the processors, too.
		const version = /k8s\.io\/kubectl v0(\.\d+\.\d+)/.exec(readFileSync(join(sources, 'go.mod'), 'utf8'))?.[1]
		const stamp = `-ldflags=-X k8s.io/component-base/version.gitVersion=v1${version}`
		const words = ['-n', '19', 'go', 'build', stamp, '-o', `${programs}/`, './...']
		const built = await run('nice', words, { cwd: sources, timeout: 800_000 })
		assert.equal(built.code, 0, built.text)
		home = makeHome()
		await home.up('-f', join(root, 'examples/shop'))
	})
	after(() => home?.remove())

	test('a manager: caches, leader election, webhooks, apply, finalizers, events, exec, port-forward', async () => {
		await home.ask('apply', '-f', join(sources, 'manager/widgets.yaml'))
		await home.ask('wait', '--for=condition=Established', 'crd/widgets.clients.example.com')
		const ran = await run(join(programs, 'manager'), [], { env: home.env, timeout: 150_000 })
		assert.equal(ran.code, 0, ran.text)
		assert.match(ran.stdout, /^ok all$/m)
	})

	test('the newest kubectl', async () => {
		const kubectl = async (...args: string[]) => {
			const ran = await run(join(programs, 'kubectl'), args, { env: home.env })
			assert.equal(ran.code, 0, ran.text)
			return ran.stdout
		}
		assert.match(await kubectl('version'), /Server Version: v1\.\d+/)
		assert.match(
			await kubectl('api-resources'),
			/^networkpolicies +netpol +networking\.k8s\.io\/v1 +true +NetworkPolicy$/m,
		)
		assert.match(await kubectl('explain', 'svc.spec.trafficDistribution'), /FIELD: trafficDistribution <string>/)
		await kubectl('create', 'deployment', 'newest', '--image=example.com/newest:1', '--port=8080')
		await kubectl('expose', 'deployment', 'newest', '--port=80', '--target-port=8080')
		await kubectl('rollout', 'status', 'deployment/newest', '--timeout=60s')
		await kubectl('scale', 'deployment/newest', '--replicas=2')
		await kubectl('wait', '--for=jsonpath={.status.readyReplicas}=2', 'deployment/newest', '--timeout=60s')
		assert.match(await kubectl('exec', 'deploy/newest', '--', 'sh', '-c', 'echo "in $HOSTNAME"'), /^in newest-/)
		assert.match(await kubectl('describe', 'service', 'newest'), /Endpoints: +10\./)
		assert.equal(await kubectl('auth', 'can-i', 'create', 'pods'), 'yes\n')
		await kubectl('delete', 'deployment,service', 'newest')
	})
})
