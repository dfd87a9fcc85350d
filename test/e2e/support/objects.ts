// What an API server has acknowledged, to be compared before and after something terrible.

import type { Home } from './home.ts'

const kinds =
	'namespaces,services,endpointslices,configmaps,secrets,deployments,replicasets,statefulsets,networkpolicies'

/** `kind/namespace/name uid` of everything that is not expected to come and go by itself. */
export async function objectsIn(home: Home): Promise<readonly string[]> {
	const list = await home.get<{
		items: { kind: string; metadata: { namespace?: string; name: string; uid: string } }[]
	}>(kinds, '-A')
	return list.items.map((o) => `${o.kind}/${o.metadata.namespace ?? ''}/${o.metadata.name} ${o.metadata.uid}`).sort()
}

/** `namespace/name uid address node` of every pod. */
export async function podsIn(home: Home): Promise<readonly string[]> {
	const list = await home.get<{
		items: {
			metadata: { namespace: string; name: string; uid: string }
			spec: { nodeName?: string }
			status: { podIP?: string }
		}[]
	}>('pods', '-A')
	return list.items
		.map((p) => `${p.metadata.namespace}/${p.metadata.name} ${p.metadata.uid} ${p.status.podIP} ${p.spec.nodeName}`)
		.sort()
}
