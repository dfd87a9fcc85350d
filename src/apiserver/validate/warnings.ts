// What is kept as it was written but does not do what its writer may think: told in `Warning` headers.
// Source: pkg/api/service/warnings.go, its rules.

import type { JsonObject } from '../../kube/schema/json.ts'
import { isSet, objectAt, textAt, textsAt } from './report.ts'

const rules: Readonly<Record<string, (object: JsonObject) => readonly string[]>> = {
	services: warningsOfService,
	'cronjobs.batch': idle('CronJobs start no Jobs'),
	'horizontalpodautoscalers.autoscaling': idle('nothing is scaled, there are no metrics'),
	resourcequotas: idle('quotas are not enforced'),
	limitranges: idle('limits are not enforced'),
	'apiservices.apiregistration.k8s.io': (service) =>
		isSet(objectAt(service, 'spec').service) ? idle('requests are not passed on to other API servers')() : [],
}

/** Nobody in this cluster acts on the kind. */
function idle(what: string): () => readonly string[] {
	return () => [`kept, without effect here: ${what}`]
}

/** The warnings about an object of a storage; most have none. */
export function warningsOf(storage: string, object: JsonObject): readonly string[] {
	return Object.hasOwn(rules, storage) ? rules[storage]!(object) : []
}

function warningsOfService(service: JsonObject): readonly string[] {
	const out: string[] = []
	const metadata = objectAt(service, 'metadata')
	if (isSet(metadata.deletionTimestamp)) return out
	const hints = 'service.kubernetes.io/topology-aware-hints'
	if (isSet(objectAt(metadata, 'annotations')[hints]))
		out.push(`annotation ${hints} is deprecated, please use service.kubernetes.io/topology-mode instead`)
	const spec = objectAt(service, 'spec')
	const type = textAt(spec, 'type')
	const isExternal = type === 'ExternalName'
	if (!isExternal && (textAt(spec, 'clusterIP') === 'None' || textsAt(spec, 'clusterIPs')[0] === 'None')) {
		if (isSet(spec.loadBalancerIP)) out.push('spec.loadBalancerIP is ignored for headless services')
		if (textsAt(spec, 'externalIPs').length > 0) out.push('spec.externalIPs is ignored for headless services')
		if (textAt(spec, 'sessionAffinity') === 'ClientIP')
			out.push('spec.SessionAffinity is ignored for headless services')
	}
	// KEP-5707, CVE-2020-8554.
	if (!isExternal && textsAt(spec, 'externalIPs').length > 0)
		out.push(
			'spec.externalIPs is deprecated: whoever may write Services can take over any address with it; use type LoadBalancer instead',
		)
	if (isExternal && textsAt(spec, 'externalIPs').length > 0)
		out.push('spec.externalIPs is ignored when spec.type is "ExternalName"')
	if (!isExternal && isSet(spec.externalName))
		out.push('spec.externalName is ignored when spec.type is not "ExternalName"')
	return out
}
