// The admission plugin DenyServiceExternalIPs (plugin/pkg/admission/network/denyserviceexternalips): whoever may write
// Services could take any address by externalIPs (CVE-2020-8554). With it nobody adds one; those that are there may stay
// and go.

import type { UnknownObject } from '../../kube/objects/meta.ts'
import { forbidden } from '../status.ts'
import type { AdmitHook } from './admission.ts'

export const denyExternalIps: AdmitHook = (served, object, before) => {
	if (served.storage !== 'services') return object
	const left = externalIpsOf(before)
	for (const ip of externalIpsOf(object)) {
		const at = left.indexOf(ip)
		if (at < 0) {
			const name = object.metadata.name ?? object.metadata.generateName ?? ''
			throw forbidden(served.resource, name, 'Use of external IPs is denied by cluster policy')
		}
		left.splice(at, 1)
	}
	return object
}

function externalIpsOf(service: UnknownObject | undefined): unknown[] {
	const spec = service?.spec as { readonly externalIPs?: unknown } | undefined
	return Array.isArray(spec?.externalIPs) ? [...spec.externalIPs] : []
}
