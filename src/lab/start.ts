// Labs from outside: start one, find one, list them, remove one with every trace, also after a crash.

import { spawn } from 'node:child_process'
import {
	closeSync,
	existsSync,
	linkSync,
	mkdirSync,
	openSync,
	readdirSync,
	readFileSync,
	renameSync,
	rmdirSync,
	rmSync,
	writeFileSync,
} from 'node:fs'
import { createServer, type Server } from 'node:net'
import { dirname, extname, join } from 'node:path'
import { Failure, isFailure, messageOf } from '../base/failure.ts'
import type { Scheduler } from '../linux/ipvs/ipvs.ts'
import { controlClient, type LabClient } from './client.ts'
import type { LabConfig } from './config.ts'
import type { DaemonOptions } from './daemon-options.ts'
import { defaultIpFamily, type LabIpFamily, networksOf, readIpFamily, settleIpFamily } from './ip-family.ts'
import { keepLine } from './kept.ts'
import { checkNetworks, type NetworkChoice, readNetworkChoice, settleNetworkChoice } from './network-choice.ts'
import { checkLabName, compileCacheFolder, type LabPaths, labPaths, listLabNames, makeLabFolders } from './paths.ts'
import { labMark } from './pod-process.ts'
import { type PolicyChoice, policyStatusOf, readPolicySettings } from './policy-settings.ts'
import {
	findMarkedProcesses,
	identifyProcess,
	isAlive,
	type ProcessIdentity,
	signalProcess,
	waitForEnd,
} from './process-identity.ts'
import { bootId, type LabRecord, readRecord } from './record.ts'
import { findRights, userNamespaceCommand } from './rights.ts'
import type { ServiceProxyChoice } from './service-proxy.ts'
import type { LabEvent, LabStatus } from './status.ts'

export interface StartOptions {
	readonly name: string
	/** Absent: as many as the lab had, else 3. Never fewer than it had. */
	readonly nodes?: number
	/** Absent: the kernel where the machine and the rights allow it, else paper, and the status says why. */
	readonly dataplane?: 'kernel' | 'paper'
	/** Absent: as the lab has it, else IPv4. A lab keeps what it was made with. */
	readonly ipFamily?: LabIpFamily
	/** Of its networks besides. What is absent is as the lab has it, else the default. A lab keeps what it was made with. */
	readonly network?: NetworkChoice
	/** Absent: as the lab had it, else nftables. A running lab keeps what it has. */
	readonly serviceProxy?: ServiceProxyChoice
	/** How IPVS chooses. Absent: as the lab had it, else rr. A running lab keeps what it has. */
	readonly scheduler?: Scheduler
	/** How policies are enforced. What is absent stays as the lab has it; a running lab changes. */
	readonly policies?: PolicyChoice
	readonly config: LabConfig
	readonly version: string
	readonly onEvent?: (event: LabEvent) => void
	readonly signal?: AbortSignal
}

const defaultNodes = 3

export interface LabHandle {
	readonly name: string
	/** false: it was running already. */
	readonly created: boolean
	readonly client: LabClient
	readonly status: LabStatus
}

/**
 * Starts the lab, or finds it running, or goes on with one that has crashed; resolves when its nodes are ready.
 * Throws Failure InvalidName, InvalidNetwork, NotAllowed (kernel forced and impossible), Immutable (another network than it has),
 * CannotWrite, StartFailed (with the end of the log).
 */
export async function startLab(options: StartOptions): Promise<LabHandle> {
	const paths = labPaths(options.name)
	const asked = options.network ?? {}
	// Nothing is left of a lab that cannot be.
	if (readIpFamily(paths) === undefined) {
		const families = networksOf(options.ipFamily ?? defaultIpFamily, asked)
		checkNetworks(asked, families, options.nodes ?? defaultNodes)
	}
	makeLabFolders(paths)
	const unlock = lock(paths)
	try {
		const isNew = readIpFamily(paths) === undefined
		const ipFamily = settleIpFamily(paths, options.ipFamily)
		const network = settleNetworkChoice(paths, isNew, asked)
		const record = readRecord(paths)
		if (record !== undefined && isAlive(record.daemon)) {
			try {
				const running = await waitRunning(paths, options, undefined)
				await running.client.putConfig(options.config)
				if (options.policies === undefined) return { ...running, created: false }
				await running.client.putPolicies(options.policies)
				return { ...running, status: await running.client.status(), created: false }
			} catch (e) {
				// It was just ending: then another goes on where it stopped.
				if ((await waitForEnd([record.daemon], 2_000)).length > 0) throw e
			}
		}
		const child = await spawnDaemon(paths, { ...options, ipFamily, network }, record)
		return { ...(await waitRunning(paths, options, child)), created: true }
	} finally {
		unlock()
	}
}

interface Daemon {
	readonly identity: ProcessIdentity | undefined
	/** Resolves with how it ended, if it ends. */
	readonly ended: Promise<string>
}

async function spawnDaemon(
	paths: LabPaths,
	options: StartOptions & { readonly ipFamily: LabIpFamily; readonly network: NetworkChoice },
	record: LabRecord | undefined,
): Promise<Daemon> {
	const sameBoot = record?.bootId === bootId()
	const workloads =
		sameBoot && record?.workloads !== undefined && isAlive(record.workloads) ? record.workloads : undefined
	const rights = options.dataplane === 'paper' ? ({ rights: 'none', why: '--dataplane paper' } as const) : findRights()
	if (options.dataplane === 'kernel' && rights.rights === 'none') {
		throw new Failure('NotAllowed', `Cannot use the kernel data plane: ${rights.why}`)
	}
	// Namespaces of a user namespace end with its last process; without the workloads all of it begins anew.
	if (workloads === undefined) {
		await killAll(findMarkedProcesses(labMark, paths.runtime))
		if (rights.rights !== 'root') removeNamespaceFiles(paths)
	}
	const nodes = Math.max(options.nodes ?? (keptNodes(paths) === 0 ? defaultNodes : 0), keptNodes(paths))
	if (nodes !== keptNodes(paths)) keepLine(paths.nodes, String(nodes))
	const daemonOptions: DaemonOptions = {
		paths,
		nodes,
		dataplane: rights.rights === 'none' ? 'paper' : 'kernel',
		...(rights.why === undefined ? {} : { whyPaper: rights.why }),
		forced: options.dataplane !== undefined,
		ipFamily: options.ipFamily,
		network: options.network,
		...(options.serviceProxy === undefined ? {} : { serviceProxy: options.serviceProxy }),
		...(options.scheduler === undefined ? {} : { scheduler: options.scheduler }),
		...(options.policies === undefined ? {} : { policies: options.policies }),
		rights: rights.rights,
		config: options.config,
		version: options.version,
	}
	const server = await listenLoopback(record?.apiPort)
	const log = openSync(paths.log, 'a', 0o600)
	const main = join(import.meta.dirname, `main${extname(import.meta.filename)}`)
	const node = [process.execPath, '--disable-warning=ExperimentalWarning', main]
	const enter =
		rights.rights !== 'user namespace'
			? []
			: workloads !== undefined
				? ['nsenter', '--preserve-credentials', '-U', '-n', '-m', '-t', String(workloads.pid), '--']
				: userNamespaceCommand
	const [command, ...args] = [...enter, ...node]
	const child = spawn(command as string, args, {
		detached: true,
		// 3: the API's listening socket, which stays in the host's network; 4: closed or written when the control socket answers.
		stdio: ['pipe', log, log, (server as unknown as { _handle: { fd: number } })._handle.fd, 'pipe'],
		env: { NODE_COMPILE_CACHE: compileCacheFolder(), ...process.env, [labMark]: paths.runtime },
		cwd: '/',
	})
	closeSync(log)
	server.close()
	// By its input, not its arguments: everybody can read those, and the image map may hold secrets.
	child.stdin?.on('error', () => {})
	child.stdin?.end(JSON.stringify(daemonOptions))
	const ended = new Promise<string>((resolve) => {
		child.once('error', (e) => resolve(e.message))
		child.once('exit', (code, signal) => resolve(`ended with ${signal ?? `exit code ${code}`}`))
	})
	const answering = new Promise<true>((resolve) => {
		child.stdio[4]?.once('data', () => resolve(true))
	})
	const started = await Promise.race([answering, ended])
	if (started !== true) throw startFailed(paths, String(started))
	child.stdio[4]?.destroy()
	child.unref()
	return { identity: child.pid === undefined ? undefined : identifyProcess(child.pid), ended }
}

/** A lab's nodes have pods bound to them: it never has fewer than before. 0 for a new one. */
function keptNodes(paths: LabPaths): number {
	try {
		return Number.parseInt(readFileSync(paths.nodes, 'utf8'), 10) || 0
	} catch {
		return 0
	}
}

/** A socket for the API; its port is that of before where it is free, so that a kubeconfig stays true. */
async function listenLoopback(port: number | undefined): Promise<Server> {
	for (const candidate of port === undefined ? [0] : [port, 0]) {
		const server = createServer()
		const ok = await new Promise<boolean>((resolve) => {
			server.once('error', () => resolve(false))
			server.listen(candidate, '127.0.0.1', () => resolve(true))
		})
		if (ok) return server
	}
	throw new Failure('Unavailable', 'Cannot open a port on 127.0.0.1')
}

function startFailed(paths: LabPaths, how: string): Failure {
	let end = ''
	try {
		end = readFileSync(paths.log, 'utf8').trimEnd().split('\n').slice(-8).join('\n')
	} catch {
		// No log: nothing was said.
	}
	return new Failure(
		'StartFailed',
		`Cannot start lab ${JSON.stringify(paths.name)}: the daemon ${how}; the end of ${paths.log}:\n${end}`,
		{
			log: paths.log,
		},
	)
}

/** Follows the daemon's events until it runs. */
async function waitRunning(
	paths: LabPaths,
	options: StartOptions,
	daemon: Daemon | undefined,
): Promise<{ readonly name: string; readonly client: LabClient; readonly status: LabStatus }> {
	const client = controlClient(paths.name, paths.controlSocket)
	const stop = new AbortController()
	const signal = options.signal === undefined ? stop.signal : AbortSignal.any([options.signal, stop.signal])
	const running = (async (): Promise<true> => {
		try {
			for await (const event of client.events(signal)) {
				options.onEvent?.(event)
				if (event.event === 'phase' && event.phase === 'running') return true
				if (event.event === 'phase' && event.phase !== 'starting') throw startFailed(paths, `is ${event.phase}`)
			}
		} catch (e) {
			// It died in the middle: how it ended says more than that its socket did.
			if (!isFailure(e, 'Unreachable')) throw e
			throw startFailed(paths, daemon === undefined ? 'ended' : await daemon.ended)
		}
		options.signal?.throwIfAborted()
		throw startFailed(paths, 'ended')
	})()
	const outcome = await Promise.race([running, ...(daemon === undefined ? [] : [daemon.ended])]).finally(() =>
		stop.abort(),
	)
	if (outcome !== true) throw startFailed(paths, outcome)
	return { name: paths.name, client, status: await client.status() }
}

/** One `up` or `down` of a name at a time. A lock left by a process that is gone is taken over. Throws Failure Busy. */
function lock(paths: LabPaths): () => void {
	const path = `${paths.runtime}.lock`
	const own = `${path}.${process.pid}`
	mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
	for (let attempt = 0; ; attempt++) {
		try {
			// Written first and linked then: who finds the lock finds its holder in it.
			writeFileSync(own, JSON.stringify(identifyProcess(process.pid)), { mode: 0o600 })
			linkSync(own, path)
			return () => rmSync(path, { force: true })
		} catch (e) {
			if ((e as NodeJS.ErrnoException).code !== 'EEXIST') {
				throw new Failure('CannotWrite', `Cannot make ${JSON.stringify(path)}: ${messageOf(e)}`)
			}
		} finally {
			rmSync(own, { force: true })
		}
		const holder = readHolder(path)
		if (attempt > 0 && holder !== undefined && isAlive(holder)) {
			throw new Failure(
				'Busy',
				`Another podwire (process ${holder.pid}) is starting or removing lab ${JSON.stringify(paths.name)}; try again when it is done`,
			)
		}
		if (holder === undefined || !isAlive(holder)) removeStale(path, own)
	}
}

/** undefined: the lock is gone again, or its text was lost in a crash of the machine. */
function readHolder(path: string): ProcessIdentity | undefined {
	try {
		return JSON.parse(readFileSync(path, 'utf8')) as ProcessIdentity
	} catch {
		return undefined
	}
}

/** Of several that find a dead holder's lock, none may take away the lock that another has made since. */
function removeStale(path: string, aside: string): void {
	try {
		renameSync(path, aside)
		const holder = readHolder(aside)
		if (holder !== undefined && isAlive(holder)) linkSync(aside, path)
	} catch {
		// Somebody else was faster.
	} finally {
		rmSync(aside, { force: true })
	}
}

/** What is known of the lab: from itself where it runs, `crashed` where only its leavings are there, else undefined. */
export async function labStatus(name: string): Promise<LabStatus | undefined> {
	const paths = labPaths(name)
	const record = readRecord(paths)
	if (record !== undefined && isAlive(record.daemon)) {
		try {
			return await controlClient(name, paths.controlSocket).status()
		} catch (e) {
			if (!isFailure(e, 'Unreachable')) throw e
		}
	}
	if (record === undefined && !existsSync(paths.state) && !existsSync(paths.runtime)) return undefined
	return {
		name,
		phase: 'crashed',
		dataplane: record?.dataplane ?? 'kernel',
		ipFamily: readIpFamily(paths) ?? defaultIpFamily,
		network: readNetworkChoice(paths),
		rights: record?.rights ?? 'none',
		policies: policyStatusOf(readPolicySettings(paths)),
		nodes: [],
		podCidrs: [],
		serviceCidrs: [],
		pods: { ready: 0, total: 0 },
		startedAt: record?.startedAt ?? '',
		version: record?.version ?? '',
		trouble: [],
		stateFolder: paths.state,
		runtimeFolder: paths.runtime,
	}
}

/** Every lab of this user, running or left behind, sorted by name. */
export async function listLabs(): Promise<readonly LabStatus[]> {
	const statuses = await Promise.all(listLabNames().filter(isLabName).map(labStatus))
	return statuses.filter((s) => s !== undefined)
}

function isLabName(name: string): boolean {
	try {
		checkLabName(name)
		return true
	} catch {
		return false
	}
}

/**
 * Removes the lab and every trace of it: in good order where it runs, by hand where it does not. Again: nothing to do.
 * True when there was something. Only its own processes are ended, known by pid and start time or by the mark they carry.
 */
export async function stopLab(
	name: string,
	options: { readonly onEvent?: (event: LabEvent) => void } = {},
): Promise<boolean> {
	const paths = labPaths(name)
	const record = readRecord(paths)
	if (record === undefined && !existsSync(paths.state) && !existsSync(paths.runtime)) return false
	const unlock = lock(paths)
	try {
		if (record !== undefined && isAlive(record.daemon)) {
			options.onEvent?.({ event: 'progress', text: 'stopping', at: new Date().toISOString() })
			await Promise.race([
				controlClient(name, paths.controlSocket)
					.stop()
					.catch(() => {}),
				new Promise((resolve) => setTimeout(resolve, 10_000).unref()),
			])
			await killAll(await waitForEnd([record.daemon], 2_000))
		}
		const processes = [...findMarkedProcesses(labMark, paths.runtime)]
		if (record?.workloads !== undefined && isAlive(record.workloads)) processes.push(record.workloads)
		await killAll(processes)
		await unmountNamespaces(paths)
		for (const folder of [paths.runtime, paths.state]) {
			try {
				rmSync(folder, { recursive: true, force: true })
			} catch (e) {
				throw new Failure('CannotWrite', `Cannot remove ${JSON.stringify(folder)}: ${messageOf(e)}`)
			}
		}
		return true
	} finally {
		unlock()
		for (const root of [dirname(paths.runtime), dirname(paths.state)]) removeIfEmpty(root)
	}
}

/** The folder of all labs goes with the last one. */
function removeIfEmpty(path: string): void {
	try {
		rmdirSync(path)
	} catch {
		// Another lab is in it, or it is gone.
	}
}

async function killAll(processes: readonly ProcessIdentity[]): Promise<void> {
	for (const process of processes) signalProcess(process, 'SIGKILL')
	// A busy kernel takes seconds to close the sockets of many namespaces.
	const living = await waitForEnd(processes, 30_000)
	if (living.length > 0) {
		throw new Failure(
			'Unavailable',
			`Cannot end process ${living.map((p) => p.pid).join(', ')}: it does not react to SIGKILL`,
		)
	}
}

/** Namespaces that are bound to files in this mount namespace (the lab of root); in a user namespace they went with it. */
async function unmountNamespaces(paths: LabPaths): Promise<void> {
	if (!existsSync(paths.namespaces)) return
	if (!readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${paths.namespaces}/`)) return
	const { deleteNetns } = await import('../linux/netns.ts')
	for (const entry of readdirSync(paths.namespaces)) deleteNetns(join(paths.namespaces, entry))
}

/** Files that were mount points in a mount namespace that is gone. */
function removeNamespaceFiles(paths: LabPaths): void {
	for (const entry of readdirSync(paths.namespaces)) rmSync(join(paths.namespaces, entry), { force: true })
}
