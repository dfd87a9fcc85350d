// IPVS mode in the kernel of one namespace: virtual servers and sets by netlink, the dummy device, the rules by the real
// iptables-restore.

import { closeSync } from 'node:fs'
import { Failure, isFailure } from '../../base/failure.ts'
import { familyOf, type Ip } from '../../base/ip.ts'
import { tableOf } from '../../base/table.ts'
import { changeEntry, createSet, destroySet, IpSets, type SetHeader } from '../../linux/ipset/ipset.ts'
import type { IptablesChange } from '../../linux/iptables/change.ts'
import { findIptables, type IptablesCommand, restoreChanges, saveRuleset } from '../../linux/iptables/command.ts'
import { addDestination, addServer, deleteDestination, deleteServer, Ipvs } from '../../linux/ipvs/ipvs.ts'
import { NetlinkEncoder } from '../../linux/netlink/encode.ts'
import { NETLINK_ROUTE, NetlinkSocket } from '../../linux/netlink/socket.ts'
import { inNetns, openNetns } from '../../linux/netns.ts'
import { deleteAddress, readAddresses } from '../../linux/route/addresses.ts'
import { addDummy, addServedAddress } from '../../linux/route/dummy.ts'
import { deleteLink, type Link, readLinks } from '../../linux/route/links.ts'
import { writeSysctl } from '../../linux/sysctl.ts'
import type { IpvsChange } from './change.ts'
import { device, headerOf } from './layout.ts'
import { entryKey, families, type IpvsProgram, serverKey } from './program.ts'

/** What kube-proxy sets: connections are seen by conntrack (for MASQUERADE), those without a destination end at once. */
const settings = ['conntrack', 'expire_nodest_conn', 'expire_quiescent_template'] as const

export class IpvsKernel {
	readonly #netns: number
	readonly #ipvs: Ipvs
	readonly #sets: IpSets
	readonly #route: NetlinkSocket
	#iptables: IptablesCommand | undefined

	/** Throws Failure where the kernel lacks IPVS or ipset. */
	constructor(path: string) {
		this.#netns = openNetns(path)
		const made: { close(): void }[] = []
		const make = <T extends { close(): void }>(open: () => T): T => {
			const one = inNetns(this.#netns, open)
			made.push(one)
			return one
		}
		try {
			this.#ipvs = make(openIpvs)
			this.#sets = make(() => new IpSets())
			this.#route = make(() => new NetlinkSocket(NETLINK_ROUTE))
			inNetns(this.#netns, () => {
				for (const name of settings) writeSysctl(`net.ipv4.vs.${name}`, '1')
			})
		} catch (e) {
			for (const one of made) one.close()
			closeSync(this.#netns)
			throw e
		}
	}

	async read(signal?: AbortSignal): Promise<Omit<IpvsProgram, 'localAddresses' | 'origins'>> {
		const command = await this.#command(signal)
		const rulesets = {
			4: await saveRuleset(this.#netns, command, 4, signal),
			6: await saveRuleset(this.#netns, command, 6, signal),
		}
		const servers = this.#ipvs.servers().map((server) => {
			const destinations = this.#ipvs.destinations(server).sort(byAddress)
			return [serverKey(server), { server, destinations }] as const
		})
		const sets = this.#sets.list().filter((set) => headerOf(set.name)?.type === set.type)
		const link = this.#link()
		const addresses = link === undefined ? [] : this.#addresses(link)
		return {
			servers: tableOf(servers),
			sets: sets.map((set) => set.name).sort(),
			entries: tableOf(sets.flatMap((set) => set.entries.map((entry) => [entryKey(set.name, entry), 1] as const))),
			device: link !== undefined,
			addresses: tableOf(addresses.map((ip) => [ip, 1] as const)),
			rulesets,
		}
	}

	/** The node's other addresses, IPv4 first. */
	localAddresses(): readonly Ip[] {
		const own = this.#link()?.index
		return readAddresses(this.#route)
			.filter((a) => a.index !== own && a.scope === 'global')
			.map((a) => a.ip)
			.sort((a, b) => familyOf(a) - familyOf(b))
	}

	/** In the order given, one kind after the other. Throws the first refusal, with details.failed. */
	async apply(changes: readonly IpvsChange[], signal?: AbortSignal): Promise<void> {
		for (let i = 0; i < changes.length; ) {
			const { op } = changes[i] as IpvsChange
			let end = i
			while (end < changes.length && changes[end]?.op === op) end++
			const batch = changes.slice(i, end)
			try {
				await this.#batch(batch, signal)
			} catch (e) {
				if (!isFailure(e)) throw e
				const message = op === 'rules' ? e.message : `Cannot ${op.replace('-', ' ')} ${textOf(batch)}: ${e.message}`
				// Of a batch some may be in force: all of it is named, reading back tells.
				throw new Failure(e.code, message, { failed: changes.slice(i) }, { cause: e })
			}
			i = end
		}
	}

	async #batch(batch: readonly IpvsChange[], signal: AbortSignal | undefined): Promise<void> {
		const rules = batch.flatMap((c): IptablesChange[] => (c.op === 'rules' ? [c.change] : []))
		if (rules.length > 0) {
			const command = await this.#command(signal)
			for (const family of families) {
				const mine = rules.filter((c) => c.family === family)
				if (mine.length > 0) await restoreChanges(this.#netns, command, family, mine, signal)
			}
			return
		}
		const index = batch.some((c) => c.op.endsWith('-address')) ? (this.#link()?.index ?? 0) : 0
		// The answers to more would not fit the smallest receive buffer.
		for (let at = 0; at < batch.length; at += 100) {
			const part = batch.slice(at, at + 100)
			const route = new NetlinkEncoder()
			this.#ipvs.request((e, family) => {
				for (const change of part) writeServerChange(e, family, change)
			})
			this.#sets.request((e) => {
				for (const change of part) writeSetChange(e, change)
			})
			for (const change of part) writeRouteChange(route, index, change)
			if (route.messages > 0) this.#route.request(route)
		}
	}

	#link(): Link | undefined {
		return readLinks(this.#route).find((link) => link.name === device)
	}

	#addresses(link: Link): Ip[] {
		return readAddresses(this.#route)
			.filter((a) => a.index === link.index && a.scope !== 'link')
			.map((a) => a.ip)
	}

	async #command(signal?: AbortSignal): Promise<IptablesCommand> {
		return (this.#iptables ??= await findIptables(this.#netns, undefined, signal))
	}

	close(): void {
		this.#ipvs.close()
		this.#sets.close()
		this.#route.close()
		closeSync(this.#netns)
	}
}

/** In the calling thread's namespace. */
export function openIpvs(): Ipvs {
	try {
		return new Ipvs()
	} catch (e) {
		if (!isFailure(e, 'ENOENT')) throw e
		throw new Failure(
			'ENOENT',
			'Cannot use IPVS: this kernel has none (modprobe ip_vs ip_vs_rr, or a kernel with CONFIG_IP_VS)',
			{},
			{ cause: e },
		)
	}
}

function byAddress(a: { ip: Ip; port: number }, b: { ip: Ip; port: number }): number {
	return a.ip < b.ip ? -1 : a.ip > b.ip ? 1 : a.port - b.port
}

function headerOfSet(name: string): SetHeader {
	const header = headerOf(name)
	if (header === undefined) throw new Error(`set "${name}" is none of this data plane`)
	return header
}

function writeServerChange(e: NetlinkEncoder, family: number, change: IpvsChange): void {
	switch (change.op) {
		case 'add-server':
		case 'set-server':
			addServer(e, family, change.server, change.op === 'set-server')
			return
		case 'delete-server':
			deleteServer(e, family, change.server)
			return
		case 'add-destination':
		case 'set-destination':
			addDestination(e, family, change.server, change.destination, change.op === 'set-destination')
			return
		case 'delete-destination':
			deleteDestination(e, family, change.server, change.destination)
			return
		default:
			return
	}
}

function writeSetChange(e: NetlinkEncoder, change: IpvsChange): void {
	switch (change.op) {
		case 'create-set':
			createSet(e, headerOfSet(change.set))
			return
		case 'destroy-set':
			destroySet(e, change.set)
			return
		case 'add-entry':
		case 'delete-entry':
			changeEntry(e, change.op === 'add-entry' ? 'add' : 'del', headerOfSet(change.set), change.entry)
			return
		default:
			return
	}
}

function writeRouteChange(e: NetlinkEncoder, index: number, change: IpvsChange): void {
	switch (change.op) {
		case 'create-device':
			addDummy(e, device)
			return
		case 'delete-device':
			deleteLink(e, { name: device })
			return
		case 'add-address':
			addServedAddress(e, index, change.ip)
			return
		case 'delete-address':
			deleteAddress(e, index, change.ip, familyOf(change.ip) === 4 ? 32 : 128)
			return
		default:
			return
	}
}

/** What a batch is about, in a message. */
function textOf(batch: readonly IpvsChange[]): string {
	const [first] = batch
	const one = first === undefined ? '' : nameOf(first)
	return batch.length > 1 ? `${one} and ${batch.length - 1} more` : one
}

function nameOf(change: IpvsChange): string {
	if ('destination' in change) return `"${change.destination.ip} ${change.destination.port}"`
	if ('server' in change) return `"${serverKey(change.server)}"`
	if ('entry' in change) return `"${change.entry}" of set "${change.set}"`
	if ('set' in change) return `"${change.set}"`
	return 'ip' in change ? `"${change.ip}"` : `"${device}"`
}
