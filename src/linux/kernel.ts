// What this kernel lets us do, found by trying each thing in a throw-away namespace, never by guessing from versions
// or module lists. Used by `podwire doctor`, and by `podwire up` to choose a data plane.

import { spawnSync } from 'node:child_process'
import { closeSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { isFailure, messageOf } from '../base/failure.ts'
import type { Cidr, Ip } from '../base/ip.ts'
import { Capture } from './capture.ts'
import { openConntrack, readConntrack } from './conntrack.ts'
import { hearConnection, hearLogged } from './flow-trials.ts'
import { NetlinkEncoder } from './netlink/encode.ts'
import { NETLINK_ROUTE, NetlinkSocket } from './netlink/socket.ts'
import { createAnonymousNetns, createNetns, deleteNetns, inNetns } from './netns.ts'
import {
	connectionState,
	decide,
	dnatByMap,
	fieldsOf,
	ip,
	l4proto,
	matchPort,
	random,
	rejectTcp,
	th,
} from './nft/build.ts'
import type { NftChange } from './nft/change.ts'
import { field } from './nft/datatype.ts'
import type { Expression } from './nft/expr/expression.ts'
import { applyChanges, openNftSocket } from './nft/transaction.ts'
import { openTraces } from './nftrace.ts'
import { addAddress } from './route/addresses.ts'
import { addBridge, addVeth, LOOPBACK, setLink } from './route/links.ts'
import { addNeighbour } from './route/neighbours.ts'
import { addRoute } from './route/routes.ts'
import { writeSysctl } from './sysctl.ts'

export interface Capability {
	/** `veth`, `nftables nat`. */
	readonly capability: string
	readonly ok: boolean
	/** Without it the kernel data plane cannot run; otherwise only something is less good. */
	readonly needed: boolean
	/** What was tried and went well, or what the kernel said. */
	readonly why: string
	/** What to do about it, where it is not ok. */
	readonly fix?: string
}

interface Trial {
	readonly capability: string
	readonly needed: boolean
	/** Said when it went well. */
	readonly done: string
	/** The kernel modules that would bring it, for modprobe. */
	readonly modules: string
	/** What is lost where it is not needed. */
	readonly lost?: string
	/** What to do where nothing was refused, and nothing came. */
	readonly silentFix?: string
	/** Runs inside a fresh namespace; throws Failure where it cannot be done. */
	run(): void
}

/** All trials, in the order a data plane needs them. Leaves nothing behind. Needs CAP_SYS_ADMIN of some user namespace. */
export async function probeKernel(): Promise<Capability[]> {
	const results = [tryPersistentNetns()]
	let netns: number
	try {
		netns = createAnonymousNetns()
	} catch (e) {
		if (!isFailure(e)) throw e
		// Nothing else can be tried without one, and the cause is the same.
		return [{ ...refusal('network namespaces', true, e, undefined) }]
	}
	try {
		for (const trial of trials) results.push(attempt(trial, netns))
	} finally {
		closeSync(netns)
	}
	results.push(tryUserNamespaces())
	return results
}

function attempt(trial: Trial, netns: number): Capability {
	const { capability, needed, done } = trial
	try {
		inNetns(netns, () => trial.run())
		return { capability, ok: true, needed, why: done }
	} catch (e) {
		if (!isFailure(e)) throw e
		const { silentFix } = trial
		const refused = refusal(capability, needed, e, trial.modules)
		const result = e.code === 'Silent' && silentFix !== undefined ? { ...refused, fix: silentFix } : refused
		return trial.lost === undefined ? result : { ...result, why: `${result.why}; ${trial.lost}` }
	}
}

function refusal(
	capability: string,
	needed: boolean,
	e: Error & { readonly code: string },
	modules: string | undefined,
): Capability {
	const rights = e.code === 'EPERM' || e.code === 'EACCES'
	const fix = rights
		? 'run as root, in a container with --privileged, or let podwire use a user namespace'
		: modules === undefined
			? 'use a kernel built with CONFIG_NET_NS'
			: `modprobe ${modules} (or a kernel that has it built in)`
	return { capability, ok: false, needed, why: messageOf(e), fix }
}

function tryPersistentNetns(): Capability {
	const base = { capability: 'network namespaces', needed: true } as const
	const folder = mkdtempSync(join(tmpdir(), 'podwire-kernel-'))
	const path = join(folder, 'netns')
	try {
		createNetns(path)
		deleteNetns(path)
		return { ...base, ok: true, why: 'made one, bound it to a file, removed it' }
	} catch (e) {
		if (!isFailure(e)) throw e
		return refusal(base.capability, base.needed, e, undefined)
	} finally {
		rmSync(folder, { recursive: true, force: true })
	}
}

/** Asked of the system's own tool: a process with several threads, as node is, cannot enter one itself. */
function tryUserNamespaces(): Capability {
	const base = { capability: 'user namespaces', needed: false } as const
	const child = spawnSync('unshare', ['-U', '-r', 'true'], { encoding: 'utf8', stdio: ['ignore', 'ignore', 'pipe'] })
	if (child.status === 0) return { ...base, ok: true, why: 'made one: podwire also runs without root' }
	const why = child.error === undefined ? child.stderr.trim() : messageOf(child.error)
	return { ...base, ok: false, why: `${why}; podwire needs root here`, fix: 'sysctl -w user.max_user_namespaces=15000' }
}

function route(write: (e: NetlinkEncoder) => void): void {
	const socket = new NetlinkSocket(NETLINK_ROUTE)
	try {
		const e = new NetlinkEncoder()
		write(e)
		socket.request(e)
	} finally {
		socket.close()
	}
}

const table = { family: 'ip', table: 'podwire_trial' } as const
const chain = (name: string, type: 'filter' | 'nat', hook: 'prerouting' | 'forward'): NftChange => ({
	...table,
	op: 'add-chain',
	chain: { name, base: { type, hook, priority: type === 'nat' ? -100 : 0, policy: 'accept' } },
})

/** One batch that makes a table with all of it and is in force when it returns; the table is deleted again. */
function nftables(...changes: readonly NftChange[]): void {
	const socket = openNftSocket()
	try {
		applyChanges(socket, [{ ...table, op: 'add-table' }, ...changes])
		applyChanges(socket, [{ ...table, op: 'delete-table' }])
	} finally {
		socket.close()
	}
}

const rule = (name: string, expressions: readonly Expression[]): NftChange => ({
	...table,
	op: 'add-rule',
	chain: name,
	rule: { expressions },
})

const endpointKey = [ip.daddr, l4proto, th.dport, random(2)]

const trials: readonly Trial[] = [
	{
		capability: 'veth',
		needed: true,
		done: 'made a pair, gave it an address, a route and a neighbour',
		modules: 'veth',
		run() {
			route((e) => {
				addVeth(e, { name: 'trial0', index: 100, up: true, queues: 1, peer: { name: 'trial1', index: 101 } })
				setLink(e, { index: LOOPBACK, up: true })
				setLink(e, { index: 101, up: true })
				addAddress(e, 100, '10.0.0.1' as Ip, 32)
				addNeighbour(e, 100, '10.0.0.2' as Ip, '02:00:00:00:00:02')
				addRoute(e, { destination: '10.0.0.2/32' as Cidr, index: 100 })
			})
		},
	},
	{
		capability: 'bridge',
		needed: true,
		done: 'made one',
		modules: 'bridge',
		run: () => route((e) => addBridge(e, { name: 'trial2', index: 102 })),
	},
	{
		capability: 'forwarding',
		needed: true,
		done: 'net.ipv4.ip_forward can be set in a namespace',
		modules: '',
		run: () => writeSysctl('net.ipv4.ip_forward', '1'),
	},
	{
		capability: 'nftables',
		needed: true,
		done: 'made a table, a chain and a rule',
		modules: 'nf_tables',
		run: () =>
			nftables(chain('filter', 'filter', 'forward'), rule('filter', [...matchPort(th.dport, 9), decide('drop')])),
	},
	{
		capability: 'nftables nat',
		needed: true,
		done: 'made a chain that translates to an endpoint chosen at random from a map',
		modules: 'nf_tables nft_chain_nat nft_nat nft_numgen nf_nat',
		run: () =>
			nftables(
				chain('nat', 'nat', 'prerouting'),
				{
					...table,
					op: 'add-set',
					set: {
						name: 'endpoints',
						key: fieldsOf(endpointKey),
						data: [field('ipv4_addr', 'ip daddr'), field('inet_service', 'th dport')],
						flags: [],
					},
				},
				rule('nat', dnatByMap('ip', endpointKey, 'endpoints')),
			),
	},
	{
		capability: 'nftables reject',
		needed: true,
		done: 'made a rule that refuses a connection',
		modules: 'nft_reject_ipv4 nft_reject_inet',
		run: () =>
			nftables(
				chain('filter', 'filter', 'forward'),
				rule('filter', [
					{ kind: 'meta', key: 'l4proto', to: 0 },
					{ kind: 'cmp', op: 'eq', from: 0, value: '06' },
					rejectTcp,
				]),
			),
	},
	{
		capability: 'connection tracking',
		needed: true,
		done: 'matched a state in a rule and read the table of connections',
		modules: 'nf_conntrack nf_conntrack_netlink nft_ct',
		run() {
			nftables(
				chain('filter', 'filter', 'forward'),
				rule('filter', [...connectionState('established'), decide('accept')]),
			)
			const socket = openConntrack()
			try {
				readConntrack(socket)
			} finally {
				socket.close()
			}
		},
	},
	{
		capability: 'nftables tracing',
		needed: false,
		done: 'switched it on in a rule and listened',
		modules: 'nf_tables',
		lost: 'podwire trace cannot name the rules a real packet met',
		run() {
			const traced: Expression[] = [
				{ kind: 'immediate', to: 0, value: '01' },
				{ kind: 'meta', key: 'nftrace', from: 0 },
			]
			nftables(chain('trace', 'filter', 'prerouting'), rule('trace', traced))
			openTraces().close()
		},
	},
	{
		capability: 'packet log',
		needed: false,
		done: 'logged a packet by a rule (nflog) and heard of it',
		modules: 'nft_log nfnetlink_log',
		lost: 'podwire observe cannot tell what policies deny',
		silentFix: 'modprobe nft_log nfnetlink_log (or a kernel that has them built in)',
		run: hearLogged,
	},
	{
		capability: 'connection events',
		needed: false,
		done: 'heard of a connection that began (conntrack events)',
		modules: 'nf_conntrack_netlink',
		lost: 'podwire observe cannot tell what is allowed',
		silentFix:
			'use a kernel built with CONFIG_NF_CONNTRACK_EVENTS; where new namespaces inherit it, sysctl -w net.netfilter.nf_conntrack_events=2',
		run: hearConnection,
	},
	{
		capability: 'packet sockets',
		needed: false,
		done: 'opened one with a filter and timestamps',
		modules: 'af_packet',
		lost: 'podwire trace cannot see where a real packet passed',
		run: () => new Capture({ protocol: 'TCP', port: 9 }).close(),
	},
]
