// A pod's way to this server: the ServiceAccount's token, the authority's certificate and the namespace, as a projected
// volume in each container. Source: admission plugin ServiceAccount; KEP-1205, KEP-542.

import type { UnknownObject } from '../../kube/objects/meta.ts'
import { isObject, type JsonObject } from '../../kube/schema/json.ts'
import type { AdmitHook } from '../admit/admission.ts'
import { forbidden } from '../status.ts'
import type { Store } from '../store.ts'
import { generatedName } from '../write.ts'
import { podTokenSeconds } from './token-request.ts'

export const tokenFolder = '/var/run/secrets/kubernetes.io/serviceaccount'
const prefix = 'kube-api-access-'

/** Adds the volume to new pods. */
export function createAccountVolumes(store: Store): AdmitHook {
	return (served, object, before) => {
		if (served.storage !== 'pods' || before !== undefined) return object
		const { spec } = object
		if (!isObject(spec)) return object
		// A mirror of what a kubelet runs of its own accord has no account.
		if (object.metadata.annotations?.['kubernetes.io/config.mirror'] !== undefined) return object
		const { namespace = '', name = '' } = object.metadata
		const accountName =
			typeof spec.serviceAccountName === 'string' && spec.serviceAccountName !== ''
				? spec.serviceAccountName
				: 'default'
		const account = store.current('serviceaccounts', `${namespace}/${accountName}`)?.object
		// `default` comes with the namespace, a moment later: no reason to refuse a pod, as the real server does.
		if (account === undefined && accountName !== 'default') {
			throw forbidden(
				served.resource,
				name,
				`error looking up service account ${namespace}/${accountName}: serviceaccount "${accountName}" not found`,
			)
		}
		const next: Record<string, unknown> = { ...spec }
		const secrets = account?.imagePullSecrets
		if (Array.isArray(secrets) && secrets.length > 0 && listOf(spec.imagePullSecrets).length === 0) {
			next.imagePullSecrets = secrets
		}
		if ((spec.automountServiceAccountToken ?? account?.automountServiceAccountToken ?? true) === true) mount(next)
		return { ...object, spec: next } as UnknownObject
	}
}

function listOf(value: unknown): readonly JsonObject[] {
	return Array.isArray(value) ? (value as JsonObject[]) : []
}

function mount(spec: Record<string, unknown>): void {
	const volumes = listOf(spec.volumes)
	let volume = volumes.find((v) => typeof v.name === 'string' && v.name.startsWith(prefix))?.name as string | undefined
	const make = volume === undefined
	volume ??= generatedName(prefix)
	let used = false
	for (const field of ['initContainers', 'containers']) {
		if (!Array.isArray(spec[field])) continue
		spec[field] = listOf(spec[field]).map((container) => {
			if (!isObject(container)) return container
			const mounts = listOf(container.volumeMounts)
			if (mounts.some((m) => isObject(m) && m.mountPath === tokenFolder)) return container
			used = true
			return { ...container, volumeMounts: [...mounts, { name: volume, readOnly: true, mountPath: tokenFolder }] }
		})
	}
	if (used && make) spec.volumes = [...volumes, projected(volume)]
}

function projected(name: string): object {
	return {
		name,
		projected: {
			sources: [
				{ serviceAccountToken: { expirationSeconds: podTokenSeconds, path: 'token' } },
				{ configMap: { name: 'kube-root-ca.crt', items: [{ key: 'ca.crt', path: 'ca.crt' }] } },
				{
					downwardAPI: {
						items: [{ path: 'namespace', fieldRef: { apiVersion: 'v1', fieldPath: 'metadata.namespace' } }],
					},
				},
			],
			defaultMode: 420,
		},
	}
}
