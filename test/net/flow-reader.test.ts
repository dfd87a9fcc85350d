// A node's reader of flows on a real kernel, in a throw-away namespace with a clock held by hand: what is lost is
// counted to the packet, whatever the reader did not come to; who has left is still known for a moment.

import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { type FlowEvent, type FlowMessage, isLost } from '../../src/agent/flow-event.ts'
import { createFlowReader, type FlowReader } from '../../src/agent/flows.ts'
import { ipToBytes } from '../../src/base/ip.ts'
import { createManualClock } from '../../src/base/manual-clock.ts'
import { tableOf } from '../../src/base/table.ts'
import { logPrefix } from '../../src/dataplane/policy/log.ts'
import { NetlinkEncoder } from '../../src/linux/netlink/encode.ts'
import { NETLINK_ROUTE, NetlinkSocket } from '../../src/linux/netlink/socket.ts'
import { createNetns, deleteNetns, inNetnsAt } from '../../src/linux/netns.ts'
import { addresses, count, decide, matchPort, matchPrefix, th } from '../../src/linux/nft/build.ts'
import type { NftChange } from '../../src/linux/nft/change.ts'
import { emptyProgram, type NftProgram } from '../../src/linux/nft/program.ts'
import { readProgram } from '../../src/linux/nft/read.ts'
import { applyChanges, openNftSocket } from '../../src/linux/nft/transaction.ts'
import { addAddress } from '../../src/linux/route/addresses.ts'
import { LOOPBACK, setLink } from '../../src/linux/route/links.ts'
import { AF_INET, bind, close, inetAddress, SOCK_DGRAM, sendto, socket } from '../../src/linux/syscalls.ts'
import type { NetworkModel, Pod } from '../../src/model/network.ts'
import { objectOrigin } from '../../src/model/origin.ts'
import { cidr, ip, model, reasonToSkip } from './two-nodes.ts'

const skip = reasonToSkip()
const where = { skip, concurrency: false }
const family = 'ip' as const
const table = { family, table: 'podwire-policy' } as const
const client = ip('10.244.0.2')
const server = ip('10.244.0.3')
const group = 5771

const pod = (name: string, address: string): Pod => ({
	key: `shop/${name}`,
	uid: name,
	namespace: 'shop',
	name,
	labels: { app: name, 'pod-template-hash': 'abc' },
	node: 'node-1',
	ips: [ip(address)],
	hostNetwork: false,
	phase: 'Running',
	ready: true,
	terminating: false,
	ports: [],
	dns: { nameservers: [], searches: [], options: [], origin: objectOrigin('Pod', `shop/${name}`) },
	owner: { kind: 'ReplicaSet', key: `shop/${name}-abc` },
	origin: objectOrigin('Pod', `shop/${name}`),
})

const policy = (name: string, line: number) => ({
	key: `shop/${name}`,
	namespace: 'shop',
	subject: { matchLabels: {}, matchExpressions: [] },
	ingress: [],
	origin: objectOrigin('NetworkPolicy', `shop/${name}`, undefined, { file: 'policies.yaml', line }),
})

function modelOf(pods: readonly Pod[], policies: readonly string[]): NetworkModel {
	return {
		...model,
		pods: tableOf(pods.map((p) => [p.key, p])),
		addresses: tableOf(pods.flatMap((p) => p.ips.map((i) => [i, { kind: 'pod' as const, pod: p.key }] as const))),
		policies: tableOf(policies.map((name, i) => [`shop/${name}`, policy(name, i + 1)] as const)),
	}
}

let folder: string
let netns: string
let reader: FlowReader
const clock = createManualClock(1_700_000_000_000)
const failures: unknown[] = []

before(() => {
	if (skip) return
	folder = mkdtempSync(join(tmpdir(), 'pw-'))
	netns = join(folder, 'node')
	createNetns(netns)
	const route = inNetnsAt(netns, () => new NetlinkSocket(NETLINK_ROUTE))
	const e = new NetlinkEncoder()
	setLink(e, { index: LOOPBACK, up: true })
	addAddress(e, LOOPBACK, client, 32)
	addAddress(e, LOOPBACK, server, 32)
	route.request(e)
	route.close()
	reader = createFlowReader({ node: 'node-1', netns, clock, onFailure: (_, error) => failures.push(error) })
})
after(() => {
	if (skip) return
	reader?.close()
	deleteNetns(netns)
	rmSync(folder, { recursive: true, force: true })
})

/** A table as policies have it, whose rules for two ports log without a limit; read back. */
function install(): NftProgram {
	const { daddr } = addresses(family)
	const chains: NftChange[] = [
		{ ...table, op: 'add-table' },
		{
			...table,
			op: 'add-chain',
			chain: { name: 'output', base: { type: 'filter', hook: 'output', priority: 0, policy: 'accept' } },
		},
	]
	const denied = (port: number, chain: string, comment: string): NftChange[] => [
		{ ...table, op: 'add-chain', chain: { name: chain } },
		{
			...table,
			op: 'add-rule',
			chain,
			rule: { expressions: [{ kind: 'log', prefix: logPrefix('deny', chain, comment), group }] },
		},
		{ ...table, op: 'add-rule', chain, rule: { expressions: [count, decide('drop')], comment } },
		{
			...table,
			op: 'add-rule',
			chain: 'output',
			rule: {
				expressions: [...matchPrefix(daddr, cidr(`${server}/32`)), ...matchPort(th.dport, port), decide('jump', chain)],
			},
		},
	]
	const nft = inNetnsAt(netns, openNftSocket)
	try {
		applyChanges(nft, [
			...chains,
			...denied(1111, 'ingress-shop-0a1b2c3d4e5f', 'NetworkPolicy shop/deny policies.yaml:1'),
			...denied(2222, 'ingress-shop-1a1b2c3d4e5f', 'NetworkPolicy shop/deny, shop/other'),
			...denied(3333, 'ingress-shop-2a1b2c3d4e5f', 'ClusterNetworkPolicy guard spec.ingress[2] guard.yaml:30'),
		])
		return readProgram(nft)
	} finally {
		nft.close()
	}
}

/** Datagrams from the client, each from a port of its own where `ports` says so. */
function send(port: number, times: number, ports: (i: number) => number): void {
	const to = inetAddress(ipToBytes(server), port)
	let bound = -1
	let fd = -1
	for (let i = 0; i < times; i++) {
		if (ports(i) !== bound) {
			if (fd >= 0) close(fd)
			bound = ports(i)
			fd = inNetnsAt(netns, () => socket(AF_INET, SOCK_DGRAM, 0))
			bind(fd, inetAddress(ipToBytes(client), bound))
		}
		// A packet that is dropped on its way out is EPERM.
		try {
			sendto(fd, new Uint8Array(4), to)
		} catch {}
	}
	close(fd)
}

async function settle(): Promise<void> {
	// The kernel sends what it gathered after 50 ms of its own clock.
	await new Promise((resolve) => setTimeout(resolve, 120))
	clock.advance(600)
}

let program: NftProgram = emptyProgram
const told = (port: number): FlowEvent[] =>
	[...reader.recent().events].filter((e) => e.flow.l4.UDP?.destination_port === port)

test('without a policy it is asleep; with the first it listens', where, () => {
	reader.update(modelOf([], []), emptyProgram)
	assert.equal(clock.waiting, 0)
	assert.deepEqual(reader.log, { group, allowed: false })
	program = install()
	reader.update(modelOf([pod('web', client), pod('db', server)], ['deny', 'other']), program)
	assert.equal(clock.waiting, 1)
})

test('who decided: one policy, several, and a rule that denies', where, async () => {
	for (const port of [1111, 2222, 3333]) send(port, 1, () => 4000)
	await settle()
	const [one] = told(1111)
	assert.ok(one)
	assert.deepEqual(one.podwire.because, [
		{ kind: 'NetworkPolicy', key: 'shop/deny', source: { file: 'policies.yaml', line: 1 } },
	])
	assert.equal(one.flow.drop_reason_desc, 'POLICY_DENIED')
	assert.deepEqual(one.flow.source.workloads, [{ name: 'web', kind: 'Deployment' }])
	assert.equal(one.flow.destination.pod_name, 'db')
	assert.deepEqual(one.podwire.rule, {
		table: 'ip podwire-policy',
		chain: 'ingress-shop-0a1b2c3d4e5f',
		comment: 'NetworkPolicy shop/deny policies.yaml:1',
	})
	const [several] = told(2222)
	assert.deepEqual(
		several?.podwire.because.map((o) => 'key' in o && [o.key, o.source?.line]),
		[
			['shop/deny', 1],
			['shop/other', 2],
		],
	)
	const [rule] = told(3333)
	assert.equal(rule?.flow.drop_reason_desc, 'POLICY_DENY')
	assert.deepEqual(rule?.flow.ingress_denied_by, [{ name: 'guard', kind: 'ClusterNetworkPolicy' }])
	assert.deepEqual(rule?.podwire.because, [
		{ kind: 'ClusterNetworkPolicy', key: 'guard', field: 'spec.ingress[2]', source: { file: 'guard.yaml', line: 30 } },
	])
})

test('the same again within a minute of the last one is no other flow; later it is', where, async () => {
	const before = told(1111).length
	send(1111, 3, () => 5000)
	await settle()
	clock.advance(50_000)
	send(1111, 1, () => 5000)
	await settle()
	clock.advance(50_000)
	send(1111, 1, () => 5000)
	await settle()
	assert.equal(told(1111).length, before + 1)
	assert.equal(told(1111).at(-1)?.podwire.repeats, 4)
	clock.advance(61_000)
	send(1111, 1, () => 5000)
	await settle()
	assert.equal(told(1111).length, before + 2)
})

test('a pod that has gone is known for half a minute, and not when its address is another one’s', where, async () => {
	// Sent before it left, read after.
	send(1111, 1, () => 6000)
	await new Promise((resolve) => setTimeout(resolve, 120))
	reader.update(modelOf([pod('db', server)], ['deny', 'other']), program)
	assert.equal(told(1111).at(-1)?.flow.source.pod_name, 'web')
	send(1111, 1, () => 6001)
	await settle()
	assert.equal(told(1111).at(-1)?.flow.source.pod_name, 'web')
	reader.update(modelOf([pod('db', server), pod('next', client)], ['deny', 'other']), program)
	// The same, and its address is another one's when it is read.
	send(1111, 1, () => 6004)
	await new Promise((resolve) => setTimeout(resolve, 120))
	reader.update(modelOf([pod('db', server), pod('new', client)], ['deny', 'other']), program)
	assert.equal(told(1111).at(-1)?.flow.source.pod_name, 'next')
	send(1111, 1, () => 6002)
	await settle()
	assert.equal(told(1111).at(-1)?.flow.source.pod_name, 'new')
	reader.update(modelOf([pod('db', server)], ['deny', 'other']), program)
	clock.advance(31_000)
	reader.update(modelOf([pod('db', server), pod('x', '10.244.0.9')], ['deny', 'other']), program)
	send(1111, 1, () => 6003)
	await settle()
	assert.deepEqual(told(1111).at(-1)?.flow.source, { labels: ['reserved:world'] })
})

test('what the kernel could not keep is counted, to the packet', where, async () => {
	const messages: FlowMessage[] = []
	const stop = reader.watch((message) => messages.push(message))
	const before = reader.counts.dropped.get('POLICY_DENIED UDP') ?? 0
	const sent = 30_000
	send(2222, sent, () => 7000)
	await settle()
	assert.ok(reader.counts.lost === 0 || messages.some(isLost))
	// The next one has a number: only then is it known how many are missing.
	send(2222, 1, () => 7001)
	await settle()
	stop()
	const told = (reader.counts.dropped.get('POLICY_DENIED UDP') ?? 0) - before
	assert.ok(reader.counts.lost > 0, 'the buffer was full')
	assert.equal(told + reader.counts.lost, sent + 1)
	assert.equal(
		messages.filter(isLost).reduce((n, m) => n + m.lost_events.num_events_lost, 0),
		reader.counts.lost,
	)
	assert.deepEqual(failures, [])
	assert.equal(reader.unlogged(), 0, 'what is logged is not unlogged, whoever reads it')
})

test('with the last policy it sleeps again, and at its end for good', where, () => {
	reader.update(modelOf([], []), emptyProgram)
	assert.equal(clock.waiting, 0)
	const stop = reader.watch(() => {})
	assert.equal(clock.waiting, 1, 'allowed flows have an observer')
	stop()
	assert.equal(clock.waiting, 0)
	reader.update(modelOf([pod('db', server)], ['deny']), program)
	reader.close()
	assert.equal(clock.waiting, 0)
})
