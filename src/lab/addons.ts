// What every lab's cluster starts with besides the API's own objects: the cluster DNS and storage,
// as ordinary objects.

import { folderProvisioner } from '../controllers/volumes/plan.ts'
import { isAlreadyExists } from '../kube/answer.ts'
import type { KubeClient } from '../kube/client.ts'
import { deployments, serviceAccounts, services, storageClasses } from '../kube/kinds.ts'
import type { Deployment } from '../kube/objects/apps.ts'
import type { Service, ServiceAccount } from '../kube/objects/core.ts'
import type { StorageClass } from '../kube/objects/storage.ts'
import type { FamilyNetworks } from './ip-family.ts'
import { dnsImage } from './kubelet/containers.ts'

const labels = { 'k8s-app': 'kube-dns' }

const serviceAccount = {
	apiVersion: 'v1',
	kind: 'ServiceAccount',
	metadata: { name: 'coredns', namespace: 'kube-system' },
} as const satisfies ServiceAccount

const deployment = {
	apiVersion: 'apps/v1',
	kind: 'Deployment',
	metadata: { name: 'coredns', namespace: 'kube-system', labels },
	spec: {
		replicas: 2,
		selector: { matchLabels: labels },
		strategy: { type: 'RollingUpdate', rollingUpdate: { maxUnavailable: 1 } },
		template: {
			metadata: { labels },
			spec: {
				serviceAccountName: 'coredns',
				priorityClassName: 'system-cluster-critical',
				dnsPolicy: 'Default',
				tolerations: [{ key: 'CriticalAddonsOnly', operator: 'Exists' }],
				containers: [
					{
						name: 'dns',
						image: dnsImage,
						ports: [
							{ name: 'dns', containerPort: 53, protocol: 'UDP' },
							{ name: 'dns-tcp', containerPort: 53, protocol: 'TCP' },
						],
					},
				],
			},
		},
	},
} as const satisfies Deployment

/** Every pod's resolv.conf names its first address (the kubelet's --cluster-dns). */
const serviceAt = (networks: readonly FamilyNetworks[]): Service => ({
	apiVersion: 'v1',
	kind: 'Service',
	metadata: {
		name: 'kube-dns',
		namespace: 'kube-system',
		labels: { ...labels, 'kubernetes.io/cluster-service': 'true', 'kubernetes.io/name': 'CoreDNS' },
	},
	spec: {
		type: 'ClusterIP',
		clusterIP: networks[0]!.dns,
		...(networks.length === 1 ? {} : { ipFamilyPolicy: 'PreferDualStack', clusterIPs: networks.map((n) => n.dns) }),
		selector: labels,
		ports: [
			{ name: 'dns', port: 53, protocol: 'UDP', targetPort: 53 },
			{ name: 'dns-tcp', port: 53, protocol: 'TCP', targetPort: 53 },
		],
	},
})

/** Volumes that are folders of the lab: a claim without a class gets one. */
const storageClass = {
	apiVersion: 'storage.k8s.io/v1',
	kind: 'StorageClass',
	metadata: { name: 'standard', annotations: { 'storageclass.kubernetes.io/is-default-class': 'true' } },
	provisioner: folderProvisioner,
	reclaimPolicy: 'Delete',
	volumeBindingMode: 'Immediate',
} as const satisfies StorageClass

/** Creates what is missing; what a user has changed stays. `networks`: of each family, the primary one first. */
export async function createAddons(client: KubeClient, networks: readonly FamilyNetworks[]): Promise<void> {
	await Promise.all([
		ifMissing(client.create(serviceAccounts, serviceAccount)),
		ifMissing(client.create(services, serviceAt(networks))),
		ifMissing(client.create(deployments, deployment)),
		ifMissing(client.create(storageClasses, storageClass)),
	])
}

async function ifMissing(created: Promise<unknown>): Promise<void> {
	try {
		await created
	} catch (e) {
		if (!isAlreadyExists(e)) throw e
	}
}
