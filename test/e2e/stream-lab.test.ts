// Streams into a lab's pods with real kubectl, new and old: port-forward, cp, attach, and HTTP through the API server.

import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { carriedTool } from '../tools.ts'
import { type Home, makeHome, reasonToSkip } from './support/home.ts'
import { root, start, until } from './support/run.ts'

const shop = join(root, 'examples/shop/shop.yaml')
const skip = reasonToSkip('nsenter', 'ip', 'tar', 'curl')

suite('streams of a lab', { skip, timeout: 180_000 }, () => {
	let home: Home
	before(async () => {
		home = makeHome()
		const config = 'apiVersion: podwire.dev/v1alpha1\nkind: Config\nallowCommands: true\n'
		await home.up('-f', shop, '--config', home.write('podwire.yaml', config))
		await home.ask('run', 'web', '--image=example.com/web', '--port=8080', '--expose')
		await home.ask('wait', '--for=condition=Ready', 'pod/web', '--timeout=20s')
	})
	after(() => home.remove())

	for (const minor of [35, 29]) {
		const kubectl = async (...args: string[]) => {
			const tool = await carriedTool('kubectl', minor)
			return start(tool, args, { env: home.env, cwd: home.folder })
		}

		test(`port-forward to a pod and to a Service, kubectl 1.${minor}`, async () => {
			for (const target of ['pod/web', 'service/web']) {
				const running = await kubectl('port-forward', target, ':8080')
				await until('port-forward listens', () => /127\.0\.0\.1:(\d+) ->/.test(running.stdout()))
				const port = /127\.0\.0\.1:(\d+) ->/.exec(running.stdout())![1]
				for (let i = 0; i < 3; i++) {
					const answer = (await (await fetch(`http://127.0.0.1:${port}/x`)).json()) as { pod: string; path: string }
					assert.deepEqual([answer.pod, answer.path], ['web', '/x'])
				}
				running.kill('SIGTERM')
				await running.done
			}
		})

		test(`exec's exit code and cp both ways, kubectl 1.${minor}`, async () => {
			assert.equal((await (await kubectl('exec', 'web', '--', 'sh', '-c', 'exit 7')).done).code, 7)
			const bytes = randomBytes(1024 * 1024)
			const inside = join(home.folder, `inside-${minor}`)
			mkdirSync(inside)
			home.write('sent', bytes)
			const into = await (await kubectl('cp', 'sent', `web:${inside}/sent`)).done
			assert.equal(into.code, 0, into.text)
			const back = await (await kubectl('cp', `web:${inside}/sent`, `back-${minor}`)).done
			assert.equal(back.code, 0, back.text)
			const hash = (data: Buffer) => createHash('sha256').update(data).digest('hex')
			assert.equal(hash(readFileSync(join(home.folder, `back-${minor}`))), hash(bytes))
		})

		test(`attach shows what a container writes from now on, kubectl 1.${minor}`, async () => {
			const running = await kubectl('attach', 'web')
			await until('the log line is seen', async () => {
				await home.curl('default/web', 'http://127.0.0.1:8080/seen')
				return /\/seen/.test(running.stdout())
			})
			running.kill('SIGTERM')
			await running.done
		})
	}

	test('pods/proxy and services/proxy: names of ports, methods, bodies, queries', async () => {
		const api = '/api/v1/namespaces/default'
		for (const path of ['pods/web', 'pods/web:8080', 'pods/http:web:8080', 'services/web:8080', 'services/web']) {
			const answer = JSON.parse(await home.ask('get', '--raw', `${api}/${path}/proxy/a/b?c=d`))
			assert.deepEqual([answer.pod, answer.path], ['web', '/a/b?c=d'], path)
		}
		const wrong: [string, RegExp][] = [
			['services/web:1', /no service port "1" found/],
			['services/nobody', /"nobody" not found/],
			['pods/web:9', /error trying to reach service/],
		]
		for (const [path, text] of wrong) {
			const ran = await home.kubectl(['get', '--raw', `${api}/${path}/proxy/`])
			assert.notEqual(ran.code, 0)
			assert.match(ran.stderr, text)
		}
	})

	test('kubectl run -i --rm: the output of a command, its exit code, and the pod gone', async () => {
		const args = ['run', 'once', '-i', '--rm', '--restart=Never', '--image=x', '--command', '--']
		const ran = await start('kubectl', [...args, 'sh', '-c', 'sleep 1; echo said; exit 3'], {
			env: home.env,
			input: '',
			timeout: 30_000,
		}).done
		assert.match(ran.stdout, /^said$/m, ran.text)
		assert.match(ran.stdout, /pod "once" deleted/, ran.text)
		assert.equal(ran.code, 3, ran.text)
	})
})
