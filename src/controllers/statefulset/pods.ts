// The pods of a StatefulSet: name, identity and storage of each ordinal.

import type { StatefulSet } from '../../kube/objects/apps.ts'
import type { KubeObject } from '../../kube/objects/meta.ts'
import type { Pod, PodTemplateSpec, Volume } from '../../kube/objects/pod.ts'
import { controllerReference } from '../owners.ts'
import { type NewPod, podFromTemplate } from '../pods.ts'
import { revisionHashLabel } from '../revisions.ts'

export const podNameLabel = 'statefulset.kubernetes.io/pod-name'
export const podIndexLabel = 'apps.kubernetes.io/pod-index'

/** The ordinal of a pod of this set, or undefined when its name is no such name. */
export function ordinalOf(set: StatefulSet, pod: Pod): number | undefined {
	const prefix = `${set.metadata.name}-`
	const { name } = pod.metadata
	if (!name.startsWith(prefix)) return undefined
	const digits = name.slice(prefix.length)
	return /^(0|[1-9]\d{0,8})$/.test(digits) ? Number(digits) : undefined
}

export function podNameOf(set: StatefulSet, ordinal: number): string {
	return `${set.metadata.name}-${ordinal}`
}

export function makePod(set: StatefulSet, template: PodTemplateSpec, revision: string, ordinal: number): NewPod {
	const name = podNameOf(set, ordinal)
	const pod = podFromTemplate(template, controllerReference(set), set.metadata.namespace!, name)
	const { serviceName } = set.spec!
	const claims: Volume[] = (set.spec!.volumeClaimTemplates ?? []).map((claim) => ({
		name: claim.metadata!.name!,
		persistentVolumeClaim: { claimName: claimName(set, claim.metadata!.name!, ordinal), readOnly: false },
	}))
	const kept = (pod.spec.volumes ?? []).filter((volume) => !claims.some((claim) => claim.name === volume.name))
	const volumes = [...claims, ...kept]
	return {
		...pod,
		metadata: {
			...pod.metadata,
			generateName: `${set.metadata.name}-`,
			labels: {
				...pod.metadata.labels,
				[podNameLabel]: name,
				[podIndexLabel]: String(ordinal),
				[revisionHashLabel]: revision,
			},
		},
		spec: {
			...pod.spec,
			hostname: name,
			...(serviceName === undefined || serviceName === '' ? {} : { subdomain: serviceName }),
			...(volumes.length === 0 ? {} : { volumes }),
		},
	}
}

/** A PersistentVolumeClaim, as far as it is made here. */
export interface Claim extends KubeObject {
	readonly spec?: unknown
}

function claimName(set: StatefulSet, template: string, ordinal: number): string {
	return `${template}-${podNameOf(set, ordinal)}`
}

/** The claims of one ordinal. They outlive the pod, and by default the set. */
export function claimsOf(set: StatefulSet, ordinal: number): readonly Claim[] {
	return (set.spec!.volumeClaimTemplates ?? []).map((template) => ({
		apiVersion: 'v1',
		kind: 'PersistentVolumeClaim',
		metadata: {
			...template.metadata,
			name: claimName(set, template.metadata!.name!, ordinal),
			namespace: set.metadata.namespace!,
			labels: { ...template.metadata?.labels, ...set.spec!.selector.matchLabels },
		},
		spec: template.spec,
	}))
}

/** The labels a pod of this set must carry; missing ones are put back. */
export function identityLabels(pod: Pod, ordinal: number): Readonly<Record<string, string>> | undefined {
	const wanted = { [podNameLabel]: pod.metadata.name, [podIndexLabel]: String(ordinal) }
	const wrong = Object.entries(wanted).filter(([key, value]) => pod.metadata.labels?.[key] !== value)
	return wrong.length === 0 ? undefined : Object.fromEntries(wrong)
}
