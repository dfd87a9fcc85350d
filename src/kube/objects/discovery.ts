// The group discovery.k8s.io/v1: EndpointSlice.

import type { ApiProtocol, ObjectReference } from './core.ts'
import type { KubeObject } from './meta.ts'

export interface EndpointSlice extends KubeObject {
	readonly apiVersion: 'discovery.k8s.io/v1'
	readonly kind: 'EndpointSlice'
	readonly addressType: 'IPv4' | 'IPv6' | 'FQDN'
	readonly endpoints?: readonly Endpoint[] | null
	readonly ports?: readonly EndpointPort[] | null
}

export interface Endpoint {
	readonly addresses: readonly string[]
	/** An absent condition counts as ready and serving, not terminating (KEP-1672). */
	readonly conditions?: { readonly ready?: boolean; readonly serving?: boolean; readonly terminating?: boolean }
	readonly hostname?: string
	readonly targetRef?: ObjectReference
	readonly nodeName?: string
	readonly zone?: string
	readonly hints?: {
		readonly forZones?: readonly { readonly name: string }[]
		readonly forNodes?: readonly { readonly name: string }[]
	}
}

export interface EndpointPort {
	readonly name?: string
	readonly protocol?: ApiProtocol
	readonly port?: number
	readonly appProtocol?: string
}

/** The label that names the Service of a slice. */
export const serviceNameLabel = 'kubernetes.io/service-name'
/** The label that names who keeps a slice. */
export const managedByLabel = 'endpointslice.kubernetes.io/managed-by'
