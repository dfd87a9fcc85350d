// Whether the kernel can tell of flows, tried with a packet: one that a rule logs is heard of, and so is the connection
// it makes. In the calling thread's network namespace, which is thrown away afterwards.

import { Failure } from '../base/failure.ts'
import { ipToBytes, parseIp } from '../base/ip.ts'
import { openConnectionEvents, readConnectionEvents } from './conntrack-events.ts'
import { NetlinkEncoder } from './netlink/encode.ts'
import { NETLINK_ROUTE, NetlinkSocket } from './netlink/socket.ts'
import { openLog, readLog } from './nflog.ts'
import { connectionState, decide } from './nft/build.ts'
import type { NftChange } from './nft/change.ts'
import type { Expression } from './nft/expr/expression.ts'
import { applyChanges, openNftSocket } from './nft/transaction.ts'
import { LOOPBACK, setLink } from './route/links.ts'
import { AF_INET, close, inetAddress, SOCK_DGRAM, sendto, socket } from './syscalls.ts'
import { readSysctl } from './sysctl.ts'

const group = 5772
const prefix = 'podwire trial'
const table = { family: 'ip', table: 'podwire_trial' } as const

/** A rule logs a packet, and we hear of it. Throws Failure: what the kernel refused, or Silent. */
export function hearLogged(): void {
	const log: Expression[] = [
		{ kind: 'limit', of: 'packets', rate: 1, per: 1, burst: 5 },
		{ kind: 'log', prefix, group },
	]
	const socket = openLog(group, { gathered: { packets: 1, time: 1 } })
	try {
		underRule(log, sendToOurselves)
		if (!readLog(socket).some((packet) => packet.prefix === prefix && packet.packet?.protocol === 'UDP'))
			throw new Failure('Silent', `Cannot hear of a packet that a rule logged to group ${group}: nothing came`)
	} finally {
		socket.close()
	}
}

/** A connection begins, and we hear of it. Throws Failure: what the kernel refused, or Silent. */
export function hearConnection(): void {
	const socket = openConnectionEvents()
	try {
		// Connections are tracked where a rule asks for them.
		underRule([...connectionState('established'), decide('accept')], sendToOurselves)
		if (!readConnectionEvents(socket).some((e) => e.event === 'new' && e.connection.original.protocol === 'UDP'))
			throw new Failure(
				'Silent',
				`Cannot hear of a connection that began: nothing came (net.netfilter.nf_conntrack_events is ${eventsSetting()})`,
			)
	} finally {
		socket.close()
	}
}

function eventsSetting(): string {
	try {
		return readSysctl('net.netfilter.nf_conntrack_events')
	} catch {
		return 'missing: the kernel is built without CONFIG_NF_CONNTRACK_EVENTS'
	}
}

function underRule(expressions: readonly Expression[], act: () => void): void {
	const nft = openNftSocket()
	const changes: NftChange[] = [
		{ ...table, op: 'add-table' },
		{
			...table,
			op: 'add-chain',
			chain: { name: 'out', base: { type: 'filter', hook: 'output', priority: 0, policy: 'accept' } },
		},
		{ ...table, op: 'add-rule', chain: 'out', rule: { expressions } },
	]
	try {
		applyChanges(nft, changes)
		try {
			act()
		} finally {
			applyChanges(nft, [{ ...table, op: 'delete-table' }])
		}
	} finally {
		nft.close()
	}
}

/** A datagram over the loopback: when the call returns it has passed all hooks. */
function sendToOurselves(): void {
	const route = new NetlinkSocket(NETLINK_ROUTE)
	try {
		const e = new NetlinkEncoder()
		setLink(e, { index: LOOPBACK, up: true })
		route.request(e)
	} finally {
		route.close()
	}
	const fd = socket(AF_INET, SOCK_DGRAM, 0)
	try {
		sendto(fd, new Uint8Array(4), inetAddress(ipToBytes(parseIp('127.0.0.1')), 9))
	} finally {
		close(fd)
	}
}
