// What all controllers are: keys that fall due when something changes, and a turn for each key that reads the shared
// copies, writes, and does not come again before the copies show what it wrote. So no turn acts on a stale copy of its
// own doing, and none counts what it has created itself as missing.

import type { Clock } from '../base/clock.ts'
import { isNotFound } from '../kube/answer.ts'
import type { DeleteOptions, KubeClient, New, PatchOptions, WriteOptions } from '../kube/client.ts'
import type { Kind } from '../kube/kinds.ts'
import { type KubeObject, keyOf, type ObjectKey } from '../kube/objects/meta.ts'
import type { EventRecorder } from './events.ts'
import { canonicalJson } from './hash.ts'
import { createWorkQueue, type WorkQueue } from './queue.ts'
import type { Views, Written } from './view.ts'

/** What every controller works with. */
export interface Cluster {
	readonly client: KubeClient
	readonly clock: Clock
	readonly views: Views
	readonly recorder: EventRecorder
	/** Resolves when every view is complete; no turn begins before. */
	readonly ready: Promise<void>
	/** Hears of failed turns (they are tried again). */
	readonly onFailure: (controller: string, key: string, error: unknown, attempt: number) => void
	/** Hears that a controller may have come to rest. */
	readonly onRest: () => void
	readonly signal: AbortSignal
}

/** One turn: writes go through it, so that it is known what has to be seen. */
export interface Turn {
	/** Milliseconds since the epoch. */
	readonly now: number
	create<T extends KubeObject>(kind: Kind<T>, object: New<T>, options?: WriteOptions): Promise<T>
	update<T extends KubeObject>(kind: Kind<T>, object: T, options?: WriteOptions): Promise<T>
	patch<T extends KubeObject>(kind: Kind<T>, key: ObjectKey, patch: unknown, options?: PatchOptions): Promise<T>
	/** Deletes this very object (its uid), if it is still there. */
	delete<T extends KubeObject>(kind: Kind<T>, object: T, options?: DeleteOptions): Promise<void>
}

export interface ControllerOptions {
	readonly name: string
	/** How many keys at once; 16 unless said otherwise. */
	readonly parallel?: number
	/** Handles one key; the result is the milliseconds after which it is due by time alone. */
	reconcile(key: string, turn: Turn): Promise<number | undefined>
}

export interface Controller {
	readonly name: string
	readonly queue: WorkQueue
}

export function createController(cluster: Cluster, options: ControllerOptions): Controller {
	const { clock, client, views, signal } = cluster
	const queue = createWorkQueue({
		clock,
		parallel: options.parallel ?? 16,
		async handle(key) {
			await cluster.ready
			const pending: Promise<void>[] = []
			try {
				return await options.reconcile(key, takeTurn(client, views, clock, pending))
			} finally {
				if (pending.length > 0 && !signal.aborted) await Promise.all(pending)
			}
		},
		failed: (key, error, attempt) => cluster.onFailure(options.name, key, error, attempt),
		rested: cluster.onRest,
	})
	signal.addEventListener('abort', () => queue.stop(), { once: true })
	return { name: options.name, queue }
}

function takeTurn(client: KubeClient, views: Views, clock: Clock, pending: Promise<void>[]): Turn {
	/** Only kinds somebody watches can show anything. */
	const expect = <T extends KubeObject>(kind: Kind<T>, written: Written): void => {
		const view = views.watched(kind)
		if (view !== undefined) pending.push(view.shows(written))
	}
	const wrote = <T extends KubeObject>(kind: Kind<T>, object: T): T => {
		const { resourceVersion } = object.metadata
		if (resourceVersion !== undefined) expect(kind, { key: keyOf(object), resourceVersion })
		return object
	}
	return {
		now: clock.now(),
		create: async (kind, object, options) => wrote(kind, await client.create(kind, object, options)),
		update: async (kind, object, options) => wrote(kind, await client.update(kind, object, options)),
		patch: async (kind, key, patch, options) => wrote(kind, await client.patch(kind, key, patch, options)),
		async delete(kind, object, options) {
			const key = keyOf(object)
			const uid = object.metadata.uid!
			try {
				await client.delete(kind, key, { ...options, preconditions: { uid, ...options?.preconditions } })
			} catch (e) {
				// Gone already: what was asked for is so. A conflict (another of the same name) is for the next turn to see.
				if (!isNotFound(e)) throw e
			}
			expect(kind, { key, deletedUid: uid })
		},
	}
}

/** Writes the status of `object`, if it does not read so already. */
export async function writeStatus<T extends KubeObject & { readonly status?: unknown }>(
	turn: Turn,
	kind: Kind<T>,
	object: T,
	status: T['status'],
): Promise<void> {
	if (canonicalJson(object.status ?? {}) === canonicalJson(status)) return
	await turn.update(kind, { ...object, status }, { subresource: 'status' })
}

/**
 * Runs `task` for 0…count-1 in batches of 1, 2, 4…: what cannot work fails once, not a thousand times. Ends at the
 * first batch with a failure; resolves to how many succeeded, and that failure.
 */
export async function inBatches(
	count: number,
	task: (index: number) => Promise<unknown>,
): Promise<{ readonly done: number; readonly error?: unknown }> {
	let done = 0
	for (let size = 1, from = 0; from < count; from += size, size *= 2) {
		const results = await Promise.allSettled(
			Array.from({ length: Math.min(size, count - from) }, (_, i) => task(from + i)),
		)
		const failed = results.find((r) => r.status === 'rejected')
		done += results.filter((r) => r.status === 'fulfilled').length
		if (failed !== undefined) return { done, error: failed.reason }
	}
	return { done }
}
