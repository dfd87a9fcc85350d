// The group coordination.k8s.io/v1: Lease.

import type { KubeObject, MicroTime } from './meta.ts'

export interface Lease extends KubeObject {
	readonly apiVersion: 'coordination.k8s.io/v1'
	readonly kind: 'Lease'
	readonly spec?: {
		readonly holderIdentity?: string
		readonly leaseDurationSeconds?: number
		readonly acquireTime?: MicroTime
		readonly renewTime?: MicroTime
		readonly leaseTransitions?: number
	}
}
