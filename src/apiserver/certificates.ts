// The certificates of one cluster: its authority, the server's (names and addresses it answers for) and the
// administrator's. Made once and kept in a directory only the user may read.

import { createPrivateKey, X509Certificate } from 'node:crypto'
import { mkdir, open, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { Failure, messageOf } from '../base/failure.ts'

export interface KeyPair {
	/** PEM. */
	readonly certificate: string
	/** PEM, PKCS#8. */
	readonly key: string
}

export interface Certificates {
	readonly authority: KeyPair
	readonly server: KeyPair
	/** Client certificate, CN=kubernetes-admin, O=system:masters. */
	readonly admin: KeyPair
}

export interface CertificateOptions {
	/** DNS names beyond localhost and kubernetes.default.svc. */
	readonly names?: readonly string[]
	/** IP addresses beyond 127.0.0.1 and ::1: the Service's, the advertised. */
	readonly addresses?: readonly string[]
	/** Milliseconds since the epoch. */
	readonly now: number
}

const day = 86_400_000
const lifetime = 365 * day
/** Certificates are made anew when less than this is left. */
const margin = 30 * day

const standardNames = [
	'localhost',
	'kubernetes',
	'kubernetes.default',
	'kubernetes.default.svc',
	'kubernetes.default.svc.cluster.local',
]

/** Reads the certificates in `directory`; makes those that are missing, damaged, running out or lack a name. */
export async function ensureCertificates(directory: string, options: CertificateOptions): Promise<Certificates> {
	try {
		await mkdir(directory, { recursive: true, mode: 0o700 })
		const { now } = options
		let authority = await read(directory, 'ca')
		if (authority === undefined || !isGood(authority, now)) {
			authority = await makeAuthority(now)
			await write(directory, 'ca', authority)
		}
		const names = [...new Set([...standardNames, ...(options.names ?? [])])]
		const addresses = [...new Set(['127.0.0.1', '::1', ...(options.addresses ?? [])])]
		let server = await read(directory, 'server')
		if (server === undefined || !isGood(server, now, authority) || !answersFor(server, names, addresses)) {
			server = await issue(authority, 'kube-apiserver', undefined, { names, addresses }, now)
			await write(directory, 'server', server)
		}
		let admin = await read(directory, 'admin')
		if (admin === undefined || !isGood(admin, now, authority)) {
			admin = await issue(authority, 'kubernetes-admin', 'system:masters', undefined, now)
			await write(directory, 'admin', admin)
		}
		return { authority, server, admin }
	} catch (cause) {
		if (cause instanceof Failure) throw cause
		throw new Failure(
			'CertificatesFailed',
			`Cannot keep certificates in "${directory}": ${messageOf(cause)}`,
			{},
			{ cause },
		)
	}
}

async function read(directory: string, name: string): Promise<KeyPair | undefined> {
	try {
		const [certificate, key] = await Promise.all(
			['crt', 'key'].map((end) => readFile(join(directory, `${name}.${end}`), 'utf8')),
		)
		return { certificate: certificate!, key: key! }
	} catch (e) {
		if ((e as NodeJS.ErrnoException).code === 'ENOENT') return undefined
		throw e
	}
}

/** Each file appears whole or not at all; a pair torn by a crash does not fit together and is made anew. */
async function write(directory: string, name: string, pair: KeyPair): Promise<void> {
	for (const [end, text] of [
		['key', pair.key],
		['crt', pair.certificate],
	] as const) {
		const path = join(directory, `${name}.${end}`)
		const file = await open(`${path}.new`, 'w', 0o600)
		try {
			await file.chmod(0o600)
			await file.writeFile(text)
			await file.sync()
		} finally {
			await file.close()
		}
		await rename(`${path}.new`, path)
	}
}

function isGood(pair: KeyPair, now: number, authority?: KeyPair): boolean {
	try {
		const certificate = new X509Certificate(pair.certificate)
		if (Date.parse(certificate.validTo) - now < margin || Date.parse(certificate.validFrom) > now) return false
		if (!certificate.checkPrivateKey(createPrivateKey(pair.key))) return false
		if (authority === undefined) return certificate.ca
		const issuer = new X509Certificate(authority.certificate)
		return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey)
	} catch {
		return false
	}
}

function answersFor(pair: KeyPair, names: readonly string[], addresses: readonly string[]): boolean {
	const certificate = new X509Certificate(pair.certificate)
	return (
		names.every((name) => certificate.checkHost(name) !== undefined) &&
		addresses.every((ip) => certificate.checkIP(ip) !== undefined)
	)
}

export const algorithm = { name: 'ECDSA', namedCurve: 'P-256', hash: 'SHA-256' } as const

/** The X.509 library, loaded only where a certificate must be made. */
export async function loadX509() {
	// It wants the metadata API in place before it loads.
	await import('reflect-metadata')
	return import('@peculiar/x509')
}

async function makeAuthority(now: number): Promise<KeyPair> {
	const x509 = await loadX509()
	const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
	const certificate = await x509.X509CertificateGenerator.createSelfSigned({
		serialNumber: serial(),
		name: 'CN=kubernetes',
		// The clock of another machine may be a little behind.
		notBefore: new Date(now - day),
		notAfter: new Date(now + 10 * lifetime),
		keys,
		signingAlgorithm: algorithm,
		extensions: [
			new x509.BasicConstraintsExtension(true, undefined, true),
			new x509.KeyUsagesExtension(
				x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign | x509.KeyUsageFlags.digitalSignature,
				true,
			),
			await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
		],
	})
	return { certificate: `${certificate.toString('pem')}\n`, key: await pemOf(keys.privateKey) }
}

async function issue(
	authority: KeyPair,
	commonName: string,
	organization: string | undefined,
	server: { readonly names: readonly string[]; readonly addresses: readonly string[] } | undefined,
	now: number,
): Promise<KeyPair> {
	const x509 = await loadX509()
	const keys = await crypto.subtle.generateKey(algorithm, true, ['sign', 'verify'])
	const der = createPrivateKey(authority.key).export({ type: 'pkcs8', format: 'der' })
	const signingKey = await crypto.subtle.importKey('pkcs8', new Uint8Array(der), algorithm, false, ['sign'])
	const issuer = new x509.X509Certificate(authority.certificate)
	const usage = server === undefined ? x509.ExtendedKeyUsage.clientAuth : x509.ExtendedKeyUsage.serverAuth
	const extensions: InstanceType<typeof x509.Extension>[] = [
		new x509.BasicConstraintsExtension(false, undefined, true),
		new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
		new x509.ExtendedKeyUsageExtension([usage]),
		await x509.AuthorityKeyIdentifierExtension.create(issuer.publicKey),
	]
	if (server !== undefined) {
		extensions.push(
			new x509.SubjectAlternativeNameExtension([
				...server.names.map((value) => ({ type: 'dns' as const, value })),
				...server.addresses.map((value) => ({ type: 'ip' as const, value })),
			]),
		)
	}
	const certificate = await x509.X509CertificateGenerator.create({
		serialNumber: serial(),
		subject: organization === undefined ? `CN=${commonName}` : `O=${organization},CN=${commonName}`,
		issuer: issuer.subject,
		notBefore: new Date(now - day),
		notAfter: new Date(now + lifetime),
		publicKey: keys.publicKey,
		signingKey,
		signingAlgorithm: algorithm,
		extensions,
	})
	return { certificate: `${certificate.toString('pem')}\n`, key: await pemOf(keys.privateKey) }
}

/** 16 random bytes, positive. */
export function serial(): string {
	const bytes = crypto.getRandomValues(new Uint8Array(16))
	bytes[0] = (bytes[0]! & 0x7f) | 0x01
	return Buffer.from(bytes).toString('hex')
}

async function pemOf(key: CryptoKey): Promise<string> {
	const der = Buffer.from(await crypto.subtle.exportKey('pkcs8', key))
	return createPrivateKey({ key: der, format: 'der', type: 'pkcs8' })
		.export({ type: 'pkcs8', format: 'pem' })
		.toString()
}
