// One node's wiring against the kernel: packets flow, damage shows in what is read, repair mends it.

import assert from 'node:assert/strict'
import { existsSync, writeFileSync } from 'node:fs'
import { describe, it } from 'node:test'
import { ipToBytes } from '../../src/base/ip.ts'
import { routeOf } from '../../src/dataplane/links/evaluate.ts'
import {
	type Attachment,
	faultsOf,
	type LinksProgram,
	linksFromJson,
	linksToJson,
} from '../../src/dataplane/links/program.ts'
import { NetlinkEncoder } from '../../src/linux/netlink/encode.ts'
import { NETLINK_ROUTE, NetlinkSocket } from '../../src/linux/netlink/socket.ts'
import { createNetns, deleteNetns, inNetnsAt, isNetns, openNetns } from '../../src/linux/netns.ts'
import { addAddress } from '../../src/linux/route/addresses.ts'
import { deleteLink, readLink, readLinks, setLink } from '../../src/linux/route/links.ts'
import { addNeighbour, deleteNeighbour } from '../../src/linux/route/neighbours.ts'
import { addRoute, deleteRoute } from '../../src/linux/route/routes.ts'
import {
	AF_INET,
	bind,
	close,
	getsockname,
	inetAddress,
	POLLIN,
	readInetAddress,
	recv,
	SOCK_DGRAM,
	sendto,
	socket,
	waitReady,
} from '../../src/linux/syscalls.ts'
import { writeSysctl } from '../../src/linux/sysctl.ts'
import { objectOrigin } from '../../src/model/origin.ts'
import { cidr, ip, model, reasonToSkip, withNodes } from './two-nodes.ts'

/** Sends one datagram from one pod to another: whether it came, and from whom. */
async function reaches(from: Attachment, to: Attachment): Promise<string | undefined> {
	const open = (pod: Attachment) =>
		inNetnsAt(pod.namespace, () => {
			const fd = socket(AF_INET, SOCK_DGRAM, 0)
			bind(fd, inetAddress(ipToBytes(pod.ips[0]!), 0))
			return fd
		})
	const client = open(from)
	const server = open(to)
	try {
		sendto(client, Buffer.from('hello'), getsockname(server))
		const [ready] = await waitReady([{ fd: server, events: POLLIN }], 200)
		if (ready === 0) return undefined
		const bytes = new Uint8Array(100)
		const n = recv(server, bytes) ?? 0
		return `${Buffer.from(bytes.subarray(0, n))} from ${readInetAddress(getsockname(client)).ip.join('.')}`
	} catch {
		return undefined
	} finally {
		close(client)
		close(server)
	}
}

function inside(attachment: Attachment, write: (e: NetlinkEncoder) => void): void {
	at(attachment.namespace, write)
}

function at(path: string, write: (e: NetlinkEncoder) => void): void {
	const e = new NetlinkEncoder()
	write(e)
	const nl = inNetnsAt(path, () => new NetlinkSocket(NETLINK_ROUTE))
	try {
		nl.request(e)
	} finally {
		nl.close()
	}
}

describe('links data plane', { skip: reasonToSkip() }, () => {
	it('wires pods of two nodes so that each reaches each, without translation', async () => {
		await withNodes(async ({ nodes, attachment }) => {
			const a = attachment(1, 'a', '10.244.0.2')
			const b = attachment(1, 'b', '10.244.0.3')
			const c = attachment(2, 'c', '10.244.1.2')
			await nodes[0]!.wire([a, b])
			await nodes[1]!.wire([c])
			for (const from of [a, b, c]) {
				for (const to of [a, b, c])
					assert.equal(await reaches(from, to), `hello from ${from.ips[0]}`, `${from.pod} → ${to.pod}`)
			}
		})
	})

	it('reads back what it applied: no difference, and the same answers about routes', async () => {
		await withNodes(async ({ nodes, attachment }) => {
			const a = attachment(1, 'a', '10.244.0.2')
			const b = attachment(1, 'b', '10.244.0.3')
			const { links, wire } = nodes[0]!
			const program = await wire([a, b])
			const read = await links.read()
			assert.deepEqual(links.diff(read, program), [])
			for (const each of read.attachments.values())
				assert.deepEqual(faultsOf(each, program.attachments.get(each.uid)!), [])
			assert.deepEqual(linksToJson(linksFromJson(JSON.parse(JSON.stringify(linksToJson(read))))), linksToJson(read))
			const said = (p: LinksProgram, to: string, from: 'node' | { uid: string } = 'node') =>
				routeOf(p, ip(to), from)?.text
			for (const p of [program, read]) {
				assert.equal(said(p, '10.244.0.2'), '10.244.0.2 dev pw1a')
				assert.equal(said(p, '10.244.0.99'), 'unreachable 10.244.0.0/24')
				assert.equal(said(p, '10.244.1.7'), '10.244.1.0/24 via 172.18.0.3 dev eth0')
				assert.equal(said(p, '8.8.8.8'), undefined)
				assert.equal(said(p, '10.244.1.7', a), 'default via 169.254.1.1 dev eth0')
				assert.equal(said(p, '10.244.0.2', a), 'local 10.244.0.2 dev lo')
			}
			assert.equal(said(read, '172.18.0.9'), '172.18.0.0/16 dev eth0')
			assert.equal(said(read, '172.18.0.2'), 'local 172.18.0.2 dev lo')
			assert.equal(routeOf(read, ip('10.244.1.7'), 'node')?.mtu, 1500)
			assert.deepEqual(routeOf(read, ip('10.244.0.3'), 'node')?.because, [objectOrigin('Pod', 'default/b')])
			assert.deepEqual(routeOf(read, ip('10.244.1.3'), 'node')?.because, [
				objectOrigin('Node', 'node-2', 'spec.podCIDR'),
			])
		})
	})

	it('shows every kind of damage and mends it', async () => {
		await withNodes(async ({ at: path, nodes, attachment }) => {
			const a = attachment(1, 'a', '10.244.0.2')
			const b = attachment(1, 'b', '10.244.0.3')
			const { links, wire } = nodes[0]!
			const program = await wire([a, b])
			const hostIndex = () => {
				const nl = inNetnsAt(path('node-1'), () => new NetlinkSocket(NETLINK_ROUTE))
				try {
					return readLink(nl, a.hostInterface).index
				} finally {
					nl.close()
				}
			}
			const host = (write: (e: NetlinkEncoder, index: number) => void) => () => {
				const index = hostIndex()
				at(path('node-1'), (e) => write(e, index))
			}
			const pod = (write: (e: NetlinkEncoder) => void) => () => inside(a, write)
			const damages: readonly (readonly [string, () => void, RegExp])[] = [
				[
					'MTU of the pod',
					pod((e) => setLink(e, { index: 2, mtu: 1400 })),
					/MTU of interface "eth0" is 1400, not 1500/,
				],
				['MTU of the node', host((e, index) => setLink(e, { index, mtu: 1300 })), /MTU of interface "pw1a" is 1300/],
				['pod down', pod((e) => setLink(e, { index: 2, up: false })), /interface "eth0" is down/],
				['node end down', host((e, index) => setLink(e, { index, up: false })), /interface "pw1a" is down/],
				['loopback down', pod((e) => setLink(e, { index: 1, up: false })), /"lo" of the pod is down/],
				[
					'default route',
					pod((e) => deleteRoute(e, { destination: cidr('0.0.0.0/0') })),
					/route "default via 169.254.1.1 dev eth0" is missing/,
				],
				[
					'extra route',
					pod((e) => addRoute(e, { destination: cidr('10.0.0.0/8'), index: 2 })),
					/route "10.0.0.0\/8 dev eth0" is too much/,
				],
				[
					'gateway neighbour',
					pod((e) => deleteNeighbour(e, 2, ip('169.254.1.1'))),
					/neighbour of "eth0" "169.254.1.1 .*" is missing/,
				],
				[
					'wrong neighbour',
					pod((e) => addNeighbour(e, 2, ip('169.254.1.1'), '02:00:00:00:00:01')),
					/02:00:00:00:00:01" is too much/,
				],
				['extra address', pod((e) => addAddress(e, 2, ip('10.244.0.77'), 32)), /address "10.244.0.77" is too much/],
				[
					'node neighbour',
					host((e, index) => deleteNeighbour(e, index, ip('10.244.0.2'))),
					/neighbour of "pw1a" "10.244.0.2 .*" is missing/,
				],
				[
					'veth gone',
					host((e, index) => deleteLink(e, { index })),
					/interface "pw1a" is missing; interface "eth0" is missing/,
				],
				['namespace gone', () => deleteNetns(a.namespace), /./],
				[
					'route to the pod',
					host((e) => deleteRoute(e, { destination: cidr('10.244.0.2/32') })),
					/add route "10.244.0.2\/32"/,
				],
				[
					'route to a node',
					host((e) => deleteRoute(e, { destination: cidr('10.244.1.0/24') })),
					/add route "10.244.1.0\/24"/,
				],
				[
					'own route stays, ours too much',
					host((e) => addRoute(e, { destination: cidr('10.66.0.0/16'), kind: 'unreachable', protocol: 119 })),
					/remove route "10.66.0.0\/16"/,
				],
				[
					'setting',
					() => inNetnsAt(path('node-1'), () => writeSysctl('net.ipv4.ip_forward', '0')),
					/set net.ipv4.ip_forward to 1/,
				],
			]
			const { changeText } = await import('../../src/dataplane/links/diff.ts')
			for (const [name, damage, text] of damages) {
				damage()
				// A namespace that is let go takes its veth down a moment later: the reading may come before or after.
				const changes = links.diff(await links.read(), program)
				assert.match(changes.map(changeText).join('\n'), text, name)
				assert.deepEqual(await links.apply(changes), { ok: true }, name)
				// A veth that went down took its route along: the second round brings it back.
				assert.deepEqual(await links.apply(links.diff(await links.read(), program)), { ok: true }, name)
				assert.deepEqual(links.diff(await links.read(), program).map(changeText), [], name)
				assert.equal(await reaches(b, a), 'hello from 10.244.0.3', name)
				assert.equal(await reaches(a, b), 'hello from 10.244.0.2', name)
			}
		})
	})

	it('attaches over what a crash left half made, and again over what is whole', async () => {
		await withNodes(async ({ nodes, attachment }) => {
			const a = attachment(1, 'a', '10.244.0.2')
			const b = attachment(1, 'b', '10.244.0.3')
			const { links, wire } = nodes[0]!
			writeFileSync(a.namespace, '')
			createNetns(b.namespace)
			const program = await wire([a, b])
			assert.equal(isNetns(a.namespace), true)
			assert.equal(await reaches(a, b), 'hello from 10.244.0.2')
			assert.deepEqual(await links.apply(links.diff(undefined, program)), { ok: true })
			assert.deepEqual(links.diff(await links.read(), program), [])
			assert.equal(await reaches(b, a), 'hello from 10.244.0.3')
		})
	})

	it('lets a pod go at once, gives its address to the next, sweeps what a process still holds', async () => {
		await withNodes(async ({ at: path, nodes, attachment }) => {
			const a = attachment(1, 'a', '10.244.0.2')
			const b = attachment(1, 'b', '10.244.0.3')
			const heir = { ...attachment(1, 'heir', '10.244.0.2') }
			const { links, wire } = nodes[0]!
			await wire([a, b])
			// As a process inside would: the namespace lives on after its file is gone.
			const held = openNetns(a.namespace)
			await wire([heir, b])
			assert.equal(existsSync(a.namespace), false)
			assert.equal(await reaches(b, heir), 'hello from 10.244.0.3')
			const nl = inNetnsAt(path('node-1'), () => new NetlinkSocket(NETLINK_ROUTE))
			const names = () => readLinks(nl).map((link) => link.name)
			assert.ok(names().includes(a.hostInterface))
			links.sweep()
			assert.deepEqual(names(), ['lo', 'eth0', b.hostInterface, heir.hostInterface])
			links.sweep()
			assert.deepEqual(links.diff(await links.read(), links.compile(model, 'node-1')), [])
			nl.close()
			close(held)
		})
	})

	it('says which changes failed, and does the others', async () => {
		await withNodes(async ({ nodes, attachment }) => {
			const good = attachment(1, 'good', '10.244.0.2')
			const bad = { ...attachment(1, 'bad', '10.244.0.3'), hostInterface: 'a-name-longer-than-the-kernel-takes' }
			const { links } = nodes[0]!
			const outcome = await links.apply([
				{ change: 'attach', attachment: bad, faults: [] },
				{ change: 'attach', attachment: good, faults: [] },
				{ change: 'route', route: { destination: cidr('10.7.0.0/16'), device: 'nowhere', because: [] } },
				{
					change: 'route',
					route: { destination: cidr('10.8.0.0/16'), via: ip('9.9.9.9'), device: 'eth0', because: [] },
				},
				{ change: 'unroute', route: { destination: cidr('10.9.0.0/16'), device: 'eth0', because: [] } },
			])
			assert.equal(outcome.ok, false)
			if (outcome.ok) return
			assert.deepEqual(outcome.failed, [0, 2, 3])
			assert.equal(outcome.applied, 2)
			const texts = (outcome.error as AggregateError).errors.map((e: Error) => e.message)
			assert.match(texts[0]!, /^Cannot attach pod "default\/bad": /)
			assert.equal(texts[1], 'Cannot add route "10.7.0.0/16": interface "nowhere" does not exist')
			assert.match(
				texts[2]!,
				/^Cannot add route "10.8.0.0\/16" \(Nexthop has invalid gateway\): Network is unreachable/,
			)
			assert.equal(existsSync(bad.namespace), false)
			assert.equal(isNetns(good.namespace), true)
		})
	})
})
