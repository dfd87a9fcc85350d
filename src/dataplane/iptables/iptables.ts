// The iptables data plane of one node: kube-proxy's chains, by the real iptables-restore. README.md has the packet's
// path; docs/decisions/services-iptables.md says what is kept of kube-proxy and what is not.

import { closeSync } from 'node:fs'
import { isFailure } from '../../base/failure.ts'
import { familyOf, type Ip } from '../../base/ip.ts'
import { diffRulesets, type IptablesChange } from '../../linux/iptables/change.ts'
import {
	findIptables,
	type IptablesCommand,
	type IptablesVariant,
	restoreChanges,
	saveRuleset,
} from '../../linux/iptables/command.ts'
import { NETLINK_ROUTE, NetlinkSocket } from '../../linux/netlink/socket.ts'
import { createAnonymousNetns, inNetns, openNetns } from '../../linux/netns.ts'
import { readAddresses } from '../../linux/route/addresses.ts'
import type { Outcome, ServiceDataplane } from '../dataplane.ts'
import { leavingChains, signOfIpvs } from '../kube-chains.ts'
import { type Compiled, compileProgram } from './compile.ts'
import { evaluate } from './evaluate.ts'
import { isOwnChain } from './names.ts'
import { emptyProgram, families, type IptablesProgram, programFromJson, programToJson } from './program.ts'

export type { IptablesChange } from '../../linux/iptables/change.ts'

export interface IptablesOptions {
	/** File of the node's network namespace. Without it: paper only (compile, diff, evaluate). */
	readonly netns?: string
	/** Which of the installed iptables; by default the first that works of the system's choice, nft, legacy. */
	readonly variant?: IptablesVariant
	/** False for an iptables older than 1.6.2, whose MASQUERADE knows no --random-fully. */
	readonly randomFully?: boolean
	/** Nothing but what kube-proxy writes: without our own chains, which refuse what it forgets to (for comparison). */
	readonly exact?: boolean
}

export type IptablesDataplane = ServiceDataplane<IptablesProgram, IptablesChange>

export function createIptables(options: IptablesOptions = {}): IptablesDataplane {
	let compiled: Compiled | undefined
	let descriptor: number | undefined
	let found: IptablesCommand | undefined

	function netns(): number {
		if (options.netns === undefined) throw new Error('this iptables data plane has no namespace: it is for paper only')
		return (descriptor ??= openNetns(options.netns))
	}

	async function command(signal?: AbortSignal): Promise<IptablesCommand> {
		return (found ??= await findIptables(netns(), options.variant, signal))
	}

	return {
		empty: emptyProgram,
		compile(model, node) {
			compiled = compileProgram(model, node, compiled, {
				randomFully: options.randomFully ?? true,
				exact: options.exact ?? false,
			})
			return compiled.program
		},
		diff: (have, want) =>
			families.flatMap((f) => {
				const [before, after] = [have?.rulesets[f], want.rulesets[f]]
				return diffRulesets(
					before,
					after,
					f,
					after.size === 0 ? leavingChains(before, isOwnChain, signOfIpvs) : isOwnChain,
				)
			}),
		async apply(changes, signal): Promise<Outcome> {
			for (const family of families) {
				const mine = changes.filter((c) => c.family === family)
				if (mine.length === 0) continue
				try {
					await restoreChanges(netns(), await command(signal), family, mine, signal)
				} catch (e) {
					if (!isFailure(e)) throw e
					const lost = new Set((e.details.failed as readonly IptablesChange[] | undefined) ?? mine)
					const failed = changes.flatMap((c, i) => (lost.has(c) || c.family > family ? [i] : []))
					return { ok: false, error: e, applied: changes.length - failed.length, failed }
				}
			}
			return { ok: true }
		},
		async read(signal) {
			const program = await command(signal)
			const rulesets = {
				4: await saveRuleset(netns(), program, 4, signal),
				6: await saveRuleset(netns(), program, 6, signal),
			}
			const nothing = families.every((f) => ![...rulesets[f].values()].some((chain) => isOwnChain(chain.name)))
			if (nothing) return { ...emptyProgram, rulesets }
			return {
				rulesets,
				localAddresses: compiled?.program.localAddresses ?? inNetns(netns(), ownAddresses),
				origins: compiled?.program.origins ?? emptyProgram.origins,
			}
		},
		evaluate,
		toJson: programToJson,
		fromJson: programFromJson,
		close() {
			if (descriptor !== undefined) closeSync(descriptor)
			descriptor = undefined
		},
	}
}

/** The namespace's addresses that are on no loopback, IPv4 first. */
function ownAddresses(): readonly Ip[] {
	const socket = new NetlinkSocket(NETLINK_ROUTE)
	try {
		const all = readAddresses(socket).map((a) => a.ip)
		const real = all.filter((ip) => !ip.startsWith('127.') && ip !== '::1' && !ip.startsWith('fe80:'))
		return real.sort((a, b) => familyOf(a) - familyOf(b))
	} finally {
		socket.close()
	}
}

/** Why this machine cannot use the data plane; undefined where it can. Tried in a namespace of its own. */
export async function iptablesUsable(variant?: IptablesVariant): Promise<string | undefined> {
	let fd: number | undefined
	try {
		fd = createAnonymousNetns()
		await findIptables(fd, variant)
		return undefined
	} catch (e) {
		if (!isFailure(e)) throw e
		return e.message
	} finally {
		if (fd !== undefined) closeSync(fd)
	}
}
