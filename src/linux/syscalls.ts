// The only native calls of Podwire, through koffi: sockets, namespaces, mounts. 64-bit little-endian Linux
// (x86-64, arm64), glibc or musl. Everything is synchronous on the calling thread except waitReadable.
// A refused call is a Failure whose code is the errno name ("EPERM"). koffi is loaded on the first call (6 ms).

import { createRequire } from 'node:module'
import { constants as osConstants } from 'node:os'
import { Failure } from '../base/failure.ts'

// Numbers of the kernel's ABI (the same on x86-64 and arm64).
export const AF_UNIX = 1
export const AF_INET = 2
export const AF_INET6 = 10
export const AF_NETLINK = 16
export const AF_PACKET = 17
export const SOCK_STREAM = 1
export const SOCK_DGRAM = 2
export const SOCK_RAW = 3
export const SOCK_NONBLOCK = 0o4000
export const SOCK_CLOEXEC = 0o2000000
export const SOL_SOCKET = 1
export const SO_REUSEADDR = 2
export const SO_ERROR = 4
export const SO_SNDBUF = 7
export const SO_RCVBUF = 8
export const SO_LINGER = 13
export const SO_ATTACH_FILTER = 26
export const SO_SNDBUFFORCE = 32
export const SO_RCVBUFFORCE = 33
/** With a timespec of 64-bit seconds on 64-bit machines; also the type of its control message. */
export const SO_TIMESTAMPNS = 35
const SO_NETNS_COOKIE = 71
export const SOL_PACKET = 263
export const SOL_NETLINK = 270
export const MSG_DONTWAIT = 0x40
export const MSG_TRUNC = 0x20
export const MSG_NOSIGNAL = 0x4000
export const CLONE_NEWNS = 0x00020000
export const CLONE_NEWUSER = 0x10000000
export const CLONE_NEWNET = 0x40000000
export const MS_BIND = 4096
export const MS_REC = 16384
export const MS_PRIVATE = 1 << 18
export const MNT_DETACH = 2
const FSOPEN_CLOEXEC = 1
const FSMOUNT_CLOEXEC = 1
const FSCONFIG_CMD_CREATE = 6
export const F_GETFL = 3
export const F_SETFL = 4
export const O_NONBLOCK = 0o4000
export const POLLIN = 1
export const POLLOUT = 4
export const POLLERR = 8
export const POLLHUP = 16

type Native = ((...args: unknown[]) => number) & {
	async: (...args: unknown[]) => void
}

interface Libc {
	readonly socket: Native
	readonly bind: Native
	readonly connect: Native
	readonly listen: Native
	readonly getsockopt: Native
	readonly setsockopt: Native
	readonly send: Native
	readonly sendto: Native
	readonly recv: Native
	readonly recvmsg: Native
	readonly getsockname: Native
	readonly getpeername: Native
	readonly setns: Native
	readonly unshare: Native
	readonly mount: Native
	readonly umount2: Native
	readonly close: Native
	readonly poll: Native
	readonly fcntl: Native
	readonly ioctl: Native
	readonly bpf: Native
	readonly fsopen: Native
	readonly fsconfig: Native
	readonly fsmount: Native
	readonly strerror: (n: number) => string
	readonly errno: () => number
	readonly address: (buffer: Uint8Array) => bigint
}

let loaded: Libc | undefined

function libc(): Libc {
	return (loaded ??= load())
}

function load(): Libc {
	if (process.platform !== 'linux') {
		throw new Failure('UnsupportedPlatform', `Cannot call the Linux kernel: this is ${process.platform}`)
	}
	const koffi = createRequire(import.meta.url)('koffi')
	const machine = process.arch === 'arm64' ? 'aarch64' : 'x86_64'
	// glibc, musl, then whatever C library node itself was linked with.
	const names = ['libc.so.6', `libc.musl-${machine}.so.1`, null]
	let library: { func(prototype: string): unknown } | undefined
	let reason = ''
	for (const name of names) {
		try {
			library = koffi.load(name)
			break
		} catch (e) {
			reason = (e as Error).message
		}
	}
	if (library === undefined) throw new Failure('NoLibc', `Cannot load the C library: ${reason}`)
	const func = (prototype: string) => (library as { func(p: string): unknown }).func(prototype) as Native
	return {
		socket: func('int socket(int, int, int)'),
		bind: func('int bind(int, void *, uint)'),
		connect: func('int connect(int, void *, uint)'),
		listen: func('int listen(int, int)'),
		getsockopt: func('int getsockopt(int, int, int, void *, void *)'),
		setsockopt: func('int setsockopt(int, int, int, void *, uint)'),
		send: func('long send(int, void *, ulong, int)'),
		sendto: func('long sendto(int, void *, ulong, int, void *, uint)'),
		recv: func('long recv(int, void *, ulong, int)'),
		recvmsg: func('long recvmsg(int, void *, int)'),
		getsockname: func('int getsockname(int, void *, void *)'),
		getpeername: func('int getpeername(int, void *, void *)'),
		setns: func('int setns(int, int)'),
		unshare: func('int unshare(int)'),
		mount: func('int mount(str, str, str, ulong, void *)'),
		umount2: func('int umount2(str, int)'),
		close: func('int close(int)'),
		poll: func('int poll(void *, ulong, int)'),
		// Variadic in C; with one int argument the calling convention is the same on both machines.
		fcntl: func('int fcntl(int, int, int)'),
		ioctl: func('int ioctl(int, ulong, void *)'),
		// No C library has functions for these; syscall() is variadic, with integers and pointers alone as above.
		bpf: numbered(func('long syscall(long, int, void *, uint)'), process.arch === 'arm64' ? 280 : 321),
		fsopen: numbered(func('long syscall(long, str, uint)'), 430),
		fsconfig: numbered(func('long syscall(long, int, uint, void *, void *, int)'), 431),
		fsmount: numbered(func('long syscall(long, int, uint, uint)'), 432),
		strerror: func('str strerror(int)') as unknown as (n: number) => string,
		errno: () => koffi.errno() as number,
		address: (buffer) => BigInt(koffi.address(buffer)),
	}
}

function numbered(syscall: Native, number: number): Native {
	return ((...args: unknown[]) => syscall(number, ...args)) as Native
}

const errnoNames = new Map<number, string>([[524, 'ENOTSUPP']])

/** `EPERM` for 1; `E<number>` for one without a name. */
export function errnoName(errno: number): string {
	if (errnoNames.size === 1) {
		// EAGAIN and EWOULDBLOCK, EOPNOTSUPP and ENOTSUP share numbers: the first one listed is the kernel's name,
		// but node lists ENOTSUP before EOPNOTSUPP.
		for (const [name, value] of Object.entries(osConstants.errno)) {
			if (!errnoNames.has(value)) errnoNames.set(value, name)
		}
		errnoNames.set(osConstants.errno.EOPNOTSUPP, 'EOPNOTSUPP')
	}
	return errnoNames.get(errno) ?? `E${errno}`
}

/** The C library's sentence for an errno: `Operation not permitted`. */
export function errnoText(errno: number): string {
	return errno === 524 ? 'Operation not supported' : libc().strerror(errno)
}

/** The Failure of a refused call. `action` completes "Cannot …". */
export function errnoFailure(errno: number, action: string, details: Record<string, unknown> = {}): Failure {
	const code = errnoName(errno)
	return new Failure(code, `Cannot ${action}: ${errnoText(errno)} (${code})`, { errno, ...details })
}

function check(result: number, action: string): number {
	if (result < 0) throw errnoFailure(libc().errno(), action)
	return result
}

/** A new close-on-exec socket in the calling thread's network namespace, where it stays for ever. */
export function socket(family: number, type: number, protocol: number): number {
	return check(libc().socket(family, type | SOCK_CLOEXEC, protocol), `open a socket of family ${family}`)
}

export function bind(fd: number, address: Uint8Array): void {
	check(libc().bind(fd, address, address.length), `bind a socket to ${sockaddrText(address)}`)
}

/** True when connected at once, false when the connection is under way (non-blocking socket). */
export function connect(fd: number, address: Uint8Array): boolean {
	if (libc().connect(fd, address, address.length) >= 0) return true
	const errno = libc().errno()
	if (errno === osConstants.errno.EINPROGRESS) return false
	throw errnoFailure(errno, `connect to ${sockaddrText(address)}`)
}

export function listen(fd: number, backlog: number): void {
	check(libc().listen(fd, backlog), 'listen on a socket')
}

export function setsockopt(fd: number, level: number, name: number, value: Uint8Array | number): void {
	check(trySetsockopt(fd, level, name, value), `set socket option ${level}/${name}`)
}

/** As setsockopt; a negative result where it would throw (an option this kernel lacks, a right we lack). */
export function trySetsockopt(fd: number, level: number, name: number, value: Uint8Array | number): number {
	const bytes = typeof value === 'number' ? int32(value) : value
	return libc().setsockopt(fd, level, name, bytes, bytes.length)
}

/** An option whose value is a C int. */
export function getsockoptInt(fd: number, level: number, name: number): number {
	const value = outside(4)
	const length = int32(4)
	check(libc().getsockopt(fd, level, name, value, length), `read socket option ${level}/${name}`)
	return new DataView(value.buffer).getInt32(0, true)
}

/** SO_NETNS_COOKIE: the number of the socket's network namespace, never given twice while the machine runs (Linux 5.14). */
export function netnsCookie(fd: number): bigint {
	const value = outside(8)
	check(libc().getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, value, int32(8)), 'read the cookie of a network namespace')
	return new DataView(value.buffer).getBigUint64(0, true)
}

/**
 * bpf(2). `attribute` is read, and written where the command answers there. Returns what the command does (a
 * descriptor, or 0) or a negative errno: refusals are part of the protocol, so there is no throw.
 */
export function bpf(command: number, attribute: Uint8Array): number {
	const result = libc().bpf(command, attribute, attribute.length)
	return result < 0 ? -libc().errno() : result
}

/**
 * Where a buffer lies, for a pointer inside a structure. Its memory must be outside V8's heap (new ArrayBuffer) and
 * referenced until the call is over.
 */
export function addressOf(buffer: Uint8Array): bigint {
	return libc().address(buffer)
}

/**
 * A file system that is mounted nowhere (fsopen, fsmount; Linux 5.2): the descriptor of its root. Gone with the last
 * descriptor.
 */
export function mountDetached(type: string): number {
	const context = check(libc().fsopen(type, FSOPEN_CLOEXEC), `open file system ${JSON.stringify(type)}`)
	try {
		check(libc().fsconfig(context, FSCONFIG_CMD_CREATE, null, null, 0), `make file system ${JSON.stringify(type)}`)
		return check(libc().fsmount(context, FSMOUNT_CLOEXEC, 0), `mount file system ${JSON.stringify(type)}`)
	} finally {
		libc().close(context)
	}
}

/** The local address of a socket as a sockaddr. */
export function getsockname(fd: number): Uint8Array {
	const name = outside(128)
	const length = int32(128)
	check(libc().getsockname(fd, name, length), 'read the local address of a socket')
	return name.subarray(0, new DataView(length.buffer).getInt32(0, true))
}

/** Bytes sent. */
export function send(fd: number, bytes: Uint8Array, flags = 0): number {
	return check(libc().send(fd, bytes, bytes.length, flags), `send ${bytes.length} bytes`)
}

export function sendto(fd: number, bytes: Uint8Array, address: Uint8Array, flags = 0): number {
	return check(
		libc().sendto(fd, bytes, bytes.length, flags, address, address.length),
		`send ${bytes.length} bytes to ${sockaddrText(address)}`,
	)
}

/** Bytes received into `into` (0 at the end of a stream), undefined where nothing waits on a non-blocking call. */
export function recv(fd: number, into: Uint8Array, flags = 0): number | undefined {
	for (;;) {
		const n = libc().recv(fd, into, into.length, flags)
		if (n >= 0) return n
		const errno = libc().errno()
		if (errno === osConstants.errno.EAGAIN) return undefined
		if (errno !== osConstants.errno.EINTR) throw errnoFailure(errno, 'receive from a socket')
	}
}

export interface ReceivedMessage {
	/** Views into the receiver's own buffers: valid until the next receive. */
	readonly bytes: Uint8Array
	readonly address: Uint8Array
	readonly control: Uint8Array
	/** Length on the wire; larger than bytes.length when cut (MSG_TRUNC). */
	readonly length: number
}

/** recvmsg with the sender's address and control messages; buffers are kept from call to call. */
export class MessageReceiver {
	readonly #header: Uint8Array
	readonly #view: DataView
	readonly #iovec: Uint8Array
	readonly #bytes: Uint8Array
	readonly #address = outside(128)
	readonly #control = outside(512)

	constructor(size: number) {
		this.#bytes = outside(size)
		this.#iovec = outside(16)
		this.#header = outside(56)
		this.#view = new DataView(this.#header.buffer)
		const c = libc()
		const iovec = new DataView(this.#iovec.buffer)
		iovec.setBigUint64(0, c.address(this.#bytes), true)
		iovec.setBigUint64(8, BigInt(size), true)
		this.#view.setBigUint64(0, c.address(this.#address), true)
		this.#view.setBigUint64(16, c.address(this.#iovec), true)
		this.#view.setBigUint64(24, 1n, true)
		this.#view.setBigUint64(32, c.address(this.#control), true)
	}

	/** undefined where nothing waits. Never blocks. */
	receive(fd: number): ReceivedMessage | undefined {
		this.#view.setUint32(8, this.#address.length, true)
		this.#view.setBigUint64(40, BigInt(this.#control.length), true)
		this.#view.setInt32(48, 0, true)
		const n = libc().recvmsg(fd, this.#header, MSG_DONTWAIT | MSG_TRUNC)
		if (n < 0) {
			const errno = libc().errno()
			if (errno === osConstants.errno.EAGAIN || errno === osConstants.errno.EINTR) return undefined
			throw errnoFailure(errno, 'receive from a socket')
		}
		return {
			bytes: this.#bytes.subarray(0, Math.min(n, this.#bytes.length)),
			address: this.#address.subarray(0, this.#view.getUint32(8, true)),
			control: this.#control.subarray(0, Number(this.#view.getBigUint64(40, true))),
			length: n,
		}
	}
}

/** Attaches a classic BPF program (struct sock_filter, 8 bytes an instruction) to a socket. */
export function attachFilter(fd: number, program: Uint8Array): void {
	const code = outside(program.length)
	code.set(program)
	const fprog = outside(16)
	const view = new DataView(fprog.buffer)
	view.setUint16(0, program.length / 8, true)
	view.setBigUint64(8, libc().address(code), true)
	setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, fprog)
}

export function setns(fd: number, type: number): void {
	check(libc().setns(fd, type), `enter the namespace of file descriptor ${fd}`)
}

export function unshare(flags: number): void {
	check(libc().unshare(flags), `make a new namespace (flags 0x${flags.toString(16)})`)
}

export function mount(source: string, target: string, type: string, flags: number): void {
	check(libc().mount(source, target, type, flags, null), `mount ${JSON.stringify(source)} on ${JSON.stringify(target)}`)
}

export function umount2(target: string, flags: number): void {
	check(libc().umount2(target, flags), `unmount ${JSON.stringify(target)}`)
}

/** `argument` is read or written in place, as the request says. */
export function ioctl(fd: number, request: number, argument: Uint8Array): void {
	check(libc().ioctl(fd, request, argument), `control file descriptor ${fd} (ioctl 0x${request.toString(16)})`)
}

export function close(fd: number): void {
	check(libc().close(fd), `close file descriptor ${fd}`)
}

export function setNonBlocking(fd: number): void {
	const flags = check(libc().fcntl(fd, F_GETFL, 0), 'read file status flags')
	check(libc().fcntl(fd, F_SETFL, flags | O_NONBLOCK), 'set file status flags')
}

export interface PollRequest {
	readonly fd: number
	readonly events: number
}

/** Events that are ready now for each request, in order. Does not wait. */
export function poll(requests: readonly PollRequest[]): number[] {
	const fds = pollFds(requests)
	check(libc().poll(fds, requests.length, 0), 'poll')
	return readPollFds(fds, requests.length)
}

/**
 * Waits at most `timeout` milliseconds until one of the descriptors is ready; resolves with the ready events of
 * each, in order (all 0 on timeout). Occupies one thread of libuv's pool meanwhile, for node offers no way to
 * watch a netlink or packet socket: use it for bounded waits (a probe), never for a listener that lives on.
 * The descriptors must stay open until it resolves.
 */
export function waitReady(requests: readonly PollRequest[], timeout: number): Promise<number[]> {
	const fds = pollFds(requests)
	return new Promise((resolve, reject) => {
		libc().poll.async(fds, requests.length, Math.max(0, Math.ceil(timeout)), (error: Error | null, result: number) => {
			if (error !== null) reject(error)
			// EINTR is the only refusal that can happen with valid arguments: as if nothing were ready.
			else resolve(result < 0 ? requests.map(() => 0) : readPollFds(fds, requests.length))
		})
	})
}

function pollFds(requests: readonly PollRequest[]): Uint8Array {
	const fds = outside(Math.max(1, requests.length) * 8)
	const view = new DataView(fds.buffer)
	requests.forEach((request, i) => {
		view.setInt32(i * 8, request.fd, true)
		view.setInt16(i * 8 + 4, request.events, true)
	})
	return fds
}

function readPollFds(fds: Uint8Array, count: number): number[] {
	const view = new DataView(fds.buffer)
	return Array.from({ length: count }, (_, i) => view.getInt16(i * 8 + 6, true))
}

/** Bytes outside V8's heap, so that their address never changes. */
function outside(size: number): Uint8Array<ArrayBuffer> {
	return new Uint8Array(new ArrayBuffer(size))
}

function int32(value: number): Uint8Array<ArrayBuffer> {
	const bytes = outside(4)
	new DataView(bytes.buffer).setInt32(0, value, true)
	return bytes
}

/** A struct sockaddr_in or sockaddr_in6 for an address in network order (4 or 16 bytes). */
export function inetAddress(ip: Uint8Array, port: number): Uint8Array {
	const bytes = outside(ip.length === 4 ? 16 : 28)
	const view = new DataView(bytes.buffer)
	view.setUint16(0, ip.length === 4 ? AF_INET : AF_INET6, true)
	view.setUint16(2, port, false)
	bytes.set(ip, ip.length === 4 ? 4 : 8)
	return bytes
}

/** Address bytes and port of a struct sockaddr_in or sockaddr_in6. */
export function readInetAddress(bytes: Uint8Array): { readonly ip: Uint8Array; readonly port: number } {
	const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
	const ip = view.getUint16(0, true) === AF_INET ? bytes.slice(4, 8) : bytes.slice(8, 24)
	return { ip, port: view.getUint16(2, false) }
}

function sockaddrText(bytes: Uint8Array): string {
	const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
	const family = view.getUint16(0, true)
	if (family === AF_INET) return `${bytes.slice(4, 8).join('.')}:${view.getUint16(2, false)}`
	if (family === AF_INET6) return `an IPv6 address, port ${view.getUint16(2, false)}`
	return `an address of family ${family}`
}
