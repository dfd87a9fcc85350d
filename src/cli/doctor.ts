// `podwire doctor`: what this machine allows. Every line says what was tried, and how to mend it.

import { spawnSync } from 'node:child_process'
import { accessSync, constants, existsSync, readFileSync, statfsSync } from 'node:fs'
import { arch, release } from 'node:os'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { messageOf } from '../base/failure.ts'
import { type Cidr, cidrAddress, cidrContains, cidrLength, tryParseCidr } from '../base/ip.ts'
import { exit } from './exit.ts'
import type { CommonOptions } from './options.ts'
import { outputFormat, paint, printDocument, type Style, styleFor } from './output.ts'

export interface Check {
	readonly name: string
	/** fail: the kernel data plane cannot run. warn: something will be less good. info: for knowing. */
	readonly status: 'ok' | 'info' | 'warn' | 'fail'
	readonly text: string
	readonly fix?: string
}

export async function doctor(options: CommonOptions): Promise<number> {
	const format = outputFormat(options.output)
	const checks = [
		...platform(),
		...rights(),
		...(process.platform === 'linux' ? kernelChecks() : []),
		...limits(),
		...subnets(),
		...(await leftovers()),
		...space(),
		...programs(),
	]
	const failed = checks.filter((c) => c.status === 'fail').length
	if (format === 'json' || format === 'yaml') {
		printDocument(format, {
			apiVersion: 'podwire.dev/v1alpha1',
			kind: 'Doctor',
			dataplane: failed === 0 ? 'kernel' : 'paper',
			checks,
		})
	} else {
		const style = styleFor(process.stdout, options.color)
		for (const check of checks) process.stdout.write(`${lineOf(check, style)}\n`)
		process.stdout.write(
			failed === 0
				? '\nThis machine runs the kernel data plane.\n'
				: `\n${failed} of ${checks.length} checks fail: podwire up uses the paper data plane here (model, API and trace, no packets).\n`,
		)
	}
	return failed === 0 ? exit.ok : exit.unknown
}

function lineOf(check: Check, style: Style): string {
	const mark = {
		ok: paint(style, 'green', 'ok  '),
		info: paint(style, 'blue', 'info'),
		warn: paint(style, 'yellow', 'warn'),
		fail: paint(style, 'red', 'FAIL'),
	}[check.status]
	const fix = check.fix === undefined ? '' : `\n${' '.repeat(29)}fix: ${check.fix}`
	return `${mark}  ${check.name.padEnd(23)}${check.text}${fix}`
}

function platform(): Check[] {
	const checks: Check[] = []
	const supported = process.platform === 'linux' && (arch() === 'x64' || arch() === 'arm64')
	checks.push(
		supported
			? { name: 'platform', status: 'ok', text: `Linux ${release()} ${arch()}` }
			: {
					name: 'platform',
					status: 'fail',
					text: `${process.platform} ${arch()}: the kernel data plane needs Linux on x86-64 or arm64`,
					fix: 'run it in a Linux virtual machine; manifests-only commands (-f) work here',
				},
	)
	checks.push({ name: 'node', status: 'ok', text: process.version })
	return checks
}

function rights(): Check[] {
	if (process.platform !== 'linux') return []
	if (process.getuid?.() === 0) {
		return [{ name: 'rights', status: 'ok', text: 'root' }]
	}
	const attempt = spawnSync('unshare', ['-Urnm', '--propagation', 'private', 'true'], { encoding: 'utf8' })
	if (attempt.status === 0) {
		return [{ name: 'rights', status: 'ok', text: 'no root; a user namespace gives what is needed' }]
	}
	const missing = (attempt.error as NodeJS.ErrnoException | undefined)?.code === 'ENOENT'
	return [
		{
			name: 'rights',
			status: 'fail',
			text: `no root, and no user namespace: ${missing ? 'unshare is not installed' : attempt.stderr.trim()}`,
			fix: missing ? 'install util-linux' : userNamespaceFix(),
		},
	]
}

function userNamespaceFix(): string {
	if (readNumber('/proc/sys/kernel/apparmor_restrict_unprivileged_userns') === 1) {
		return 'sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or run as root'
	}
	if (readNumber('/proc/sys/kernel/unprivileged_userns_clone') === 0) {
		return 'sysctl -w kernel.unprivileged_userns_clone=1, or run as root'
	}
	if (readNumber('/proc/sys/user/max_user_namespaces') === 0) {
		return 'sysctl -w user.max_user_namespaces=15000, or run as root'
	}
	return 'run as root, or in a container with --privileged'
}

/** Tries each kernel facility in namespaces of a child's own, so that nothing of it stays. */
function kernelChecks(): Check[] {
	const script = fileURLToPath(new URL('./kernel-check.ts', import.meta.url))
	const file = existsSync(script) ? script : script.replace(/\.ts$/, '.js')
	const user = process.getuid?.() === 0 ? [] : ['-U', '-r']
	const child = spawnSync(
		'unshare',
		[...user, '-n', '-m', '--propagation', 'private', process.execPath, '--disable-warning=ExperimentalWarning', file],
		{ encoding: 'utf8', timeout: 30_000 },
	)
	if (child.status !== 0) {
		const why = child.error === undefined ? child.stderr.trim().split('\n').at(-1) : messageOf(child.error)
		return [
			{
				name: 'namespaces',
				status: 'fail',
				text: `cannot enter a network namespace: ${why}`,
				fix: user.length > 0 ? userNamespaceFix() : 'the container lacks CAP_SYS_ADMIN: start it with --privileged',
			},
		]
	}
	return JSON.parse(child.stdout) as Check[]
}

function limits(): Check[] {
	const checks: Check[] = []
	const files = Number(/Max open files\s+\d+\s+(\d+)/.exec(readText('/proc/self/limits') ?? '')?.[1] ?? Number.NaN)
	if (Number.isFinite(files)) {
		checks.push(
			files >= 16_384
				? { name: 'open files', status: 'ok', text: `limit ${files}` }
				: {
						name: 'open files',
						status: 'warn',
						text: `limit ${files}: enough for some ${Math.floor(files / 4)} pods`,
						fix: 'ulimit -n 65536 (hard limit in /etc/security/limits.conf)',
					},
		)
	}
	const instances = readNumber('/proc/sys/fs/inotify/max_user_instances')
	if (instances !== undefined) {
		checks.push(
			instances >= 128
				? { name: 'inotify', status: 'ok', text: `${instances} instances` }
				: {
						name: 'inotify',
						status: 'warn',
						text: `${instances} instances: programs in pods that watch files may fail`,
						fix: 'sysctl -w fs.inotify.max_user_instances=512',
					},
		)
	}
	const conntrack = readNumber('/proc/sys/net/netfilter/nf_conntrack_max')
	if (conntrack !== undefined) {
		checks.push(
			conntrack >= 65_536
				? { name: 'conntrack', status: 'ok', text: `${conntrack} entries for all namespaces together` }
				: {
						name: 'conntrack',
						status: 'warn',
						text: `${conntrack} entries for all namespaces together: short connections under load may be dropped`,
						fix: 'sysctl -w net.netfilter.nf_conntrack_max=262144',
					},
		)
	}
	return checks
}

/** The host's routes that a lab's networks overlap: harmless, for a lab has namespaces of its own; good to know when reading addresses. */
function subnets(): Check[] {
	const ours = ['10.244.0.0/16', '10.96.0.0/16', '172.18.0.0/16'] as Cidr[]
	const table = readText('/proc/net/route')
	if (table === undefined) return []
	const clashes: string[] = []
	for (const line of table.split('\n').slice(1)) {
		const [device, destination, , , , , , mask] = line.split('\t')
		if (device === undefined || destination === undefined || mask === undefined || destination === '00000000') continue
		const octets = (hex: string) => [3, 2, 1, 0].map((i) => Number.parseInt(hex.slice(i * 2, i * 2 + 2), 16))
		const length = octets(mask).reduce((n, o) => n + o.toString(2).replaceAll('0', '').length, 0)
		const network = tryParseCidr(`${octets(destination).join('.')}/${length}`, { mask: true })
		if (network === undefined) continue
		for (const cidr of ours) {
			const [wide, narrow] = cidrLength(cidr) < cidrLength(network) ? [cidr, network] : [network, cidr]
			if (cidrContains(wide, cidrAddress(narrow))) clashes.push(`${cidr} and the host's ${network} (${device})`)
		}
	}
	return [
		clashes.length === 0
			? { name: 'subnets', status: 'ok', text: 'no host route overlaps 10.244.0.0/16, 10.96.0.0/16, 172.18.0.0/16' }
			: {
					name: 'subnets',
					status: 'info',
					text: `${clashes.join('; ')}: harmless, a lab routes in namespaces of its own`,
				},
	]
}

async function leftovers(): Promise<Check[]> {
	try {
		const { listLabs } = await import('../lab/start.ts')
		const labs = await listLabs()
		const dead = labs.filter((lab) => lab.phase === 'crashed')
		if (dead.length === 0) {
			return [
				{
					name: 'leftovers',
					status: 'ok',
					text: labs.length === 0 ? 'none' : `none; running: ${labs.map((l) => l.name).join(', ')}`,
				},
			]
		}
		return dead.map((lab) => ({
			name: 'leftovers',
			status: 'warn' as const,
			text: `lab ${JSON.stringify(lab.name)} ended without podwire down`,
			fix: `podwire up --name ${lab.name} goes on with it, podwire down --name ${lab.name} removes it`,
		}))
	} catch (e) {
		return [{ name: 'leftovers', status: 'warn', text: `cannot look: ${messageOf(e)}` }]
	}
}

function space(): Check[] {
	const directory = process.env.XDG_STATE_HOME ?? join(process.env.HOME ?? '/', '.local', 'state')
	let at = directory
	while (!existsSync(at) && at !== '/') at = join(at, '..')
	try {
		const stat = statfsSync(at)
		const free = (stat.bavail * stat.bsize) / 2 ** 20
		return [
			free >= 256
				? { name: 'disk', status: 'ok', text: `${Math.floor(free)} MiB free for ${directory}` }
				: {
						name: 'disk',
						status: 'warn',
						text: `${Math.floor(free)} MiB free for ${directory}: writes are refused when it is full`,
						fix: 'free some space, or set XDG_STATE_HOME elsewhere',
					},
		]
	} catch (e) {
		return [{ name: 'disk', status: 'warn', text: messageOf(e) }]
	}
}

function programs(): Check[] {
	const optional: readonly (readonly [string, string])[] = [
		['kubectl', 'to talk to the cluster'],
		['nft', 'to read the rules yourself'],
		['curl', 'inside pods, by kubectl exec'],
		['dig', 'inside pods, by kubectl exec'],
		['tcpdump', 'to look at packets yourself'],
	]
	const missing = optional.filter(([name]) => !onPath(name))
	const found = optional.filter(([name]) => onPath(name)).map(([name]) => name)
	return [
		{
			name: 'programs',
			status: missing.length === 0 ? 'ok' : 'info',
			text: `${found.length === 0 ? 'none found' : found.join(', ')}${missing.length === 0 ? '' : `; not found (optional): ${missing.map(([name, why]) => `${name}, ${why}`).join('; ')}`}`,
		},
	]
}

function onPath(name: string): boolean {
	return (process.env.PATH ?? '').split(delimiter).some((directory) => {
		try {
			accessSync(join(directory, name), constants.X_OK)
			return true
		} catch {
			return false
		}
	})
}

function readText(path: string): string | undefined {
	try {
		return readFileSync(path, 'utf8')
	} catch {
		return undefined
	}
}

function readNumber(path: string): number | undefined {
	const text = readText(path)
	return text === undefined ? undefined : Number(text.trim())
}
