// Services that cannot serve: no pod selected, a target port nobody has, nobody ready.

import type { Finding } from '../finding.ts'
import type { LabelSelector, Pod, Service, ServicePort } from '../network.ts'
import { type Origin, objectOrigin } from '../origin.ts'
import { selectorText } from '../selector.ts'
import { originOf } from '../state.ts'
import type { CheckInput } from './check.ts'
import { nearestPod } from './nearest.ts'

export function* checkServices(input: CheckInput): Iterable<Finding> {
	for (const service of input.model.services.values()) {
		if (service.type === 'ExternalName') continue
		if (service.selector === undefined) {
			yield* checkWithoutSelector(input, service)
			continue
		}
		const selector: LabelSelector = { matchLabels: service.selector, matchExpressions: [] }
		const pods = input.pods
			.select(service.namespace, selector)
			.filter((pod) => pod.phase !== 'Succeeded' && pod.phase !== 'Failed')
		if (pods.length === 0) {
			yield selectsNothing(input, service, selector)
			continue
		}
		for (const port of service.ports) yield* checkTarget(service, port, pods)
		yield* checkReady(service, pods)
	}
}

function selectorOrigin(service: Service): Origin {
	return service.fields?.selector ?? objectOrigin('Service', service.key, 'spec.selector')
}

/** PW0001 */
function selectsNothing(input: CheckInput, service: Service, selector: LabelSelector): Finding {
	const elsewhere = input.pods.selectAnywhere(selector)[0]
	const near = elsewhere === undefined ? nearestPod(input.pods.inNamespace(service.namespace), selector) : undefined
	const why =
		elsewhere !== undefined
			? `pod "${elsewhere.key}" matches, but a Service selects in its own namespace only`
			: near !== undefined
				? `the nearest pod "${near.pod.key}" differs: ${near.difference}`
				: input.pods.inNamespace(service.namespace).length === 0
					? `namespace "${service.namespace}" has no pod`
					: 'no pod of the namespace has labels like these'
	const witness = elsewhere ?? near?.pod
	return {
		code: 'PW0001',
		severity: 'error',
		text: `Service "${service.key}" selects no pod with ${selectorText(selector)}: ${why}`,
		because: [selectorOrigin(service), ...(witness === undefined ? [] : [witness.origin])],
	}
}

/** PW0002 and PW0003 */
function* checkTarget(service: Service, port: ServicePort, pods: readonly Pod[]): Iterable<Finding> {
	const target = port.targetPort
	if (typeof target === 'string') {
		const without = pods.filter((pod) => !pod.ports.some((p) => p.name === target && p.protocol === port.protocol))
		const first = without[0]
		if (first === undefined) return
		const count =
			without.length === pods.length ? 'no selected pod' : `${without.length} of ${pods.length} selected pods do not`
		yield {
			code: 'PW0002',
			severity: without.length === pods.length ? 'error' : 'warning',
			text: `Service "${service.key}" port ${portName(port)} has targetPort "${target}", which ${count} ${
				without.length === pods.length ? 'declares' : 'declare'
			} for ${port.protocol}: pod "${first.key}" declares ${declared(first)}`,
			because: [port.origin, first.ports[0]?.origin ?? first.origin],
		}
		return
	}
	// Container ports are only information, so a missing one proves nothing; a pod that declares none says nothing.
	const talkative = pods.filter((pod) => pod.ports.length > 0)
	const first = talkative[0]
	if (
		first === undefined ||
		talkative.some((pod) => pod.ports.some((p) => p.port === target && p.protocol === port.protocol))
	)
		return
	yield {
		code: 'PW0003',
		severity: 'info',
		text: `Service "${service.key}" port ${portName(port)} has targetPort ${target}/${port.protocol}, which no selected pod declares: pod "${first.key}" declares ${declared(first)}`,
		because: [port.origin, first.ports[0]!.origin],
	}
}

/** PW0004 */
function* checkReady(service: Service, pods: readonly Pod[]): Iterable<Finding> {
	if (service.publishNotReadyAddresses || pods.some((pod) => pod.ready && !pod.terminating)) return
	// Endpoints say otherwise: somebody keeps them by hand, or they are newer than the pods.
	if (service.ports.some((port) => port.endpoints.some((e) => e.ready))) return
	const first = pods[0]!
	yield {
		code: 'PW0004',
		severity: 'error',
		text: `Service "${service.key}" has no ready endpoint: of its ${pods.length} pods ${countStates(pods)}`,
		because: [selectorOrigin(service), first.origin],
	}
}

/** PW0005 */
function* checkWithoutSelector(input: CheckInput, service: Service): Iterable<Finding> {
	if (input.slicesByService.has(service.key)) return
	yield {
		code: 'PW0005',
		severity: 'warning',
		text: `Service "${service.key}" has no selector, and no EndpointSlice is labelled kubernetes.io/service-name=${service.name}: it has no endpoints`,
		because: [originOf(input.state, 'Service', service.key, 'spec')],
	}
}

/** `2 are not scheduled, 1 is not ready`; the most frequent first. */
function countStates(pods: readonly Pod[]): string {
	const counts = new Map<string, number>()
	for (const pod of pods) {
		const state = podState(pod)
		counts.set(state, (counts.get(state) ?? 0) + 1)
	}
	return [...counts]
		.sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1))
		.map(([state, count]) => `${count} ${count === 1 ? 'is' : 'are'} ${state}`)
		.join(', ')
}

function podState(pod: Pod): string {
	if (pod.terminating) return 'terminating'
	if (pod.node === undefined) return 'not scheduled'
	if (pod.ips.length === 0) return 'without an address'
	if (pod.phase !== 'Running') return pod.phase.toLowerCase()
	return 'running but not ready'
}

function portName(port: ServicePort): string {
	return port.name === '' ? `${port.port}` : `"${port.name}" (${port.port})`
}

export function declared(pod: Pod): string {
	if (pod.ports.length === 0) return 'no port'
	return pod.ports.map((p) => `${p.name === undefined ? '' : `"${p.name}" `}${p.port}/${p.protocol}`).join(', ')
}
