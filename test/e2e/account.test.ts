// A pod and its ServiceAccount: the token it finds in its files, over the lab's own network, to kubernetes.default.

import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { type Home, makeHome, reasonToSkip } from './support/home.ts'
import { until } from './support/run.ts'

const skip = reasonToSkip('kubectl', 'curl', 'nft', 'nsenter', 'ip')
const folder = '/var/run/secrets/kubernetes.io/serviceaccount'

suite('a pod asks the API', { skip }, () => {
	let home: Home
	const pod = 'shop/asker'
	const curl = (path: string, token = `$(cat ${folder}/token)`) =>
		home.exec(
			pod,
			'sh',
			'-c',
			`curl -sS -m 5 --cacert ${folder}/ca.crt -H "Authorization: Bearer ${token}" https://kubernetes.default.svc${path}`,
		)
	before(async () => {
		home = makeHome()
		await home.up()
		await home.ask('create', 'namespace', 'shop')
		await home.ask('create', 'serviceaccount', 'asker', '-n', 'shop')
		await home.ask('create', 'role', 'reader', '-n', 'shop', '--verb=get,list', '--resource=pods')
		await home.ask('create', 'rolebinding', 'reader', '-n', 'shop', '--role=reader', '--serviceaccount=shop:asker')
		const overrides = JSON.stringify({ spec: { serviceAccountName: 'asker' } })
		await home.ask('run', 'asker', '-n', 'shop', '--image=example.com/asker', `--overrides=${overrides}`)
		await home.ask('wait', '-n', 'shop', '--for=condition=Ready', 'pod/asker', '--timeout=20s')
	})
	after(() => home.remove())

	test('its files are there', async () => {
		const seen = await home.exec(pod, 'cat', `${folder}/namespace`)
		assert.equal(seen.stdout, 'shop', seen.text)
	})

	test('it may do what its roles say, and is told what they do not', async () => {
		const pods = await curl('/api/v1/namespaces/shop/pods')
		const list = JSON.parse(pods.stdout || '{}')
		assert.equal(list.kind, 'PodList', pods.text)
		assert.deepEqual(
			list.items.map((p: { metadata: { name: string } }) => p.metadata.name),
			['asker'],
		)
		const secrets = JSON.parse((await curl('/api/v1/namespaces/shop/secrets')).stdout)
		assert.equal(
			secrets.message,
			'secrets is forbidden: User "system:serviceaccount:shop:asker" cannot list resource "secrets" in API group "" in the namespace "shop"',
		)
		const broken = JSON.parse((await curl('/api/v1/namespaces/shop/pods', 'abc')).stdout)
		assert.deepEqual([broken.code, broken.message], [401, 'Unauthorized'])
	})

	test('the token knows its pod, and dies with the account', async () => {
		const token = (await home.exec(pod, 'cat', `${folder}/token`)).stdout
		const claims = JSON.parse(Buffer.from(token.split('.')[1] ?? '', 'base64url').toString())
		assert.equal(claims['kubernetes.io'].pod.name, 'asker')
		assert.match(claims['kubernetes.io'].node.name, /^node-\d$/)
		await home.ask('delete', 'serviceaccount', 'asker', '-n', 'shop')
		await until('the token is refused', async () => JSON.parse((await curl('/api')).stdout).code === 401)
	})
})
