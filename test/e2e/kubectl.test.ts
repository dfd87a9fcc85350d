// Real kubectl against the embedded API server, over TLS, with client certificates.

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { ensureCertificates } from '../../src/apiserver/certificates.ts'
import { type Listener, listen } from '../../src/apiserver/listen.ts'
import { type ApiServer, createApiServer } from '../../src/apiserver/server.ts'
import { createStore } from '../../src/apiserver/store.ts'
import { systemClock } from '../../src/base/clock.ts'
import { createKubeClient, type KubeClient } from '../../src/kube/client.ts'
import { transportOf } from '../../src/kube/https.ts'
import { deployments, pods } from '../../src/kube/kinds.ts'
import type { Pod } from '../../src/kube/objects/pod.ts'
import { application, skip as noBoutique } from '../boutique.ts'
import { createFakeKubelet } from '../fixtures/kubelet.ts'
import { findTool } from '../tools.ts'

describe('kubectl', () => {
	const home = mkdtempSync(join(tmpdir(), 'podwire-kubectl-'))
	const kubelet = createFakeKubelet()
	const faults: unknown[] = []
	let kubectl = ''
	let server: ApiServer
	let listener: Listener
	let client: KubeClient

	before(async () => {
		kubectl = process.env.PODWIRE_KUBECTL ?? (await findTool('kubectl'))
		server = await createApiServer({
			store: createStore(),
			clock: systemClock,
			kubelet,
			advertise: { ip: '172.18.0.1', port: 6443 },
			onFault: (e) => faults.push(e),
		})
		const { authority, admin, server: own } = await ensureCertificates(join(home, 'pki'), { now: Date.now() })
		listener = await listen(server, { certificates: { authority, admin, server: own } })
		client = createKubeClient(server.transport)
		const data = (text: string) => Buffer.from(text).toString('base64')
		const config = {
			apiVersion: 'v1',
			kind: 'Config',
			clusters: [
				{
					name: 'c',
					cluster: {
						server: `https://127.0.0.1:${listener.port}`,
						'certificate-authority-data': data(authority.certificate),
					},
				},
			],
			users: [
				{ name: 'u', user: { 'client-certificate-data': data(admin.certificate), 'client-key-data': data(admin.key) } },
			],
			contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
			'current-context': 'x',
		}
		writeFileSync(join(home, 'config'), JSON.stringify(config), { mode: 0o600 })
	})
	after(async () => {
		server?.close()
		await listener?.close()
		rmSync(home, { recursive: true, force: true })
		assert.deepEqual(faults, [])
	})

	interface Ran {
		readonly code: number | null
		readonly out: string
		readonly err: string
	}
	function start(args: readonly string[], input?: string | Buffer) {
		const child = spawn(kubectl, args, {
			env: { PATH: process.env.PATH ?? '', HOME: home, KUBECONFIG: join(home, 'config') },
		})
		const out: Buffer[] = []
		const err: Buffer[] = []
		child.stdout.on('data', (chunk: Buffer) => out.push(chunk))
		child.stderr.on('data', (chunk: Buffer) => err.push(chunk))
		// A command that does not read its input may end first.
		child.stdin.on('error', () => {})
		child.stdin.end(input)
		const done = new Promise<Ran>((resolve, reject) => {
			child.on('error', reject)
			child.on('close', (code) =>
				resolve({ code, out: Buffer.concat(out).toString(), err: Buffer.concat(err).toString() }),
			)
		})
		return { child, done, seen: () => Buffer.concat(out).toString() }
	}
	const run = (args: string, input?: string | Buffer) => start(args.split(' '), input).done
	async function ok(args: string, input?: string | Buffer): Promise<string> {
		const { code, out, err } = await run(args, input)
		assert.equal(code, 0, `kubectl ${args}: ${err}${out}`)
		return out
	}
	const rows = (out: string) =>
		out
			.trim()
			.split('\n')
			.map((line) => line.trim().split(/\s{2,}/))

	test('version, api-resources, cluster-info', async () => {
		assert.match(await ok('version'), /Server Version: v1\.35\.0\+podwire/)
		const resources = await ok('api-resources')
		assert.match(resources, /^deployments +deploy +apps\/v1 +true +Deployment$/m)
		assert.match(resources, /^endpointslices +discovery\.k8s\.io\/v1 +true +EndpointSlice$/m)
		assert.match(await ok('api-versions'), /^networking\.k8s\.io\/v1$/m)
		assert.match(await ok('get --raw /readyz'), /^ok/)
	})

	test('apply, get in every form, diff, delete: an application of eleven Services', async (t) => {
		if (noBoutique !== false) return t.skip(noBoutique)
		const applied = await ok(`apply -f ${application}`)
		assert.match(applied, /^deployment\.apps\/frontend created$/m)
		assert.doesNotMatch(await ok(`apply -f ${application}`), /configured|created/)
		assert.equal(await ok(`diff -f ${application}`), '')
		const services = rows(await ok('get services'))
		assert.deepEqual(services[0], ['NAME', 'TYPE', 'CLUSTER-IP', 'EXTERNAL-IP', 'PORT(S)', 'AGE'])
		const frontend = services.find((row) => row[0] === 'frontend')
		assert.equal(frontend?.[4], '80/TCP')
		assert.match(frontend?.[2] ?? '', /^10\.96\./)
		assert.match(await ok('get svc frontend-external'), /LoadBalancer .* <pending> +80:3\d{4}\/TCP/)
		assert.deepEqual(rows(await ok('get deploy -o wide'))[0], [
			'NAME',
			'READY',
			'UP-TO-DATE',
			'AVAILABLE',
			'AGE',
			'CONTAINERS',
			'IMAGES',
			'SELECTOR',
		])
		assert.match(await ok('get deploy frontend -o yaml'), /image: .*frontend/)
		assert.equal(JSON.parse(await ok('get deploy frontend -o json')).kind, 'Deployment')
		assert.equal(await ok('get svc frontend -o jsonpath={.spec.ports[0].targetPort}'), '8080')
		assert.match(await ok('get svc -o name'), /^service\/frontend$/m)
		assert.match(await ok('get svc -A'), /^default +frontend /m)
		assert.match(await ok('get deploy -l app=frontend'), /frontend/)
		assert.deepEqual(rows(await ok('get svc --field-selector metadata.name=frontend --no-headers')).length, 1)
		assert.match(await ok('get svc --sort-by=.metadata.name -o custom-columns=N:.metadata.name'), /^N\nadservice\n/)
		assert.match(await ok('describe svc frontend'), /TargetPort: +8080\/TCP/)
		assert.match(await ok('describe deploy frontend'), /PRODUCT_CATALOG_SERVICE_ADDR: +productcatalogservice:3550/)
		assert.match(await ok(`apply --server-side --force-conflicts -f ${application}`), /frontend serverside-applied/)
		assert.match(await ok(`delete -f ${application}`), /service "frontend" deleted/)
		assert.equal((await run('get svc frontend')).code, 1)
	})

	test('create by protobuf bodies', async () => {
		await ok('create namespace made')
		await ok('create configmap settings -n made --from-literal=a=1 --from-literal=b=two')
		await ok('create deployment web -n made --image=nginx:1 --replicas=3 --port=80')
		await ok('create service clusterip web -n made --tcp=80:8080')
		await ok('create secret generic secret -n made --from-literal=key=value')
		await ok('create serviceaccount robot -n made')
		await ok('create ingress way -n made --class=nginx --rule=shop.test/*=web:80')
		await ok('create job once -n made --image=busybox -- true')
		const often = ['create', 'cronjob', 'often', '-n', 'made', '--image=busybox', '--schedule=*/5 * * * *']
		assert.equal((await start(often).done).code, 0)
		assert.match(await ok('get cronjobs -n made'), /^often +\*\/5 \* \* \* \* +<none> +False +0 +<none> /m)
		assert.equal(await ok('get cm settings -n made -o jsonpath={.data.b}'), 'two')
		assert.equal(
			await ok(
				'get deploy web -n made -o jsonpath={.spec.replicas}/{.spec.template.spec.containers[0].ports[0].containerPort}',
			),
			'3/80',
		)
		assert.match(await ok('get ingress -n made'), /^way +nginx +shop\.test +80 /m)
		assert.match(await ok('get jobs -n made'), /^once +Running +0\/1 /m)
		assert.equal(await ok('get secret secret -n made -o jsonpath={.data.key}'), 'dmFsdWU=')
		assert.match((await ok('create token robot -n made')).trim(), /^[\w-]+\.[\w-]+\.[\w-]+$/)
		assert.equal((await ok('auth can-i create deployments -n made')).trim(), 'yes')
		assert.match(await ok('auth whoami'), /kubernetes-admin/)
	})

	test('label, annotate, scale, set, patch, replace, edit by apply', async () => {
		await ok('create deployment tuned --image=nginx:1')
		await ok('label deploy tuned tier=web')
		await ok('annotate deploy tuned note=yes')
		assert.match(await ok('get deploy -L tier'), /^tuned .* web$/m)
		await ok('scale deploy tuned --replicas=4')
		assert.equal(await ok('get deploy tuned -o jsonpath={.spec.replicas}'), '4')
		assert.equal((await run('scale deploy tuned --current-replicas=1 --replicas=2')).code, 1)
		await ok('set image deploy/tuned nginx=nginx:2')
		await start(['patch', 'deploy', 'tuned', '-p', '{"spec":{"replicas":5}}']).done
		await start(['patch', 'deploy', 'tuned', '--type=merge', '-p', '{"metadata":{"labels":{"tier":null}}}']).done
		await start([
			'patch',
			'deploy',
			'tuned',
			'--type=json',
			'-p',
			'[{"op":"add","path":"/metadata/labels/added","value":"1"}]',
		]).done
		await start(['patch', 'deploy', 'tuned', '--subresource=status', '--type=merge', '-p', '{"status":{"replicas":5}}'])
			.done
		const now = JSON.parse(await ok('get deploy tuned -o json'))
		assert.deepEqual(
			[now.spec.replicas, now.metadata.labels, now.status.replicas],
			[5, { app: 'tuned', added: '1' }, 5],
		)
		assert.equal(now.spec.template.spec.containers[0].image, 'nginx:2')
		now.spec.replicas = 6
		await ok('replace -f -', JSON.stringify(now))
		const stale = await run('replace -f -', JSON.stringify(now))
		assert.match(stale.err, /Conflict|the object has been modified/)
	})

	test('explain and refusals a person can read', async () => {
		assert.match(await ok('explain deployment.spec.template.spec.containers'), /FIELDS:[\s\S]*image\b/)
		assert.match((await run('get pod nothing')).err, /Error from server \(NotFound\): pods "nothing" not found/)
		assert.match((await run('get nothings')).err, /the server doesn't have a resource type "nothings"/)
		const unknown = JSON.stringify({
			apiVersion: 'v1',
			kind: 'Service',
			metadata: { name: 'x' },
			spec: { ports: [{ port: 80, prot: 'TCP' }] },
		})
		assert.match((await run('apply -f -', unknown)).err, /unknown field "spec\.ports\[0\]\.prot"/)
		const range = JSON.stringify({
			apiVersion: 'v1',
			kind: 'Service',
			metadata: { name: 'x' },
			spec: { ports: [{ port: 70000 }] },
		})
		assert.match(
			(await run('apply -f -', range)).err,
			/spec\.ports\[0\]\.port: Invalid value: 70000: must be between 1 and 65535/,
		)
		const taken = JSON.stringify({
			apiVersion: 'v1',
			kind: 'Service',
			metadata: { name: 'x' },
			spec: { clusterIP: '10.96.0.1', ports: [{ port: 80 }] },
		})
		assert.match(
			(await run('apply -f -', taken)).err,
			/failed to allocate IP 10\.96\.0\.1: provided IP is already allocated/,
		)
	})

	test('wait and rollout status see what happens', async () => {
		await ok('create deployment rolling --image=nginx --replicas=2')
		const rollout = start(['rollout', 'status', 'deploy/rolling', '--timeout=20s'])
		const wait = start(['wait', '--for=condition=Available', 'deploy/rolling', '--timeout=20s'])
		const watch = start(['get', 'deploy', 'rolling', '-w'])
		while (!/0\/2/.test(watch.seen())) await new Promise((resolve) => setTimeout(resolve, 20))
		const status = {
			observedGeneration: 1,
			replicas: 2,
			updatedReplicas: 2,
			readyReplicas: 2,
			availableReplicas: 2,
			conditions: [
				{ type: 'Available', status: 'True' },
				{ type: 'Progressing', status: 'True', reason: 'NewReplicaSetAvailable' },
			],
		}
		await client.patch(deployments, 'default/rolling', { status }, { subresource: 'status' })
		assert.match((await rollout.done).out, /deployment "rolling" successfully rolled out/)
		assert.match((await wait.done).out, /deployment.apps\/rolling condition met/)
		while (!/2\/2/.test(watch.seen())) await new Promise((resolve) => setTimeout(resolve, 20))
		watch.child.kill()
		await watch.done
	})

	async function runningPod(name: string): Promise<void> {
		await client.create(pods, {
			metadata: { name, namespace: 'default' },
			spec: {
				nodeName: 'node-1',
				containers: [
					{ name: 'main', image: 'x' },
					{ name: 'side', image: 'x' },
				],
			},
		} as unknown as Pod)
		await client.patch(
			pods,
			`default/${name}`,
			{
				status: {
					phase: 'Running',
					podIP: '10.244.0.9',
					podIPs: [{ ip: '10.244.0.9' }],
					conditions: [{ type: 'Ready', status: 'True' }],
					containerStatuses: [
						{ name: 'main', ready: true, restartCount: 0, image: 'x', imageID: '', state: { running: {} } },
					],
				},
			},
			{ subresource: 'status' },
		)
	}

	test('exec: output, input, exit codes, large streams, an end by the client', async () => {
		await runningPod('shell')
		assert.equal(await ok('exec shell -c main -- echo hello there'), 'hello there\n')
		const failed = await run('exec shell -c main -- exit 3')
		assert.equal(failed.code, 3)
		assert.match(failed.err, /leaving with 3/)
		assert.equal(await ok('exec -i shell -c main -- cat', 'over and back'), 'over and back')
		const large = Buffer.alloc(20 * 1024 * 1024, 'y')
		assert.equal((await ok('exec -i shell -c main -- count', large)).trim(), String(large.length))
		assert.equal((await ok('exec shell -c main -- flood 20')).length, 20 * 1024 * 1024)
		assert.match((await run('exec shell -c main -- nonsense')).err, /executable file not found/)
		assert.match((await run('exec shell -c nobody -- echo')).err, /container nobody (is )?not (valid|found)/)
		assert.match((await run('exec nowhere -- echo')).err, /pods "nowhere" not found/)
		const waiting = start(['exec', 'shell', '-c', 'main', '--', 'wait'])
		while (kubelet.running.size === 0) await new Promise((resolve) => setTimeout(resolve, 20))
		waiting.child.kill('SIGKILL')
		await waiting.done
		while (kubelet.running.size > 0) await new Promise((resolve) => setTimeout(resolve, 20))
	})

	test('logs, the last lines, and as they come', async () => {
		await runningPod('talker')
		for (const line of ['one', 'two', 'three']) kubelet.log('talker/main', line)
		assert.equal(await ok('logs talker -c main'), 'one\ntwo\nthree\n')
		assert.equal(await ok('logs talker -c main --tail=1'), 'three\n')
		assert.match((await run('logs talker -c nobody')).err, /container nobody is not valid for pod talker/)
		const follow = start(['logs', '-f', 'talker', '-c', 'main'])
		while (!/three/.test(follow.seen())) await new Promise((resolve) => setTimeout(resolve, 20))
		kubelet.log('talker/main', 'four')
		while (!/four/.test(follow.seen())) await new Promise((resolve) => setTimeout(resolve, 20))
		follow.child.kill()
		await follow.done
	})

	test('pods as people look at them', async () => {
		await runningPod('seen')
		const wide = rows(await ok('get pod seen -o wide'))
		assert.deepEqual(wide[0], [
			'NAME',
			'READY',
			'STATUS',
			'RESTARTS',
			'AGE',
			'IP',
			'NODE',
			'NOMINATED NODE',
			'READINESS GATES',
		])
		assert.deepEqual(
			wide[1]?.filter((_, i) => i !== 4),
			['seen', '1/2', 'Running', '0', '10.244.0.9', 'node-1', '<none>', '<none>'],
		)
		assert.match(await ok('describe pod seen'), /IP: +10\.244\.0\.9/)
		const going = start(['delete', 'pod', 'seen'])
		while ((await client.get(pods, 'default/seen')).metadata.deletionTimestamp === undefined)
			await new Promise((resolve) => setTimeout(resolve, 20))
		assert.match(await ok('get pod seen'), /Terminating/)
		await client.delete(pods, 'default/seen', { gracePeriodSeconds: 0 })
		assert.equal((await going.done).code, 0)
	})

	test('who has no certificate sees health and version, and nothing else', async () => {
		const transport = transportOf({
			context: 'nobody',
			server: `https://127.0.0.1:${listener.port}`,
			namespace: 'default',
			insecure: true,
		})
		const bare = async (path: string) => (await transport(new Request(`http://kubernetes${path}`))).status
		assert.deepEqual(
			await Promise.all(['/healthz', '/version', '/api', '/api/v1/pods', '/openapi/v3'].map(bare)),
			[200, 200, 403, 403, 403],
		)
		transport.close()
	})
})
