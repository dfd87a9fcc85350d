// What every namespace has from the start: the ServiceAccount `default` and the ConfigMap with the cluster's CA.

import { isAlreadyExists } from '../../kube/answer.ts'
import { configMaps, namespaces, serviceAccounts } from '../../kube/kinds.ts'
import { namespacedKey } from '../../kube/objects/meta.ts'
import { type Cluster, type Controller, createController } from '../controller.ts'
import { isNamespaceGoing } from '../replicaset/controller.ts'

export const rootCaName = 'kube-root-ca.crt'

/** `caCertificate` in PEM; without one there is no ConfigMap. */
export function namespaceFurnisher(cluster: Cluster, caCertificate: string | undefined): Controller {
	const view = cluster.views.of(namespaces)
	const accounts = cluster.views.of(serviceAccounts)
	const maps = cluster.views.of(configMaps)
	const controller = createController(cluster, {
		name: 'root-ca-certificate-publisher',
		async reconcile(namespace, turn) {
			const found = view.get(namespace)
			if (found === undefined || found.metadata.deletionTimestamp !== undefined) return undefined
			try {
				if (accounts.get(namespacedKey(namespace, 'default')) === undefined) {
					await turn.create(serviceAccounts, { metadata: { name: 'default', namespace } }).catch(unlessThere)
				}
				if (caCertificate === undefined) return undefined
				const have = maps.get(namespacedKey(namespace, rootCaName))
				const data = { 'ca.crt': caCertificate }
				if (have === undefined) {
					const annotations = {
						'kubernetes.io/description':
							'Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.',
					}
					await turn
						.create(configMaps, { metadata: { name: rootCaName, namespace, annotations }, data })
						.catch(unlessThere)
				} else if (have.data?.['ca.crt'] !== caCertificate || Object.keys(have.data).length !== 1) {
					await turn.update(configMaps, { ...have, data })
				}
			} catch (e) {
				if (!isNamespaceGoing(e)) throw e
			}
			return undefined
		},
	})
	const due = controller.queue.add
	view.onChange(due)
	accounts.onChange((_, before, after) => {
		if (after === undefined && before?.metadata.name === 'default') due(before.metadata.namespace!)
	})
	maps.onChange((_, before, after) => {
		const map = after ?? before!
		if (map.metadata.name === rootCaName) due(map.metadata.namespace!)
	})
	return controller
}

/** The copy was behind. */
function unlessThere(e: unknown): void {
	if (!isAlreadyExists(e)) throw e
}
