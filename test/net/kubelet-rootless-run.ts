// What kubelet-rootless.test.ts runs as an ordinary user; prints what it found as JSON.

import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { configMaps, persistentVolumeClaims, pods } from '../../src/kube/kinds.ts'
import { emptyConfig } from '../../src/lab/config.ts'
import { createTestLab, podObject } from './lab.ts'

const lab = await createTestLab('rootless-kubelet', { ...emptyConfig, allowCommands: true })
try {
	await lab.client.create(configMaps, { metadata: { name: 'settings', namespace: 'default' }, data: { color: 'red' } })
	await lab.create({
		apiVersion: 'v1',
		kind: 'PersistentVolumeClaim',
		metadata: { name: 'data', namespace: 'default' },
		spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '1Mi' } } },
	} as never)
	const script = `
cat /pw-config/color; echo
cat /etc/pw-info/name; echo
echo scratch >/pw-scratch/x && cat /pw-scratch/x
touch /pw-config/no 2>/dev/null || echo read-only
echo "$HOSTNAME" >>/pw-data/log
cat /pw-data/log
trap 'exit 0' TERM
while :; do sleep 0.1; done`
	const user = (name: string) =>
		podObject(name, {
			containers: [
				{
					name: 'c',
					image: 'x',
					command: ['sh', '-c', script],
					ports: [{ containerPort: 80, hostPort: 8080 }],
					volumeMounts: [
						{ name: 'config', mountPath: '/pw-config' },
						{ name: 'info', mountPath: '/etc/pw-info' },
						{ name: 'scratch', mountPath: '/pw-scratch' },
						{ name: 'data', mountPath: '/pw-data' },
					],
				},
			],
			volumes: [
				{ name: 'config', configMap: { name: 'settings' } },
				{ name: 'info', downwardAPI: { items: [{ path: 'name', fieldRef: { fieldPath: 'metadata.name' } }] } },
				{ name: 'scratch', emptyDir: {} },
				{ name: 'data', persistentVolumeClaim: { claimName: 'data' } },
			],
		})
	const logOf = (name: string) =>
		lab.until(async () => {
			const url = `http://lab/api/v1/namespaces/default/pods/${name}/log`
			const text = await (await lab.handle.client.transport(new Request(url))).text()
			return text.includes(`${name}\n`) && text.trim().split('\n').length >= 5 ? text.trim().split('\n') : undefined
		})
	const logs: string[][] = []
	for (const name of ['one', 'two']) {
		await lab.create(user(name))
		const pod = await lab.pod(name)
		const { nftables } = await lab.handle.client.agent.read(pod.spec?.nodeName as string)
		const element = nftables.tables.get('ip podwire-hostports')?.sets.get('host-ports')?.elements.get('tcp . 8080')
		logs.push([...(await logOf(name)), element?.data === `${pod.status?.podIP} . 80` ? 'host port' : 'no host port'])
		await lab.client.delete(pods, `default/${name}`)
		await lab.until(async () => ((await lab.client.find(pods, `default/${name}`)) === undefined ? true : undefined))
	}
	const claim = await lab.client.get(persistentVolumeClaims, 'default/data')
	const log = join(lab.paths.volumes, claim.spec?.volumeName ?? '', 'log')
	const kept = existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n') : []
	process.stdout.write(JSON.stringify({ rights: lab.handle.status.rights, logs, kept }))
} finally {
	await lab.remove()
}
