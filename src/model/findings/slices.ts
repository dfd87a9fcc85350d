// EndpointSlices that point at nothing: no such Service, no such pod, an address nobody has.

import { cidrContains, tryParseIp } from '../../base/ip.ts'
import { serviceOf, targetPod } from '../builders/services.ts'
import type { Finding } from '../finding.ts'
import { originOf } from '../state.ts'
import type { CheckInput } from './check.ts'

export function* checkSlices(input: CheckInput): Iterable<Finding> {
	const { state, model } = input
	for (const [key, slice] of state.endpointSlices) {
		const service = serviceOf(slice)[0]
		if (service !== undefined && !model.services.has(service)) {
			yield {
				code: 'PW0006',
				severity: 'warning',
				text: `EndpointSlice "${key}" is labelled with Service "${service}", which does not exist`,
				because: [originOf(state, 'EndpointSlice', key, 'metadata.labels')],
			}
		}
		for (const [i, endpoint] of (slice.endpoints ?? []).entries()) {
			const address = endpoint.addresses?.[0] ?? ''
			const because = [originOf(state, 'EndpointSlice', key, `endpoints[${i}]`)]
			const ip = tryParseIp(address)
			if (ip === undefined) {
				if (slice.addressType === 'FQDN') continue
				yield {
					code: 'PW0020',
					severity: 'error',
					text: `EndpointSlice "${key}" endpoints[${i}] has the address "${address}", which is no IP address: the endpoint is ignored`,
					because,
				}
				continue
			}
			const podKey = targetPod(slice, endpoint)
			const pod = podKey === undefined ? undefined : model.pods.get(podKey)
			if (podKey !== undefined && (pod === undefined || !pod.ips.includes(ip))) {
				const why = pod === undefined ? 'that pod does not exist' : `that pod has ${pod.ips.join(', ') || 'no address'}`
				yield {
					code: 'PW0007',
					severity: 'warning',
					text: `EndpointSlice "${key}" endpoints[${i}] gives ${ip} as the address of pod "${podKey}": ${why}`,
					because: pod === undefined ? because : [...because, pod.origin],
				}
			} else if (
				podKey === undefined &&
				!model.addresses.has(ip) &&
				model.config.podCidrs.some((c) => cidrContains(c, ip))
			) {
				yield {
					code: 'PW0007',
					severity: 'warning',
					text: `EndpointSlice "${key}" endpoints[${i}] has the address ${ip}, which lies in the pod network and belongs to no pod`,
					because,
				}
			}
		}
	}
}
