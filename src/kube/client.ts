// A Kubernetes client over a Transport: list, get, create, update, patch, apply, delete, watch, subresources.
// Thin on purpose: in a lab the transport is a function call and thousands of requests pass each second.

import { Failure } from '../base/failure.ts'
import { failureOfResponse, failureOfStatus, isConflict, isExpired } from './answer.ts'
import type { Kind } from './kinds.ts'
import {
	type KubeList,
	type KubeObject,
	keyOf,
	type ListMeta,
	type ObjectKey,
	type Status,
	splitKey,
	type WatchEvent,
} from './objects/meta.ts'
import { apiVersionOf, resourcePath } from './resources.ts'
import type { Transport } from './transport.ts'

export interface ReadOptions {
	readonly signal?: AbortSignal | undefined
	readonly resourceVersion?: string | undefined
}

export interface SelectOptions {
	/** Absent: all namespaces. */
	readonly namespace?: string | undefined
	/** Query form: `app=web,tier in (a,b)`. */
	readonly labelSelector?: string | undefined
	readonly fieldSelector?: string | undefined
}

export interface ListOptions extends ReadOptions, SelectOptions {
	readonly resourceVersionMatch?: 'Exact' | 'NotOlderThan' | undefined
	/** Ask in pages of so many objects; the result is whole nevertheless. */
	readonly pageSize?: number | undefined
}

export interface WriteOptions {
	readonly signal?: AbortSignal | undefined
	/** `status`, `scale`, `binding`… */
	readonly subresource?: string | undefined
	readonly dryRun?: boolean | undefined
	readonly fieldManager?: string | undefined
	readonly fieldValidation?: 'Strict' | 'Warn' | 'Ignore' | undefined
}

export interface ApplyOptions extends WriteOptions {
	/** Take over fields of other managers. */
	readonly force?: boolean | undefined
}

export interface PatchOptions extends WriteOptions {
	/** merge (RFC 7386) unless said otherwise; json is RFC 6902. */
	readonly type?: 'merge' | 'strategic' | 'json' | undefined
}

export interface DeleteOptions {
	readonly signal?: AbortSignal | undefined
	readonly dryRun?: boolean | undefined
	readonly gracePeriodSeconds?: number | undefined
	readonly propagationPolicy?: 'Orphan' | 'Background' | 'Foreground' | undefined
	readonly preconditions?: { readonly uid?: string; readonly resourceVersion?: string } | undefined
}

export interface WatchOptions extends SelectOptions {
	readonly signal?: AbortSignal | undefined
	/** Events after this version; absent: the state as it is, then what follows. */
	readonly resourceVersion?: string | undefined
	readonly allowWatchBookmarks?: boolean | undefined
	readonly sendInitialEvents?: boolean | undefined
	readonly timeoutSeconds?: number | undefined
}

export type WatchChange<T extends KubeObject> = Exclude<WatchEvent<T>, { readonly type: 'ERROR' }>

/** Every method throws Failure with the Kubernetes reason as its code (`NotFound`, `Conflict`…; predicates in answer.ts). */
export interface KubeClient {
	readonly transport: Transport
	list<T extends KubeObject>(kind: Kind<T>, options?: ListOptions): Promise<KubeList<T>>
	get<T extends KubeObject>(kind: Kind<T>, key: ObjectKey, options?: ReadOptions): Promise<T>
	/** As get, undefined where there is none. */
	find<T extends KubeObject>(kind: Kind<T>, key: ObjectKey, options?: ReadOptions): Promise<T | undefined>
	/** The namespace is the object's. With a subresource (`pods/binding`) the object is that of metadata.name. */
	create<T extends KubeObject>(kind: Kind<T>, object: New<T>, options?: WriteOptions): Promise<T>
	update<T extends KubeObject>(kind: Kind<T>, object: T, options?: WriteOptions): Promise<T>
	/** Reads, changes and writes until no one else wrote in between. `change` returns its argument (or undefined) to leave it. */
	edit<T extends KubeObject>(
		kind: Kind<T>,
		key: ObjectKey,
		change: (object: T) => T | undefined,
		options?: WriteOptions,
	): Promise<T>
	patch<T extends KubeObject>(kind: Kind<T>, key: ObjectKey, patch: unknown, options?: PatchOptions): Promise<T>
	/** Server-side apply under a field manager. */
	apply<T extends KubeObject>(kind: Kind<T>, object: New<T>, options?: ApplyOptions): Promise<T>
	/** The object as it was last, or still is while finalizers hold it; a Status from servers that answer one. */
	delete<T extends KubeObject>(kind: Kind<T>, key: ObjectKey, options?: DeleteOptions): Promise<T | Status>
	deleteCollection(kind: Kind, options?: SelectOptions & DeleteOptions): Promise<void>
	/** Ends when the server ends it, when `signal` aborts, or when the loop is left. An ERROR event throws its Failure. */
	watch<T extends KubeObject>(kind: Kind<T>, options?: WatchOptions): AsyncGenerator<WatchChange<T>, void, undefined>
	/** Any other path: discovery, /version. The body of the answer, parsed. */
	raw<R>(path: string, options?: { method?: string; body?: unknown; signal?: AbortSignal }): Promise<R>
}

/** An object to be made: the server fills the rest; `apiVersion` and `kind` are added where they are left out. */
export type New<T extends KubeObject> = Omit<T, 'apiVersion' | 'kind' | 'metadata'> & {
	readonly apiVersion?: T['apiVersion']
	readonly kind?: T['kind']
	readonly metadata: Partial<T['metadata']>
}

const patchTypes = {
	merge: 'application/merge-patch+json',
	strategic: 'application/strategic-merge-patch+json',
	json: 'application/json-patch+json',
} as const
const applyType = 'application/apply-patch+yaml'
const jsonType = 'application/json'
/** The transport ignores the host. */
const base = 'http://kubernetes'

/** `fieldManager` is sent with every write that names none (default `podwire`). */
export function createKubeClient(
	transport: Transport,
	defaults: { readonly fieldManager?: string; readonly userAgent?: string } = {},
): KubeClient {
	const fieldManager = defaults.fieldManager ?? 'podwire'
	const userAgent = defaults.userAgent ?? 'podwire'

	async function send(
		action: string,
		method: string,
		path: string,
		signal?: AbortSignal,
		body?: unknown,
		type: string = jsonType,
	): Promise<Response> {
		const headers: Record<string, string> = { accept: jsonType, 'user-agent': userAgent }
		const init: RequestInit = { method, headers }
		// Only where asked for: every Request with a signal makes one of its own that follows it.
		if (signal !== undefined) init.signal = signal
		if (body !== undefined) {
			headers['content-type'] = type
			init.body = JSON.stringify(body)
		}
		const response = await transport(new Request(base + path, init))
		if (response.status >= 200 && response.status < 300) return response
		throw await failureOfResponse(action, response)
	}
	async function call<R>(...args: Parameters<typeof send>): Promise<R> {
		const response = await send(...args)
		const text = await response.text()
		try {
			return JSON.parse(text) as R
		} catch (cause) {
			throw new Failure('BadAnswer', `${args[0]}: the answer is not JSON: ${text.slice(0, 100)}`, {}, { cause })
		}
	}
	const write = (options: WriteOptions): string =>
		query({
			fieldManager: options.fieldManager ?? fieldManager,
			fieldValidation: options.fieldValidation,
			dryRun: options.dryRun ? 'All' : undefined,
		})

	const client: KubeClient = {
		transport,
		async list<T extends KubeObject>(kind: Kind<T>, options: ListOptions = {}): Promise<KubeList<T>> {
			const action = `Cannot list ${kind.plural}`
			const path = resourcePath(kind, { namespace: options.namespace ?? '' })
			const select = { labelSelector: options.labelSelector, fieldSelector: options.fieldSelector }
			const ask = (more: Record<string, string | number | undefined>) =>
				call<KubeList<T>>(action, 'GET', path + query({ ...select, ...more }), options.signal)
			const first = await ask({
				resourceVersion: options.resourceVersion,
				resourceVersionMatch: options.resourceVersionMatch,
				limit: options.pageSize,
			})
			let next = first.metadata.continue
			if (!next) return named(kind, first, first.items ?? [], first.metadata)
			const items = [...first.items]
			while (next) {
				let page: KubeList<T>
				try {
					page = await ask({ limit: options.pageSize, continue: next })
				} catch (e) {
					// The snapshot was compacted away while we paged: one list without pages is consistent again.
					if (!isExpired(e)) throw e
					const whole = await ask({})
					return named(kind, whole, whole.items ?? [], whole.metadata)
				}
				items.push(...page.items)
				next = page.metadata.continue
			}
			return named(kind, first, items, { resourceVersion: first.metadata.resourceVersion ?? '' })
		},
		get: <T extends KubeObject>(kind: Kind<T>, key: ObjectKey, options: ReadOptions = {}) =>
			call<T>(
				`Cannot get ${kind.kind} "${key}"`,
				'GET',
				resourcePath(kind, splitKey(key)) + query({ resourceVersion: options.resourceVersion }),
				options.signal,
			),
		async find(kind, key, options) {
			try {
				return await client.get(kind, key, options)
			} catch (e) {
				// Also where the resource itself is unknown (a CRD that is not installed): there is none either.
				if (e instanceof Failure && e.code === 'NotFound') return undefined
				throw e
			}
		},
		create<T extends KubeObject>(kind: Kind<T>, object: New<T>, options: WriteOptions = {}) {
			const { namespace, name, generateName } = object.metadata
			const at = { namespace: namespace ?? '', subresource: options.subresource, name: undefined as string | undefined }
			if (options.subresource !== undefined) at.name = name ?? ''
			return call<T>(
				`Cannot create ${kind.kind} "${text(namespace, name ?? `${generateName}*`)}"`,
				'POST',
				resourcePath(kind, defined(at)) + write(options),
				options.signal,
				options.subresource === undefined ? typed(kind, object) : object,
			)
		},
		update<T extends KubeObject>(kind: Kind<T>, object: T, options: WriteOptions = {}) {
			const key = keyOf(object)
			const at = { ...splitKey(key), subresource: options.subresource }
			const body = options.subresource === undefined || options.subresource === 'status' ? typed(kind, object) : object
			return call<T>(
				`Cannot update ${kind.kind} "${key}"`,
				'PUT',
				resourcePath(kind, defined(at)) + write(options),
				options.signal,
				body,
			)
		},
		async edit(kind, key, change, options = {}) {
			for (let attempt = 0; ; attempt++) {
				const before = await client.get(kind, key, { signal: options.signal })
				const after = change(before)
				if (after === undefined || after === before) return before
				try {
					return await client.update(kind, after, options)
				} catch (e) {
					if (!isConflict(e) || attempt >= 20) throw e
				}
			}
		},
		patch: <T extends KubeObject>(kind: Kind<T>, key: ObjectKey, patch: unknown, options: PatchOptions = {}) =>
			call<T>(
				`Cannot patch ${kind.kind} "${key}"`,
				'PATCH',
				resourcePath(kind, defined({ ...splitKey(key), subresource: options.subresource })) + write(options),
				options.signal,
				patch,
				patchTypes[options.type ?? 'merge'],
			),
		apply<T extends KubeObject>(kind: Kind<T>, object: New<T>, options: ApplyOptions = {}) {
			const { namespace, name = '' } = object.metadata
			const path = resourcePath(kind, defined({ namespace: namespace ?? '', name, subresource: options.subresource }))
			const force = options.force ? '&force=true' : ''
			return call<T>(
				`Cannot apply ${kind.kind} "${text(namespace, name)}"`,
				'PATCH',
				path + write(options) + force,
				options.signal,
				typed(kind, object),
				applyType,
			)
		},
		delete: <T extends KubeObject>(kind: Kind<T>, key: ObjectKey, options: DeleteOptions = {}) =>
			call<T | Status>(
				`Cannot delete ${kind.kind} "${key}"`,
				'DELETE',
				resourcePath(kind, splitKey(key)),
				options.signal,
				deleteBody(options),
			),
		async deleteCollection(kind, options = {}) {
			const { namespace = '', labelSelector, fieldSelector } = options
			const path = resourcePath(kind, { namespace }) + query({ labelSelector, fieldSelector })
			await call(`Cannot delete ${kind.plural}`, 'DELETE', path, options.signal, deleteBody(options))
		},
		async *watch<T extends KubeObject>(kind: Kind<T>, options: WatchOptions = {}) {
			const action = `Cannot watch ${kind.plural}`
			const { signal, namespace = '', ...rest } = options
			const path = resourcePath(kind, { namespace }) + query({ watch: 'true', ...rest })
			try {
				const response = await send(action, 'GET', path, signal)
				for await (const line of readLines(response, action, signal)) {
					const event = readEvent<T>(action, line)
					if (event.type === 'ERROR') throw failureOfStatus(action, event.object)
					yield event
				}
			} catch (e) {
				if (signal?.aborted) return
				throw e
			}
		},
		raw: (path, options = {}) =>
			call(`Cannot read ${path}`, options.method ?? 'GET', path, options.signal, options.body),
	}
	return client
}

/** Servers leave apiVersion and kind out of the items of a list: put them back. */
function named<T extends KubeObject>(
	kind: Kind,
	list: KubeList<T>,
	items: readonly T[],
	metadata: ListMeta,
): KubeList<T> {
	const apiVersion = apiVersionOf(kind)
	const whole = items.every((item) => item.kind !== undefined)
	const full = whole
		? items
		: items.map((item) => (item.kind === undefined ? Object.assign({ apiVersion, kind: kind.kind }, item) : item))
	return { apiVersion: list.apiVersion, kind: list.kind, metadata, items: full as readonly T[] }
}

function typed(kind: Kind, object: { readonly apiVersion?: string; readonly kind?: string }): unknown {
	if (object.apiVersion !== undefined && object.kind !== undefined) return object
	return { ...object, apiVersion: object.apiVersion ?? apiVersionOf(kind), kind: object.kind ?? kind.kind }
}

function text(namespace: string | undefined, name: string): string {
	return namespace ? `${namespace}/${name}` : name
}

function deleteBody(options: DeleteOptions): unknown {
	const { gracePeriodSeconds, propagationPolicy, preconditions, dryRun } = options
	if (gracePeriodSeconds === undefined && propagationPolicy === undefined && preconditions === undefined && !dryRun) {
		return undefined
	}
	return {
		apiVersion: 'v1',
		kind: 'DeleteOptions',
		...defined({ gracePeriodSeconds, propagationPolicy, preconditions, dryRun: dryRun ? ['All'] : undefined }),
	}
}

function readEvent<T extends KubeObject>(action: string, line: string): WatchEvent<T> {
	try {
		return JSON.parse(line) as WatchEvent<T>
	} catch (cause) {
		throw new Failure('BadAnswer', `${action}: an event is not JSON: ${line.slice(0, 100)}`, {}, { cause })
	}
}

/** Drops what is undefined (exact optional properties). */
function defined<O extends object>(object: O): { [K in keyof O]: Exclude<O[K], undefined> } {
	const out: Record<string, unknown> = {}
	for (const [k, v] of Object.entries(object)) if (v !== undefined) out[k] = v
	return out as { [K in keyof O]: Exclude<O[K], undefined> }
}

function query(parameters: object): string {
	let out = ''
	for (const [name, value] of Object.entries(parameters)) {
		if (value !== undefined) out += `${out === '' ? '?' : '&'}${name}=${encodeURIComponent(String(value))}`
	}
	return out
}

/** A watch line may be as long as the largest object a server keeps, several times over. */
const longestLine = 64 * 1024 * 1024

/** The non-empty lines of a streaming body. Leaving the loop cancels the stream. */
async function* readLines(
	response: Response,
	action: string,
	signal: AbortSignal | undefined,
): AsyncGenerator<string, void, undefined> {
	if (response.body === null) return
	const reader = response.body.getReader()
	// A transport should end the stream on abort; cancelling makes sure that a pending read returns.
	const stop = () => void reader.cancel().catch(() => {})
	signal?.addEventListener('abort', stop)
	const decoder = new TextDecoder()
	// Pieces of the line that has no end yet; joined once, so a long line does not cost its length squared.
	let pieces: string[] = []
	let length = 0
	try {
		for (;;) {
			const { done, value } = await reader.read()
			if (done) break
			const chunk = decoder.decode(value, { stream: true })
			let from = 0
			for (let end = chunk.indexOf('\n'); end >= 0; end = chunk.indexOf('\n', from)) {
				const line = pieces.length === 0 ? chunk.slice(from, end) : pieces.join('') + chunk.slice(from, end)
				if (pieces.length > 0) pieces = []
				length = 0
				from = end + 1
				if (line !== '' && line !== '\r') yield line
			}
			if (from < chunk.length) {
				pieces.push(from === 0 ? chunk : chunk.slice(from))
				length += chunk.length - from
				if (length > longestLine)
					throw new Failure('BadAnswer', `${action}: a line is longer than ${longestLine} characters`)
			}
		}
		const last = pieces.join('')
		if (last.trim() !== '') yield last
	} finally {
		signal?.removeEventListener('abort', stop)
		// Cancel may fail when the stream broke; there is nothing left to cancel then.
		await reader.cancel().catch(() => {})
	}
}
