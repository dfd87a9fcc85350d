// The folders behind PersistentVolumeClaims. A volume is a folder of the lab that outlives pods and daemon, on every node
// the same; one with a hostPath or local path is that folder of the host. What provisioning made goes with its volume.

import { chmodSync, existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import type { Clock } from '../../base/clock.ts'
import { Failure } from '../../base/failure.ts'
import { folderProvisioner } from '../../controllers/volumes/plan.ts'
import type { KubeClient } from '../../kube/client.ts'
import { createInformer } from '../../kube/informer.ts'
import { persistentVolumeClaims, persistentVolumes } from '../../kube/kinds.ts'
import { namespacedKey, type ObjectKey } from '../../kube/objects/meta.ts'
import type { Pod } from '../../kube/objects/pod.ts'
import type { PersistentVolume } from '../../kube/objects/storage.ts'

export interface Claims {
	start(): Promise<void>
	/**
	 * Resolves when every claim of the pod is bound: the folder of each of its volumes of that kind, by the volume's
	 * name; '' on paper. Throws Failure FailedMount after a moment.
	 */
	foldersOf(pod: Pod): Promise<ReadonlyMap<string, ClaimFolder>>
	stop(): void
}

export interface ClaimFolder {
	readonly path: string
	readonly readOnly: boolean
}

/** Milliseconds a pod's turn waits for its claims: binding takes a few. */
const patience = 2_000

export function createClaims(options: {
	readonly client: KubeClient
	readonly clock: Clock
	/** Holds one folder a volume; undefined on paper. */
	readonly folder: string | undefined
	/** A claim was bound or made. */
	readonly changed: (claim: ObjectKey) => void
	readonly onFailure: (what: string, error: unknown) => void
}): Claims {
	const { client, clock, folder } = options
	const how = { clock, onFailure: (e: unknown) => options.onFailure('informer', e) }
	const claims = createInformer(client, persistentVolumeClaims, how)
	const volumes = createInformer(client, persistentVolumes, how)

	function remove(name: string): void {
		if (folder === undefined) return
		try {
			rmSync(join(folder, name), { recursive: true, force: true })
		} catch (e) {
			options.onFailure(`volume ${name}`, e)
		}
	}

	/** Undefined while the claim is not bound. */
	function volumeOf(claim: ObjectKey): PersistentVolume | undefined {
		const { spec, status, metadata } = claims.store.get(claim) ?? {}
		if (status?.phase !== 'Bound' || spec?.volumeName === undefined) return undefined
		const volume = volumes.store.get(spec.volumeName)
		return volume?.spec?.claimRef?.uid === metadata?.uid ? volume : undefined
	}

	function folderOf({ metadata, spec }: PersistentVolume): string {
		if (folder === undefined) return ''
		const own = spec?.hostPath?.path ?? spec?.local?.path
		if (own !== undefined && existsSync(own)) return own
		const path = join(folder, metadata.name)
		if (!existsSync(path)) {
			mkdirSync(path, { recursive: true, mode: 0o755 })
			chmodSync(path, 0o777)
		}
		return path
	}

	return {
		async start() {
			claims.onChange((key) => options.changed(key))
			volumes.onChange((name, before, after) => {
				if (after === undefined && before?.spec?.csi?.driver === folderProvisioner) remove(name)
				const to = after?.spec?.claimRef
				if (to?.name !== undefined) options.changed(namespacedKey(to.namespace ?? '', to.name))
			})
			claims.start()
			volumes.start()
			await Promise.all([claims.synced, volumes.synced])
			if (folder === undefined || !existsSync(folder)) return
			// Deleted while nobody looked.
			for (const name of readdirSync(folder)) {
				if (name.startsWith('pvc-') && !volumes.store.has(name)) remove(name)
			}
		},
		async foldersOf(pod) {
			const found = new Map<string, ClaimFolder>()
			for (const { name, persistentVolumeClaim: wanted } of pod.spec?.volumes ?? []) {
				if (wanted === undefined) continue
				const key = namespacedKey(pod.metadata.namespace ?? '', wanted.claimName)
				const volume = volumeOf(key) ?? (await wait(key))
				const modes = volume.spec?.accessModes ?? []
				const readOnly = wanted.readOnly === true || (modes.length > 0 && modes.every((m) => m === 'ReadOnlyMany'))
				found.set(name, { path: folderOf(volume), readOnly })
			}
			return found
		},
		stop() {
			claims.stop()
			volumes.stop()
		},
	}

	async function wait(key: ObjectKey): Promise<PersistentVolume> {
		const late = new AbortController()
		const cancel = clock.after(patience, () => late.abort())
		try {
			return await Promise.any([
				claims.until(() => volumeOf(key), late.signal),
				volumes.until(() => volumeOf(key), late.signal),
			])
		} catch {
			const there = claims.store.get(key)
			const name = key.slice(key.indexOf('/') + 1)
			throw new Failure(
				'FailedMount',
				there === undefined
					? `persistentvolumeclaim "${name}" not found`
					: `persistentvolumeclaim "${name}" is not bound: its phase is ${there.status?.phase ?? 'Pending'}`,
			)
		} finally {
			cancel()
			late.abort()
		}
	}
}
