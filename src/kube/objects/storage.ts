// Volumes and claims (core/v1), and storage.k8s.io/v1 StorageClass. Only fields we use.

import type { KubeObject, LabelSelector, Quantity } from './meta.ts'

export type AccessMode = 'ReadWriteOnce' | 'ReadOnlyMany' | 'ReadWriteMany' | 'ReadWriteOncePod'

export interface PersistentVolumeClaim extends KubeObject {
	readonly apiVersion: 'v1'
	readonly kind: 'PersistentVolumeClaim'
	readonly spec?: {
		readonly accessModes?: readonly AccessMode[]
		readonly resources?: { readonly requests?: Readonly<Record<string, Quantity>> }
		readonly selector?: LabelSelector
		readonly storageClassName?: string
		readonly volumeMode?: 'Filesystem' | 'Block'
		readonly volumeName?: string
	}
	readonly status?: {
		readonly phase?: 'Pending' | 'Bound' | 'Lost'
		readonly accessModes?: readonly AccessMode[]
		readonly capacity?: Readonly<Record<string, Quantity>>
	}
}

export interface PersistentVolume extends KubeObject {
	readonly apiVersion: 'v1'
	readonly kind: 'PersistentVolume'
	readonly spec?: {
		readonly accessModes?: readonly AccessMode[]
		readonly capacity?: Readonly<Record<string, Quantity>>
		readonly claimRef?: ClaimReference
		readonly persistentVolumeReclaimPolicy?: 'Delete' | 'Retain' | 'Recycle'
		readonly storageClassName?: string
		readonly volumeMode?: 'Filesystem' | 'Block'
		readonly csi?: { readonly driver: string; readonly volumeHandle: string }
		readonly hostPath?: { readonly path: string; readonly type?: string }
		readonly local?: { readonly path: string }
	}
	readonly status?: { readonly phase?: 'Pending' | 'Available' | 'Bound' | 'Released' | 'Failed' }
}

export interface ClaimReference {
	readonly apiVersion?: string
	readonly kind?: string
	readonly namespace?: string
	readonly name?: string
	readonly uid?: string
	readonly resourceVersion?: string
}

export interface StorageClass extends KubeObject {
	readonly apiVersion: 'storage.k8s.io/v1'
	readonly kind: 'StorageClass'
	readonly provisioner: string
	readonly reclaimPolicy?: 'Delete' | 'Retain'
	readonly volumeBindingMode?: 'Immediate' | 'WaitForFirstConsumer'
}
