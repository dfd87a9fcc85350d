// The API suite on the embedded server: in memory, on disk, and over TLS.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ensureCertificates } from '../../../src/apiserver/certificates.ts'
import { openJournal } from '../../../src/apiserver/journal.ts'
import { listen } from '../../../src/apiserver/listen.ts'
import { createApiServer } from '../../../src/apiserver/server.ts'
import { createStore } from '../../../src/apiserver/store.ts'
import { systemClock } from '../../../src/base/clock.ts'
import { transportOf } from '../../../src/kube/https.ts'
import { serviceSuite } from './service-suite.ts'
import { apiSuite, type SuiteTarget } from './suite.ts'

const fault = (e: unknown) => {
	// A bug of ours must not pass for a refusal.
	throw e
}

async function inMemory(): Promise<SuiteTarget> {
	const server = await createApiServer({ store: createStore(), clock: systemClock, onFault: fault })
	return { transport: server.transport, controllers: false, close: async () => server.close() }
}
apiSuite('embedded, in memory', inMemory)
serviceSuite('embedded, in memory', inMemory)

apiSuite('embedded, on disk', async () => {
	const directory = mkdtempSync(join(tmpdir(), 'podwire-suite-'))
	const store = createStore({ journal: await openJournal(join(directory, 'store.db')) })
	const server = await createApiServer({ store, clock: systemClock, onFault: fault })
	return {
		transport: server.transport,
		controllers: false,
		async close() {
			server.close()
			store.close()
			rmSync(directory, { recursive: true, force: true })
		},
	}
})

apiSuite('embedded, over TLS', overTls)
serviceSuite('embedded, over TLS', overTls)
async function overTls(): Promise<SuiteTarget> {
	const directory = mkdtempSync(join(tmpdir(), 'podwire-suite-'))
	const server = await createApiServer({ store: createStore(), clock: systemClock, onFault: fault })
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
}
