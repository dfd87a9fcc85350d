// An API server of a test's own, in this process, behind TLS: for what needs no nodes.

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ensureCertificates } from '../../../src/apiserver/certificates.ts'
import { listen } from '../../../src/apiserver/listen.ts'
import { type ApiServer, type ApiServerOptions, createApiServer } from '../../../src/apiserver/server.ts'
import { createStore } from '../../../src/apiserver/store.ts'
import { systemClock } from '../../../src/base/clock.ts'

export interface OwnServer {
	readonly server: ApiServer
	readonly port: number
	/** A folder of its own. */
	readonly folder: string
	/** The path of the administrator's kubeconfig. */
	readonly kubeconfig: string
	/** Our own bugs so far. */
	readonly faults: readonly unknown[]
	close(): Promise<void>
}

export async function startServer(options: Partial<ApiServerOptions> = {}): Promise<OwnServer> {
	const folder = mkdtempSync(join(tmpdir(), 'podwire-server-'))
	const faults: unknown[] = []
	const server = await createApiServer({
		store: createStore(),
		clock: systemClock,
		onFault: (e) => faults.push(e),
		...options,
	})
	const certificates = await ensureCertificates(join(folder, 'pki'), { now: Date.now() })
	const listener = await listen(server, { certificates })
	const kubeconfig = join(folder, 'config')
	const data = (text: string) => Buffer.from(text).toString('base64')
	const { authority, admin } = certificates
	const cluster = {
		server: `https://127.0.0.1:${listener.port}`,
		'certificate-authority-data': data(authority.certificate),
	}
	const user = { 'client-certificate-data': data(admin.certificate), 'client-key-data': data(admin.key) }
	const config = {
		apiVersion: 'v1',
		kind: 'Config',
		clusters: [{ name: 'c', cluster }],
		users: [{ name: 'u', user }],
		contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
		'current-context': 'x',
	}
	writeFileSync(kubeconfig, JSON.stringify(config), { mode: 0o600 })
	return {
		server,
		port: listener.port,
		folder,
		kubeconfig,
		faults,
		async close() {
			server.close()
			await listener.close()
			rmSync(folder, { recursive: true, force: true })
		},
	}
}
