// Which volume a claim gets, and what a provisioned one looks like (Persistent Volumes, "Binding" and "Provisioning").
// Pure. A volume is bound both ways: its claimRef names the claim by uid, the claim's volumeName names the volume.

import type { New } from '../../kube/client.ts'
import type {
	ClaimReference,
	PersistentVolume,
	PersistentVolumeClaim,
	StorageClass,
} from '../../kube/objects/storage.ts'
import { matchesLabelSelector } from '../../kube/selector.ts'
import { quantities } from '../scheduler/placements.ts'

/** Volumes of this provisioner are folders that every node of a lab has; whoever mounts them makes them. */
export const folderProvisioner = 'podwire.dev/folder'
/** Keeps a claim while a pod uses it. */
export const claimProtection = 'kubernetes.io/pvc-protection'
export const provisionedBy = 'pv.kubernetes.io/provisioned-by'
const bindCompleted = 'pv.kubernetes.io/bind-completed'
const boundByController = 'pv.kubernetes.io/bound-by-controller'
const defaultClassMark = 'storageclass.kubernetes.io/is-default-class'

export type ClaimPlan =
	/** `volume` is this claim's, or may become it: what of both is to be written is in bindVolume and bindClaim. */
	| { readonly do: 'bind'; readonly volume: PersistentVolume }
	| { readonly do: 'provision'; readonly volume: New<PersistentVolume> }
	/** A claim without a class gets the default one. */
	| { readonly do: 'class'; readonly name: string }
	| { readonly do: 'wait'; readonly reason: string; readonly message: string }
	/** Its volume is gone for good. */
	| { readonly do: 'lose' }

export function planClaim(
	claim: PersistentVolumeClaim,
	volumes: Iterable<PersistentVolume>,
	classes: readonly StorageClass[],
): ClaimPlan {
	const all = [...volumes].filter((v) => v.metadata.deletionTimestamp === undefined)
	const named = claim.spec?.volumeName
	if (named !== undefined && named !== '') {
		const volume = all.find((v) => v.metadata.name === named)
		if (volume === undefined) {
			if (claim.status?.phase === 'Bound') return { do: 'lose' }
			return { do: 'wait', reason: 'FailedBinding', message: `volume "${named}" is not there` }
		}
		const to = volume.spec?.claimRef
		if (to === undefined || isOf(to, claim)) return { do: 'bind', volume }
		return { do: 'wait', reason: 'FailedBinding', message: `volume "${named}" already bound to a different claim.` }
	}
	const given = all.find((v) => v.spec?.claimRef !== undefined && isOf(v.spec.claimRef, claim))
	if (given !== undefined) return { do: 'bind', volume: given }
	const found = smallest(all.filter((volume) => fits(volume, claim)))
	if (found !== undefined) return { do: 'bind', volume: found }
	const name = claim.spec?.storageClassName
	if (name === undefined) {
		const byDefault = defaultClass(classes)
		if (byDefault !== undefined) return { do: 'class', name: byDefault.metadata.name }
	}
	if (name === undefined || name === '') {
		const message = 'no persistent volumes available for this claim and no storage class is set'
		return { do: 'wait', reason: 'FailedBinding', message }
	}
	const of = classes.find((c) => c.metadata.name === name)
	if (of === undefined) {
		return { do: 'wait', reason: 'ProvisioningFailed', message: `storageclass.storage.k8s.io "${name}" not found` }
	}
	if (of.provisioner !== folderProvisioner) {
		const message = `Waiting for a volume to be created either by the external provisioner '${of.provisioner}' or manually by the system administrator. If volume creation is delayed, please verify that the provisioner is running and correctly registered.`
		return { do: 'wait', reason: 'ExternalProvisioning', message }
	}
	return { do: 'provision', volume: provisioned(claim, of) }
}

/** Of several marked as default the newest counts. */
function defaultClass(classes: readonly StorageClass[]): StorageClass | undefined {
	return classes
		.filter((c) => c.metadata.annotations?.[defaultClassMark] === 'true')
		.sort((a, b) => ((a.metadata.creationTimestamp ?? '') < (b.metadata.creationTimestamp ?? '') ? 1 : -1))[0]
}

function isOf(to: ClaimReference, claim: PersistentVolumeClaim): boolean {
	return (
		to.namespace === claim.metadata.namespace &&
		to.name === claim.metadata.name &&
		(to.uid === undefined || to.uid === '' || to.uid === claim.metadata.uid)
	)
}

function fits(volume: PersistentVolume, claim: PersistentVolumeClaim): boolean {
	const { spec = {} } = volume
	const wanted = claim.spec ?? {}
	if (spec.claimRef !== undefined || (spec.storageClassName ?? '') !== (wanted.storageClassName ?? '')) return false
	if ((spec.volumeMode ?? 'Filesystem') !== (wanted.volumeMode ?? 'Filesystem')) return false
	if (!(wanted.accessModes ?? []).every((mode) => spec.accessModes?.includes(mode))) return false
	if (wanted.selector !== undefined && !matchesLabelSelector(wanted.selector, volume.metadata.labels)) return false
	return size(spec.capacity) >= size(wanted.resources?.requests)
}

function smallest(volumes: readonly PersistentVolume[]): PersistentVolume | undefined {
	return [...volumes].sort((a, b) => {
		const [x, y] = [size(a.spec?.capacity), size(b.spec?.capacity)]
		return x < y ? -1 : x > y ? 1 : a.metadata.name < b.metadata.name ? -1 : 1
	})[0]
}

function size(of: Readonly<Record<string, string>> | undefined): bigint {
	return quantities(of === undefined ? undefined : { storage: of.storage ?? '0' }).get('storage') ?? 0n
}

function provisioned(claim: PersistentVolumeClaim, of: StorageClass): New<PersistentVolume> {
	const name = `pvc-${claim.metadata.uid}`
	return {
		metadata: { name, annotations: { [provisionedBy]: folderProvisioner } },
		spec: {
			accessModes: claim.spec?.accessModes ?? [],
			capacity: { storage: claim.spec?.resources?.requests?.storage ?? '0' },
			claimRef: referenceTo(claim),
			persistentVolumeReclaimPolicy: of.reclaimPolicy ?? 'Delete',
			storageClassName: of.metadata.name,
			volumeMode: claim.spec?.volumeMode ?? 'Filesystem',
			csi: { driver: folderProvisioner, volumeHandle: name },
		},
	}
}

function referenceTo(claim: PersistentVolumeClaim): ClaimReference {
	const { namespace, name, uid, resourceVersion } = claim.metadata
	return {
		apiVersion: 'v1',
		kind: 'PersistentVolumeClaim',
		namespace: namespace as string,
		name,
		uid: uid as string,
		...(resourceVersion === undefined ? {} : { resourceVersion }),
	}
}

/** What binds the volume to the claim; undefined where it is. */
export function bindVolume(volume: PersistentVolume, claim: PersistentVolumeClaim): object | undefined {
	if (volume.spec?.claimRef?.uid === claim.metadata.uid) return undefined
	const byUs = volume.spec?.claimRef === undefined ? { metadata: { annotations: { [boundByController]: 'yes' } } } : {}
	// Its version is a precondition: another claim may take the volume at the same moment.
	const { resourceVersion } = volume.metadata
	const metadata = { ...byUs.metadata, resourceVersion }
	return { metadata, spec: { claimRef: referenceTo(claim) } }
}

/** What binds the claim to the volume; undefined where it is. */
export function bindClaim(claim: PersistentVolumeClaim, volume: PersistentVolume): object | undefined {
	const annotations = { [bindCompleted]: 'yes', ...(claim.spec?.volumeName ? {} : { [boundByController]: 'yes' }) }
	const done = claim.metadata.annotations?.[bindCompleted] === 'yes'
	if (done && claim.spec?.volumeName === volume.metadata.name) return undefined
	return { metadata: { annotations }, spec: { volumeName: volume.metadata.name } }
}

export function boundStatus(volume: PersistentVolume): NonNullable<PersistentVolumeClaim['status']> {
	return {
		phase: 'Bound',
		accessModes: volume.spec?.accessModes ?? [],
		capacity: { storage: volume.spec?.capacity?.storage ?? '0' },
	}
}

/** The phase of a volume, and whether it is to be deleted. `claim`: the one its claimRef names by uid, if it lives. */
export function planVolume(
	volume: PersistentVolume,
	claim: PersistentVolumeClaim | undefined,
): { readonly phase: 'Available' | 'Bound' | 'Released'; readonly remove: boolean } {
	const to = volume.spec?.claimRef
	// Kept for a claim that is not there yet.
	if (to?.uid === undefined || to.uid === '') return { phase: 'Available', remove: false }
	if (claim !== undefined && claim.metadata.uid === to.uid) return { phase: 'Bound', remove: false }
	const ours = volume.metadata.annotations?.[provisionedBy] === folderProvisioner
	return { phase: 'Released', remove: ours && volume.spec?.persistentVolumeReclaimPolicy === 'Delete' }
}
