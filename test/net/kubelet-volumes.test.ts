// Volumes and own commands with real mount namespaces: what programs and exec see, and that the host sees nothing.

import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { after, before, test } from 'node:test'
import { configMaps, pods, secrets } from '../../src/kube/kinds.ts'
import { createTestLab, podObject, skip, type TestLab } from './lab.ts'

const timeout = 60_000
let lab: TestLab

before(async () => {
	if (!skip) lab = await createTestLab('volumes', { images: [], allowCommands: true })
})
after(async () => {
	if (!skip) await lab.remove()
})

async function logOf(name: string, container: string): Promise<string> {
	const url = `http://lab/api/v1/namespaces/default/pods/${name}/log?container=${container}`
	return (await lab.handle.client.transport(new Request(url))).text()
}

test('volumes of every kind at paths the host has and has not; a changed ConfigMap arrives', {
	skip,
	timeout,
}, async () => {
	await lab.client.create(configMaps, {
		metadata: { name: 'settings', namespace: 'default' },
		data: { color: 'red', 'deep.txt': 'below' },
	})
	await lab.client.create(secrets, {
		metadata: { name: 'keys', namespace: 'default' },
		data: { token: Buffer.from('hidden').toString('base64') },
	})
	const script = `
cat /pw-config/color; echo
cat /etc/pw-settings/a/b; echo
cat /pw-keys/token; echo
cat /pw-info/labels; echo
cat /pw-info/cpu; echo
cat /var/run/secrets/kubernetes.io/serviceaccount/namespace; echo
head -c 2 /var/run/secrets/kubernetes.io/serviceaccount/token; echo
head -1 /var/run/secrets/kubernetes.io/serviceaccount/ca.crt
cat /etc/pw-single; echo
echo shared > /pw-data/file
touch /pw-config/x 2>/dev/null || echo read-only
pwd
while :; do [ "$(cat /pw-config/color)" = blue ] && echo changed && break; sleep 0.2; done
sleep 1000`
	await lab.create(
		podObject('full', {
			containers: [
				{
					name: 'a',
					image: 'busybox',
					command: ['sh', '-c', script],
					workingDir: '/pw-data',
					resources: { limits: { cpu: '500m' } },
					volumeMounts: [
						{ name: 'config', mountPath: '/pw-config' },
						{ name: 'items', mountPath: '/etc/pw-settings' },
						{ name: 'keys', mountPath: '/pw-keys', readOnly: true },
						{ name: 'info', mountPath: '/pw-info' },
						{ name: 'data', mountPath: '/pw-data' },
						{ name: 'config', mountPath: '/etc/pw-single', subPath: 'color' },
					],
				},
				{
					name: 'b',
					image: 'busybox',
					command: ['sh', '-c', 'until cat /pw-data/file 2>/dev/null; do sleep 0.1; done; sleep 1000'],
					volumeMounts: [{ name: 'data', mountPath: '/pw-data' }],
				},
			],
			volumes: [
				{ name: 'config', configMap: { name: 'settings' } },
				{ name: 'items', configMap: { name: 'settings', items: [{ key: 'deep.txt', path: 'a/b' }] } },
				{ name: 'keys', secret: { secretName: 'keys' } },
				{ name: 'data', emptyDir: {} },
				{
					name: 'info',
					downwardAPI: {
						items: [
							{ path: 'labels', fieldRef: { fieldPath: 'metadata.labels' } },
							{ path: 'cpu', resourceFieldRef: { containerName: 'a', resource: 'limits.cpu' } },
						],
					},
				},
			],
		}),
	)
	const lines = await lab.until(async () => {
		const text = await logOf('full', 'a')
		return text.includes('/pw-data\n') ? text.split('\n') : undefined
	})
	assert.deepEqual(lines.slice(0, 11), [
		'red',
		'below',
		'hidden',
		'app="full"',
		'1',
		'default',
		'ey',
		'-----BEGIN CERTIFICATE-----',
		'red',
		'read-only',
		'/pw-data',
	])
	await lab.until(async () => (await logOf('full', 'b')) === 'shared\n' || undefined)
	assert.ok(!existsSync('/pw-config') && !existsSync('/etc/pw-settings'), 'the host has none of it')
	await lab.client.patch(configMaps, 'default/settings', { data: { color: 'blue' } })
	await lab.until(async () => (await logOf('full', 'a')).includes('changed') || undefined, 15)
})

test('a volume whose source is missing keeps the container back, and it starts when the source is there', {
	skip,
	timeout,
}, async () => {
	await lab.create(
		podObject('later', {
			containers: [
				{
					name: 'c',
					image: 'busybox',
					command: ['sleep', '1000'],
					volumeMounts: [{ name: 'v', mountPath: '/pw-later' }],
				},
			],
			volumes: [{ name: 'v', configMap: { name: 'later' } }],
		}),
	)
	await lab.until(async () => {
		const waiting = (await lab.client.get(pods, 'default/later')).status?.containerStatuses?.[0]?.state?.waiting
		return waiting?.message === 'configmap "default/later" not found' || undefined
	})
	await lab.client.create(configMaps, { metadata: { name: 'later', namespace: 'default' }, data: {} })
	await lab.pod('later')
})
