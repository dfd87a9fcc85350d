// Defaults of pods and of the pod templates of workloads. Source: Kubernetes' pkg/apis/core/v1/defaults.go.

import { type Draft, each, inner, isDraft, preset } from './draft.ts'

/** What a Pod gets beside what every pod template gets. */
export function presetPod(spec: Draft): void {
	presetPodSpec(spec)
	preset(spec, 'enableServiceLinks', true)
	for (const container of containersOf(spec)) {
		const resources = inner(container, 'resources')
		const limits = resources && inner(resources, 'limits')
		if (resources && limits) {
			const requests = (resources.requests ??= {}) as Draft
			for (const name of Object.keys(limits)) preset(requests, name, limits[name])
		}
		if (spec.hostNetwork === true) each(container, 'ports', (port) => preset(port, 'hostPort', port.containerPort))
	}
}

export function presetPodTemplate(template: Draft | undefined): void {
	if (!template) return
	preset(template, 'metadata', {})
	const spec = inner(template, 'spec')
	if (spec) presetPodSpec(spec)
}

function containersOf(spec: Draft): Draft[] {
	return ['containers', 'initContainers'].flatMap((list) =>
		Array.isArray(spec[list]) ? spec[list].filter(isDraft) : [],
	)
}

function presetPodSpec(spec: Draft): void {
	preset(spec, 'dnsPolicy', 'ClusterFirst')
	preset(spec, 'restartPolicy', 'Always')
	preset(spec, 'securityContext', {})
	preset(spec, 'terminationGracePeriodSeconds', 30)
	preset(spec, 'schedulerName', 'default-scheduler')
	// The older name of the field says the same.
	preset(spec, 'serviceAccountName', spec.serviceAccount)
	if (spec.serviceAccountName !== undefined) spec.serviceAccount = spec.serviceAccountName
	for (const list of ['containers', 'initContainers', 'ephemeralContainers']) each(spec, list, presetContainer)
	each(spec, 'volumes', presetVolume)
}

function presetContainer(container: Draft): void {
	preset(container, 'terminationMessagePath', '/dev/termination-log')
	preset(container, 'terminationMessagePolicy', 'File')
	preset(container, 'imagePullPolicy', pullPolicyOf(container.image))
	preset(container, 'resources', {})
	each(container, 'ports', (port) => preset(port, 'protocol', 'TCP'))
	each(container, 'env', (variable) => presetFieldRef(inner(variable, 'valueFrom')))
	for (const name of ['livenessProbe', 'readinessProbe', 'startupProbe']) presetProbe(inner(container, name))
	const lifecycle = inner(container, 'lifecycle')
	for (const hook of ['postStart', 'preStop']) presetHttpGet(lifecycle && inner(lifecycle, hook))
}

/** Images of the tag `latest`, said or not, are pulled always. */
export function pullPolicyOf(image: unknown): 'Always' | 'IfNotPresent' {
	if (typeof image !== 'string' || image.includes('@')) return 'IfNotPresent'
	const last = image.slice(image.lastIndexOf('/') + 1)
	const colon = last.indexOf(':')
	return colon < 0 || last.slice(colon + 1) === 'latest' ? 'Always' : 'IfNotPresent'
}

function presetFieldRef(source: Draft | undefined): void {
	const ref = source && inner(source, 'fieldRef')
	if (ref) preset(ref, 'apiVersion', 'v1')
}

function presetProbe(probe: Draft | undefined): void {
	if (!probe) return
	for (const [name, value] of [
		['timeoutSeconds', 1],
		['periodSeconds', 10],
		['successThreshold', 1],
		['failureThreshold', 3],
	] as const)
		if (probe[name] === undefined || probe[name] === 0) probe[name] = value
	presetHttpGet(probe)
	const grpc = inner(probe, 'grpc')
	if (grpc) preset(grpc, 'service', '')
}

function presetHttpGet(handler: Draft | undefined): void {
	const get = handler && inner(handler, 'httpGet')
	if (!get) return
	preset(get, 'path', '/')
	preset(get, 'scheme', 'HTTP')
}

function presetVolume(volume: Draft): void {
	if (Object.keys(volume).every((key) => key === 'name')) volume.emptyDir = {}
	for (const source of ['secret', 'configMap', 'downwardAPI', 'projected']) {
		const inside = inner(volume, source)
		if (inside) preset(inside, 'defaultMode', 0o644)
	}
	const downward = inner(volume, 'downwardAPI')
	if (downward) each(downward, 'items', presetFieldRef)
	const projected = inner(volume, 'projected')
	if (projected)
		each(projected, 'sources', (source) => {
			const token = inner(source, 'serviceAccountToken')
			if (token) preset(token, 'expirationSeconds', 3600)
			const fields = inner(source, 'downwardAPI')
			if (fields) each(fields, 'items', presetFieldRef)
		})
	const hostPath = inner(volume, 'hostPath')
	if (hostPath) preset(hostPath, 'type', '')
	const ephemeral = inner(volume, 'ephemeral')
	const template = ephemeral && inner(ephemeral, 'volumeClaimTemplate')
	const claim = template && inner(template, 'spec')
	if (claim) preset(claim, 'volumeMode', 'Filesystem')
	const iscsi = inner(volume, 'iscsi')
	if (iscsi) preset(iscsi, 'iscsiInterface', 'default')
	const rbd = inner(volume, 'rbd')
	if (rbd) {
		preset(rbd, 'pool', 'rbd')
		preset(rbd, 'user', 'admin')
		preset(rbd, 'keyring', '/etc/ceph/keyring')
	}
}
