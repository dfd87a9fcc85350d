// The lab's API server: durable store, certificates, and its two doors: loopback of the host for the user, the
// underlay for pods.

import { createPrivateKey, generateKeyPairSync, type KeyObject } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { denyExternalIps } from '../apiserver/admit/external-ips.ts'
import { createClientSigner } from '../apiserver/auth/client-signer.ts'
import { ensureCertificates } from '../apiserver/certificates.ts'
import { openJournal } from '../apiserver/journal.ts'
import type { KubeletApi } from '../apiserver/kubelet.ts'
import { type Listener, listen } from '../apiserver/listen.ts'
import { type ApiServer, createApiServer } from '../apiserver/server.ts'
import { createStore } from '../apiserver/store.ts'
import type { Clock } from '../base/clock.ts'
import { cidrNth } from '../base/ip.ts'
import type { OwnContext } from '../kube/kubeconfig.ts'
import { apiPort } from './addresses.ts'
import type { FamilyNetworks } from './ip-family.ts'
import type { NetworkChoice } from './network-choice.ts'
import type { LabPaths } from './paths.ts'

export interface LabApi {
	readonly server: ApiServer
	/** On 127.0.0.1 of the host. */
	readonly port: number
	/** PEM. */
	readonly caCertificate: string
	/** What a kubeconfig needs, as administrator. */
	readonly context: OwnContext
	/** Serves pods, too, at the address the Service default/kubernetes leads to. */
	listenInside(netns: string): Promise<void>
	close(): Promise<void>
}

export interface LabApiOptions {
	readonly paths: LabPaths
	/** The primary family first: pods reach the server at its router's address. */
	readonly networks: readonly FamilyNetworks[]
	readonly network?: NetworkChoice
	readonly clock: Clock
	readonly kubelet: KubeletApi
	/** A TCP socket of the host's network that listens already. */
	readonly fd: number
	readonly onFault: (e: unknown) => void
}

/** Throws Failure StoreBusy, StoreUnreadable, CertificatesFailed, CannotListen. */
export async function startApi(options: LabApiOptions): Promise<LabApi> {
	const { paths, networks, clock, network = {} } = options
	const { router } = networks[0]!
	const making = ensureCertificates(paths.pki, {
		addresses: networks.flatMap((n) => [cidrNth(n.services, 1n), n.router]),
		...(network.clusterDomain === undefined ? {} : { names: [`kubernetes.default.svc.${network.clusterDomain}`] }),
		now: clock.now(),
	})
	making.catch(() => {})
	const store = createStore({ journal: await openJournal(paths.store) })
	const server = await createApiServer({
		store,
		clock,
		serviceCidrs: networks.map((n) => n.services),
		...(network.nodePorts === undefined ? {} : { nodePorts: network.nodePorts }),
		admit: network.admissionPlugins?.includes('DenyServiceExternalIPs') === true ? [denyExternalIps] : [],
		advertise: { ip: router, port: apiPort },
		kubelet: options.kubelet,
		tokenKey: tokenKey(join(paths.pki, 'sa.key')),
		signer: createClientSigner(
			async () => (await making).authority,
			() => clock.now(),
		),
		onFault: options.onFault,
	})
	const certificates = await making
	const listeners: Listener[] = [await listen(server, { certificates, fd: options.fd })]
	const { port } = listeners[0]!
	return {
		server,
		port,
		caCertificate: certificates.authority.certificate,
		context: {
			name: `podwire-${paths.name}`,
			server: `https://127.0.0.1:${port}`,
			certificateAuthority: certificates.authority.certificate,
			clientCertificate: certificates.admin.certificate,
			clientKey: certificates.admin.key,
		},
		async listenInside(netns) {
			const { bindTcp } = await import('../linux/listen.ts')
			const fd = bindTcp(netns, router, apiPort)
			listeners.push(await listen(server, { certificates, fd }))
		},
		async close() {
			await Promise.all(listeners.map((listener) => listener.close()))
			server.close()
			store.close()
		},
	}
}

/** Signs ServiceAccount tokens; kept, so that a token outlives the daemon. */
function tokenKey(path: string): KeyObject {
	try {
		return createPrivateKey(readFileSync(path, 'utf8'))
	} catch {
		const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
		writeFileSync(path, privateKey.export({ type: 'pkcs8', format: 'pem' }), { mode: 0o600 })
		return privateKey
	}
}
