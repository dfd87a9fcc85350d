// The API suite on a real cluster: only where PODWIRE_SUITE=cluster says so, on the current context of KUBECONFIG.

import { test } from 'node:test'
import { transportOf } from '../../../src/kube/https.ts'
import { loadAccess } from '../../../src/kube/kubeconfig.ts'
import { serviceSuite } from './service-suite.ts'
import { apiSuite } from './suite.ts'

if (process.env.PODWIRE_SUITE === 'cluster') {
	const open = async () => {
		const transport = transportOf(await loadAccess())
		return { transport, controllers: true, close: async () => transport.close() }
	}
	apiSuite('the cluster of KUBECONFIG', open)
	serviceSuite('the cluster of KUBECONFIG', open)
} else
	test('the API suite on a real cluster', {
		skip: 'set PODWIRE_SUITE=cluster to run it on the current context',
	}, () => {})
