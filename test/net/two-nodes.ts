// Two nodes on a bridge, as in the lab, in throw-away namespaces: what tests of wiring and probes stand on.

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Cidr, Ip } from '../../src/base/ip.ts'
import { emptyTable, type Table, tableOf } from '../../src/base/table.ts'
import { createLinks, type Links } from '../../src/dataplane/links/links.ts'
import type { Attachment, LinksProgram } from '../../src/dataplane/links/program.ts'
import { NetlinkEncoder } from '../../src/linux/netlink/encode.ts'
import { NETLINK_ROUTE, NetlinkSocket } from '../../src/linux/netlink/socket.ts'
import { createNetns, deleteNetns, openNetns } from '../../src/linux/netns.ts'
import { addAddress } from '../../src/linux/route/addresses.ts'
import { addBridge, addVeth, LOOPBACK, readLink, setLink } from '../../src/linux/route/links.ts'
import { close } from '../../src/linux/syscalls.ts'
import type { NetworkModel, Node } from '../../src/model/network.ts'
import { objectOrigin } from '../../src/model/origin.ts'

export const ip = (text: string) => text as Ip
export const cidr = (text: string) => text as Cidr

export function reasonToSkip(): string | false {
	if (process.platform !== 'linux') return 'not Linux'
	if (process.getuid?.() !== 0) return 'needs root, or root of a user namespace'
	return false
}

const node = (i: number): Node => ({
	name: `node-${i}`,
	addresses: [ip(`172.18.0.${i + 1}`)],
	podCidrs: [cidr(`10.244.${i - 1}.0/24`)],
	ready: true,
	labels: {},
	origin: objectOrigin('Node', `node-${i}`),
})

export const model: NetworkModel = {
	config: { clusterDomain: 'cluster.local', podCidrs: [cidr('10.244.0.0/16')], serviceCidrs: [], mtu: 1500 },
	nodes: tableOf([node(1), node(2)].map((n) => [n.name, n])),
	pods: emptyTable(),
	services: emptyTable(),
	addresses: emptyTable(),
	frontends: emptyTable(),
	policies: emptyTable(),
	tieredPolicies: emptyTable(),
	namespaces: emptyTable(),
	findings: [],
}

export interface Bench {
	readonly at: (name: string) => string
	readonly nodes: readonly TestNode[]
	attachment(node: number, name: string, ip: string): Attachment
}

export interface TestNode {
	readonly name: string
	readonly links: Links
	/** Sets the pods, compiles, applies the difference from what is installed. */
	wire(pods: readonly Attachment[]): Promise<LinksProgram>
}

/** Two nodes on a bridge, as in the lab; every namespace in the folder is deleted afterwards, also on failure. */
export async function withNodes(test: (bench: Bench) => Promise<void>): Promise<void> {
	const folder = mkdtempSync(join(tmpdir(), 'podwire-test-'))
	const at = (name: string) => join(folder, name)
	const all: Links[] = []
	const made = new Set(['underlay', 'node-1', 'node-2'])
	try {
		const underlay = createNetns(at('underlay'), () => new NetlinkSocket(NETLINK_ROUTE))
		const e = new NetlinkEncoder()
		addBridge(e, { name: 'br0', index: 2 })
		addAddress(e, 2, ip('172.18.0.1'), 16)
		underlay.request(e)
		const nodes = [1, 2].map((i): TestNode => {
			const name = `node-${i}`
			const inside = createNetns(at(name), () => new NetlinkSocket(NETLINK_ROUTE))
			const fd = openNetns(at(name))
			addVeth(e, { name, index: 10 + i, master: 2, up: true, peer: { name: 'eth0', index: 2, netns: fd } })
			underlay.request(e)
			close(fd)
			setLink(e, { index: LOOPBACK, up: true })
			setLink(e, { index: 2, up: true })
			addAddress(e, 2, node(i).addresses[0]!, 16)
			inside.request(e)
			inside.close()
			readLink(underlay, 10 + i)
			let pods: Table<string, Attachment> = emptyTable()
			let installed: LinksProgram | undefined
			const links = createLinks({ netns: at(name), uplink: 'eth0', attachments: () => pods })
			all.push(links)
			return {
				name,
				links,
				async wire(want) {
					pods = tableOf(want.map((each) => [each.uid, each]))
					const program = links.compile(model, name)
					const outcome = await links.apply(links.diff(installed, program))
					assert.deepEqual(outcome, { ok: true })
					installed = program
					return program
				},
			}
		})
		underlay.close()
		await test({
			at,
			nodes,
			attachment(i, name, address) {
				made.add(name)
				return {
					uid: `uid-${name}`,
					pod: `default/${name}`,
					namespace: at(name),
					ips: [ip(address)],
					hostInterface: `pw${i}${name}`.slice(0, 15),
					podInterface: 'eth0',
					mtu: 1500,
					because: [objectOrigin('Pod', `default/${name}`)],
				}
			},
		})
	} finally {
		for (const links of all) links.close()
		for (const name of made) deleteNetns(at(name))
		rmSync(folder, { recursive: true, force: true })
	}
}
