// The suite of CustomResourceDefinitions: on the embedded server, and on a cluster where PODWIRE_SUITE=cluster says so.

import { createApiServer } from '../../../src/apiserver/server.ts'
import { createStore } from '../../../src/apiserver/store.ts'
import { systemClock } from '../../../src/base/clock.ts'
import { transportOf } from '../../../src/kube/https.ts'
import { loadAccess } from '../../../src/kube/kubeconfig.ts'
import { crdSuite } from './crd-suite.ts'

crdSuite('embedded', async () => {
	const server = await createApiServer({
		store: createStore(),
		clock: systemClock,
		onFault: (e) => {
			// A bug of ours must not pass for a refusal.
			throw e
		},
	})
	return { transport: server.transport, controllers: false, close: async () => server.close() }
})

if (process.env.PODWIRE_SUITE === 'cluster')
	crdSuite('the cluster of KUBECONFIG', async () => {
		const transport = transportOf(await loadAccess())
		return { transport, controllers: true, close: async () => transport.close() }
	})
