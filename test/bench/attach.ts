// P4: how long a pod's wiring takes, against `ip` and Debian's CNI plugins, interleaved. It runs in a child with
// private network and mount namespaces, so that nothing of it is seen outside.

import { spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Cidr, Ip } from '../../src/base/ip.ts'
import { emptyTable } from '../../src/base/table.ts'
import { createLinks } from '../../src/dataplane/links/links.ts'
import { type Attachment, gateway4, hostMac } from '../../src/dataplane/links/program.ts'
import { NetlinkEncoder } from '../../src/linux/netlink/encode.ts'
import { NETLINK_ROUTE, NetlinkSocket } from '../../src/linux/netlink/socket.ts'
import { createNetns, deleteNetns } from '../../src/linux/netns.ts'
import { LOOPBACK, readLinks, setLink } from '../../src/linux/route/links.ts'
import { writeSysctl } from '../../src/linux/sysctl.ts'
import { interleave, measure, median, quantile, type Row, spreadOf } from './row.ts'

interface Figures {
	/** Per variant, per round: what each pod took, milliseconds. */
	readonly attach: Readonly<Record<string, readonly (readonly number[])[]>>
	readonly detach: Readonly<Record<string, readonly (readonly number[])[]>>
	readonly missing: readonly string[]
}

const rounds = 5

/** Rows of group `attach`. Throws where neither root nor a user namespace is to be had. */
export async function run(options: { readonly full?: boolean } = {}): Promise<Row[]> {
	const rootless = process.getuid?.() === 0 ? [] : ['-Ur']
	const child = spawnSync(
		'unshare',
		[
			...rootless,
			'-n',
			'-m',
			'--propagation',
			'private',
			process.execPath,
			'--disable-warning=ExperimentalWarning',
			fileURLToPath(import.meta.url),
			'child',
			options.full === true ? 'full' : '',
		],
		{ encoding: 'utf8', maxBuffer: 1 << 26, stdio: ['ignore', 'pipe', 'pipe'] },
	)
	if (child.status !== 0) throw new Error(`Cannot measure attach: ${child.stderr || child.error?.message}`)
	return rowsOf(JSON.parse(child.stdout) as Figures)
}

function rowsOf(figures: Figures): Row[] {
	const rows: Row[] = []
	const of = (samples: readonly (readonly number[])[], fraction: number) =>
		samples.map((round) => quantile(round, fraction))
	const row = (
		name: string,
		ours: readonly number[],
		baseline: readonly number[] | undefined,
		bar?: string,
		note?: string,
	) =>
		rows.push({
			group: 'attach',
			name,
			unit: 'ms',
			ours: median(ours),
			...(baseline === undefined ? {} : { baseline: median(baseline), ratio: median(ours) / median(baseline) }),
			...(bar === undefined ? {} : { bar }),
			spread: spreadOf(ours),
			...(note === undefined ? {} : { note }),
			repeats: ours.length,
		})
	const { attach, detach } = figures
	const ours = attach.ours ?? []
	row(
		'pod attach p50, 200 pods: namespace, veth, addresses, routes, neighbours',
		of(ours, 0.5),
		undefined,
		'p50 ≤ 1.2 ms',
	)
	row('pod attach p99', of(ours, 0.99), undefined)
	row('pod attach p50 against `ip netns add` + two `ip -batch`', of(ours, 0.5), of(attach.batch ?? [], 0.5))
	row('pod attach p50 against one `ip` a step', of(ours, 0.5), of(attach.single ?? [], 0.5))
	const cni = attach.cni
	const absent = figures.missing.join('; ') || undefined
	row(
		'pod attach p50 against CNI ADD of bridge + host-local',
		of(ours, 0.5),
		cni === undefined ? undefined : of(cni, 0.5),
		undefined,
		cni === undefined ? absent : 'ours makes the namespace as well; ADD is given one',
	)
	row(
		'pod detach answered p50 against CNI DEL of bridge + host-local',
		of(detach.ours ?? [], 0.5),
		detach.cni === undefined ? undefined : of(detach.cni, 0.5),
		'DEL answered ≤ 5 ms',
		detach.cni === undefined ? absent : undefined,
	)
	row('pod detach answered p99', of(detach.ours ?? [], 0.99), undefined)
	return rows
}

// ---- the child ----

async function measureAll(full: boolean): Promise<Figures> {
	const pods = 200
	const processes = full ? 100 : 25
	must('mount', ['-t', 'tmpfs', 'none', '/run'])
	mkdirSync('/run/netns')
	const folder = mkdtempSync('/run/bench-')
	const plugins = [process.env.CNI_PATH, '/usr/lib/cni', '/opt/cni/bin'].find(
		(path) => path !== undefined && existsSync(join(path, 'bridge')),
	)
	const attach: Record<string, number[][]> = { ours: [], batch: [], single: [] }
	const detach: Record<string, number[][]> = { ours: [] }
	const missing: string[] = []
	if (plugins === undefined)
		missing.push('bridge and host-local are not on this machine (CNI_PATH, /usr/lib/cni, /opt/cni/bin)')
	else {
		attach.cni = []
		detach.cni = []
	}
	writeSysctl('net.ipv4.ip_forward', '1')
	const own = new NetlinkSocket(NETLINK_ROUTE)
	const e = new NetlinkEncoder()
	setLink(e, { index: LOOPBACK, up: true })
	own.request(e)
	/** Until the kernel has taken away what the last variant left: it would disturb the next. */
	const settle = async () => {
		for (let i = 0; i < 500 && readLinks(own).some((link) => link.kind === 'veth'); i++)
			await new Promise((done) => setTimeout(done, 10))
	}
	await interleave(rounds, {
		ours: async () => {
			await oursOnce(folder, pods, attach.ours as number[][], detach.ours as number[][])
			await settle()
			return 0
		},
		batch: async () => {
			attach.batch?.push(await ipOnce(processes, batchSteps))
			await settle()
			return 0
		},
		single: async () => {
			attach.single?.push(await ipOnce(processes, singleSteps))
			await settle()
			return 0
		},
		cni: async () => {
			if (plugins !== undefined) await cniOnce(plugins, processes, attach.cni as number[][], detach.cni as number[][])
			await settle()
			return 0
		},
	})
	own.close()
	rmSync(folder, { recursive: true, force: true })
	return { attach, detach, missing }
}

async function oursOnce(folder: string, pods: number, attach: number[][], detach: number[][]): Promise<void> {
	const links = createLinks({ uplink: 'eth0', attachments: () => emptyTable() })
	const made = Array.from(
		{ length: pods },
		(_, i): Attachment => ({
			uid: `uid-${i}`,
			pod: `default/pod-${i}`,
			namespace: join(folder, `pod-${i}`),
			ips: [podIp(i)],
			hostInterface: `pw${i}`,
			podInterface: 'eth0',
			mtu: 1500,
			because: [],
		}),
	)
	const come: number[] = []
	const go: number[] = []
	const apply = async (change: 'attach' | 'detach', attachment: Attachment) => {
		const outcome = await links.apply([
			change === 'attach' ? { change, attachment, faults: [] } : { change, attachment },
		])
		if (!outcome.ok) throw outcome.error
	}
	for (const attachment of made) come.push(await measure(() => apply('attach', attachment)))
	for (const attachment of made) go.push(await measure(() => apply('detach', attachment)))
	links.close()
	attach.push(come)
	detach.push(go)
}

const podIp = (i: number) => `10.1.${i >> 8}.${i & 255}` as Ip

type Steps = (name: string, host: string, ip: Ip) => void

async function ipOnce(pods: number, steps: Steps): Promise<number[]> {
	const times: number[] = []
	for (let i = 0; i < pods; i++) times.push(await measure(() => steps(`bench-${i}`, `pw${i}`, podIp(i))))
	for (let i = 0; i < pods; i++) deleteNetns(`/run/netns/bench-${i}`)
	return times
}

const hostSteps = (name: string, host: string, ip: Ip) => [
	`link add ${host} mtu 1500 address ${hostMac} type veth peer name eth0 netns ${name}`,
	`link set ${host} up`,
	`route add ${ip}/32 dev ${host}`,
]
const podSteps = (ip: Ip) => [
	'link set lo up',
	'link set eth0 up mtu 1500',
	`addr add ${ip}/32 dev eth0`,
	`route add ${gateway4} dev eth0 scope link`,
	`route add default via ${gateway4}`,
	`neigh add ${gateway4} lladdr ${hostMac} dev eth0 nud permanent`,
]

function batchSteps(name: string, host: string, ip: Ip): void {
	must('ip', ['netns', 'add', name])
	must('ip', ['-batch', '-'], `${hostSteps(name, host, ip).join('\n')}\n`)
	must('ip', ['-n', name, '-batch', '-'], `${podSteps(ip).join('\n')}\n`)
}

function singleSteps(name: string, host: string, ip: Ip): void {
	must('ip', ['netns', 'add', name])
	for (const step of hostSteps(name, host, ip)) must('ip', step.split(' '))
	for (const step of podSteps(ip)) must('ip', ['-n', name, ...step.split(' ')])
}

async function cniOnce(plugins: string, pods: number, attach: number[][], detach: number[][]): Promise<void> {
	const config = JSON.stringify({
		cniVersion: '1.0.0',
		name: 'bench',
		type: 'bridge',
		bridge: 'cni0',
		isGateway: true,
		ipam: { type: 'host-local', dataDir: '/run/cni-bench', ranges: [[{ subnet: '10.2.0.0/16' as Cidr }]] },
	})
	const call = (command: string, i: number) =>
		must(join(plugins, 'bridge'), [], config, {
			CNI_COMMAND: command,
			CNI_CONTAINERID: `bench-${i}`,
			CNI_NETNS: `/run/netns/cni-${i}`,
			CNI_IFNAME: 'eth0',
			CNI_PATH: plugins,
		})
	const come: number[] = []
	const go: number[] = []
	for (let i = 0; i < pods; i++) {
		createNetns(`/run/netns/cni-${i}`)
		come.push(await measure(() => call('ADD', i)))
	}
	for (let i = 0; i < pods; i++) go.push(await measure(() => call('DEL', i)))
	for (let i = 0; i < pods; i++) deleteNetns(`/run/netns/cni-${i}`)
	attach.push(come)
	detach.push(go)
}

function must(program: string, args: readonly string[], input?: string, env: Record<string, string> = {}): void {
	const done = spawnSync(program, args, {
		encoding: 'utf8',
		env: { ...process.env, ...env },
		...(input === undefined ? {} : { input }),
	})
	if (done.status !== 0)
		throw new Error(`${program} ${args.join(' ')}: ${done.error?.message ?? `${done.stdout}${done.stderr}`}`)
}

if (process.argv[1] === fileURLToPath(import.meta.url) && process.argv[2] === 'child') {
	process.stdout.write(JSON.stringify(await measureAll(process.argv[3] === 'full')))
}
