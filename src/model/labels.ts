// Labels and annotations with a meaning of their own (kubernetes.io/docs/reference/labels-annotations-taints).

/** Set on every namespace by the API server; policies select namespaces by it. */
export const namespaceNameLabel = 'kubernetes.io/metadata.name'
export const zoneLabel = 'topology.kubernetes.io/zone'
/** A node with it, whatever its value, gets nothing from load balancers before the cluster (KEP-1143). */
export const excludeFromLoadBalancersLabel = 'node.kubernetes.io/exclude-from-external-load-balancers'
/** Annotation of a NetworkPolicy, or of a namespace for all of its policies: what they would deny is said, and passes. */
export const auditAnnotation = 'podwire.dev/audit'

/** Labels that controllers give to the pods of one roll-out, or to one pod alone. */
export const rolloutLabels: ReadonlySet<string> = new Set([
	'pod-template-hash',
	'controller-revision-hash',
	'pod-template-generation',
	'statefulset.kubernetes.io/pod-name',
	'apps.kubernetes.io/pod-index',
	'controller-uid',
	'batch.kubernetes.io/controller-uid',
	'batch.kubernetes.io/job-completion-index',
])
/** The name of the pod's Job: other for each run of a CronJob, and all that tells the pods of a Job from others. */
export const jobNameLabels: ReadonlySet<string> = new Set(['batch.kubernetes.io/job-name', 'job-name'])
/** All labels that controllers make up: who writes a selector by hand does not count on their values. */
export const controllerLabels: ReadonlySet<string> = new Set([...rolloutLabels, ...jobNameLabels])
