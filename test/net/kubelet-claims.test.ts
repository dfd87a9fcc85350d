// Storage that outlives pods: a StatefulSet's pod finds its files again, on another node too; claims are kept while in
// use; what was provisioned goes with its claim.

import assert from 'node:assert/strict'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { events, nodes, persistentVolumeClaims, persistentVolumes, pods, statefulSets } from '../../src/kube/kinds.ts'
import { emptyConfig } from '../../src/lab/config.ts'
import { createTestLab, podObject, skip, type TestLab } from './lab.ts'

const timeout = 60_000
let lab: TestLab
const dir = mkdtempSync(join(tmpdir(), 'pw-claims-'))

before(async () => {
	if (!skip) lab = await createTestLab('claims', { ...emptyConfig, allowCommands: true })
})
after(async () => {
	if (!skip) await lab.remove()
	rmSync(dir, { recursive: true, force: true })
})

const claim = (name: string, spec: object = {}) => ({
	apiVersion: 'v1',
	kind: 'PersistentVolumeClaim',
	metadata: { name, namespace: 'default' },
	spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '1Gi' } }, ...spec },
})
const user = (name: string, claimName: string, script: string, readOnly = false) =>
	podObject(name, {
		terminationGracePeriodSeconds: 0,
		containers: [
			{ name: 'c', image: 'x', command: ['sh', '-c', script], volumeMounts: [{ name: 'v', mountPath: '/pw-data' }] },
		],
		volumes: [{ name: 'v', persistentVolumeClaim: { claimName, readOnly } }],
	})
const gone = (name: string) =>
	lab.until(async () => ((await lab.client.find(pods, `default/${name}`)) === undefined ? true : undefined))
const volumeOf = async (name: string) =>
	lab.until(async () => {
		const found = await lab.client.find(persistentVolumeClaims, `default/${name}`)
		return found?.status?.phase === 'Bound' ? found.spec?.volumeName : undefined
	})
const said = (name: string, file: string) => {
	const path = join(lab.paths.volumes, name, file)
	return existsSync(path) ? readFileSync(path, 'utf8').trim().split('\n') : []
}

test('a StatefulSet’s pods find their own files again, wherever they run', { skip, timeout }, async () => {
	await lab.create({
		apiVersion: 'apps/v1',
		kind: 'StatefulSet',
		metadata: { name: 'db', namespace: 'default' },
		spec: {
			replicas: 2,
			serviceName: 'db',
			selector: { matchLabels: { app: 'db' } },
			template: {
				metadata: { labels: { app: 'db' } },
				spec: {
					terminationGracePeriodSeconds: 0,
					containers: [
						{
							name: 'c',
							image: 'x',
							env: [{ name: 'NODE', valueFrom: { fieldRef: { fieldPath: 'spec.nodeName' } } }],
							command: ['sh', '-c', 'echo "$HOSTNAME on $NODE" >>/pw-data/log; exec sleep 1000'],
							volumeMounts: [{ name: 'data', mountPath: '/pw-data' }],
						},
					],
				},
			},
			volumeClaimTemplates: [
				{
					metadata: { name: 'data' },
					spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '1Gi' } } },
				},
			],
		},
	})
	const first = await lab.pod('db-1')
	const volume = await volumeOf('data-db-1')
	assert.notEqual(volume, await volumeOf('data-db-0'))
	const on = first.spec?.nodeName as string
	await lab.until(async () => (said(volume, 'log').length === 1 ? true : undefined))
	await lab.client.patch(nodes, on, { spec: { unschedulable: true } })
	await lab.client.delete(pods, 'default/db-1')
	await lab.until(async () => (said(volume, 'log').length === 2 ? true : undefined))
	const again = await lab.pod('db-1')
	assert.notEqual(again.spec?.nodeName, on)
	assert.deepEqual(said(volume, 'log'), [`db-1 on ${on}`, `db-1 on ${again.spec?.nodeName}`])
	await lab.client.patch(nodes, on, { spec: { unschedulable: false } })
	await lab.client.delete(statefulSets, 'default/db')
	for (const name of ['db-0', 'db-1']) await gone(name)
	assert.equal(said(volume, 'log').length, 2, 'claims of a StatefulSet stay')
})

test('a claim is kept while a pod uses it; then its volume and folder go', { skip, timeout }, async () => {
	await lab.create(claim('used'))
	const volume = await volumeOf('used')
	await lab.create(user('writer', 'used', 'echo here >/pw-data/file; exec sleep 1000'))
	await lab.pod('writer')
	await lab.until(async () => (said(volume, 'file').length === 1 ? true : undefined))
	await lab.client.delete(persistentVolumeClaims, 'default/used')
	assert.notEqual(
		(await lab.client.get(persistentVolumeClaims, 'default/used')).metadata.deletionTimestamp,
		undefined,
		'it waits for its user',
	)
	await lab.client.delete(pods, 'default/writer')
	await lab.until(async () =>
		(await lab.client.find(persistentVolumeClaims, 'default/used')) === undefined ? true : undefined,
	)
	await lab.until(async () => ((await lab.client.find(persistentVolumes, volume)) === undefined ? true : undefined))
	await lab.until(async () => (existsSync(join(lab.paths.volumes, volume)) ? undefined : true))
})

test('a pod waits for a claim that is not there, and says so', { skip, timeout }, async () => {
	await lab.create(user('early', 'late', 'exec sleep 1000'))
	await lab.until(async () => {
		const all = await lab.client.list(events, { namespace: 'default', fieldSelector: 'involvedObject.name=early' })
		return all.items.find(
			(e) => e.reason === 'FailedMount' && /persistentvolumeclaim "late" not found/.test(e.message ?? ''),
		)
	})
	const waiting = await lab.client.get(pods, 'default/early')
	assert.equal(waiting.status?.containerStatuses?.[0]?.state?.waiting?.reason, 'ContainerCreating')
	await lab.create(claim('late'))
	await lab.pod('early')
	await lab.client.delete(pods, 'default/early')
})

test('a volume of the user’s own: a folder of this machine, kept, read-only where the claim is', {
	skip,
	timeout,
}, async () => {
	writeFileSync(join(dir, 'given'), 'by the host')
	await lab.create({
		apiVersion: 'v1',
		kind: 'PersistentVolume',
		metadata: { name: 'own', namespace: '' },
		spec: {
			accessModes: ['ReadWriteMany'],
			capacity: { storage: '10Gi' },
			storageClassName: '',
			persistentVolumeReclaimPolicy: 'Retain',
			hostPath: { path: dir },
		},
	} as never)
	await lab.create(claim('own', { storageClassName: '', accessModes: ['ReadWriteMany'] }))
	assert.equal(await volumeOf('own'), 'own')
	await lab.create(
		user('reads', 'own', `touch /pw-data/no 2>/dev/null || echo refused; cat /pw-data/given; exec sleep 1000`, true),
	)
	await lab.create(user('writes', 'own', 'echo by the pod >/pw-data/new; exec sleep 1000'))
	for (const name of ['reads', 'writes']) await lab.pod(name)
	await lab.until(async () => (existsSync(join(dir, 'new')) ? true : undefined))
	assert.equal(existsSync(join(dir, 'no')), false)
	for (const name of ['reads', 'writes']) {
		await lab.client.delete(pods, `default/${name}`)
		await gone(name)
	}
	await lab.client.delete(persistentVolumeClaims, 'default/own')
	await lab.until(async () =>
		(await lab.client.get(persistentVolumes, 'own')).status?.phase === 'Released' ? true : undefined,
	)
	assert.equal(existsSync(join(dir, 'given')), true)
})
