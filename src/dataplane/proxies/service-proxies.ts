// The data planes that carry Services, by mode. Each is loaded when it is first needed: a node runs one of them.

import type { Ip } from '../../base/ip.ts'
import type { Scheduler } from '../../linux/ipvs/ipvs.ts'
import type { ServiceDataplane, ServiceProxyMode } from '../dataplane.ts'

export const serviceProxyModes = ['nftables', 'ebpf', 'iptables', 'ipvs'] as const satisfies readonly ServiceProxyMode[]

/** A namespace whose sockets a data plane at the socket must know. */
export interface SocketNamespace {
	readonly path: string
	/** Addresses of the pod; empty for the node's own namespace. */
	readonly ips: readonly Ip[]
}

export interface ServiceDataplaneOptions {
	/** The node's network namespace; absent: paper only (compile, diff, evaluate). */
	readonly netns?: string
	/** The node's own namespace and those of its pods, now. */
	readonly namespaces?: () => Iterable<SocketNamespace>
	/** How IPVS chooses; asked whenever a node is brought to a model. */
	readonly scheduler?: () => Scheduler
}

export interface ServiceProxy {
	/** Why it cannot be used here, in one sentence with its remedy; undefined where it can. */
	usable(): Promise<string | undefined>
	// biome-ignore lint/suspicious/noExplicitAny: a program is only handed back to the data plane it came from.
	create(options: ServiceDataplaneOptions): Promise<ServiceDataplane<any, any>>
}

export const serviceProxies: Readonly<Partial<Record<ServiceProxyMode, ServiceProxy>>> = {
	nftables: {
		usable: async () => undefined,
		create: async (options) => (await import('../nftables/nftables.ts')).createNftables(options),
	},
	ebpf: {
		usable: async () => (await import('../ebpf/ebpf.ts')).ebpfUsable(),
		create: async (options) => (await import('../ebpf/ebpf.ts')).createEbpf(options),
	},
	iptables: {
		usable: async () => (await import('../iptables/iptables.ts')).iptablesUsable(),
		create: async (options) => (await import('../iptables/iptables.ts')).createIptables(options),
	},
	ipvs: {
		usable: async () => (await import('../ipvs/ipvs.ts')).ipvsUsable(),
		create: async (options) => (await import('../ipvs/ipvs.ts')).createIpvs(options),
	},
}

/** The data planes that run in a mode, in the order they are brought up: eBPF leaves to nftables what sockets do not see. */
export function carriersOf(mode: ServiceProxyMode): readonly ServiceProxyMode[] {
	return mode === 'ebpf' ? ['nftables', 'ebpf'] : [mode]
}

export function isServiceProxyMode(text: string): text is ServiceProxyMode {
	return (serviceProxyModes as readonly string[]).includes(text)
}
