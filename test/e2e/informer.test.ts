// The client that Node programs use, @kubernetes/client-node, against a lab over TLS: its calls, its exec, and its
// informer over a daemon that is killed and started again.

import assert from 'node:assert/strict'
import { PassThrough } from 'node:stream'
import { after, before, suite, test } from 'node:test'
import type * as ClientNode from '@kubernetes/client-node'
import { createStore } from '../../src/apiserver/store.ts'
import { type Home, makeHome, reasonToSkip } from './support/home.ts'
import { until } from './support/run.ts'
import { startServer } from './support/server.ts'

const skip = reasonToSkip('kubectl')

suite('@kubernetes/client-node', { skip }, () => {
	let k8s: typeof ClientNode
	let home: Home
	let config: ClientNode.KubeConfig
	let core: ClientNode.CoreV1Api
	before(async () => {
		k8s = await import('@kubernetes/client-node')
		home = makeHome()
		await home.up('--nodes', '1')
		config = new k8s.KubeConfig()
		config.loadFromFile(home.kubeconfig)
		core = config.makeApiClient(k8s.CoreV1Api)
		await core.createNamespace({ body: { metadata: { name: 'shop' } } })
	})
	after(() => home?.remove())

	const namespace = 'shop'
	const map = (name: string, data: Record<string, string>) => ({ metadata: { name, namespace }, data })
	/** Of a call that must be refused. */
	const refused = async (code: number, call: Promise<unknown>) => {
		const error = await call.then(
			() => assert.fail('it was not refused'),
			(e: ClientNode.ApiException<string>) => e,
		)
		assert.equal(error.code, code, String(error))
		const status = JSON.parse(String(error.body)) as { kind: string; reason: string; code: number }
		assert.deepEqual([status.kind, status.code], ['Status', code])
		return status.reason
	}

	test('create, read, list, replace, delete', async () => {
		const made = await core.createNamespacedConfigMap({ namespace, body: map('a', { x: '1' }) })
		assert.ok(made.metadata?.creationTimestamp instanceof Date)
		assert.equal(await refused(409, core.createNamespacedConfigMap({ namespace, body: map('a', {}) })), 'AlreadyExists')
		assert.equal(await refused(404, core.readNamespacedConfigMap({ namespace, name: 'nothing' })), 'NotFound')
		assert.equal(await refused(422, core.createNamespacedConfigMap({ namespace, body: map('A_', {}) })), 'Invalid')
		const read = await core.readNamespacedConfigMap({ namespace, name: 'a' })
		const replaced = await core.replaceNamespacedConfigMap({
			namespace,
			name: 'a',
			body: { ...read, data: { x: '2' } },
		})
		assert.deepEqual(replaced.data, { x: '2' })
		assert.equal(
			await refused(409, core.replaceNamespacedConfigMap({ namespace, name: 'a', body: { ...read, data: {} } })),
			'Conflict',
		)
		const list = await core.listNamespacedConfigMap({ namespace, fieldSelector: 'metadata.name=a' })
		assert.deepEqual(
			list.items.map((item) => item.data),
			[{ x: '2' }],
		)
		await core.deleteNamespacedConfigMap({ namespace, name: 'a' })
		await refused(404, core.readNamespacedConfigMap({ namespace, name: 'a' }))
	})

	test('every kind of patch', async () => {
		await core.createNamespacedConfigMap({ namespace, body: map('p', { x: '1', y: '1' }) })
		const patch = (type: string, body: unknown) =>
			core.patchNamespacedConfigMap(
				{ namespace, name: 'p', body, fieldManager: 'test', ...(type.includes('apply') ? { force: true } : {}) },
				k8s.setHeaderOptions('Content-Type', type),
			)
		const { JsonPatch, MergePatch, StrategicMergePatch, ServerSideApply } = k8s.PatchStrategy
		assert.deepEqual((await patch(JsonPatch, [{ op: 'replace', path: '/data/x', value: '2' }])).data, {
			x: '2',
			y: '1',
		})
		assert.deepEqual((await patch(MergePatch, { data: { y: null } })).data, { x: '2' })
		assert.deepEqual((await patch(StrategicMergePatch, { data: { z: '3' } })).data, { x: '2', z: '3' })
		const whole = { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'p' }, data: { x: '4' } }
		assert.deepEqual((await patch(ServerSideApply, whole)).data, { x: '4', z: '3' })
	})

	test('typed objects of other groups, and any object by its kind', async () => {
		const apps = config.makeApiClient(k8s.AppsV1Api)
		const labels = { app: 'web' }
		await apps.createNamespacedDeployment({
			namespace,
			body: {
				metadata: { name: 'web' },
				spec: {
					replicas: 2,
					selector: { matchLabels: labels },
					template: {
						metadata: { labels },
						spec: { containers: [{ name: 'c', image: 'example.com/web', ports: [{ containerPort: 80 }] }] },
					},
				},
			},
		})
		await until('the Deployment is available', async () => {
			const { status } = await apps.readNamespacedDeployment({ namespace, name: 'web' })
			return status?.availableReplicas === 2
		})
		const scale = await apps.readNamespacedDeploymentScale({ namespace, name: 'web' })
		assert.equal(scale.status?.selector, 'app=web')
		const objects = k8s.KubernetesObjectApi.makeApiClient(config)
		const service = {
			apiVersion: 'v1',
			kind: 'Service',
			metadata: { name: 'web', namespace },
			spec: { selector: labels, ports: [{ port: 80, targetPort: 80 }] },
		}
		const made = (await objects.create(service)) as ClientNode.V1Service
		assert.match(made.spec?.clusterIP ?? '', /^10\.96\./)
		const policies = await objects.list('networking.k8s.io/v1', 'NetworkPolicy', namespace)
		assert.deepEqual(policies.items, [])
		const discovery = config.makeApiClient(k8s.DiscoveryV1Api)
		await until('its EndpointSlice is there', async () => {
			const { items } = await discovery.listNamespacedEndpointSlice({
				namespace,
				labelSelector: 'kubernetes.io/service-name=web',
			})
			return items[0]?.endpoints?.length === 2
		})
	})

	test('exec: what goes in comes out, and the exit code', async () => {
		const { items } = await core.listNamespacedPod({ namespace, labelSelector: 'app=web' })
		const pod = items[0]?.metadata?.name ?? ''
		const exec = new k8s.Exec(config)
		const run = async (command: string[], input = ''): Promise<[string, string, ClientNode.V1Status]> => {
			const [stdin, stdout, stderr] = [new PassThrough(), new PassThrough(), new PassThrough()]
			const [out, err]: [string[], string[]] = [[], []]
			stdout.on('data', (chunk: Buffer) => out.push(chunk.toString()))
			stderr.on('data', (chunk: Buffer) => err.push(chunk.toString()))
			const status = new Promise<ClientNode.V1Status>((resolve, reject) => {
				exec.exec(namespace, pod, 'c', command, stdout, stderr, stdin, false, resolve).catch(reject)
			})
			stdin.end(input)
			return [await status.then(() => out.join('')), err.join(''), await status]
		}
		const [out, , status] = await run(['cat'], 'over and back\n')
		assert.deepEqual([out, status.status], ['over and back\n', 'Success'])
		const [, err, failed] = await run(['sh', '-c', 'echo no >&2; exit 7'])
		assert.deepEqual([err, failed.status, failed.reason], ['no\n', 'Failure', 'NonZeroExitCode'])
		assert.deepEqual(failed.details?.causes, [{ reason: 'ExitCode', message: '7' }])
	})

	test('an informer over a daemon that is killed twice ends with every object as it is', {
		timeout: 90_000,
	}, async () => {
		const seen = new Map<string, string>()
		const wrong: string[] = []
		let [connects, errors] = [0, 0]
		const informer = k8s.makeInformer(config, `/api/v1/namespaces/${namespace}/configmaps`, () =>
			core.listNamespacedConfigMap({ namespace }),
		)
		const nameOf = (o: ClientNode.V1ConfigMap) => o.metadata?.name ?? ''
		informer.on('add', (o) => {
			if (seen.has(nameOf(o))) wrong.push(`${nameOf(o)} added twice`)
			seen.set(nameOf(o), o.data?.n ?? '')
		})
		informer.on('update', (o) => {
			if (!seen.has(nameOf(o))) wrong.push(`${nameOf(o)} updated before it was added`)
			seen.set(nameOf(o), o.data?.n ?? '')
		})
		informer.on('delete', (o) => {
			if (!seen.delete(nameOf(o))) wrong.push(`${nameOf(o)} deleted twice`)
		})
		informer.on('connect', () => connects++)
		let stopped = false
		let timer: NodeJS.Timeout | undefined
		informer.on('error', () => {
			errors++
			// As the client's own documentation has it: begin again after a while.
			timer = setTimeout(() => void (stopped || informer.start()), 200)
		})
		await informer.start()
		const numbers = Array.from({ length: 30 }, (_, i) => i)
		const data = (n: string) => ({ data: { n } })
		const patchOptions = k8s.setHeaderOptions('Content-Type', k8s.PatchStrategy.MergePatch)
		await Promise.all(
			numbers.map((i) => core.createNamespacedConfigMap({ namespace, body: map(`i${i}`, { n: 'first' }) })),
		)
		await until('it has seen all', () => numbers.every((i) => seen.get(`i${i}`) === 'first'))
		for (const round of ['second', 'third']) {
			// Changes that it may hear of, changes that it may miss, and the end of it all in the middle of them.
			const change = (i: number) =>
				core.patchNamespacedConfigMap({ namespace, name: `i${i}`, body: data(round) }, patchOptions)
			await Promise.all(numbers.slice(0, 10).map(change))
			const late = Promise.allSettled(numbers.slice(10, 20).map(change))
			process.kill(home.record().daemon.pid, 'SIGKILL')
			await late
			await home.up('--no-wait')
			await core.deleteNamespacedConfigMap({ namespace, name: round === 'second' ? 'i28' : 'i29' })
			for (const i of numbers.slice(10, 25)) await change(i)
			await core.createNamespacedConfigMap({ namespace, body: map(`new-${round}`, { n: round }) })
			const { items } = await core.listNamespacedConfigMap({ namespace })
			const want = items.map((o) => `${nameOf(o)} ${o.data?.n ?? ''}`).sort()
			const have = () => [...seen].map(([name, n]) => `${name} ${n}`).sort()
			try {
				await until('it has the last state of all', () => have().join() === want.join(), 20_000)
			} catch {
				assert.deepEqual(have(), want)
			}
			const cached = informer.list().map((o) => `${nameOf(o)} ${o.data?.n ?? ''}`)
			assert.deepEqual(cached.sort(), want)
		}
		assert.ok(errors >= 2 && connects >= 3, `${errors} errors, ${connects} connects`)
		assert.deepEqual(wrong, [])
		stopped = true
		clearTimeout(timer)
		await informer.stop()
	})
})

suite('@kubernetes/client-node and history that is gone', () => {
	test('an informer that comes back too late lists anew', async () => {
		const k8s = await import('@kubernetes/client-node')
		const own = await startServer({ store: createStore({ historyLength: 40 }) })
		try {
			const config = new k8s.KubeConfig()
			config.loadFromFile(own.kubeconfig)
			const core = config.makeApiClient(k8s.CoreV1Api)
			const namespace = 'default'
			const make = (name: string) => core.createNamespacedConfigMap({ namespace, body: { metadata: { name } } })
			let lists = 0
			const informer = k8s.makeInformer(config, '/api/v1/namespaces/default/configmaps', () => {
				lists++
				return core.listNamespacedConfigMap({ namespace })
			})
			const errors: unknown[] = []
			// It calls its own end an error.
			informer.on('error', (e) => (e?.name === 'AbortError' ? 0 : errors.push(e)))
			const names = () => informer.list(namespace).map((o) => o.metadata?.name)
			await make('first')
			await informer.start()
			await until('it has the first', () => names().includes('first'))
			await informer.stop()
			for (let i = 0; i < 60; i++) await make(`more-${i}`)
			await core.deleteNamespacedConfigMap({ namespace, name: 'first' })
			// It goes on from where it was, which the server has forgotten: 410 Gone.
			informer.start().catch((e: unknown) => errors.push(e))
			await until('it has them all', () => names().length === 60 && !names().includes('first'))
			assert.deepEqual(errors, [])
			assert.equal(lists, 2)
			await informer.stop()
			assert.deepEqual(own.faults, [])
		} finally {
			await own.close()
		}
	})
})
