// The eBPF data plane of one node: Services at the sockets of the node and its pods. README.md has the way a connection
// takes; docs/decisions/services-ebpf.md says why it is as it is. Needs a data plane for packets beside it.

import { Failure, isFailure, messageOf } from '../../base/failure.ts'
import { openCgroup2 } from '../../linux/bpf/cgroup.ts'
import { close } from '../../linux/syscalls.ts'
import type { Outcome, ServiceDataplane } from '../dataplane.ts'
import { type Compiled, compileProgram, type SocketNamespace } from './compile.ts'
import { diffPrograms, type EbpfChange } from './diff.ts'
import { evaluate } from './evaluate.ts'
import { Installed, ownCookie } from './installed.ts'
import { type EbpfProgram, type EbpfProgramJson, emptyProgram, fromJson, toJson } from './program.ts'
import { readInstalled } from './read.ts'

export type { EbpfChange } from './diff.ts'
export type { EbpfProgram } from './program.ts'

export interface EbpfOptions {
	/** Path of the node's network namespace. Absent: paper only (compile, diff, evaluate). */
	readonly netns?: string
	/** The node's own namespace and those of its pods, now. Absent: on paper they follow from the model. */
	readonly namespaces?: () => Iterable<SocketNamespace>
	/** A descriptor of the control group whose sockets are seen. Absent: all of the machine's. */
	readonly cgroup?: number
}

export interface EbpfDataplane extends ServiceDataplane<EbpfProgram, EbpfChange> {
	/** Bytes of kernel memory its maps take. */
	memory(): number
}

/** `close` also takes everything out of force: maps and links live as long as this process holds them. */
export function createEbpf(options: EbpfOptions = {}): EbpfDataplane {
	const nodePath = options.netns ?? 'node'
	const namespaces = options.namespaces ?? (() => [{ path: nodePath, ips: [] }])
	let compiled: Compiled | undefined
	let installed: Installed | undefined

	function kernel(): Installed {
		if (options.netns === undefined) throw new Error('this eBPF data plane has no namespace: it is for paper only')
		return (installed ??= new Installed(options.cgroup))
	}

	function remove(): void {
		installed?.close()
		installed = undefined
	}

	return {
		empty: emptyProgram,
		compile(model, node) {
			const given = options.netns === undefined ? options.namespaces?.() : namespaces()
			compiled = compileProgram(model, node, given, nodePath, compiled)
			return compiled.program
		},
		diff: diffPrograms,
		async apply(changes): Promise<Outcome> {
			for (const [i, change] of changes.entries()) {
				try {
					if (change.change === 'detach') remove()
					else kernel().apply(change)
				} catch (e) {
					if (!isFailure(e)) throw e
					const error = new Failure(e.code, `${e.message} (${describe(change)})`, e.details, { cause: e })
					return { ok: false, error, applied: i, failed: [...changes.keys()].slice(i) }
				}
			}
			return { ok: true }
		},
		async read() {
			return installed === undefined ? emptyProgram : readInstalled(installed, namespaces(), process.hrtime.bigint())
		},
		evaluate,
		toJson,
		fromJson: (json) => fromJson(json as EbpfProgramJson),
		memory: () => installed?.memory ?? 0,
		close: remove,
	}
}

function describe(change: EbpfChange): string {
	switch (change.change) {
		case 'frontends':
			return `${change.put.length} Service addresses to write, ${change.drop.length} to remove`
		case 'namespaces':
			return `${change.put.length} network namespaces to add, ${change.drop.length} to remove`
		case 'attach':
			return `to attach ${change.types.join(', ')}`
		case 'detach':
			return 'to detach'
		default:
			return change satisfies never
	}
}

/**
 * Why eBPF cannot carry Services here, one sentence with its remedy; undefined where it can. Found by doing it in a
 * throw-away control group's place: programs are loaded and attached, and gone when this returns.
 */
export function ebpfUsable(): string | undefined {
	if (process.platform !== 'linux') return `eBPF needs Linux, this is ${process.platform}`
	let cgroup: number
	try {
		cgroup = openCgroup2()
	} catch (e) {
		return `there are no control groups of version 2 (${messageOf(e)}); use a kernel built with CONFIG_CGROUPS, or run as root`
	}
	let trial: Installed | undefined
	try {
		ownCookie()
		trial = new Installed(cgroup)
		trial.apply({
			change: 'attach',
			types: ['connect4', 'connect6', 'sendmsg4', 'sendmsg6', 'recvmsg4', 'recvmsg6', 'getpeername4', 'getpeername6'],
		})
		return undefined
	} catch (e) {
		if (!isFailure(e)) throw e
		if (e.code === 'EPERM' || e.code === 'EACCES')
			return `this process may not load eBPF programs (${e.message}); run as root of the machine, a user namespace is not enough`
		return `this kernel lacks something (${e.message}); Linux 5.14 or newer with CONFIG_CGROUP_BPF has it`
	} finally {
		trial?.close()
		close(cgroup)
	}
}
