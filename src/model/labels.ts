// Labels and annotations with a meaning of their own (kubernetes.io/docs/reference/labels-annotations-taints).

/** Set on every namespace by the API server; policies select namespaces by it. */
export const namespaceNameLabel = 'kubernetes.io/metadata.name'
export const zoneLabel = 'topology.kubernetes.io/zone'
/** A node with it, whatever its value, gets nothing from load balancers before the cluster (KEP-1143). */
export const excludeFromLoadBalancersLabel = 'node.kubernetes.io/exclude-from-external-load-balancers'
/** Annotation of a NetworkPolicy, or of a namespace for all of its policies: what they would deny is said, and passes. */
export const auditAnnotation = 'podwire.dev/audit'
