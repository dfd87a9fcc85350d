// Where a lab keeps its files, by the XDG Base Directory Specification: durable state under XDG_STATE_HOME,
// what lives no longer than the boot under XDG_RUNTIME_DIR. Directories are 0700, files 0600.

import { existsSync, mkdirSync, readdirSync } from 'node:fs'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { Failure } from '../base/failure.ts'

export interface LabPaths {
	readonly name: string
	/** Durable: store, attachments, sources, certificates. */
	readonly state: string
	/** Sockets, namespace files, lab.json, logs of this boot. */
	readonly runtime: string
	readonly store: string
	readonly attachments: string
	readonly sources: string
	/** How many nodes the lab has. */
	readonly nodes: string
	/** Which data plane carries Services. */
	readonly serviceProxy: string
	/** How IPVS chooses. */
	readonly scheduler: string
	/** How policies are enforced where their API leaves a choice. */
	readonly policies: string
	/** IPv4, IPv6 or both. */
	readonly ipFamily: string
	/** What was chosen of its networks besides. */
	readonly network: string
	/** Keys and certificates of the API server. */
	readonly pki: string
	/** Who runs the lab; see record.ts. */
	readonly record: string
	readonly log: string
	readonly controlSocket: string
	readonly workloadsSocket: string
	readonly workloadsLog: string
	/** Mount points of the persistent network namespaces. */
	readonly namespaces: string
	/** One folder a pod: resolv.conf, hosts. */
	readonly pods: string
	/** One folder a PersistentVolume. */
	readonly volumes: string
}

export interface LabEnvironment {
	readonly XDG_STATE_HOME?: string
	readonly XDG_RUNTIME_DIR?: string
}

/** sun_path of unix(7) holds 108 bytes with the final zero. */
const socketPathLimit = 107

/** A lab's name is a DNS-1123 label of at most 40 characters. Throws Failure InvalidName. */
export function checkLabName(name: string): string {
	if (name.length > 40 || !/^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/.test(name)) {
		throw new Failure(
			'InvalidName',
			`Cannot use ${JSON.stringify(name)} as the name of a lab: it must be at most 40 lower-case letters, digits and "-", beginning and ending with a letter or digit`,
			{ name },
		)
	}
	return name
}

/** The folder that holds the runtime folders of all labs of this user. */
export function runtimeRoot(env: LabEnvironment = process.env, uid: number = realUid()): string {
	if (env.XDG_RUNTIME_DIR?.startsWith('/')) return join(env.XDG_RUNTIME_DIR, 'podwire')
	return uid === 0 ? '/run/podwire' : `/tmp/podwire-${uid}`
}

/** The folder that holds the durable folders of all labs of this user. */
export function stateRoot(env: LabEnvironment = process.env, home: string = homedir()): string {
	const base = env.XDG_STATE_HOME?.startsWith('/') ? env.XDG_STATE_HOME : join(home, '.local', 'state')
	return join(base, 'podwire')
}

/** The paths of the lab `name`; nothing is created. Throws Failure InvalidName, PathTooLong. */
export function labPaths(name: string, env: LabEnvironment = process.env): LabPaths {
	checkLabName(name)
	return labPathsIn(name, join(stateRoot(env), name), join(runtimeRoot(env), name))
}

/** As labPaths with the two folders given: the daemon is told them, because inside a user namespace it is "root". */
export function labPathsIn(name: string, state: string, runtime: string): LabPaths {
	const workloadsSocket = join(runtime, 'workloads.sock')
	if (Buffer.byteLength(workloadsSocket) > socketPathLimit) {
		throw new Failure(
			'PathTooLong',
			`Cannot keep sockets in ${JSON.stringify(runtime)}: a unix socket's path holds ${socketPathLimit} bytes; set XDG_RUNTIME_DIR to a shorter folder`,
			{ runtime },
		)
	}
	return {
		name,
		state,
		runtime,
		store: join(state, 'store'),
		attachments: join(state, 'attachments.db'),
		sources: join(state, 'sources.json'),
		nodes: join(state, 'nodes'),
		serviceProxy: join(state, 'service-proxy'),
		scheduler: join(state, 'ipvs-scheduler'),
		policies: join(state, 'policies.json'),
		ipFamily: join(state, 'ip-family'),
		network: join(state, 'network.json'),
		pki: join(state, 'pki'),
		record: join(runtime, 'lab.json'),
		log: join(runtime, 'daemon.log'),
		controlSocket: join(runtime, 'control.sock'),
		workloadsSocket,
		workloadsLog: join(runtime, 'workloads.log'),
		namespaces: join(runtime, 'netns'),
		pods: join(runtime, 'pods'),
		volumes: join(state, 'volumes'),
	}
}

/** Where Node keeps compiled sources between starts: halves the start of a lab. No state: may go at any time. */
export function compileCacheFolder(
	env: { readonly XDG_CACHE_HOME?: string } = process.env,
	home: string = homedir(),
): string {
	const base = env.XDG_CACHE_HOME?.startsWith('/') ? env.XDG_CACHE_HOME : join(home, '.cache')
	return join(base, 'podwire', 'compile')
}

/** Makes the lab's folders, 0700. Throws Failure CannotWrite with the reason (no rights, disk full). */
export function makeLabFolders(paths: LabPaths): void {
	for (const path of [paths.state, paths.runtime, paths.namespaces, paths.pods, paths.pki]) {
		try {
			makeFolder(path)
		} catch (e) {
			throw new Failure('CannotWrite', `Cannot make folder ${JSON.stringify(path)}: ${(e as Error).message}`, { path })
		}
	}
}

/** Step by step: Node's own recursion takes a read-only disk for a missing folder, and below /proc it does not end. */
function makeFolder(path: string): void {
	if (existsSync(path)) return
	makeFolder(dirname(path))
	try {
		mkdirSync(path, { mode: 0o700 })
	} catch (e) {
		if ((e as NodeJS.ErrnoException).code !== 'EEXIST') throw e
	}
}

/** Names that have a folder under either root, sorted; some may be dead. */
export function listLabNames(env: LabEnvironment = process.env): readonly string[] {
	const names = new Set<string>()
	for (const root of [runtimeRoot(env), stateRoot(env)]) {
		try {
			for (const entry of readdirSync(root, { withFileTypes: true })) if (entry.isDirectory()) names.add(entry.name)
		} catch {
			// No such folder: no lab there.
		}
	}
	return [...names].sort()
}

function realUid(): number {
	return process.getuid?.() ?? 1
}
