// The kernel's own answers, in throw-away namespaces: needs root (or root of a user namespace).

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { type Cidr, type Ip, ipToBytes } from '../../src/base/ip.ts'
import { Capture, waitForTimestamps } from '../../src/linux/capture.ts'
import {
	deleteConnections,
	findConnection,
	flushConntrack,
	openConntrack,
	readConntrack,
} from '../../src/linux/conntrack.ts'
import { NetlinkEncoder } from '../../src/linux/netlink/encode.ts'
import { NETLINK_ROUTE, NetlinkSocket } from '../../src/linux/netlink/socket.ts'
import {
	createNetns,
	deleteNetns,
	inNetns,
	inNetnsAt,
	isNetns,
	netnsNumber,
	openNetns,
	ownNetns,
} from '../../src/linux/netns.ts'
import { openTraces, readTraces } from '../../src/linux/nftrace.ts'
import { addAddress, addLocalRoute, deleteAddress, readAddresses } from '../../src/linux/route/addresses.ts'
import {
	addBridge,
	addVeth,
	deleteGroup,
	deleteLink,
	LOOPBACK,
	readLink,
	readLinks,
	setLink,
} from '../../src/linux/route/links.ts'
import { addNeighbour, deleteNeighbour, readNeighbours } from '../../src/linux/route/neighbours.ts'
import { addRoute, deleteRoute, lookUpRoute, readRoutes, TABLE_MAIN } from '../../src/linux/route/routes.ts'
import {
	AF_INET,
	bind,
	close,
	connect,
	getsockname,
	inetAddress,
	POLLIN,
	poll,
	readInetAddress,
	recv,
	SOCK_DGRAM,
	sendto,
	socket,
	waitReady,
} from '../../src/linux/syscalls.ts'
import { readSysctl, sysctlPath, writeSysctl } from '../../src/linux/sysctl.ts'

const ip = (text: string) => text as Ip
const cidr = (text: string) => text as Cidr

function reasonToSkip(): string | false {
	if (process.platform !== 'linux') return 'not Linux'
	if (process.getuid?.() !== 0) return 'needs root, or root of a user namespace'
	return false
}

/** Runs `test` with a folder for namespaces; every namespace in it is deleted afterwards, also on failure. */
async function withNamespaces(
	names: readonly string[],
	test: (at: (name: string) => string, sockets: readonly NetlinkSocket[]) => void | Promise<void>,
): Promise<void> {
	const folder = mkdtempSync(join(tmpdir(), 'podwire-test-'))
	const at = (name: string) => join(folder, name)
	const sockets: NetlinkSocket[] = []
	try {
		for (const name of names) sockets.push(createNetns(at(name), () => new NetlinkSocket(NETLINK_ROUTE)))
		await test(at, sockets)
	} finally {
		for (const each of sockets) each.close()
		for (const name of names) deleteNetns(at(name))
		rmSync(folder, { recursive: true, force: true })
	}
}

/** Two namespaces joined by a veth: a has 10.0.0.1, b has 10.0.0.2 and, behind it, 10.9.0.1. */
async function withPair(
	test: (at: (name: string) => string, a: NetlinkSocket, b: NetlinkSocket) => void | Promise<void>,
) {
	await withNamespaces(['a', 'b'], async (at, [a, b]) => {
		const e = new NetlinkEncoder()
		const fd = openNetns(at('b'))
		addVeth(e, { name: 'left', index: 10, up: true, peer: { name: 'right', index: 20, netns: fd } })
		setLink(e, { index: LOOPBACK, up: true })
		addAddress(e, 10, ip('10.0.0.1'), 24)
		addRoute(e, { destination: cidr('10.9.0.0/16'), via: ip('10.0.0.2'), index: 10 })
		a!.request(e)
		setLink(e, { index: LOOPBACK, up: true })
		setLink(e, { index: 20, up: true })
		addAddress(e, 20, ip('10.0.0.2'), 24)
		addAddress(e, LOOPBACK, ip('10.9.0.1'), 32)
		b!.request(e)
		close(fd)
		await test(at, a!, b!)
	})
}

function nft(netns: string, ruleset: string): void {
	inNetnsAt(netns, () => {
		const done = spawnSync('nft', ['-f', '-'], { input: ruleset, encoding: 'utf8', stdio: ['pipe', 'pipe', 'pipe'] })
		if (done.status === 0) return
		// Where nft cannot open /dev/stdin (node's pipe is a socket) a file does.
		const file = join(mkdtempSync(join(tmpdir(), 'podwire-test-')), 'ruleset')
		writeFileSync(file, ruleset)
		const again = spawnSync('nft', ['-f', file], { encoding: 'utf8' })
		rmSync(file)
		assert.equal(again.status, 0, again.stderr)
	})
}

const noNft = ['/usr/sbin/nft', '/sbin/nft', '/usr/bin/nft'].some(existsSync)
	? false
	: 'needs the nft program to prepare rules'

function udp(netns: string, address: string, port = 0): number {
	return inNetnsAt(netns, () => {
		const fd = socket(AF_INET, SOCK_DGRAM, 0)
		bind(fd, inetAddress(ipToBytes(ip(address)), port))
		return fd
	})
}

const portOf = (fd: number) => readInetAddress(getsockname(fd)).port

describe('linux kernel', { skip: reasonToSkip() }, () => {
	it('creates a namespace that is a file, enters it, comes back, deletes it', async () => {
		await withNamespaces(['one'], (at) => {
			const home = netnsNumber(ownNetns())
			const fd = openNetns(at('one'))
			const number = () => {
				const own = openNetns('/proc/thread-self/ns/net')
				try {
					return netnsNumber(own)
				} finally {
					close(own)
				}
			}
			assert.equal(number(), home)
			assert.equal(inNetns(fd, number), netnsNumber(fd))
			assert.notEqual(netnsNumber(fd), home)
			// Nested: the inner call returns to the outer namespace, not home.
			inNetns(fd, () => {
				inNetns(ownNetns(), () => assert.equal(number(), home))
				assert.equal(number(), netnsNumber(fd))
			})
			assert.throws(() => inNetns(fd, () => Promise.resolve()), /must be synchronous/)
			assert.throws(
				() =>
					inNetns(fd, () => {
						throw new Error('inside')
					}),
				/inside/,
			)
			assert.equal(number(), home)
			assert.equal(isNetns(at('one')), true)
			close(fd)
		})
	})

	it('refuses to create a namespace twice, and leaves nothing of a failed one', async () => {
		await withNamespaces(['one'], (at) => {
			assert.throws(() => createNetns(at('one')), { code: 'EEXIST' })
			assert.throws(
				() =>
					createNetns(at('two'), () => {
						throw new Error('no')
					}),
				/^Error: no$/,
			)
			assert.equal(existsSync(at('two')), false)
			// A crash between the file and the mount leaves a plain file: deleting takes it, too.
			writeFileSync(at('half'), '')
			assert.equal(isNetns(at('half')), false)
			deleteNetns(at('half'))
			assert.equal(existsSync(at('half')), false)
			deleteNetns(at('half'))
		})
	})

	it('runs every message of a batch, throws the first refusal with the kernel’s own words', async () => {
		await withNamespaces(['one'], (_, [nl]) => {
			const e = new NetlinkEncoder()
			addBridge(e, { name: 'br0', index: 5 })
			addBridge(e, { name: 'br0' })
			addBridge(e, { name: 'br1', index: 6 })
			assert.throws(() => nl!.request(e), { code: 'EEXIST' })
			assert.deepEqual(
				readLinks(nl!).map((link) => [link.index, link.name]),
				[
					[1, 'lo'],
					[5, 'br0'],
					[6, 'br1'],
				],
			)
			e.begin(16, 0x604).raw(new Uint8Array(16)).string(3, 'x')
			const info = e.nest(18)
			e.string(1, 'nosuchkind').close(info).end()
			assert.throws(() => nl!.request(e), /Unknown device type/)
		})
	})

	it('an IPv6 address is reached as soon as it is acknowledged', async () => {
		await withPair((_, a) => {
			const e = new NetlinkEncoder()
			for (let i = 1; i <= 200; i++) {
				const added = ip(`fd00::${i.toString(16)}`)
				addAddress(e, 10, added, 128)
				addLocalRoute(e, 10, added)
				a.request(e)
				assert.equal(lookUpRoute(a, e, added)?.kind, 'local', added)
			}
		})
	})

	it('makes and reads links, addresses, routes, neighbours', async () => {
		await withPair((at, a, b) => {
			const e = new NetlinkEncoder()
			setLink(e, { index: 10, alias: 'pod default/web', mtu: 1400, mac: 'ee:ee:ee:ee:ee:ee', group: 9 })
			addNeighbour(e, 10, ip('10.0.0.9'), '0a:58:0a:00:00:09')
			addRoute(e, { destination: cidr('10.8.0.0/16'), kind: 'unreachable', protocol: 119 })
			addAddress(e, 10, ip('fd00::1'), 64)
			a.request(e)
			const link = readLink(a, 'left')
			assert.equal(link.kind, 'veth')
			assert.equal(link.mac, 'ee:ee:ee:ee:ee:ee')
			assert.equal(link.mtu, 1400)
			assert.equal(link.alias, 'pod default/web')
			assert.equal(link.peer, 20)
			assert.equal(link.up, true)
			assert.throws(() => readLink(a, 'absent'), { code: 'ENODEV' })
			assert.deepEqual(
				readAddresses(a).filter((address) => address.index === 10 && address.scope === 'global'),
				[
					{ index: 10, ip: '10.0.0.1', prefixLength: 24, scope: 'global' },
					{ index: 10, ip: 'fd00::1', prefixLength: 64, scope: 'global' },
				],
			)
			const routes = readRoutes(a).filter((route) => route.table === TABLE_MAIN && !route.destination.includes(':'))
			assert.deepEqual(
				routes.map((route) => [route.kind, route.destination, route.via, route.index, route.protocol]),
				[
					['unicast', '10.0.0.0/24', undefined, 10, 2],
					['unreachable', '10.8.0.0/16', undefined, undefined, 119],
					['unicast', '10.9.0.0/16', '10.0.0.2', 10, 4],
				],
			)
			assert.equal(lookUpRoute(a, e, ip('10.9.3.4'))?.via, '10.0.0.2')
			assert.throws(() => lookUpRoute(a, e, ip('10.8.3.4')), { code: 'EHOSTUNREACH' })
			assert.deepEqual(
				readNeighbours(a).filter((n) => n.state === 'permanent'),
				[{ index: 10, ip: '10.0.0.9', mac: '0a:58:0a:00:00:09', state: 'permanent' }],
			)
			deleteNeighbour(e, 10, ip('10.0.0.9'))
			deleteRoute(e, { destination: cidr('10.8.0.0/16'), kind: 'unreachable' })
			deleteAddress(e, 10, ip('10.0.0.1'), 24)
			a.request(e)
			assert.equal(readNeighbours(a).filter((n) => n.state === 'permanent').length, 0)
			assert.deepEqual(
				readRoutes(a).filter((route) => route.table === TABLE_MAIN && !route.destination.includes(':')),
				[],
			)
			deleteGroup(e, 9)
			a.request(e)
			assert.deepEqual(
				readLinks(b).map((each) => each.name),
				['lo'],
			)
			deleteLink(e, { name: 'left' })
			assert.throws(() => a.request(e), { code: 'ENODEV' })
			assert.equal(isNetns(at('a')), true)
		})
	})

	it('reads and writes the settings of the namespace it is in', async () => {
		await withNamespaces(['one'], (at) => {
			const before = readSysctl('net.ipv4.ip_forward')
			inNetnsAt(at('one'), () => {
				writeSysctl('net.ipv4.ip_forward', '1')
				assert.equal(readSysctl('net.ipv4.ip_forward'), '1')
				writeSysctl('net/ipv4/conf/lo/forwarding', '0')
				assert.throws(() => writeSysctl('net.ipv4.no_such_setting', '1'), { code: 'ENOENT' })
				assert.throws(() => writeSysctl('net.ipv4.tcp_rmem', 'words'), { code: 'EINVAL' })
			})
			assert.equal(readSysctl('net.ipv4.ip_forward'), before)
			assert.throws(() => sysctlPath('net/../../etc/passwd'), /is not the name/)
			assert.equal(sysctlPath('net/ipv4/conf/eth0.100/forwarding'), '/proc/sys/net/ipv4/conf/eth0.100/forwarding')
		})
	})

	it('sees the packets of one flow, and no other, with direction and time', async () => {
		await withPair(async (at) => {
			const netns = openNetns(at('a'))
			const client = udp(at('a'), '10.0.0.1')
			const server = udp(at('b'), '10.0.0.2')
			const filter = { protocol: 'UDP', port: portOf(client) } as const
			const a = inNetnsAt(at('a'), () => new Capture(filter))
			const b = inNetnsAt(at('b'), () => new Capture(filter))
			assert.equal(await waitForTimestamps(netns), true)
			const other = udp(at('a'), '10.0.0.1')
			const to = inetAddress(ipToBytes(ip('10.0.0.2')), portOf(server))
			sendto(other, Buffer.from('not this one'), to)
			sendto(client, Buffer.from('ping'), to)
			await waitReady([{ fd: server, events: POLLIN }], 1000)
			sendto(server, Buffer.from('pong!'), inetAddress(ipToBytes(ip('10.0.0.1')), portOf(client)))
			// Closed port: the ICMP error quotes the flow, it is seen, too.
			sendto(client, Buffer.from('ping'), inetAddress(ipToBytes(ip('10.0.0.2')), 9))
			const seen = [...a.read(), ...b.read()].sort((x, y) => (x.time < y.time ? -1 : 1))
			assert.deepEqual(
				seen.map((p) => [p.index, p.direction, p.source, p.payload, p.flags]),
				[
					[10, 'out', '10.0.0.1', 4, ''],
					[20, 'in', '10.0.0.1', 4, ''],
					[20, 'out', '10.0.0.2', 5, ''],
					[10, 'in', '10.0.0.2', 5, ''],
					[10, 'out', '10.0.0.1', 4, ''],
					[20, 'in', '10.0.0.1', 4, ''],
					[20, 'out', '10.0.0.2', 0, 'icmp 3/3'],
					[10, 'in', '10.0.0.2', 0, 'icmp 3/3'],
				],
			)
			assert.ok(
				seen.every((p) => p.time > 0n && (p.sourcePort === portOf(client)) !== (p.destinationPort === portOf(client))),
			)
			a.close()
			b.close()
			for (const fd of [client, server, other, netns]) close(fd)
		})
	})

	it('finds, filters and deletes connections', { skip: noNft }, async () => {
		await withPair(async (at) => {
			nft(
				at('b'),
				'table ip t { chain p { type nat hook prerouting priority dstnat ; ip daddr 10.9.0.1 udp dport 53 dnat to 10.0.0.2:5353 ; } ; }',
			)
			const client = udp(at('a'), '10.0.0.1')
			const server = udp(at('b'), '10.0.0.2', 5353)
			sendto(client, Buffer.from('q'), inetAddress(ipToBytes(ip('10.9.0.1')), 53))
			await waitReady([{ fd: server, events: POLLIN }], 1000)
			assert.equal(recv(server, new Uint8Array(10)), 1)
			const ct = inNetnsAt(at('b'), openConntrack)
			const original = {
				protocol: 'UDP',
				source: ip('10.0.0.1'),
				sourcePort: portOf(client),
				destination: ip('10.9.0.1'),
				destinationPort: 53,
			} as const
			const found = findConnection(ct, original)
			assert.deepEqual(found?.original, original)
			assert.deepEqual(found?.reply, {
				protocol: 'UDP',
				source: '10.0.0.2',
				sourcePort: 5353,
				destination: '10.0.0.1',
				destinationPort: portOf(client),
			})
			assert.deepEqual(found?.translated, { source: false, destination: true })
			assert.equal(found?.seenReply, false)
			// A second connection, straight, that the filters leave out.
			sendto(client, Buffer.from('q'), inetAddress(ipToBytes(ip('10.0.0.2')), 5353))
			assert.equal(readConntrack(ct).length, 2)
			assert.equal(readConntrack(ct, { original: { destination: ip('10.9.0.1') } }).length, 1)
			assert.equal(readConntrack(ct, { original: { protocol: 'UDP', destinationPort: 5353 } }).length, 1)
			assert.equal(
				readConntrack(ct, { reply: { source: ip('10.0.0.2'), sourcePort: 5353, protocol: 'UDP' } }).length,
				2,
			)
			assert.equal(readConntrack(ct, { original: { protocol: 'TCP' } }).length, 0)
			assert.equal(findConnection(ct, { ...original, sourcePort: 1 }), undefined)
			assert.equal(deleteConnections(ct, [found!, { original: { ...original, sourcePort: 1 } }]), 1)
			assert.equal(readConntrack(ct).length, 1)
			flushConntrack(ct)
			assert.equal(readConntrack(ct).length, 0)
			ct.close()
			close(client)
			close(server)
		})
	})

	it('reads what nftables did to a packet', { skip: noNft }, async () => {
		await withPair(async (at) => {
			nft(
				at('b'),
				`table inet t {
					chain first { type filter hook prerouting priority -300 ; udp dport 7 meta nftrace set 1 ; }
					chain in { type filter hook input priority 0 ; policy drop ; udp dport 7 jump more ; }
					chain more { udp dport 7 counter ; }
				}`,
			)
			const traces = inNetnsAt(at('b'), openTraces)
			const client = udp(at('a'), '10.0.0.1')
			sendto(client, Buffer.from('q'), inetAddress(ipToBytes(ip('10.0.0.2')), 7))
			sendto(client, Buffer.from('q'), inetAddress(ipToBytes(ip('10.0.0.2')), 8))
			await waitReady([{ fd: traces.fd, events: POLLIN }], 1000)
			const messages = readTraces(traces)
			assert.deepEqual(
				messages.map((m) => [m.family, m.table, m.chain, m.kind, m.verdict, m.target]),
				[
					['inet', 't', 'first', 'rule', 'continue', undefined],
					['inet', 't', 'first', 'return', 'continue', undefined],
					['inet', 't', 'first', 'policy', 'accept', undefined],
					['inet', 't', 'in', 'rule', 'jump', 'more'],
					['inet', 't', 'more', 'rule', 'continue', undefined],
					['inet', 't', 'more', 'return', 'continue', undefined],
					['inet', 't', 'in', 'return', 'continue', undefined],
					['inet', 't', 'in', 'policy', 'drop', undefined],
				],
			)
			assert.ok(messages.every((m) => m.id === messages[0]!.id && (m.kind === 'rule') === (m.handle !== undefined)))
			assert.equal(messages[0]!.inIndex, 20)
			assert.deepEqual(messages[0]!.packet, {
				protocol: 17,
				source: '10.0.0.1',
				sourcePort: portOf(client),
				destination: '10.0.0.2',
				destinationPort: 7,
			})
			traces.close()
			close(client)
		})
	})

	it('waits for a descriptor without blocking the event loop', async () => {
		await withPair(async (at) => {
			const client = udp(at('a'), '10.0.0.1')
			const server = udp(at('b'), '10.0.0.2')
			assert.deepEqual(poll([{ fd: server, events: POLLIN }]), [0])
			const ready = waitReady(
				[
					{ fd: client, events: POLLIN },
					{ fd: server, events: POLLIN },
				],
				5000,
			)
			// Runs while the other waits, or the test would stand for five seconds.
			setImmediate(() => {
				connect(client, inetAddress(ipToBytes(ip('10.0.0.2')), portOf(server)))
				sendto(client, Buffer.from('x'), inetAddress(ipToBytes(ip('10.0.0.2')), portOf(server)))
			})
			assert.deepEqual(await ready, [0, POLLIN])
			close(client)
			close(server)
		})
	})
})
