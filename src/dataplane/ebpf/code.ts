// The programs at the sockets, written for the assembler. README.md tells the way a connection takes through them.
//
// All of them let the call go on (r0 = 1): what is not translated here meets the packet rules as before. Registers:
// r6 the call (struct bpf_sock_addr), r7 scratch, r8 the frontend's value, r9 whose socket it is.

import type { IpFamily } from '../../base/ip.ts'
import {
	type Code,
	calculate,
	calculate32,
	call,
	exit,
	type Instruction,
	jump,
	jumpIf,
	label,
	load,
	loadMap,
	type Register,
	remark,
	set,
	store,
} from '../../linux/bpf/instruction.ts'
import type { AttachType } from '../../linux/bpf/system.ts'
import {
	choice,
	chooser,
	chunks,
	header,
	type MapName,
	member,
	NODE_ONLY,
	OWN_ENDPOINTS,
	peer,
	peerPlaces,
	place,
	protocolNumbers,
	protocolShift,
	reply,
	wide,
} from './layout.ts'

/** struct bpf_sock_addr (include/uapi/linux/bpf.h). The port is in the first two bytes of its field. */
export const sockAddr = { ip4: 4, ip6: 8, port: 24, protocol: 36, bytes: 72 } as const
export const IPPROTO_TCP = 6
export const IPPROTO_UDP = 17

/** Places below the frame pointer. */
const stack = {
	netns: -8,
	now: -16,
	/** Nanoseconds a choice is remembered. */
	keep: -24,
	socket: -32,
	/** The key of `members`: wide frontend, wide endpoint. */
	member: -80,
	/** The key and the value of `clients` and `datagrams`. */
	chooser: -112,
	choice: -144,
	reply: -176,
	place: -180,
	peer: -208,
} as const
const frontend = stack.member
const endpoint = stack.member + member.endpoint

/** The second word from the end of an IPv4 address in IPv6 form, as the machine loads it. */
const mappedWord = 0xffff0000
const nanoseconds = 1_000_000_000
/** How long an unconnected socket stays with an endpoint: as conntrack keeps a UDP stream (nf_conntrack_udp_timeout_stream). */
export const datagramSeconds = 120

const at = (to: Register, offset: number): Instruction[] => [set(to, 'r10'), calculate(to, '+', offset)]

function lookUp(map: MapName, key: number): Instruction[] {
	return [...at('r2', key), loadMap('r1', map), call('map_lookup_elem')]
}

/** `bytes` is a multiple of 4. */
function copy(from: Register, offset: number, to: Register, place: number, bytes: number): Instruction[] {
	const all: Instruction[] = []
	for (let i = 0; i < bytes; i += 4) all.push(load(4, 'r1', from, offset + i), store(4, to, place + i, 'r1'))
	return all
}

/** The beginning of a wide IPv4 address. */
const mappedPrefix = (place: number): Instruction[] => [
	store(4, 'r10', place, 0),
	store(4, 'r10', place + 4, 0),
	store(4, 'r10', place + 8, mappedWord),
]

const pass = [label('pass'), set('r0', 1), exit]

/** The code of each place; the same at every call. */
export const codes: Readonly<Record<AttachType, Code>> = {
	connect4: translate('connect', 4),
	connect6: translate('connect', 6),
	sendmsg4: translate('sendmsg', 4),
	sendmsg6: translate('sendmsg', 6),
	recvmsg4: translateReply(4),
	recvmsg6: translateReply(6),
	getpeername4: namePeer(4),
	getpeername6: namePeer(6),
}

type Call = 'connect' | 'sendmsg'

function translate(hook: Call, family: IpFamily): Code {
	const code: Instruction[] = [
		set('r6', 'r1'),
		remark(
			hook === 'connect'
				? 'TCP alone: a connected UDP socket could not be led away from an endpoint that leaves'
				: 'UDP without a connection',
		),
		load(4, 'r1', 'r6', sockAddr.protocol),
		jumpIf('r1', '!=', hook === 'connect' ? IPPROTO_TCP : IPPROTO_UDP, 'pass'),
		...ours('r9'),
	]
	if (family === 4) code.push(load(4, 'r7', 'r6', sockAddr.ip4), ...body(hook, 4, sockAddr.ip4))
	else if (hook === 'connect') {
		code.push(
			remark('an IPv6 socket that asks for ::ffff:a.b.c.d speaks IPv4'),
			load(4, 'r1', 'r6', sockAddr.ip6),
			jumpIf('r1', '!=', 0, 'six'),
			load(4, 'r1', 'r6', sockAddr.ip6 + 4),
			jumpIf('r1', '!=', 0, 'six'),
			load(4, 'r1', 'r6', sockAddr.ip6 + 8),
			set('r2', mappedWord | 0),
			jumpIf('r1', '!=', 'r2', 'six', 32),
			load(4, 'r7', 'r6', sockAddr.ip6 + 12),
			...body(hook, 4, sockAddr.ip6 + 12),
			label('six'),
			...body(hook, 6, sockAddr.ip6),
		)
	} else code.push(...body(hook, 6, sockAddr.ip6))
	return [...code, ...pass]
}

/** Leaves sockets of other namespaces alone; for ours the value of `namespaces` is in `to`. */
function ours(to: Register): Instruction[] {
	return [
		remark('whose socket is it?'),
		set('r1', 'r6'),
		call('get_netns_cookie'),
		store(8, 'r10', stack.netns, 'r0'),
		...lookUp('namespaces', stack.netns),
		jumpIf('r0', '==', 0, 'pass'),
		set(to, 'r0'),
	]
}

/** From the address in the call (of IPv4: in r7) to the endpoint's, written at `target` of the call. */
function body(hook: Call, family: IpFamily, target: number): Instruction[] {
	const map: MapName = family === 4 ? 'frontends4' : 'frontends6'
	const key = family === 4 ? frontend + wide.ip4 : frontend
	const to = (name: string) => `${name}${family}`
	const protocol = protocolNumbers[hook === 'connect' ? 'TCP' : 'UDP'] << protocolShift
	const form = chunks[family]

	const address =
		family === 4
			? [...mappedPrefix(frontend), store(4, 'r10', frontend + wide.ip4, 'r7')]
			: copy('r6', sockAddr.ip6, 'r10', frontend, 16)
	const own =
		family === 4
			? [...mappedPrefix(endpoint), load(4, 'r1', 'r9', place.ip4), store(4, 'r10', endpoint + wide.ip4, 'r1')]
			: copy('r9', place.ip6, 'r10', endpoint, 16)

	/** A random endpoint to the stack; r8 is lost. */
	const pick = (name: string): Instruction[] => [
		remark('one of the endpoints'),
		call('get_prandom_u32'),
		load(2, 'r1', 'r8', header.count),
		jumpIf('r1', '==', 0, 'pass'),
		calculate32('r0', '%', 'r1'),
		set('r7', 'r0'),
		set('r1', 'r0'),
		calculate32('r1', '/', form.endpoints),
		jumpIf('r1', '==', 0, to(`${name}-here-`)),
		remark('it is in a later chunk'),
		calculate32('r1', '|', protocol),
		store(2, 'r10', frontend + wide.more, 'r1'),
		...lookUp(map, key),
		store(2, 'r10', frontend + wide.more, protocol),
		jumpIf('r0', '==', 0, 'pass'),
		set('r8', 'r0'),
		label(to(`${name}-here-`)),
		calculate32('r7', '%', form.endpoints),
		jumpIf('r7', '>', form.endpoints - 1, 'pass'),
		calculate32('r7', '*', form.bytes),
		calculate('r8', '+', 'r7'),
		...(family === 4
			? [...mappedPrefix(endpoint), ...copy('r8', header.bytes, 'r10', endpoint + wide.ip4, 4)]
			: copy('r8', header.bytes, 'r10', endpoint, 16)),
		load(2, 'r1', 'r8', header.bytes + form.port),
		jumpIf('r1', '==', 0, 'pass'),
		// Also the two bytes behind the port.
		store(4, 'r10', endpoint + wide.port, 'r1'),
	]

	/** The endpoint this client had, or a new one which is remembered. The cookie is in r1. */
	const remembered = (name: string, memory: MapName): Instruction[] => [
		store(8, 'r10', stack.chooser + chooser.cookie, 'r1'),
		...copy('r10', frontend, 'r10', stack.chooser, wide.bytes),
		store(4, 'r10', stack.chooser + wide.bytes, 0),
		call('ktime_get_ns'),
		store(8, 'r10', stack.now, 'r0'),
		...lookUp(memory, stack.chooser),
		jumpIf('r0', '==', 0, to(`${name}-new-`)),
		set('r7', 'r0'),
		load(8, 'r1', 'r7', choice.until),
		load(8, 'r2', 'r10', stack.now),
		jumpIf('r2', '>=', 'r1', to(`${name}-new-`)),
		remark('does it still serve?'),
		...copy('r7', 0, 'r10', endpoint, wide.bytes),
		...lookUp('members', stack.member),
		jumpIf('r0', '==', 0, to(`${name}-new-`)),
		load(8, 'r1', 'r10', stack.now),
		load(8, 'r2', 'r10', stack.keep),
		calculate('r1', '+', 'r2'),
		store(8, 'r7', choice.until, 'r1'),
		jump(to('chosen')),
		label(to(`${name}-new-`)),
		...pick(name),
		...copy('r10', endpoint, 'r10', stack.choice, wide.bytes),
		store(4, 'r10', stack.choice + wide.bytes, 0),
		load(8, 'r1', 'r10', stack.now),
		load(8, 'r2', 'r10', stack.keep),
		calculate('r1', '+', 'r2'),
		store(8, 'r10', stack.choice + choice.until, 'r1'),
		...at('r2', stack.chooser),
		...at('r3', stack.choice),
		loadMap('r1', memory),
		set('r4', 0),
		call('map_update_elem'),
	]

	return [
		remark('is the address a frontend?'),
		...address,
		load(4, 'r1', 'r6', sockAddr.port),
		store(2, 'r10', frontend + wide.port, 'r1'),
		store(2, 'r10', frontend + wide.more, protocol),
		...lookUp(map, key),
		jumpIf('r0', '==', 0, 'pass'),
		set('r8', 'r0'),

		load(1, 'r7', 'r8', header.flags),
		jumpIf('r7', '==', 0, to('choose')),
		load(4, 'r2', 'r9', place.kind),
		jumpIf('r2', '==', place.pod, to('pod')),
		jump(to('choose')),
		label(to('pod')),
		remark('a pod whose packets need a masquerade is left to the packet rules'),
		jumpIf('r7', '&', NODE_ONLY, 'pass'),
		jumpIf('r7', '&', OWN_ENDPOINTS, to('own')),
		jump(to('choose')),
		label(to('own')),
		...own,
		store(4, 'r10', endpoint + wide.port, 0),
		...lookUp('members', stack.member),
		jumpIf('r0', '!=', 0, 'pass'),

		label(to('choose')),
		load(4, 'r1', 'r8', header.affinity),
		...(hook === 'connect'
			? [
					jumpIf('r1', '!=', 0, to('affinity')),
					...pick('any'),
					jump(to('chosen')),
					label(to('affinity')),
					remark('session affinity: the client is a namespace'),
					// A register holds no more than 31 bits of an immediate.
					set('r2', nanoseconds),
					calculate('r1', '*', 'r2'),
					store(8, 'r10', stack.keep, 'r1'),
					load(8, 'r1', 'r10', stack.netns),
					...remembered('client', 'clients'),
				]
			: [
					set('r2', nanoseconds),
					jumpIf('r1', '!=', 0, to('affinity')),
					remark('a socket stays with its endpoint, as connection tracking has it'),
					set('r1', datagramSeconds),
					calculate('r1', '*', 'r2'),
					store(8, 'r10', stack.keep, 'r1'),
					set('r1', 'r6'),
					call('get_socket_cookie'),
					set('r1', 'r0'),
					...remembered('socket', 'datagrams'),
					jump(to('chosen')),
					label(to('affinity')),
					remark('session affinity: the client is a namespace'),
					calculate('r1', '*', 'r2'),
					store(8, 'r10', stack.keep, 'r1'),
					load(8, 'r1', 'r10', stack.netns),
					...remembered('client', 'clients'),
				]),

		label(to('chosen')),
		...(hook === 'connect' ? rememberPeer(to('named')) : rememberReply(to('known'))),
		remark('the address that is really asked for'),
		...(family === 4
			? [load(4, 'r1', 'r10', endpoint + wide.ip4), store(4, 'r6', target, 'r1')]
			: copy('r10', endpoint, 'r6', target, 16)),
		load(2, 'r1', 'r10', endpoint + wide.port),
		store(4, 'r6', sockAddr.port, 'r1'),
		jump('pass'),
	]
}

/** The place of the call's socket in `peers`: its address in r0, its cookie on the stack. Lost: r1 to r5. */
function placeOfSocket(otherwise: string): Instruction[] {
	return [
		set('r1', 'r6'),
		call('get_socket_cookie'),
		store(8, 'r10', stack.socket, 'r0'),
		calculate('r0', '&', peerPlaces - 1),
		store(4, 'r10', stack.place, 'r0'),
		...lookUp('peers', stack.place),
		jumpIf('r0', '==', 0, otherwise),
	]
}

/** For getpeername: in a place that is the socket's until one that connected long after takes it. */
function rememberPeer(done: string): Instruction[] {
	return [
		remark('for getpeername'),
		...placeOfSocket(done),
		// Whoever reads meanwhile finds nobody's.
		store(8, 'r0', peer.cookie, 0),
		...copy('r10', endpoint, 'r0', peer.endpoint, wide.bytes),
		...copy('r10', frontend, 'r0', peer.frontend, wide.bytes),
		load(8, 'r1', 'r10', stack.socket),
		store(8, 'r0', peer.cookie, 'r1'),
		label(done),
	]
}

/** For recvmsg; written only where it is not there already. */
function rememberReply(done: string): Instruction[] {
	const compare: Instruction[] = []
	for (let i = 0; i < wide.bytes; i += 4)
		compare.push(load(4, 'r1', 'r0', i), load(4, 'r2', 'r10', frontend + i), jumpIf('r1', '!=', 'r2', `${done}-not`))
	return [
		remark('for the answer'),
		set('r1', 'r6'),
		call('get_socket_cookie'),
		store(8, 'r10', stack.reply, 'r0'),
		...copy('r10', endpoint, 'r10', stack.reply + reply.endpoint, wide.bytes),
		store(4, 'r10', stack.reply + reply.endpoint + wide.bytes, 0),
		...lookUp('replies', stack.reply),
		jumpIf('r0', '==', 0, `${done}-not`),
		...compare,
		jump(done),
		label(`${done}-not`),
		...at('r2', stack.reply),
		...at('r3', frontend),
		loadMap('r1', 'replies'),
		set('r4', 0),
		call('map_update_elem'),
		label(done),
	]
}

/** The address in the call in wide form, at `place` of the stack. */
function addressOfCall(family: IpFamily, place: number): Instruction[] {
	return [
		...(family === 4
			? [...mappedPrefix(place), ...copy('r6', sockAddr.ip4, 'r10', place + wide.ip4, 4)]
			: copy('r6', sockAddr.ip6, 'r10', place, 16)),
		load(4, 'r1', 'r6', sockAddr.port),
		store(4, 'r10', place + wide.port, 'r1'),
	]
}

/** Writes the wide address that `from` points to into the call. */
function writeCall(family: IpFamily, from: Register, offset: number): Instruction[] {
	return [
		...(family === 4
			? copy(from, offset + wide.ip4, 'r6', sockAddr.ip4, 4)
			: copy(from, offset, 'r6', sockAddr.ip6, 16)),
		load(2, 'r1', from, offset + wide.port),
		store(4, 'r6', sockAddr.port, 'r1'),
	]
}

function translateReply(family: IpFamily): Code {
	return [
		set('r6', 'r1'),
		...ours('r9'),
		remark('did this socket ask a frontend that led to the sender?'),
		set('r1', 'r6'),
		call('get_socket_cookie'),
		store(8, 'r10', stack.reply, 'r0'),
		...addressOfCall(family, stack.reply + reply.endpoint),
		store(4, 'r10', stack.reply + reply.endpoint + wide.bytes, 0),
		...lookUp('replies', stack.reply),
		jumpIf('r0', '==', 0, 'pass'),
		...writeCall(family, 'r0', 0),
		...pass,
	]
}

function namePeer(family: IpFamily): Code {
	const whose = [load(8, 'r1', 'r0', peer.cookie), load(8, 'r2', 'r10', stack.socket), jumpIf('r1', '!=', 'r2', 'pass')]
	const compare: Instruction[] = []
	for (let i = 0; i < wide.bytes; i += 4)
		compare.push(
			load(4, 'r1', 'r0', peer.endpoint + i),
			load(4, 'r2', 'r10', endpoint + i),
			jumpIf('r1', '!=', 'r2', 'pass'),
		)
	return [
		set('r6', 'r1'),
		...ours('r9'),
		...addressOfCall(family, endpoint),
		remark('was this socket led there from a frontend?'),
		...placeOfSocket('pass'),
		...whose,
		...compare,
		...copy('r0', peer.frontend, 'r10', stack.peer, wide.bytes),
		remark('and did nobody take the place meanwhile?'),
		...whose,
		...writeCall(family, 'r10', stack.peer),
		...pass,
	]
}
