// The user's kubeconfig: finding a cluster in it, and putting our own context into it (and taking it out again) the way
// kind does: under kubectl's lock file, everything else left as it was, comments included.

import { randomBytes } from 'node:crypto'
import { chmod, chown, mkdir, open, readFile, realpath, rename, rm, stat } from 'node:fs/promises'
import { homedir } from 'node:os'
import { delimiter, dirname, isAbsolute, join, resolve } from 'node:path'
import { type Document, isMap, isSeq, parseDocument, YAMLMap, YAMLSeq } from 'yaml'
import { type Clock, systemClock } from '../base/clock.ts'
import { Failure, messageOf } from '../base/failure.ts'

/** How to reach and enter one cluster. Certificates and keys are PEM. */
export interface ClusterAccess {
	readonly context: string
	/** `https://127.0.0.1:6443` */
	readonly server: string
	/** The context's namespace, `default` where it names none. */
	readonly namespace: string
	readonly certificateAuthority?: string
	readonly insecure: boolean
	/** The name in the server's certificate, where it is not that of the URL. */
	readonly serverName?: string
	readonly clientCertificate?: string
	readonly clientKey?: string
	readonly token?: string
	/** Read again for every request: such tokens are renewed in place. */
	readonly tokenFile?: string
	readonly basic?: { readonly username: string; readonly password: string }
	readonly impersonate?: { readonly user: string; readonly groups: readonly string[]; readonly uid?: string }
}

export interface KubeconfigPlace {
	/** One file, as `--kubeconfig` gives it; before the environment. */
	readonly path?: string | undefined
	/** Default: process.env. */
	readonly environment?: Readonly<Record<string, string | undefined>>
}

interface Entry<T> {
	readonly value: T
	/** Paths inside it are relative to the directory of its file. */
	readonly file: string
}

interface ClusterEntry {
	readonly server?: string
	readonly 'certificate-authority'?: string
	readonly 'certificate-authority-data'?: string
	readonly 'insecure-skip-tls-verify'?: boolean
	readonly 'tls-server-name'?: string
	readonly 'proxy-url'?: string
}

interface UserEntry {
	readonly 'client-certificate'?: string
	readonly 'client-certificate-data'?: string
	readonly 'client-key'?: string
	readonly 'client-key-data'?: string
	readonly token?: string
	readonly tokenFile?: string
	readonly username?: string
	readonly password?: string
	readonly as?: string
	readonly 'as-uid'?: string
	readonly 'as-groups'?: readonly string[]
	readonly exec?: { readonly command?: string }
	readonly 'auth-provider'?: { readonly name?: string }
}

interface ContextEntry {
	readonly cluster?: string
	readonly user?: string
	readonly namespace?: string
}

/** The files that count, in order: the one given, else those of $KUBECONFIG, else ~/.kube/config. */
export function kubeconfigPaths(place: KubeconfigPlace = {}): readonly string[] {
	if (place.path !== undefined && place.path !== '') return [place.path]
	const environment = place.environment ?? process.env
	const listed = (environment.KUBECONFIG ?? '').split(delimiter).filter((p) => p !== '')
	return listed.length > 0 ? [...new Set(listed)] : [join(environment.HOME || homedir(), '.kube', 'config')]
}

/**
 * The access that a context gives: the named one, else the current one. Of several files the first that has a name
 * decides. Throws Failure `NoKubeconfig`, `NoContext`, `InvalidKubeconfig`, `Unsupported`.
 */
export async function loadAccess(place: KubeconfigPlace = {}, contextName?: string): Promise<ClusterAccess> {
	const paths = kubeconfigPaths(place)
	const clusters = new Map<string, Entry<ClusterEntry>>()
	const users = new Map<string, Entry<UserEntry>>()
	const contexts = new Map<string, Entry<ContextEntry>>()
	let current = ''
	let found = false
	for (const file of paths) {
		const text = await readIfThere(file)
		if (text === undefined) continue
		found = true
		const config = parse(file, text).toJS() as Record<string, unknown> | null
		collect(config?.clusters, 'cluster', file, clusters)
		collect(config?.users, 'user', file, users)
		collect(config?.contexts, 'context', file, contexts)
		if (current === '' && typeof config?.['current-context'] === 'string') current = config['current-context']
	}
	const where = paths.map((p) => `"${p}"`).join(', ')
	if (!found) {
		throw new Failure('NoKubeconfig', `Cannot find a cluster: there is no kubeconfig at ${where}`, { paths })
	}
	const name = contextName ?? current
	if (name === '') {
		throw new Failure('NoContext', `Cannot choose a cluster: ${where} has no current-context; name one (--context)`)
	}
	const context = contexts.get(name)
	if (context === undefined) {
		const known = [...contexts.keys()].sort().map((c) => `"${c}"`)
		const hint = known.length === 0 ? 'it has none' : `it has ${known.join(', ')}`
		throw new Failure('NoContext', `Cannot use context "${name}": ${where} does not have it; ${hint}`)
	}
	const invalid = (why: string) =>
		new Failure('InvalidKubeconfig', `Cannot use context "${name}" of "${context.file}": ${why}`)
	const cluster = clusters.get(context.value.cluster ?? '')
	if (cluster === undefined) throw invalid(`there is no cluster "${context.value.cluster ?? ''}"`)
	const user = users.get(context.value.user ?? '')
	if (user === undefined && context.value.user) throw invalid(`there is no user "${context.value.user}"`)
	return readAccess(name, context.value, cluster, user ?? { value: {}, file: context.file }, invalid)
}

/** The access of a pod to its own cluster, from the mounted ServiceAccount; undefined outside a cluster. */
export async function inClusterAccess(
	environment: Readonly<Record<string, string | undefined>> = process.env,
	directory = '/var/run/secrets/kubernetes.io/serviceaccount',
): Promise<ClusterAccess | undefined> {
	const { KUBERNETES_SERVICE_HOST: host, KUBERNETES_SERVICE_PORT: port } = environment
	const certificateAuthority = await readIfThere(join(directory, 'ca.crt'))
	if (!host || !port || certificateAuthority === undefined) return undefined
	return {
		context: 'in-cluster',
		server: `https://${host.includes(':') ? `[${host}]` : host}:${port}`,
		namespace: (await readIfThere(join(directory, 'namespace')))?.trim() || 'default',
		certificateAuthority,
		insecure: false,
		tokenFile: join(directory, 'token'),
	}
}

async function readAccess(
	name: string,
	context: ContextEntry,
	cluster: Entry<ClusterEntry>,
	user: Entry<UserEntry>,
	invalid: (why: string) => Failure,
): Promise<ClusterAccess> {
	const c = cluster.value
	const u = user.value
	if (!c.server) throw invalid(`cluster "${context.cluster}" has no server`)
	if (!URL.canParse(c.server) || !/^https?:$/.test(new URL(c.server).protocol)) {
		throw invalid(`the server "${c.server}" of cluster "${context.cluster}" is no http or https URL`)
	}
	const unsupported = (what: string, instead: string) =>
		new Failure('Unsupported', `Cannot use context "${name}": ${what} is not supported yet; ${instead}`)
	if (c['proxy-url'])
		throw unsupported(`proxy-url "${c['proxy-url']}"`, 'reach the cluster directly, or by `kubectl proxy`')
	if (u.exec !== undefined || u['auth-provider'] !== undefined) {
		const plugin =
			u.exec === undefined ? `auth provider "${u['auth-provider']?.name}"` : `exec plugin "${u.exec.command}"`
		throw unsupported(plugin, 'use a context with a token or a client certificate, or `kubectl proxy`')
	}
	const pem = async (entry: Entry<object>, field: string): Promise<string | undefined> => {
		const values = entry.value as Record<string, unknown>
		const data = values[`${field}-data`]
		if (typeof data === 'string' && data !== '') return Buffer.from(data, 'base64').toString('utf8')
		const path = values[field]
		if (typeof path !== 'string' || path === '') return undefined
		const full = isAbsolute(path) ? path : resolve(dirname(entry.file), path)
		try {
			return await readFile(full, 'utf8')
		} catch (e) {
			throw invalid(`${field} "${full}" cannot be read: ${messageOf(e)}`)
		}
	}
	const certificateAuthority = await pem(cluster, 'certificate-authority')
	const clientCertificate = await pem(user, 'client-certificate')
	const clientKey = await pem(user, 'client-key')
	if ((clientCertificate === undefined) !== (clientKey === undefined)) {
		throw invalid(`user "${context.user}" has ${clientKey === undefined ? 'no client-key' : 'no client-certificate'}`)
	}
	const tokenFile = u.tokenFile ? resolve(dirname(user.file), u.tokenFile) : undefined
	return {
		context: name,
		server: c.server.replace(/\/+$/, ''),
		namespace: context.namespace || 'default',
		insecure: c['insecure-skip-tls-verify'] === true,
		...(certificateAuthority === undefined ? {} : { certificateAuthority }),
		...(c['tls-server-name'] ? { serverName: c['tls-server-name'] } : {}),
		...(clientCertificate === undefined || clientKey === undefined ? {} : { clientCertificate, clientKey }),
		...(tokenFile !== undefined ? { tokenFile } : u.token ? { token: u.token } : {}),
		...(u.username ? { basic: { username: u.username, password: u.password ?? '' } } : {}),
		...(u.as
			? { impersonate: { user: u.as, groups: u['as-groups'] ?? [], ...(u['as-uid'] ? { uid: u['as-uid'] } : {}) } }
			: {}),
	}
}

function collect<T>(list: unknown, field: string, file: string, into: Map<string, Entry<T>>): void {
	if (!Array.isArray(list)) return
	for (const item of list as { name?: unknown; [field: string]: unknown }[]) {
		if (typeof item !== 'object' || item === null || typeof item.name !== 'string' || into.has(item.name)) continue
		into.set(item.name, { value: (item[field] ?? {}) as T, file })
	}
}

/** A context of ours: cluster, user and context all have its name, `podwire-lab`. Certificates and key are PEM. */
export interface OwnContext {
	readonly name: string
	readonly server: string
	readonly certificateAuthority: string
	readonly clientCertificate: string
	readonly clientKey: string
	readonly namespace?: string
}

export interface EditOptions extends KubeconfigPlace {
	readonly clock?: Clock
	/** How long to wait for another process' lock. Milliseconds. */
	readonly patience?: number
}

/**
 * Puts a context into the user's kubeconfig, replacing what has its name, and makes it the current one. Of several
 * files the first that exists is written, else the last (as kubectl does). Resolves with the file's path.
 */
export async function mergeContext(context: OwnContext, options: EditOptions = {}): Promise<string> {
	const paths = kubeconfigPaths(options)
	let path = paths[paths.length - 1] as string
	for (const candidate of paths) {
		if ((await readIfThere(candidate)) === undefined) continue
		path = candidate
		break
	}
	const base64 = (pem: string) => Buffer.from(pem).toString('base64')
	await edit(path, options, (config) => {
		if (config.get('apiVersion') === undefined) config.set('apiVersion', 'v1')
		if (config.get('kind') === undefined) config.set('kind', 'Config')
		put(config, 'clusters', context.name, {
			cluster: { 'certificate-authority-data': base64(context.certificateAuthority), server: context.server },
			name: context.name,
		})
		put(config, 'contexts', context.name, {
			context: {
				cluster: context.name,
				...(context.namespace === undefined ? {} : { namespace: context.namespace }),
				user: context.name,
			},
			name: context.name,
		})
		put(config, 'users', context.name, {
			name: context.name,
			user: {
				'client-certificate-data': base64(context.clientCertificate),
				'client-key-data': base64(context.clientKey),
			},
		})
		config.set('current-context', context.name)
		return true
	})
	return path
}

/** Takes cluster, user and context of a name out of every file that has them; resolves with the files that changed. */
export async function removeContext(name: string, options: EditOptions = {}): Promise<readonly string[]> {
	const changed: string[] = []
	for (const path of kubeconfigPaths(options)) {
		const text = await readIfThere(path)
		// A file that does not even mention the name needs no lock and no parsing: it may be broken, and not ours.
		if (text === undefined || !text.includes(name)) continue
		const wrote = await edit(path, options, (config) => {
			let some = false
			for (const list of ['clusters', 'contexts', 'users']) some = take(config, list, name) || some
			if (config.get('current-context') !== name) return some
			config.set('current-context', '')
			return true
		})
		if (wrote) changed.push(path)
	}
	return changed
}

function listOf(config: Document, field: string): YAMLSeq | undefined {
	const list = config.get(field)
	return isSeq(list) ? (list as YAMLSeq) : undefined
}

function indexOf(list: YAMLSeq, name: string): number {
	return list.items.findIndex((item) => isMap(item) && item.get('name') === name)
}

function put(config: Document, field: string, name: string, value: object): void {
	let list = listOf(config, field)
	if (list === undefined) {
		list = new YAMLSeq()
		config.set(field, list)
	}
	// An empty list is usually written `[]`: ours would be squeezed into that line.
	if (list.items.length === 0) list.flow = false
	const at = indexOf(list, name)
	const node = config.createNode(value)
	if (at < 0) list.items.push(node)
	else list.items[at] = node
}

function take(config: Document, field: string, name: string): boolean {
	const list = listOf(config, field)
	if (list === undefined) return false
	const at = indexOf(list, name)
	if (at < 0) return false
	list.items.splice(at, 1)
	return true
}

function parse(path: string, text: string): Document {
	const document = parseDocument(text, { logLevel: 'silent' })
	const error = document.errors[0]
	if (error !== undefined) {
		const why = error.message.split('\n', 1)[0]?.replace(/:$/, '')
		throw new Failure('InvalidKubeconfig', `Cannot read kubeconfig "${path}": ${why}`, { path })
	}
	if (document.contents !== null && !isMap(document.contents)) {
		throw new Failure('InvalidKubeconfig', `Cannot read kubeconfig "${path}": it is not a mapping`, { path })
	}
	return document
}

/** Changes one file under its lock, all or nothing. False: `change` had nothing to do. */
async function edit(path: string, options: EditOptions, change: (config: Document) => boolean): Promise<boolean> {
	await mkdir(dirname(path), { recursive: true })
	return withLock(path, options, async () => {
		const text = await readIfThere(path)
		const document = parse(path, text ?? '')
		if (document.contents === null) document.contents = new YAMLMap() as unknown as null
		if (!change(document)) return false
		// Lists as the file has them; kubectl writes them without an indent.
		const indentSeq = /^ +- /m.test(text ?? '') && !/^- /m.test(text ?? '')
		await replaceFile(path, document.toString({ lineWidth: 0, flowCollectionPadding: false, indentSeq }))
		return true
	})
}

/** kubectl's own lock: a file that may be made only once. */
async function withLock<R>(path: string, options: EditOptions, task: () => Promise<R>): Promise<R> {
	const clock = options.clock ?? systemClock
	const lock = `${path}.lock`
	const until = clock.now() + (options.patience ?? 5000)
	for (;;) {
		try {
			await (await open(lock, 'wx', 0o600)).close()
			break
		} catch (e) {
			if ((e as NodeJS.ErrnoException).code !== 'EEXIST') {
				throw new Failure(
					'KubeconfigUnwritable',
					`Cannot lock kubeconfig "${path}": ${messageOf(e)}`,
					{ path },
					{ cause: e },
				)
			}
			if (clock.now() >= until) {
				const text = `Cannot change kubeconfig "${path}": "${lock}" exists, so another program is writing it; if none is, remove that file`
				throw new Failure('KubeconfigLocked', text, { path, lock })
			}
			const { promise, resolve: done } = Promise.withResolvers<void>()
			clock.after(50, done)
			await promise
		}
	}
	try {
		return await task()
	} finally {
		await rm(lock, { force: true })
	}
}

/** By a second file and a rename, so that a full disk or a crash leaves the old text. Mode 0600: it holds keys. */
async function replaceFile(path: string, text: string): Promise<void> {
	// A symbolic link stays one: what it points to is replaced.
	const target = await realpath(path).catch(() => path)
	const before = await stat(target).catch(() => undefined)
	const temporary = `${target}.${randomBytes(6).toString('hex')}`
	try {
		const file = await open(temporary, 'wx', 0o600)
		try {
			await file.writeFile(text)
			await file.sync()
		} finally {
			await file.close()
		}
		await chmod(temporary, 0o600)
		// Root must not take a user's file away; where we may not give it back, it was ours before.
		if (before !== undefined) await chown(temporary, before.uid, before.gid).catch(() => {})
		await rename(temporary, target)
	} catch (cause) {
		await rm(temporary, { force: true })
		throw new Failure(
			'KubeconfigUnwritable',
			`Cannot write kubeconfig "${path}": ${messageOf(cause)}`,
			{ path },
			{ cause },
		)
	}
}

async function readIfThere(path: string): Promise<string | undefined> {
	try {
		return await readFile(path, 'utf8')
	} catch (e) {
		const code = (e as NodeJS.ErrnoException).code
		if (code === 'ENOENT' || code === 'ENOTDIR') return undefined
		throw new Failure('InvalidKubeconfig', `Cannot read "${path}": ${messageOf(e)}`, { path }, { cause: e })
	}
}
