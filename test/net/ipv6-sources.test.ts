// A pod that sends from an address that is not its own, over IPv6: real packets, between pods of two nodes.

import assert from 'node:assert/strict'
import { createSocket, type Socket } from 'node:dgram'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { type Ip, ipToBytes } from '../../src/base/ip.ts'
import { NetlinkEncoder } from '../../src/linux/netlink/encode.ts'
import { NETLINK_ROUTE, NetlinkSocket } from '../../src/linux/netlink/socket.ts'
import { inNetnsAt } from '../../src/linux/netns.ts'
import { readProgram } from '../../src/linux/nft/read.ts'
import { openNftSocket } from '../../src/linux/nft/transaction.ts'
import { addAddress } from '../../src/linux/route/addresses.ts'
import { LOOPBACK } from '../../src/linux/route/links.ts'
import { AF_INET6, bind, inetAddress, SOCK_DGRAM, SOCK_NONBLOCK, socket } from '../../src/linux/syscalls.ts'
import { createTestLab, podObject, skip, type TestLab } from './lab.ts'

const options = { skip: skip || (existsSync('/proc/net/if_inet6') ? false : 'no IPv6 in this kernel'), timeout: 90_000 }
const port = 7007

suite('IPv6: a pod sends from its own addresses only', options, () => {
	let lab: TestLab
	const netns = new Map<string, string>()
	const ips = new Map<string, Ip>()
	const open: Socket[] = []
	before(async () => {
		if (options.skip) return
		lab = await createTestLab('sources', undefined, { dataplane: 'kernel', ipFamily: 'ipv6' })
		for (const [name, nodeName] of [
			['liar', 'node-1'],
			['beside', 'node-1'],
			['far', 'node-2'],
			['victim', 'node-2'],
		] as const)
			await lab.create(podObject(name, { nodeName, containers: [{ name: 'c', image: 'nginx' }] }))
		for (const name of ['liar', 'beside', 'far', 'victim']) {
			const { metadata, status } = await lab.pod(name)
			netns.set(name, join(lab.paths.namespaces, `pod-${metadata.uid}`))
			ips.set(name, status?.podIP as Ip)
		}
	})
	after(async () => {
		for (const one of open) one.close()
		await lab?.remove()
	})

	/** A socket of the pod at an address, which it takes for its own first. */
	function socketAt(pod: string, ip: Ip, at = 0): Socket {
		const fd = inNetnsAt(netns.get(pod)!, () => {
			if (ip !== ips.get(pod)) {
				const netlink = new NetlinkSocket(NETLINK_ROUTE)
				const e = new NetlinkEncoder()
				addAddress(e, LOOPBACK, ip, 128)
				netlink.request(e)
				netlink.close()
			}
			const made = socket(AF_INET6, SOCK_DGRAM | SOCK_NONBLOCK, 0)
			bind(made, inetAddress(ipToBytes(ip), at))
			return made
		})
		const udp = createSocket('udp6')
		udp.bind({ fd })
		open.push(udp)
		return udp
	}

	/** Whom `to` heard, once it has heard the pod itself: what was sent before is not to come any more. */
	async function heard(to: string, lies: readonly Ip[]): Promise<string[]> {
		const senders = new Set<string>()
		const ear = socketAt(to, ips.get(to)!, port)
		ear.on('message', (_, { address }) => senders.add(address))
		for (const lie of lies) {
			const mouth = socketAt('liar', lie)
			for (let i = 0; i < 3; i++) mouth.send('lie', port, ips.get(to)!)
		}
		const own = socketAt('liar', ips.get('liar')!)
		await lab.until(async () => {
			own.send('truth', port, ips.get(to)!)
			return senders.has(ips.get('liar')!) ? true : undefined
		})
		return [...senders]
	}

	/** Packets the rule has dropped on the node. */
	function dropped(): bigint {
		return inNetnsAt(join(lab.paths.namespaces, 'node-1'), () => {
			const nft = openNftSocket()
			try {
				const chain = readProgram(nft).tables.get('ip6 podwire-links')?.chains.get('sources')
				const counter = chain?.rules.at(-1)?.expressions.find((e) => e.kind === 'counter')
				return BigInt(counter?.kind === 'counter' ? (counter.packets ?? 0) : 0)
			} finally {
				nft.close()
			}
		})
	}

	for (const to of ['beside', 'far']) {
		test(`neither a stranger's address nor another pod's comes to a pod ${to === 'far' ? 'of another node' : 'beside it'}`, async () => {
			const others = ['fd00:bad::1' as Ip, ips.get('victim')!]
			assert.deepEqual(await heard(to, others), [ips.get('liar')])
		})
	}

	test('the rule is what drops it, and is put back', async () => {
		await lab.until(async () => (dropped() > 0n ? true : undefined))
		const node = join(lab.paths.namespaces, 'node-1')
		const { spawnSync } = await import('node:child_process')
		const gone = spawnSync('nsenter', [`--net=${node}`, 'nft', 'delete', 'table', 'ip6', 'podwire-links'])
		assert.equal(gone.status, 0, gone.stderr.toString())
		await lab.handle.client.repair()
		assert.equal(spawnSync('nsenter', [`--net=${node}`, 'nft', 'list', 'table', 'ip6', 'podwire-links']).status, 0)
	})
})
