// The data plane of one node's wiring: compile, diff, apply, read, evaluate, over rtnetlink in this process.

import { setImmediate } from 'node:timers/promises'
import { type Clock, systemClock } from '../../base/clock.ts'
import { Failure, isFailure, messageOf } from '../../base/failure.ts'
import { hostCidr } from '../../base/ip.ts'
import { emptyTable, type Table } from '../../base/table.ts'
import { NetlinkEncoder } from '../../linux/netlink/encode.ts'
import type { NetlinkError } from '../../linux/netlink/socket.ts'
import { inNetns } from '../../linux/netns.ts'
import { readLinks } from '../../linux/route/links.ts'
import { addRoute, deleteRoute } from '../../linux/route/routes.ts'
import { errnoFailure } from '../../linux/syscalls.ts'
import { writeSysctl } from '../../linux/sysctl.ts'
import type { NetworkModel, NodeName } from '../../model/network.ts'
import type { Dataplane, Outcome } from '../dataplane.ts'
import { compileLinks } from './compile.ts'
import { changeText, diffLinks, type LinksChange } from './diff.ts'
import { evaluateLinks } from './evaluate.ts'
import type { Attachment, LinksProgram, Route } from './program.ts'
import { readLinksProgram } from './read.ts'
import { NodeLinks, PROTOCOL } from './wire.ts'

export interface LinksOptions {
	/** Path of the node's network namespace; undefined: the one this thread is in (a real node's agent). */
	readonly netns?: string
	/** Interface the other nodes are reached by. */
	readonly uplink: string
	/** The pods of this node by uid, from the agent's durable record. */
	readonly attachments: () => Table<string, Attachment>
	readonly clock?: Clock
}

/** Longest the event loop stands still, milliseconds. */
const slice = 8
/** How long after a detach the last interfaces are swept, milliseconds: by then the kernel has taken most itself. */
const sweepAfter = 1000

export class Links implements Dataplane<LinksProgram, LinksChange> {
	readonly #options: LinksOptions
	readonly #clock: Clock
	readonly #node: NodeLinks
	#compiled: LinksProgram | undefined
	#cancelSweep: (() => void) | undefined

	/** Opens the node's namespace. Throws Failure where it is absent or may not be entered. */
	constructor(options: LinksOptions) {
		this.#options = options
		this.#clock = options.clock ?? systemClock
		this.#node = new NodeLinks(options.netns)
	}

	compile(model: NetworkModel, node: NodeName): LinksProgram {
		const { attachments, uplink } = this.#options
		this.#compiled = compileLinks(model, node, attachments(), uplink, this.#compiled)
		return this.#compiled
	}

	diff(have: LinksProgram | undefined, want: LinksProgram): readonly LinksChange[] {
		return diffLinks(have, want)
	}

	/** Every change for itself, none stops the others: `failed` are the positions of those not in force. */
	async apply(changes: readonly LinksChange[], signal?: AbortSignal): Promise<Outcome> {
		const failures = new Map<number, unknown>()
		const routes: number[] = []
		const wired = new Set<string>()
		let since = performance.now()
		let stopped: unknown
		for (const [i, change] of changes.entries()) {
			if (stopped === undefined && performance.now() - since > slice) {
				await setImmediate()
				since = performance.now()
			}
			if (signal?.aborted === true) stopped ??= signal.reason
			if (stopped !== undefined) {
				failures.set(i, stopped)
				continue
			}
			if (change.change === 'route' || change.change === 'unroute') {
				routes.push(i)
				continue
			}
			try {
				this.#apply(change, wired)
			} catch (e) {
				failures.set(i, e)
			}
		}
		this.#applyRoutes(changes, routes, wired, failures)
		// Last: once the kernel takes namespaces down, other requests have to wait for it.
		for (const [i, change] of changes.entries()) {
			if (change.change !== 'detach' || failures.has(i)) continue
			if (performance.now() - since > slice) {
				await setImmediate()
				since = performance.now()
			}
			try {
				this.#node.release(change.attachment)
			} catch (e) {
				failures.set(i, e)
			}
		}
		if (failures.size === 0) return { ok: true }
		const failed = [...failures.keys()].sort((a, b) => a - b)
		const errors = failed.map((i) => failures.get(i))
		const first = errors[0]
		const error =
			errors.length === 1 && first instanceof Error
				? first
				: new AggregateError(
						errors,
						`${errors.length} of ${changes.length} changes failed; the first: ${messageOf(first)}`,
					)
		return { ok: false, error, applied: changes.length - failed.length, failed }
	}

	async read(signal?: AbortSignal): Promise<LinksProgram> {
		// What an earlier agent had detached when it died.
		if (this.#compiled === undefined) this.#node.sweep()
		return await readLinksProgram(this.#node, this.#known(), signal)
	}

	evaluate = evaluateLinks

	/** Deletes interfaces of detached pods whose namespace somebody still holds. Happens by itself after a detach. */
	sweep(): void {
		this.#cancelSweep?.()
		this.#cancelSweep = undefined
		this.#node.sweep()
	}

	close(): void {
		this.#cancelSweep?.()
		this.#node.close()
	}

	/** The last compiled program with the record of now: pods attached since are known by it. */
	#known(): LinksProgram {
		const attachments = this.#options.attachments()
		return { routes: emptyTable(), sysctls: emptyTable(), ...this.#compiled, attachments }
	}

	#apply(change: Exclude<LinksChange, { change: 'route' | 'unroute' }>, wired: Set<string>): void {
		switch (change.change) {
			case 'sysctl':
				inNetns(this.#node.netns, () => writeSysctl(change.name, change.value))
				return
			case 'attach':
				this.#node.attach(change.attachment)
				for (const ip of change.attachment.ips) wired.add(`${hostCidr(ip)} ${change.attachment.hostInterface}`)
				return
			case 'detach':
				this.#node.disconnect(change.attachment)
				this.#cancelSweep ??= this.#clock.after(sweepAfter, () => {
					this.#cancelSweep = undefined
					this.#node.sweep()
				})
				return
			default:
				change satisfies never
		}
	}

	/** All routes in one send. An attachment has brought its own. */
	#applyRoutes(
		changes: readonly LinksChange[],
		positions: readonly number[],
		wired: Set<string>,
		failures: Map<number, unknown>,
	): void {
		if (positions.length === 0) return
		const e = new NetlinkEncoder(8192)
		const bySequence = new Map<number, number>()
		let devices: Map<string, number> | undefined
		for (const position of positions) {
			const change = changes[position] as Extract<LinksChange, { route: Route }>
			const { destination, device, via, unreachable } = change.route
			if (change.change === 'route' && wired.has(`${destination} ${device}`)) continue
			devices ??= new Map(readLinks(this.#node.socket).map((link) => [link.name, link.index]))
			const index = devices.get(device)
			if (unreachable !== true && index === undefined) {
				// The route of an interface that is gone went with it.
				if (change.change === 'route') {
					const why = `interface ${JSON.stringify(device)} does not exist`
					failures.set(position, new Failure('ENODEV', `Cannot ${changeText(change)}: ${why}`))
				}
				continue
			}
			const request = {
				destination,
				protocol: PROTOCOL,
				...(unreachable === true ? { kind: 'unreachable' as const } : { index: index as number }),
				...(via === undefined ? {} : { via }),
			}
			if (change.change === 'route') addRoute(e, request)
			else deleteRoute(e, request)
			bySequence.set(e.sequence, position)
		}
		if (e.messages === 0) return
		try {
			this.#node.socket.request(e)
		} catch (failure) {
			const errors = isFailure(failure) ? (failure.details.errors as readonly NetlinkError[] | undefined) : undefined
			if (errors === undefined) throw failure
			for (const error of errors) {
				const position = bySequence.get(error.sequence) as number
				const change = changes[position] as LinksChange
				// Gone already: what was wanted.
				if (change.change === 'unroute' && error.errno === 3) continue
				const action = changeText(change) + (error.text === undefined ? '' : ` (${error.text})`)
				failures.set(position, errnoFailure(error.errno, action))
			}
		}
	}
}

/** The data plane of one node's wiring. Close it. */
export function createLinks(options: LinksOptions): Links {
	return new Links(options)
}
