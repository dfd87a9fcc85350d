// A home of its own for each lab of a test: state, runtime and kubeconfig in one throw-away folder, and the lab with
// everything in it removed afterwards, also when the test failed or was interrupted.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { chmodSync, chownSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { homedir } from 'node:os'
import { join } from 'node:path'
import { have, type Ran, type Running, type RunOptions, root, start } from './run.ts'

export const command = [process.execPath, join(root, 'bin/podwire.js')] as const

/** What the kernel data plane and the tests around it need; false where all of it is here. */
export function reasonToSkip(...programs: string[]): string | false {
	if (process.platform !== 'linux') return 'not Linux'
	if (process.getuid?.() !== 0) return 'needs root'
	const attempt = spawnSync('unshare', ['-n', '-m', 'true'], { encoding: 'utf8' })
	if (attempt.status !== 0)
		return `may not make network namespaces: ${attempt.stderr ?? attempt.error?.message ?? ''}`.trim()
	const missing = programs.filter((p) => !have(p))
	return missing.length === 0 ? false : `not installed: ${missing.join(', ')}`
}

/** A container's own words about itself, as a stand-in answers HTTP. */
export interface Answer {
	readonly pod: string
	readonly namespace: string
	readonly node: string
	readonly ip: string
	readonly port: number
	readonly client: string
	readonly path: string
}

export interface LabFile {
	readonly name: string
	readonly daemon: { readonly pid: number; readonly startTime: string }
	readonly workloads?: { readonly pid: number; readonly startTime: string }
	readonly apiPort: number
}

export interface Home {
	readonly name: string
	readonly folder: string
	readonly env: Readonly<Record<string, string>>
	readonly state: string
	readonly runtime: string
	readonly kubeconfig: string
	podwire(args: readonly string[], options?: RunOptions): Promise<Ran>
	/** As podwire, for the test to watch or to interrupt. */
	startPodwire(args: readonly string[], options?: RunOptions): Running
	/** `podwire up …`; fails the test where it does not end with 0. */
	up(...args: string[]): Promise<Ran>
	kubectl(args: readonly string[], options?: RunOptions): Promise<Ran>
	/** kubectl that must succeed; its stdout. */
	ask(...args: string[]): Promise<string>
	/** As ask with -o json, parsed. */
	get<T>(...args: string[]): Promise<T>
	/** A command inside a pod, `namespace/name` or `namespace/deploy/name`. */
	exec(pod: string, ...command: string[]): Promise<Ran>
	startExec(pod: string, ...command: string[]): Running
	/** curl inside a pod; what the stand-in answered. */
	curl(pod: string, url: string): Promise<Answer>
	/** The lab's own record of who runs it. */
	record(): LabFile
	/** A file in the home; its path. */
	write(name: string, text: string | Uint8Array): string
	/** Removes the lab and the home. */
	remove(): Promise<void>
}

let number = 0
/** Compiled sources are kept where they always are: they are not what is tested. */
const cache = process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache')

export interface HomeOptions {
	/** Put before each command: `setpriv --reuid=…`, `nsenter -m …`. */
	readonly prefix?: readonly string[]
	/** User and group id that the folder belongs to, and where that user keeps compiled sources. */
	readonly owner?: number
	readonly cache?: string
}

export function makeHome(options: HomeOptions = {}): Home {
	const prefix = options.prefix ?? []
	const name = `e2e-${process.pid}-${++number}`
	// Short: a unix socket's path has room for 107 bytes.
	const folder = mkdtempSync('/tmp/pw-')
	for (const part of ['s', 'r']) {
		mkdirSync(join(folder, part), { recursive: true })
		chmodSync(join(folder, part), 0o700)
	}
	if (options.owner !== undefined) {
		for (const path of [folder, join(folder, 's'), join(folder, 'r')]) chownSync(path, options.owner, options.owner)
	}
	const kubeconfig = join(folder, 'kubeconfig')
	const env = {
		XDG_STATE_HOME: join(folder, 's'),
		XDG_RUNTIME_DIR: join(folder, 'r'),
		KUBECONFIG: kubeconfig,
		PODWIRE_NAME: name,
		HOME: folder,
		XDG_CACHE_HOME: options.cache ?? cache,
		NO_COLOR: '1',
	}
	const target = (pod: string): string[] => {
		const [namespace, ...rest] = pod.split('/')
		return ['-n', namespace ?? 'default', rest.join('/')]
	}
	const argumentsOfExec = (pod: string, words: readonly string[]) => ['exec', ...target(pod), '--', ...words]
	const begin = (words: readonly string[], o: RunOptions = {}): Running => {
		const [program, ...args] = [...prefix, ...words]
		return start(program ?? '', args, { ...o, env: { ...env, ...o.env } })
	}
	let removed = false
	const home: Home = {
		name,
		folder,
		env,
		state: join(folder, 's/podwire', name),
		runtime: join(folder, 'r/podwire', name),
		kubeconfig,
		podwire: (args, o) => home.startPodwire(args, o).done,
		startPodwire: (args, o = {}) => begin([...command, ...args], o),
		async up(...args) {
			const ran = await home.podwire(['up', ...args])
			assert.equal(ran.code, 0, `${ran.text}\n${logOf(home)}`)
			return ran
		},
		kubectl: (args, o = {}) => begin(['kubectl', ...args], o).done,
		async ask(...args) {
			const ran = await home.kubectl(args)
			assert.equal(ran.code, 0, ran.text)
			return ran.stdout
		},
		async get<T>(...args: string[]) {
			return JSON.parse(await home.ask('get', ...args, '-o', 'json')) as T
		},
		exec: (pod, ...words) => home.kubectl(argumentsOfExec(pod, words)),
		startExec: (pod, ...words) => begin(['kubectl', ...argumentsOfExec(pod, words)]),
		async curl(pod, url) {
			const ran = await home.exec(pod, 'curl', '-sS', '--max-time', '5', url)
			assert.equal(ran.code, 0, ran.text)
			return JSON.parse(ran.stdout) as Answer
		},
		record: () => JSON.parse(readFileSync(join(home.runtime, 'lab.json'), 'utf8')) as LabFile,
		write(file, text) {
			const path = join(folder, file)
			writeFileSync(path, text)
			return path
		},
		async remove() {
			if (removed) return
			removed = true
			process.off('exit', removeNow)
			const ran = await home.podwire(['down', '--all'])
			rmSync(folder, { recursive: true, force: true })
			assert.equal(ran.code, 0, ran.text)
		},
	}
	const removeNow = () => {
		const [program, ...args] = [...prefix, ...command, 'down', '--all']
		spawnSync(program ?? '', args, { env: { ...process.env, ...env }, timeout: 20_000 })
		rmSync(folder, { recursive: true, force: true })
	}
	process.on('exit', removeNow)
	return home
}

/** The end of the daemon's log, for a message. */
export function logOf(home: Home): string {
	const path = join(home.runtime, 'daemon.log')
	if (!existsSync(path)) return 'no daemon.log'
	return `daemon.log: …${readFileSync(path, 'utf8').slice(-2000)}`
}
