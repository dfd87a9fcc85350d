// Real kubectl and CustomResourceDefinitions: the CRD sets over TLS, and what is kept of them over a restart.

import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { ensureCertificates } from '../../src/apiserver/certificates.ts'
import { openJournal } from '../../src/apiserver/journal.ts'
import { type Listener, listen } from '../../src/apiserver/listen.ts'
import { type ApiServer, createApiServer } from '../../src/apiserver/server.ts'
import { createStore, type Store } from '../../src/apiserver/store.ts'
import { systemClock } from '../../src/base/clock.ts'
import { findTool } from '../tools.ts'

const sets = new URL('../../../shared/data/crds/', import.meta.url).pathname

describe('kubectl and custom resources', { skip: existsSync(sets) ? false : 'the data folder is not here' }, () => {
	const home = mkdtempSync(join(tmpdir(), 'podwire-crds-'))
	const faults: unknown[] = []
	let kubectl = ''
	let store: Store
	let server: ApiServer
	let listener: Listener

	async function start(): Promise<void> {
		store = createStore({ journal: await openJournal(join(home, 'store.db')) })
		server = await createApiServer({ store, clock: systemClock, onFault: (e) => faults.push(e) })
		const { authority, admin, server: own } = await ensureCertificates(join(home, 'pki'), { now: Date.now() })
		listener = await listen(server, { certificates: { authority, admin, server: own } })
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
	}
	async function stop(): Promise<void> {
		server?.close()
		await listener?.close()
		store?.close()
	}
	function run(...args: readonly string[]): Promise<{ readonly code: number; readonly text: string }> {
		return new Promise((resolve) => {
			const env = { PATH: process.env.PATH ?? '', HOME: home, KUBECONFIG: join(home, 'config') }
			execFile(kubectl, args, { env, maxBuffer: 1 << 26 }, (e, out, err) =>
				resolve({ code: e === null ? 0 : Number(e.code), text: out + err }),
			)
		})
	}
	async function ok(...args: readonly string[]): Promise<string> {
		const { code, text } = await run(...args)
		assert.equal(code, 0, `kubectl ${args.join(' ')}: ${text}`)
		return text
	}

	before(async () => {
		kubectl = process.env.PODWIRE_KUBECTL ?? (await findTool('kubectl'))
		await start()
	})
	after(async () => {
		await stop()
		rmSync(home, { recursive: true, force: true })
		assert.deepEqual(faults, [])
	})

	test('apply, client-side: Gateway API standard, MCS, ClusterNetworkPolicy, Istio', async () => {
		const files = ['gateway-api-v1.6.1-standard', 'mcs-api-v1beta1', 'cluster-network-policy-v1alpha2', 'istio']
		await ok('apply', ...files.flatMap((file) => ['-f', `${sets}${file}.yaml`]))
		const again = await ok('apply', '-f', `${sets}mcs-api-v1beta1.yaml`)
		assert.match(again, /serviceexports\.multicluster\.x-k8s\.io unchanged/)
	})

	test('apply, server-side: Gateway API experimental in place of the standard one', async () => {
		const { code, text } = await run('apply', '-f', `${sets}gateway-api-v1.6.1-experimental.yaml`)
		assert.notEqual(code, 0, 'its HTTPRoute is too large for the annotation of client-side apply')
		assert.match(text, /httproutes\.gateway\.networking\.k8s\.io" is invalid: metadata\.annotations: Too long/)
		await ok('apply', '--server-side', '--force-conflicts', '-f', `${sets}gateway-api-v1.6.1-experimental.yaml`)
		await ok('wait', '--for=condition=Established', '--timeout=10s', 'crd', '--all')
	})

	test('api-resources and explain know the kinds', async () => {
		assert.match(await ok('api-resources'), /^gateways +gtw +gateway\.networking\.k8s\.io\/v1 +true +Gateway$/m)
		assert.match(await ok('api-resources', '--categories=gateway-api', '-o', 'name'), /^httproutes\.gateway/m)
		const explained = await ok('explain', 'httproute.spec.rules')
		assert.match(explained, /FIELD: rules <\[\]Object>/)
		assert.match(explained, /^ {2}backendRefs\t<\[\]Object>$/m)
		assert.match(await ok('explain', 'httproute.spec.rules.matches.path.type'), /ENUM:\s+Exact\s+PathPrefix/)
	})

	test('objects: apply, get, diff, patch, status, wait, refusals', async () => {
		const file = join(home, 'objects.yaml')
		const gateway =
			'apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: gw}\nspec: {gatewayClassName: podwire, listeners: [{name: http, port: 80, protocol: HTTP}]}\n'
		writeFileSync(
			file,
			`${gateway}---\napiVersion: gateway.networking.k8s.io/v1\nkind: HTTPRoute\nmetadata: {name: shop}\nspec: {parentRefs: [{name: gw}], hostnames: [shop.example], rules: [{backendRefs: [{name: shop, port: 80}]}]}\n`,
		)
		await ok('apply', '-f', file)
		assert.match(
			await ok('get', 'gateways.gateway.networking.k8s.io'),
			/^NAME +CLASS +ADDRESS +PROGRAMMED +AGE\ngw +podwire +Unknown/,
		)
		assert.match(await ok('get', 'httproutes'), /^NAME +HOSTNAMES +AGE\nshop +\["shop\.example"\]/)
		assert.equal((await run('diff', '-f', file)).code, 0)
		await ok('patch', 'httproute', 'shop', '--type=merge', '-p', '{"spec":{"hostnames":["b.example"]}}')
		assert.equal((await run('diff', '-f', file)).code, 1)
		const strategic = await run('patch', 'httproute', 'shop', '--type=strategic', '-p', '{"spec":{}}')
		assert.match(strategic.text, /not supported by gateway\.networking\.k8s\.io\/v1, Kind=HTTPRoute/)
		const status = {
			status: {
				addresses: [{ value: '192.0.2.1' }],
				conditions: [
					{
						type: 'Programmed',
						status: 'True',
						reason: 'Test',
						message: '',
						lastTransitionTime: '2026-01-01T00:00:00Z',
					},
				],
			},
		}
		await ok('patch', 'gtw', 'gw', '--subresource=status', '--type=merge', '-p', JSON.stringify(status))
		await ok('wait', '--for=condition=Programmed', '--timeout=5s', 'gtw/gw')
		assert.match(await ok('get', 'gtw'), /gw +podwire +192\.0\.2\.1 +True/)
		const bad = join(home, 'bad.yaml')
		writeFileSync(bad, gateway.replace('port: 80', 'port: 80, tls: {mode: Terminate, certificateRefs: [{name: c}]}'))
		const refused = await run('apply', '-f', bad)
		assert.match(refused.text, /spec\.listeners: Invalid value: "array": tls must not be specified for protocols/)
		writeFileSync(bad, gateway.replace('gatewayClassName', 'gatewayClas'))
		assert.match((await run('apply', '-f', bad)).text, /unknown field "spec\.gatewayClas"/)
	})

	test('all of it is there after a restart', async () => {
		await stop()
		await start()
		assert.match(await ok('get', 'gtw,httproutes'), /gateway\.gateway\.networking\.k8s\.io\/gw/)
		await ok('apply', '-f', join(home, 'objects.yaml'))
	})

	test('a definition that is deleted takes its objects along', async () => {
		await ok('delete', 'crd', 'httproutes.gateway.networking.k8s.io', '--timeout=10s')
		const { code, text } = await run('get', 'httproutes')
		assert.notEqual(code, 0, text)
		assert.match(await ok('get', 'gtw'), /gw/)
	})
})
