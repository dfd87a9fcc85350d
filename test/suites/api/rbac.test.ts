// The RBAC suite on the embedded server, in process and over TLS, and where PODWIRE_SUITE=cluster says so on the
// current context of KUBECONFIG.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ensureCertificates } from '../../../src/apiserver/certificates.ts'
import { listen } from '../../../src/apiserver/listen.ts'
import { createApiServer } from '../../../src/apiserver/server.ts'
import { createStore } from '../../../src/apiserver/store.ts'
import { systemClock } from '../../../src/base/clock.ts'
import { transportOf } from '../../../src/kube/https.ts'
import { loadAccess } from '../../../src/kube/kubeconfig.ts'
import { rbacSuite } from './rbac-suite.ts'

const onFault = (e: unknown) => {
	throw e
}

rbacSuite('embedded, in process', async () => {
	const server = await createApiServer({ store: createStore(), clock: systemClock, onFault })
	return { transport: server.transport, controllers: false, close: async () => server.close() }
})

rbacSuite('embedded, over TLS', async () => {
	const directory = mkdtempSync(join(tmpdir(), 'podwire-rbac-'))
	const server = await createApiServer({ store: createStore(), clock: systemClock, onFault })
	const certificates = await ensureCertificates(directory, { now: Date.now() })
	const listener = await listen(server, { certificates })
	const transport = transportOf({
		context: 'suite',
		server: `https://127.0.0.1:${listener.port}`,
		namespace: 'default',
		insecure: false,
		certificateAuthority: certificates.authority.certificate,
		clientCertificate: certificates.admin.certificate,
		clientKey: certificates.admin.key,
	})
	return {
		transport,
		controllers: false,
		async close() {
			transport.close()
			server.close()
			await listener.close()
			rmSync(directory, { recursive: true, force: true })
		},
	}
})

if (process.env.PODWIRE_SUITE === 'cluster') {
	rbacSuite('the cluster of KUBECONFIG', async () => {
		const transport = transportOf(await loadAccess())
		return { transport, controllers: true, close: async () => transport.close() }
	})
}
