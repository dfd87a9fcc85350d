// Who answers for an announced address on the nodes' network, and that its neighbours know at once when it has moved.

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import type { Ip } from '../../src/base/ip.ts'
import { ipToBytes } from '../../src/base/ip.ts'
import { createAnnouncer } from '../../src/lab/external-announce.ts'
import { NetlinkEncoder } from '../../src/linux/netlink/encode.ts'
import { NETLINK_ROUTE, NetlinkSocket } from '../../src/linux/netlink/socket.ts'
import { createNetns, deleteNetns, inNetnsAt, openNetns } from '../../src/linux/netns.ts'
import { addAddress } from '../../src/linux/route/addresses.ts'
import { addBridge, addVeth, readLink, setLink } from '../../src/linux/route/links.ts'
import { readNeighbours } from '../../src/linux/route/neighbours.ts'
import {
	AF_INET,
	AF_INET6,
	close,
	inetAddress,
	SOCK_DGRAM,
	SOCK_NONBLOCK,
	sendto,
	socket,
} from '../../src/linux/syscalls.ts'
import { writeSysctl } from '../../src/linux/sysctl.ts'
import { skip } from './lab.ts'

const router = 'router'
const nodes = ['node-1', 'node-2'] as const

for (const [what, prefix, length, ip] of [
	['IPv4', '172.18.0.', 16, '172.18.255.7'],
	['IPv6', 'fd00:18::', 64, 'fd00:18::ff07'],
] as const) {
	test(`${what}: asked, moved, asked again`, { skip }, async () => {
		const folder = mkdtempSync(join(tmpdir(), 'podwire-test-'))
		const at = (name: string) => join(folder, name)
		const e = new NetlinkEncoder()
		const sockets: NetlinkSocket[] = []
		const made = new Map<string, NetlinkSocket>()
		for (const name of [router, ...nodes]) {
			const netlink = createNetns(at(name), () => {
				// Addresses count at once, and no node waits for a router's word.
				writeSysctl('net.ipv6.conf.default.accept_dad', '0')
				writeSysctl('net.ipv6.conf.all.forwarding', '1')
				writeSysctl('net.ipv4.ip_forward', '1')
				return new NetlinkSocket(NETLINK_ROUTE)
			})
			sockets.push(netlink)
			made.set(name, netlink)
		}
		const hub = made.get(router)!
		try {
			addBridge(e, { name: 'br0' })
			hub.request(e)
			const bridge = readLink(hub, 'br0').index
			addAddress(e, bridge, `${prefix}1` as Ip, length)
			setLink(e, { index: bridge, up: true })
			hub.request(e)
			for (const [i, name] of nodes.entries()) {
				const fd = openNetns(at(name))
				addVeth(e, { name, master: bridge, up: true, peer: { name: 'eth0', netns: fd } })
				hub.request(e)
				close(fd)
				const own = made.get(name)!
				const { index } = readLink(own, 'eth0')
				addAddress(e, index, `${prefix}${i + 2}` as Ip, length)
				setLink(e, { index, up: true })
				own.request(e)
			}
			const macs = nodes.map((name) => readLink(made.get(name)!, 'eth0').mac)
			const known = () => readNeighbours(hub).find((n) => n.ip === ip)?.mac
			const until = async (mac: string | undefined) => {
				const end = Date.now() + 5000
				while (known() !== mac) {
					assert.ok(Date.now() < end, `${ip} is at ${known()}, not at ${mac}`)
					ask(at(router), ip as Ip)
					await new Promise((resolve) => setTimeout(resolve, 20))
				}
			}
			const [first, second] = nodes.map((name) => createAnnouncer(at(name), 'eth0')) as [
				ReturnType<typeof createAnnouncer>,
				ReturnType<typeof createAnnouncer>,
			]
			const all = new Set([ip as Ip])
			assert.deepEqual(first.bring(all), [ip])
			await until(macs[0])
			assert.deepEqual(first.bring(all), [])
			assert.deepEqual(first.read(), [ip])

			first.bring(new Set())
			second.bring(all)
			assert.deepEqual(first.read(), [])
			// Nobody asks: it is told.
			second.tell(ip as Ip)
			const end = Date.now() + 2000
			while (known() !== macs[1]) {
				assert.ok(Date.now() < end, `${ip} is still at ${known()}`)
				await new Promise((resolve) => setTimeout(resolve, 10))
			}
			// A new process finds what the old one left, and takes it away.
			second.close()
			const again = createAnnouncer(at(nodes[1]), 'eth0')
			assert.deepEqual(again.bring(new Set()), [])
			assert.deepEqual(again.read(), [])
			first.close()
			again.close()
		} finally {
			for (const netlink of sockets) netlink.close()
			for (const name of [router, ...nodes]) deleteNetns(at(name))
			rmSync(folder, { recursive: true, force: true })
		}
	})
}

/** Anything sent there makes the kernel ask who has it. */
function ask(netns: string, ip: Ip): void {
	const bytes = ipToBytes(ip)
	const fd = inNetnsAt(netns, () => socket(bytes.length === 4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, 0))
	try {
		sendto(fd, new Uint8Array(1), inetAddress(bytes, 9))
	} finally {
		close(fd)
	}
}
