// The volumes of a pod as folders of the lab, written as the kubelet writes them: the files of a version in a folder of
// their own, `..data` pointing to it, so that a reader sees the old set or the new one, never a mix.

import {
	chmodSync,
	existsSync,
	mkdirSync,
	readdirSync,
	readFileSync,
	readlinkSync,
	renameSync,
	rmSync,
	symlinkSync,
	writeFileSync,
} from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import type { ConfigMap, Secret } from '../../kube/objects/core.ts'
import type { Container, DownwardVolume, KeyToPath, Pod, Volume } from '../../kube/objects/pod.ts'
import type { PodMount } from '../pod-mounts.ts'
import type { ClaimFolder } from './claims.ts'
import { expand } from './environment.ts'

export interface VolumeInput {
	readonly pod: Pod
	readonly configMap: (name: string) => Promise<ConfigMap | undefined>
	readonly secret: (name: string) => Promise<Secret | undefined>
	/** A token of the pod's ServiceAccount; `seconds` it is good for. */
	readonly token: (audience: string | undefined, seconds: number) => Promise<string>
	/** A field of the pod, or a resource of one of its containers, as text. */
	readonly downward: (item: NonNullable<DownwardVolume['items']>[number]) => string
}

export interface VolumeFile {
	readonly data: Uint8Array
	readonly mode: number
}

/** What is not there and has to be: the kubelet's FailedMount. */
export type VolumeFiles = ReadonlyMap<string, VolumeFile>

const defaultMode = 0o644
/** Seconds. */
const defaultTokenLife = 3600

/** The files of a volume by their paths; undefined for a kind that holds none of its own. `missing` takes what is not there. */
export async function filesOf(
	volume: Volume,
	input: VolumeInput,
	missing: string[],
): Promise<Map<string, VolumeFile> | undefined> {
	const namespace = input.pod.metadata.namespace as string
	const files = new Map<string, VolumeFile>()

	function take(
		values: ReadonlyMap<string, Uint8Array> | undefined,
		what: string,
		items: readonly KeyToPath[] | undefined,
		optional: boolean | undefined,
		mode: number,
	): void {
		if (values === undefined) {
			if (optional !== true) missing.push(`${what} not found`)
			return
		}
		for (const { key, path, mode: own } of items ?? [...values.keys()].map((k): KeyToPath => ({ key: k, path: k }))) {
			const data = values.get(key)
			if (data !== undefined) put(path, { data, mode: own ?? mode })
			else if (optional !== true) missing.push(`${what} references non-existent key: ${key}`)
		}
	}
	function put(path: string, file: VolumeFile): void {
		const clean = normalize(path)
		if (clean.startsWith('/') || clean === '..' || clean.startsWith('../')) {
			missing.push(`the path ${JSON.stringify(path)} leaves the volume`)
		} else files.set(clean, file)
	}
	const configMap = async (name: string) => {
		const found = await input.configMap(name)
		return (
			found &&
			new Map([
				...Object.entries(found.data ?? {}).map(([k, v]) => [k, Buffer.from(v)] as const),
				...Object.entries((found as { binaryData?: Record<string, string> }).binaryData ?? {}).map(
					([k, v]) => [k, Buffer.from(v, 'base64')] as const,
				),
			])
		)
	}
	const secret = async (name: string) => {
		const found = await input.secret(name)
		return found && new Map(Object.entries(found.data ?? {}).map(([k, v]) => [k, Buffer.from(v, 'base64')] as const))
	}
	const downward = (from: DownwardVolume, mode: number) => {
		for (const item of from.items ?? [])
			put(item.path, { data: Buffer.from(input.downward(item)), mode: item.mode ?? mode })
	}

	if (volume.configMap !== undefined) {
		const { name = '', items, optional, defaultMode: mode = defaultMode } = volume.configMap
		take(await configMap(name), `configmap "${namespace}/${name}"`, items, optional, mode)
	} else if (volume.secret !== undefined) {
		const { secretName = '', items, optional, defaultMode: mode = defaultMode } = volume.secret
		take(await secret(secretName), `secret "${namespace}/${secretName}"`, items, optional, mode)
	} else if (volume.downwardAPI !== undefined) {
		downward(volume.downwardAPI, volume.downwardAPI.defaultMode ?? defaultMode)
	} else if (volume.projected !== undefined) {
		const mode = volume.projected.defaultMode ?? defaultMode
		for (const source of volume.projected.sources ?? []) {
			if (source.configMap !== undefined) {
				const { name = '', items, optional } = source.configMap
				take(await configMap(name), `configmap "${namespace}/${name}"`, items, optional, mode)
			}
			if (source.secret !== undefined) {
				const { name = '', items, optional } = source.secret
				take(await secret(name), `secret "${namespace}/${name}"`, items, optional, mode)
			}
			if (source.downwardAPI !== undefined) downward(source.downwardAPI, mode)
			if (source.serviceAccountToken !== undefined) {
				const { audience, expirationSeconds = defaultTokenLife, path } = source.serviceAccountToken
				put(path, { data: Buffer.from(await input.token(audience, expirationSeconds)), mode: 0o600 })
			}
		}
	} else return undefined
	return files
}

/** Writes the files as the volume's next version; nothing where they are what is there. */
export function writeVersion(folder: string, files: VolumeFiles): void {
	mkdirSync(folder, { recursive: true, mode: 0o755 })
	const data = join(folder, '..data')
	const old = existsSync(data) ? readlinkSync(data) : undefined
	if (old !== undefined && isSame(join(folder, old), files)) return
	let n = 1
	while (existsSync(join(folder, `..v${n}`))) n++
	const version = `..v${n}`
	mkdirSync(join(folder, version), { mode: 0o755 })
	for (const [path, file] of files) {
		const full = join(folder, version, path)
		mkdirSync(dirname(full), { recursive: true, mode: 0o755 })
		writeFileSync(full, file.data)
		chmodSync(full, file.mode)
	}
	const next = join(folder, '..data_tmp')
	rmSync(next, { force: true })
	symlinkSync(version, next)
	renameSync(next, data)
	const tops = new Set([...files.keys()].map((path) => path.split('/')[0] as string))
	for (const name of readdirSync(folder)) if (!name.startsWith('..') && !tops.has(name)) rmSync(join(folder, name))
	for (const top of tops) if (!existsSync(join(folder, top))) symlinkSync(join('..data', top), join(folder, top))
	if (old !== undefined) rmSync(join(folder, old), { recursive: true, force: true })
}

function isSame(folder: string, files: VolumeFiles): boolean {
	const names = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((e) => e.isFile())
	if (names.length !== files.size) return false
	for (const [path, file] of files) {
		try {
			if (!readFileSync(join(folder, path)).equals(file.data)) return false
		} catch {
			return false
		}
	}
	return true
}

/** Where the volumes of a container go. `volumes`: the folder that holds one folder a volume; `claimed`: those of claims. */
export function mountsOf(
	pod: Pod,
	container: Container,
	volumes: string,
	env: Readonly<Record<string, string>>,
	claimed: ReadonlyMap<string, ClaimFolder>,
): readonly PodMount[] {
	return (container.volumeMounts ?? []).flatMap((mount): PodMount[] => {
		const volume = pod.spec?.volumes?.find((v) => v.name === mount.name)
		if (volume === undefined || !mount.mountPath.startsWith('/')) return []
		const isHost = volume.hostPath !== undefined && existsSync(volume.hostPath.path)
		const claim = claimed.get(mount.name)
		const base = claim?.path ?? (isHost ? (volume.hostPath?.path as string) : join(volumes, mount.name))
		const sub = normalize(mount.subPathExpr === undefined ? (mount.subPath ?? '.') : expand(mount.subPathExpr, env))
		if (sub === '..' || sub.startsWith('../') || sub.startsWith('/')) return []
		const source = join(base, sub)
		if (!existsSync(source)) mkdirSync(source, { recursive: true, mode: 0o777 })
		const isWritten = volume.emptyDir !== undefined || isHost || claim?.readOnly === false
		const target = normalize(mount.mountPath).replace(/(.)\/$/, '$1')
		return target === '/' ? [] : [{ source, target, readOnly: mount.readOnly === true || !isWritten }]
	})
}
