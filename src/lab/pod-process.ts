// Starts a program of the host inside a pod: the pod's network namespace, and a private mount and UTS namespace with
// the pod's /etc/resolv.conf, /etc/hosts and hostname. Container programs and `kubectl exec` both come through here.

import { type ChildProcess, type SpawnOptions, spawn } from 'node:child_process'
import { accessSync, constants, existsSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { Failure } from '../base/failure.ts'
import { inNetnsAt } from '../linux/netns.ts'
import { mountScript } from './pod-mounts.ts'
import type { ProgramRun } from './workloads/protocol.ts'

/** The mark in the environment of every process of a lab; its value is the lab's runtime folder. */
export const labMark = 'PODWIRE_LAB'

/**
 * Arguments: resolv.conf, hosts, nsswitch.conf (may be ''), hostname, working folder, PATH, command…
 * glibc would ask nscd or systemd-resolved, which live in the host's network, before any DNS server: both are hidden.
 */
const enterScript = `
fail() { echo "podwire: $1" >&2; exit 126; }
mount --bind "$1" /etc/resolv.conf || fail "cannot put the pod's resolv.conf over /etc/resolv.conf"
mount --bind "$2" /etc/hosts || fail "cannot put the pod's hosts file over /etc/hosts"
[ -z "$3" ] || mount --bind "$3" /etc/nsswitch.conf || fail "cannot put a file over /etc/nsswitch.conf"
[ ! -d /run/nscd ] || mount -t tmpfs none /run/nscd || fail "cannot hide nscd"
hostname "$4" || fail "cannot set the hostname $4"
cd "$5" || fail "no working folder $5"
PATH=$6
shift 6
exec "$@"
`

/**
 * As the first process of a new PID namespace: the kernel kills all of it when this process ends. A first process
 * ignores signals it does not handle, so it passes TERM on to the program instead of being the program.
 */
const initScript = `
mount -t proc proc /proc 2>/dev/null
"$@" &
child=$!
trap 'kill -TERM $child 2>/dev/null' TERM
trap 'kill -INT $child 2>/dev/null' INT
while :; do
	wait $child
	code=$?
	kill -0 $child 2>/dev/null || exit $code
done
`

/**
 * Likewise for a program with an input of its own: a shell gives what it starts in the background neither standard
 * input nor the terminal's signals. Who ends it tells the program, not this shell.
 */
const foregroundScript = `
mount -t proc proc /proc 2>/dev/null
trap : TERM INT QUIT HUP
"$@"
exit $?
`

export interface PodProcessOptions {
	readonly netns: string
	/** The lab's runtime folder. */
	readonly lab: string
	readonly stdio: SpawnOptions['stdio']
	/** Its own PID namespace, killed as a whole when the process that called this dies. */
	readonly contained: boolean
	/** Contained, with the standard input and signals of a terminal. */
	readonly inForeground?: boolean
	/** Runs on a terminal: the standard streams are one, and it becomes the controlling one. */
	readonly terminal?: boolean
}

/** Throws Failure NotFound where the program is not on PATH, and what the kernel says about the namespace. */
export function spawnInPod(run: ProgramRun, options: PodProcessOptions): ChildProcess {
	const path = run.env.PATH ?? hostPath()
	const program = findProgram(run.command[0] ?? '', path, run.workingDir ?? '/')
	if (program === undefined) {
		throw new Failure(
			'NotFound',
			`exec: ${JSON.stringify(run.command[0] ?? '')}: executable file not found in $PATH (programs of the host run in pods: there are no images)`,
		)
	}
	const volumes = run.volumes === undefined ? '' : mountScript(run.volumes.mounts, run.volumes.scratch)
	const enter = [
		...['--mount', '--uts', '--propagation', 'private'],
		...(options.contained ? ['--pid', '--fork', '--kill-child'] : []),
		...[
			'--',
			...(volumes === '' ? [] : ['/bin/sh', '-c', volumes, 'podwire']),
			'/bin/sh',
			'-c',
			enterScript,
			'podwire',
		],
		...[run.resolvConf, run.hosts, nsswitchFile(options.lab), run.hostname, run.workingDir ?? '/', path],
		...(options.contained
			? ['/bin/sh', '-c', options.inForeground === true ? foregroundScript : initScript, 'podwire']
			: []),
		// Its session begins inside of the PID namespace: a shell that ends gives the terminal back to who led it before.
		...(options.contained && options.terminal === true
			? [findProgram('setsid', hostPath(), '/') ?? 'setsid', '--ctty']
			: []),
		...run.command,
	]
	const [file, ...args] = options.contained
		? ['setpriv', '--pdeathsig', 'KILL', 'unshare', ...enter]
		: options.terminal === true
			? ['setsid', '--ctty', '--wait', 'unshare', ...enter]
			: ['unshare', ...enter]
	return inNetnsAt(options.netns, () =>
		spawn(file as string, args, {
			stdio: options.stdio,
			// The script's own programs are the host's, whatever PATH the container has.
			env: { ...run.env, PATH: hostPath(), [labMark]: options.lab },
			cwd: '/',
			detached: options.contained || options.terminal !== true,
		}),
	)
}

/** Where programs are looked for when the container's environment says nothing. */
function hostPath(): string {
	return process.env.PATH ?? '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'
}

/** The path of an executable as execvp(3) finds it, or undefined. */
export function findProgram(name: string, path: string, workingDir: string): string | undefined {
	if (name === '') return undefined
	const candidates = name.includes('/')
		? [name.startsWith('/') ? name : join(workingDir, name)]
		: path.split(delimiter).map((folder) => join(folder === '' ? '.' : folder, name))
	return candidates.find((candidate) => {
		try {
			accessSync(candidate, constants.X_OK)
			return statSync(candidate).isFile()
		} catch {
			return false
		}
	})
}

/** The host's nsswitch.conf with `hosts: files dns`, once a lab; '' where the host has none (then that is the default). */
function nsswitchFile(lab: string): string {
	const path = join(lab, 'nsswitch.conf')
	if (existsSync(path)) return path
	let text: string
	try {
		text = readFileSync('/etc/nsswitch.conf', 'utf8')
	} catch {
		return ''
	}
	writeFileSync(path, text.replace(/^hosts:.*$/m, 'hosts: files dns'), { mode: 0o644 })
	return path
}

/** The process an `unshare --fork` waits for: the first one of the new PID namespace. undefined before it is there. */
export function firstChildOf(pid: number): number | undefined {
	try {
		const text = readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1').trim()
		return text === '' ? undefined : Number(text.split(' ')[0])
	} catch {
		return undefined
	}
}
