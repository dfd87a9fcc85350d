// The IPVS data plane of one node: the kernel's load balancer as kube-proxy's IPVS mode uses it. README.md has the
// packet's path; docs/decisions/services-ipvs.md says what is kept of kube-proxy and what is not.

import { closeSync } from 'node:fs'
import { isFailure } from '../../base/failure.ts'
import { IpSets } from '../../linux/ipset/ipset.ts'
import { findIptables } from '../../linux/iptables/command.ts'
import type { Scheduler } from '../../linux/ipvs/ipvs.ts'
import { NetlinkEncoder } from '../../linux/netlink/encode.ts'
import { NETLINK_ROUTE, NetlinkSocket } from '../../linux/netlink/socket.ts'
import { createAnonymousNetns, inNetns } from '../../linux/netns.ts'
import { addDummy } from '../../linux/route/dummy.ts'
import type { Outcome, ServiceDataplane } from '../dataplane.ts'
import { diffPrograms, type IpvsChange } from './change.ts'
import { type Compiled, compileProgram } from './compile.ts'
import { evaluate } from './evaluate.ts'
import { IpvsKernel, openIpvs } from './kernel.ts'
import { device } from './layout.ts'
import { emptyProgram, type IpvsProgram, programFromJson, programToJson } from './program.ts'

export type { IpvsChange } from './change.ts'

export interface IpvsOptions {
	/** File of the node's network namespace. Without it: paper only (compile, diff, evaluate). */
	readonly netns?: string
	/** kube-proxy's --ipvs-scheduler, asked at each compile; rr by default. */
	readonly scheduler?: () => Scheduler
}

export type IpvsDataplane = ServiceDataplane<IpvsProgram, IpvsChange>

export function createIpvs(options: IpvsOptions = {}): IpvsDataplane {
	let compiled: Compiled | undefined
	let opened: IpvsKernel | undefined

	function kernel(): IpvsKernel {
		if (options.netns === undefined) throw new Error('this IPVS data plane has no namespace: it is for paper only')
		return (opened ??= new IpvsKernel(options.netns))
	}

	return {
		empty: emptyProgram,
		compile(model, node) {
			compiled = compileProgram(model, node, compiled, options.scheduler?.() ?? 'rr')
			return compiled.program
		},
		diff: diffPrograms,
		async apply(changes, signal): Promise<Outcome> {
			try {
				await kernel().apply(changes, signal)
				return { ok: true }
			} catch (e) {
				if (!isFailure(e)) throw e
				const lost = new Set((e.details.failed as readonly IpvsChange[] | undefined) ?? changes)
				const failed = changes.flatMap((change, i) => (lost.has(change) ? [i] : []))
				return { ok: false, error: e, applied: changes.length - failed.length, failed }
			}
		},
		async read(signal) {
			const found = await kernel().read(signal)
			if (!found.device && found.sets.length === 0 && found.servers.size === 0) return { ...emptyProgram, ...found }
			return {
				...found,
				localAddresses: compiled?.program.localAddresses ?? kernel().localAddresses(),
				origins: compiled?.program.origins ?? emptyProgram.origins,
			}
		},
		evaluate,
		toJson: programToJson,
		fromJson: programFromJson,
		close() {
			opened?.close()
			opened = undefined
		},
	}
}

/** Why this machine cannot use the data plane; undefined where it can. Tried in a namespace of its own. */
export async function ipvsUsable(): Promise<string | undefined> {
	let netns: number | undefined
	try {
		netns = createAnonymousNetns()
		inNetns(netns, () => {
			for (const open of [openIpvs, () => new IpSets()]) open().close()
			const route = new NetlinkSocket(NETLINK_ROUTE)
			try {
				const e = new NetlinkEncoder()
				addDummy(e, device)
				route.request(e)
			} finally {
				route.close()
			}
		})
		await findIptables(netns)
		return undefined
	} catch (e) {
		if (!isFailure(e)) throw e
		return e.message
	} finally {
		if (netns !== undefined) closeSync(netns)
	}
}
