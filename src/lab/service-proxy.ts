// Which data plane carries the Services of a lab: kept, so that a daemon started again goes on with the same one, and
// while it changes both are kept, so that what a change left half done is taken away.

import { readFileSync } from 'node:fs'
import { Failure } from '../base/failure.ts'
import type { ServiceProxyMode } from '../dataplane/dataplane.ts'
import { isServiceProxyMode, serviceProxies } from '../dataplane/proxies/service-proxies.ts'
import { type Scheduler, schedulers } from '../linux/ipvs/ipvs.ts'
import { keepLine } from './kept.ts'
import type { LabPaths } from './paths.ts'

/** As a user asks for it: `auto` is eBPF where the rights and the kernel allow it, else nftables. */
export type ServiceProxyChoice = ServiceProxyMode | 'auto'

export const defaultServiceProxy: ServiceProxyMode = 'nftables'

export interface KeptServiceProxy {
	readonly mode: ServiceProxyMode
	/** A change was under way when the daemon ended. */
	readonly unfinished: boolean
}

/** undefined: a new lab, or one that nobody chose for. */
export function readServiceProxy(paths: LabPaths): KeptServiceProxy | undefined {
	try {
		const [mode = '', next] = readFileSync(paths.serviceProxy, 'utf8').trim().split(' to ')
		if (isServiceProxyMode(mode)) return { mode, unfinished: next !== undefined }
	} catch {
		// Not chosen yet.
	}
	return undefined
}

/** How IPVS chooses, where it carries Services: as the lab was told, else round robin, as kube-proxy. */
export function readScheduler(paths: LabPaths): Scheduler {
	try {
		const text = readFileSync(paths.scheduler, 'utf8').trim()
		if (isScheduler(text)) return text
	} catch {
		// Never chosen.
	}
	return 'rr'
}

/** Throws Failure CannotWrite. */
export function keepScheduler(paths: LabPaths, scheduler: Scheduler): void {
	if (readScheduler(paths) !== scheduler) keepLine(paths.scheduler, scheduler)
}

export function isScheduler(text: string): text is Scheduler {
	return (schedulers as readonly string[]).includes(text)
}

/** Throws Failure CannotWrite. */
export function keepServiceProxy(paths: LabPaths, mode: ServiceProxyMode, changingTo?: ServiceProxyMode): void {
	keepLine(paths.serviceProxy, `${mode}${changingTo === undefined ? '' : ` to ${changingTo}`}`)
}

/** The kernel takes 64 programs at one place of a control group, and each node of the lab attaches its own. */
const mostNodesOfEbpf = 60
/** Each node's programs cost every connection of the machine some 60 ns: beyond these eBPF gains nothing. */
const fewNodes = 16

/** The mode a choice means on this machine, for a lab of so many nodes. Throws Failure Unsupported with the reason. */
export async function chooseServiceProxy(choice: ServiceProxyChoice, nodes: number): Promise<ServiceProxyMode> {
	if (choice === 'auto') {
		const ebpf = serviceProxies.ebpf
		return nodes <= fewNodes && ebpf !== undefined && (await ebpf.usable()) === undefined ? 'ebpf' : 'nftables'
	}
	if (choice === 'ebpf' && nodes > mostNodesOfEbpf) {
		throw new Failure(
			'Unsupported',
			`Cannot use service proxy ebpf: a machine carries at most ${mostNodesOfEbpf} nodes with it, this lab has ${nodes}`,
		)
	}
	const proxy = serviceProxies[choice]
	const why = proxy === undefined ? 'it is not there' : await proxy.usable()
	if (why !== undefined) throw new Failure('Unsupported', `Cannot use service proxy ${choice}: ${why}`)
	return choice
}
