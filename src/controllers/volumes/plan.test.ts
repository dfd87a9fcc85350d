import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { PersistentVolume, PersistentVolumeClaim, StorageClass } from '../../kube/objects/storage.ts'
import { bindClaim, bindVolume, folderProvisioner, planClaim, planVolume } from './plan.ts'

const claim = (
	spec: PersistentVolumeClaim['spec'] = {},
	status: PersistentVolumeClaim['status'] = { phase: 'Pending' },
): PersistentVolumeClaim => ({
	apiVersion: 'v1',
	kind: 'PersistentVolumeClaim',
	metadata: { name: 'data', namespace: 'shop', uid: 'u1' },
	spec: { accessModes: ['ReadWriteOnce'], resources: { requests: { storage: '1Gi' } }, ...spec },
	status,
})
const volume = (name: string, spec: PersistentVolume['spec'] = {}): PersistentVolume => ({
	apiVersion: 'v1',
	kind: 'PersistentVolume',
	metadata: { name, labels: { tier: name } },
	spec: { accessModes: ['ReadWriteOnce'], capacity: { storage: '1Gi' }, ...spec },
})
const storageClass = (name: string, more: Partial<StorageClass> = {}, isDefault = false): StorageClass => ({
	apiVersion: 'storage.k8s.io/v1',
	kind: 'StorageClass',
	metadata: {
		name,
		annotations: isDefault ? { 'storageclass.kubernetes.io/is-default-class': 'true' } : {},
		creationTimestamp: '2026-01-01T00:00:00Z',
	},
	provisioner: folderProvisioner,
	...more,
})
const to = (name: string, uid?: string) => ({ namespace: 'shop', name, ...(uid === undefined ? {} : { uid }) })

test('what becomes of a claim', () => {
	const none = { storageClassName: '' }
	const cases: readonly (readonly [
		what: string,
		claim: PersistentVolumeClaim,
		volumes: readonly PersistentVolume[],
		classes: readonly StorageClass[],
		plan: string,
	])[] = [
		['the default class', claim(), [], [storageClass('a'), storageClass('b', {}, true)], 'class b'],
		['no default class', claim(), [], [storageClass('a')], 'wait FailedBinding'],
		['a class that is not there', claim({ storageClassName: 'x' }), [], [], 'wait ProvisioningFailed'],
		[
			"somebody else's class",
			claim({ storageClassName: 'x' }),
			[],
			[storageClass('x', { provisioner: 'example.com/nfs' })],
			'wait ExternalProvisioning',
		],
		['a class of ours', claim({ storageClassName: 'x' }), [], [storageClass('x')], 'provision pvc-u1'],
		[
			'without a class only what has none',
			claim(none),
			[volume('v', { storageClassName: 'x' })],
			[],
			'wait FailedBinding',
		],
		[
			'the smallest that is large enough',
			claim(none),
			[
				volume('big', { capacity: { storage: '5Gi' } }),
				volume('small', { capacity: { storage: '1Mi' } }),
				volume('fit', { capacity: { storage: '1100Mi' } }),
			],
			[],
			'bind fit',
		],
		['not another mode', claim({ ...none, accessModes: ['ReadWriteMany'] }), [volume('v')], [], 'wait FailedBinding'],
		['not another kind', claim({ ...none, volumeMode: 'Block' }), [volume('v')], [], 'wait FailedBinding'],
		[
			'by its selector',
			claim({ ...none, selector: { matchLabels: { tier: 'w' } } }),
			[volume('v'), volume('w')],
			[],
			'bind w',
		],
		['not what another has', claim(none), [volume('v', { claimRef: to('other', 'u2') })], [], 'wait FailedBinding'],
		['what is kept for it', claim(none), [volume('a'), volume('v', { claimRef: to('data') })], [], 'bind v'],
		[
			'not what was kept for an earlier one',
			claim(none),
			[volume('v', { claimRef: to('data', 'u0') })],
			[],
			'wait FailedBinding',
		],
		[
			'what it names, whatever its size',
			claim({ ...none, volumeName: 'v' }),
			[volume('v', { capacity: { storage: '1' } })],
			[],
			'bind v',
		],
		['what it names is not there', claim({ volumeName: 'v' }), [], [storageClass('b', {}, true)], 'wait FailedBinding'],
		[
			'what it named is another’s',
			claim({ volumeName: 'v' }),
			[volume('v', { claimRef: to('other', 'u2') })],
			[],
			'wait FailedBinding',
		],
		['what it had is gone', claim({ volumeName: 'v' }, { phase: 'Bound' }), [], [], 'lose'],
		[
			'what was made for it',
			claim({ storageClassName: 'x' }),
			[volume('pvc-u1', { storageClassName: 'x', claimRef: to('data', 'u1') })],
			[storageClass('x')],
			'bind pvc-u1',
		],
	]
	for (const [what, of, volumes, classes, expected] of cases) {
		const plan = planClaim(of, volumes, classes)
		const said =
			plan.do === 'bind' || plan.do === 'provision'
				? `${plan.do} ${plan.volume.metadata.name}`
				: plan.do === 'class'
					? `class ${plan.name}`
					: plan.do === 'wait'
						? `wait ${plan.reason}`
						: plan.do
		assert.equal(said, expected, what)
	}
})

test('a provisioned volume, and both sides bound once', () => {
	const of = claim({ storageClassName: 'x' })
	const plan = planClaim(of, [], [storageClass('x', { reclaimPolicy: 'Retain' })])
	assert.ok(plan.do === 'provision')
	const made = { apiVersion: 'v1', kind: 'PersistentVolume', ...plan.volume } as PersistentVolume
	assert.deepEqual(made.spec?.claimRef?.uid, 'u1')
	assert.equal(made.spec?.persistentVolumeReclaimPolicy, 'Retain')
	assert.equal(bindVolume(made, of), undefined)
	assert.deepEqual(bindClaim(of, made), {
		metadata: {
			annotations: { 'pv.kubernetes.io/bind-completed': 'yes', 'pv.kubernetes.io/bound-by-controller': 'yes' },
		},
		spec: { volumeName: 'pvc-u1' },
	})
	const bound = claim({ volumeName: 'pvc-u1' })
	const annotated = {
		...bound,
		metadata: { ...bound.metadata, annotations: { 'pv.kubernetes.io/bind-completed': 'yes' } },
	}
	assert.equal(bindClaim(annotated, made), undefined)
	assert.notEqual(bindVolume(volume('v', { claimRef: to('data') }), of), undefined, 'kept for it, but not by uid')
})

test('what becomes of a volume', () => {
	const ours = (policy: 'Delete' | 'Retain'): PersistentVolume => {
		const v = volume('v', { claimRef: to('data', 'u1'), persistentVolumeReclaimPolicy: policy })
		return { ...v, metadata: { ...v.metadata, annotations: { 'pv.kubernetes.io/provisioned-by': folderProvisioner } } }
	}
	const theirs = volume('v', { claimRef: to('data', 'u1'), persistentVolumeReclaimPolicy: 'Delete' })
	const cases: readonly (readonly [PersistentVolume, PersistentVolumeClaim | undefined, string, boolean])[] = [
		[volume('v'), undefined, 'Available', false],
		[volume('v', { claimRef: to('data') }), undefined, 'Available', false],
		[ours('Delete'), claim(), 'Bound', false],
		[ours('Delete'), undefined, 'Released', true],
		[ours('Retain'), undefined, 'Released', false],
		[theirs, undefined, 'Released', false],
		[ours('Delete'), { ...claim(), metadata: { name: 'data', namespace: 'shop', uid: 'u2' } }, 'Released', true],
	]
	for (const [of, by, phase, remove] of cases) assert.deepEqual(planVolume(of, by), { phase, remove })
})
