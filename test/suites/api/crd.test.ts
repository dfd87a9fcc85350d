// The suite of CustomResourceDefinitions: on the embedded server, and on a cluster where PODWIRE_SUITE=cluster says so.

import { createApiServer } from '../../../src/apiserver/server.ts'
import { createStore } from '../../../src/apiserver/store.ts'
import { systemClock } from '../../../src/base/clock.ts'
import { transportOf } from '../../../src/kube/https.ts'
import { loadAccess } from '../../../src/kube/kubeconfig.ts'
import { crdSchemaSuite } from './crd-schema-suite.ts'
import { crdSuite } from './crd-suite.ts'
import type { SuiteTarget } from './suite.ts'

const embedded = async (): Promise<SuiteTarget> => {
	const server = await createApiServer({
		store: createStore(),
		clock: systemClock,
		onFault: (e) => {
			// A bug of ours must not pass for a refusal.
			throw e
		},
	})
	return { transport: server.transport, controllers: false, close: async () => server.close() }
}
crdSuite('embedded', embedded)
crdSchemaSuite('embedded', embedded)

if (process.env.PODWIRE_SUITE === 'cluster') {
	const cluster = async (): Promise<SuiteTarget> => {
		const transport = transportOf(await loadAccess())
		return { transport, controllers: true, close: async () => transport.close() }
	}
	crdSuite('the cluster of KUBECONFIG', cluster)
	crdSchemaSuite('the cluster of KUBECONFIG', cluster)
}
