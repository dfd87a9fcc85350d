// What Services say to load balancers besides the fields of their specs: classes and annotations. Sources: kubernetes.io,
// "Labels, annotations and taints" and "Service: internal load balancer"; KEP-980 (finalizer), KEP-1959 (class).

import type { Node, Service } from './core.ts'
import type { Labels } from './meta.ts'

/** spec.loadBalancerClass of Services whose address an elected node announces on the nodes' own network. */
export const layer2Class = 'podwire.dev/l2'

/** `"true"`: only the network of the nodes reaches the address. */
export const internalAnnotation = 'podwire.dev/internal'
/** Comma-separated addresses to have, at most one a family; as spec.loadBalancerIP, which is deprecated. */
export const addressesAnnotation = 'podwire.dev/load-balancer-ips'
/** Name of the pool to take an address from. */
export const poolAnnotation = 'podwire.dev/address-pool'
/** Services with the same text here, different ports and the same way of balancing may have the same address. */
export const sharingAnnotation = 'podwire.dev/allow-shared-ip'
/** `VIP` or `Proxy`: what the status says of its addresses. VIP where absent, and where a node announces them. */
export const ipModeAnnotation = 'podwire.dev/ip-mode'

/** Keeps a Service until its load balancer is taken down (KEP-980). */
export const cleanupFinalizer = 'service.kubernetes.io/load-balancer-cleanup'

const excludeNodeLabel = 'node.kubernetes.io/exclude-from-external-load-balancers'
/** Set by the cluster autoscaler on a node that is about to go. */
const toBeDeletedTaint = 'ToBeDeletedByClusterAutoscaler'

/** The clouds' own words for the same wish, so that a manifest written for one means the same here. */
const internalWishes: Readonly<Record<string, readonly string[]>> = {
	[internalAnnotation]: ['true'],
	'networking.gke.io/load-balancer-type': ['internal'],
	'cloud.google.com/load-balancer-type': ['internal'],
	'service.beta.kubernetes.io/aws-load-balancer-internal': ['true', '0.0.0.0/0'],
	'service.beta.kubernetes.io/aws-load-balancer-scheme': ['internal'],
	'service.beta.kubernetes.io/azure-load-balancer-internal': ['true'],
	'service.beta.kubernetes.io/openstack-internal-load-balancer': ['true'],
	'service.kubernetes.io/ibm-load-balancer-cloud-provider-ip-type': ['private'],
	'service.beta.kubernetes.io/alibaba-cloud-loadbalancer-address-type': ['intranet'],
	'service.beta.kubernetes.io/cce-load-balancer-internal-vpc': ['true'],
	'service.beta.kubernetes.io/oci-load-balancer-internal': ['true'],
}

/** The annotation that asks for an internal load balancer; undefined: none does. Our own goes before the clouds'. */
export function internalWish(annotations: Labels | undefined): string | undefined {
	if (annotations === undefined) return undefined
	const own = annotations[internalAnnotation]
	if (own !== undefined) return own === 'true' ? internalAnnotation : undefined
	return Object.keys(annotations).find((key) => internalWishes[key]?.includes(annotations[key]!.toLowerCase()))
}

/** Who of ours balances for the Service: the appliance before the cluster, or a node that announces the address. */
export function balancerOf(service: Service): 'appliance' | 'layer-2' | undefined {
	if (service.spec?.type !== 'LoadBalancer') return undefined
	const { loadBalancerClass } = service.spec
	return loadBalancerClass === undefined || loadBalancerClass === ''
		? 'appliance'
		: loadBalancerClass === layer2Class
			? 'layer-2'
			: undefined
}

/** Whether load balancers count the node among their hosts. Readiness is for their health checks to see (KEP-3458). */
export function isBalancedNode({ metadata, spec }: Node): boolean {
	if (metadata.deletionTimestamp !== undefined || metadata.labels?.[excludeNodeLabel] !== undefined) return false
	return spec?.taints?.some(({ key }) => key === toBeDeletedTaint) !== true
}
