// The API suite on a real cluster: only where PODWIRE_SUITE=cluster says so, on the current context of KUBECONFIG.

import { test } from 'node:test'
import { transportOf } from '../../../src/kube/https.ts'
import { loadAccess } from '../../../src/kube/kubeconfig.ts'
import { apiSuite } from './suite.ts'

if (process.env.PODWIRE_SUITE === 'cluster') {
	apiSuite('the cluster of KUBECONFIG', async () => {
		const transport = transportOf(await loadAccess())
		return { transport, controllers: true, close: async () => transport.close() }
	})
} else
	test('the API suite on a real cluster', {
		skip: 'set PODWIRE_SUITE=cluster to run it on the current context',
	}, () => {})
