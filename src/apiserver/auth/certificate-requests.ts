// CertificateSigningRequests: who asks is written down by the server, who approves needs the right to, and what is
// approved for kubernetes.io/kube-apiserver-client is signed: a user of this cluster.
// Source: kubernetes.io/docs/reference/access-authn-authz/certificate-signing-requests.

import type { Clock } from '../../base/clock.ts'
import { messageOf } from '../../base/failure.ts'
import { isConflict, isNotFound } from '../../kube/answer.ts'
import { createKubeClient } from '../../kube/client.ts'
import type { Kind } from '../../kube/kinds.ts'
import type { KubeObject } from '../../kube/objects/meta.ts'
import { resourceOf } from '../../kube/resources.ts'
import type { Transport } from '../../kube/transport.ts'
import type { AdmitHook } from '../admit/admission.ts'
import type { User } from '../api.ts'
import { badRequest, cause, forbidden, invalid } from '../status.ts'
import type { Store } from '../store.ts'
import type { Authorizer } from './rbac.ts'

export interface SigningRequest {
	/** PKCS#10, PEM. */
	readonly request: string
	/** How long the certificate is wanted for. */
	readonly seconds: number | undefined
}

/** A certificate (PEM, with what follows it in the chain). Throws where the request cannot be signed. */
export type Signer = (request: SigningRequest) => Promise<string>

interface Condition {
	readonly type: string
	readonly status: string
	readonly [field: string]: unknown
}

interface CertificateSigningRequest extends KubeObject {
	readonly spec: {
		/** Base64 of the PEM. */
		readonly request: string
		readonly signerName: string
		readonly usages?: readonly string[]
		readonly expirationSeconds?: number
	}
	readonly status?: { readonly conditions?: readonly Condition[]; readonly certificate?: string }
}

const kind: Kind<CertificateSigningRequest> = resourceOf('certificates.k8s.io/v1', 'CertificateSigningRequest')
const storage = 'certificatesigningrequests.certificates.k8s.io'
export const clientSigner = 'kubernetes.io/kube-apiserver-client'
const usagesOfClients: readonly string[] = ['digital signature', 'key encipherment', 'client auth']
/** Seconds. */
const shortest = 600

/** What is decided about requests when they are written. */
export function createRequestCheck(authorizer: Authorizer): AdmitHook {
	return (served, object, before, { user }) => {
		if (served.storage !== storage) return object
		const request = object as unknown as CertificateSigningRequest
		const name = object.metadata.name ?? ''
		if (before === undefined) {
			checkNew(request, name)
			return { ...object, spec: { ...withoutUser(request.spec), ...userFields(user) } }
		}
		const was = before as unknown as CertificateSigningRequest
		const { signerName } = was.spec
		if (decided(request) === decided(was)) return { ...object, spec: before.spec }
		const may = (which: string) =>
			authorizer.decide(user, {
				verb: 'approve',
				group: 'certificates.k8s.io',
				resource: 'signers',
				subresource: '',
				name: which,
				namespace: '',
			}).allowed
		if (!may(signerName) && !may(`${signerName.slice(0, signerName.indexOf('/'))}/*`)) {
			throw forbidden(
				served.resource,
				name,
				`user not permitted to approve requests with signerName ${JSON.stringify(signerName)}`,
			)
		}
		for (const type of ['Approved', 'Denied', 'Failed']) {
			if (hasCondition(was, type) && !hasCondition(request, type)) {
				throw invalid(served.resource, name, [
					cause.forbidden('status.conditions', `updates may not remove a condition of type ${JSON.stringify(type)}`),
				])
			}
		}
		if (hasCondition(request, 'Approved') && hasCondition(request, 'Denied')) {
			throw invalid(served.resource, name, [
				cause.invalid('status.conditions', 'Denied', 'Approved and Denied conditions are mutually exclusive'),
			])
		}
		return { ...object, spec: before.spec }
	}
}

function checkNew(request: CertificateSigningRequest, name: string): void {
	const { spec } = request
	const wrong = (c: ReturnType<typeof cause.invalid>) =>
		invalid({ group: 'certificates.k8s.io', kind: request.kind }, name, [c])
	if (typeof spec?.request !== 'string') throw wrong(cause.required('spec.request'))
	const pem = pemOf(request)
	if (!/^-----BEGIN (NEW )?CERTIFICATE REQUEST-----\s[\s\S]*-----END/m.test(pem)) {
		throw wrong(cause.invalid('spec.request', spec.request, 'PEM block type must be CERTIFICATE REQUEST'))
	}
	const { signerName = '', usages = [], expirationSeconds } = spec
	if (!/^[^/\s]+\.[^/\s]+\/\S+$/.test(signerName)) {
		throw wrong(
			signerName === ''
				? cause.required('spec.signerName')
				: cause.invalid(
						'spec.signerName',
						signerName,
						'must be a fully qualified domain and path of the form "example.com/signer-name"',
					),
		)
	}
	if (usages.length === 0) throw wrong(cause.required('spec.usages', 'usages is required'))
	if (expirationSeconds !== undefined && expirationSeconds < shortest) {
		throw wrong(
			cause.invalid(
				'spec.expirationSeconds',
				expirationSeconds,
				'may not specify a duration less than 600 seconds (10 minutes)',
			),
		)
	}
	// As bytes: the certificate's names are read with the library that also signs, later.
	const der = Buffer.from(pem.replace(/-----[^-]+-----|\s/g, ''), 'base64')
	if (signerName === clientSigner && der.includes('system:masters')) {
		throw forbidden(
			{ group: 'certificates.k8s.io', plural: 'certificatesigningrequests', kind: request.kind },
			name,
			`use of ${clientSigner} signer with system:masters group is not allowed`,
		)
	}
}

function pemOf(request: CertificateSigningRequest): string {
	return Buffer.from(request.spec.request, 'base64').toString('latin1')
}

/** Who asks is the server's to say. */
function userFields(user: User): object {
	const { name, uid, groups, extra } = user
	return { username: name, groups, ...(uid === undefined ? {} : { uid }), ...(extra === undefined ? {} : { extra }) }
}

function withoutUser(spec: object): object {
	const { username: _, uid: _u, groups: _g, extra: _e, ...rest } = spec as Record<string, unknown>
	return rest
}

function hasCondition(request: CertificateSigningRequest, type: string): boolean {
	return (request.status?.conditions ?? []).some((c) => c.type === type)
}

/** The decisions on a request, to be compared. */
function decided(request: CertificateSigningRequest): string {
	const conditions = (request.status?.conditions ?? []).filter((c) => c.type === 'Approved' || c.type === 'Denied')
	return JSON.stringify(conditions.map((c) => [c.type, c.status]).sort())
}

/** Signs what is approved, until it is closed. */
export function startSigning(options: {
	readonly store: Store
	readonly transport: Transport
	readonly clock: Clock
	readonly sign: Signer
	readonly onFailure: (error: unknown) => void
}): { close(): void } {
	const { store, sign } = options
	const client = createKubeClient(options.transport, {
		fieldManager: 'kube-controller-manager',
		userAgent: 'kube-controller-manager',
	})

	async function consider(request: CertificateSigningRequest): Promise<void> {
		const { spec, status = {} } = request
		if (spec.signerName !== clientSigner || (status.certificate ?? '') !== '') return
		if (!hasCondition(request, 'Approved') || hasCondition(request, 'Failed') || hasCondition(request, 'Denied')) return
		const conditions = status.conditions ?? []
		let next: NonNullable<CertificateSigningRequest['status']>
		try {
			const usages = spec.usages ?? []
			const odd = usages.find((usage) => !usagesOfClients.includes(usage))
			if (odd !== undefined || !usages.includes('client auth')) {
				throw badRequest(
					odd === undefined
						? 'usages must include client auth'
						: `usage ${JSON.stringify(odd)} is not one of ${usagesOfClients.join(', ')}`,
				)
			}
			const certificate = await sign({ request: pemOf(request), seconds: spec.expirationSeconds })
			next = { conditions, certificate: Buffer.from(certificate).toString('base64') }
		} catch (e) {
			const now = `${new Date(options.clock.now()).toISOString().slice(0, 19)}Z`
			const message = messageOf(e)
			const failed = {
				type: 'Failed',
				status: 'True',
				reason: 'SignerValidationFailure',
				message,
				lastUpdateTime: now,
				lastTransitionTime: now,
			}
			next = { conditions: [...conditions, failed] }
		}
		try {
			await client.update(kind, { ...request, status: next }, { subresource: 'status' })
		} catch (e) {
			// Somebody was faster; his write brings us here again.
			if (!isConflict(e) && !isNotFound(e)) options.onFailure(e)
		}
	}

	for (const entry of store.list(storage)) void consider(entry.object as unknown as CertificateSigningRequest)
	const stop = store.subscribe(storage, (changes) => {
		for (const { type, entry } of changes) {
			if (type !== 'DELETED') void consider(entry.object as unknown as CertificateSigningRequest)
		}
	})
	return { close: () => void stop() }
}
