// Signs certificates of users with the authority of the cluster.

import { createPrivateKey } from 'node:crypto'
import { Failure } from '../../base/failure.ts'
import { algorithm, type KeyPair, loadX509, serial } from '../certificates.ts'
import type { Signer } from './certificate-requests.ts'

/** Seconds. */
const year = 365 * 86_400

/** `now`: milliseconds since the epoch. */
export function createClientSigner(authority: () => Promise<KeyPair>, now: () => number): Signer {
	return async ({ request, seconds }) => {
		const [x509, pair] = await Promise.all([loadX509(), authority()])
		const asked = new x509.Pkcs10CertificateRequest(request)
		// Who asks has the key, or he could have another's certificate.
		if (!(await asked.verify())) throw new Failure('BadRequest', 'the request is not signed with its own key')
		const names = asked.subjectName
		if (names.getField('CN').join('') === '') throw new Failure('BadRequest', 'the subject has no common name')
		if (names.getField('O').includes('system:masters'))
			throw new Failure('BadRequest', 'the group system:masters is not given')
		const der = createPrivateKey(pair.key).export({ type: 'pkcs8', format: 'der' })
		const signingKey = await crypto.subtle.importKey('pkcs8', new Uint8Array(der), algorithm, false, ['sign'])
		const issuer = new x509.X509Certificate(pair.certificate)
		const start = now()
		const certificate = await x509.X509CertificateGenerator.create({
			serialNumber: serial(),
			subject: names.toJSON(),
			issuer: issuer.subject,
			// The clock of another machine may be a little behind.
			notBefore: new Date(start - 300_000),
			notAfter: new Date(Math.min(start + (seconds ?? year) * 1000, issuer.notAfter.getTime())),
			publicKey: asked.publicKey,
			signingKey,
			signingAlgorithm: algorithm,
			extensions: [
				new x509.BasicConstraintsExtension(false, undefined, true),
				new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature | x509.KeyUsageFlags.keyEncipherment, true),
				new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.clientAuth]),
				await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey),
			],
		})
		return `${certificate.toString('pem')}\n`
	}
}
