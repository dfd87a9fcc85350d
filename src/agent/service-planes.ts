// The Services of one node in the kernel, by whichever data plane carries them, and the change from one to another:
// the new one is brought up first, beside the old, so that at every moment somebody translates. Connection tracking
// keeps what was translated before, so established connections go on.

import { Failure } from '../base/failure.ts'
import type { ServiceDataplane, ServiceProxyMode } from '../dataplane/dataplane.ts'
import { carriersOf, type ServiceDataplaneOptions, serviceProxies } from '../dataplane/proxies/service-proxies.ts'
import type { NetworkModel, NodeName } from '../model/network.ts'
import { createPlane, type Plane } from './plane.ts'

export interface ServicePlanes {
	readonly mode: ServiceProxyMode
	bring(model: NetworkModel): Promise<void>
	/** Reads back and repairs; the names of the data planes that had drifted. */
	repair(): Promise<readonly string[]>
	/** What is installed, as JSON, by the data plane that understands it; nftables aside, whose tables are read as a whole. */
	read(): Promise<ProxyPrograms>
	/**
	 * Changes to another data plane; resolves when nothing of the old one is left. Throws Failure Unsupported where the
	 * new one cannot be used here, or what the kernel refused: then the old one carries on, and nothing of the new is left.
	 */
	switchTo(mode: ServiceProxyMode): Promise<void>
	/** Takes what other data planes may have left (a change that was cut off) out of the kernel. */
	clean(modes: readonly ServiceProxyMode[]): Promise<void>
	close(): void
}

export type ProxyPrograms = Readonly<Partial<Record<ServiceProxyMode, unknown>>>

interface Carrier {
	readonly mode: ServiceProxyMode
	// biome-ignore lint/suspicious/noExplicitAny: see service-proxies.ts
	readonly dataplane: ServiceDataplane<any, any>
	readonly plane: Plane<unknown>
}

export function createServicePlanes(
	node: NodeName,
	mode: ServiceProxyMode,
	options: ServiceDataplaneOptions,
): ServicePlanes {
	const carriers = new Map<ServiceProxyMode, Carrier>()
	let current = mode
	let last: NetworkModel | undefined

	async function carrier(name: ServiceProxyMode): Promise<Carrier> {
		const known = carriers.get(name)
		if (known !== undefined) return known
		const proxy = serviceProxies[name]
		if (proxy === undefined) throw new Failure('Unsupported', `There is no service proxy ${JSON.stringify(name)}`)
		const dataplane = await proxy.create(options)
		const made = { mode: name, dataplane, plane: createPlane<unknown, unknown>(name, dataplane) }
		carriers.set(name, made)
		return made
	}

	async function remove(name: ServiceProxyMode): Promise<void> {
		const { dataplane, plane } = await carrier(name)
		await plane.bring(dataplane.empty)
		dataplane.close()
		carriers.delete(name)
	}

	async function up(name: ServiceProxyMode, model: NetworkModel): Promise<void> {
		const { dataplane, plane } = await carrier(name)
		await plane.bring(dataplane.compile(model, node))
	}

	return {
		get mode() {
			return current
		},
		async bring(model) {
			last = model
			for (const name of carriersOf(current)) await up(name, model)
		},
		async repair() {
			const drifted: string[] = []
			for (const { mode: name, plane } of carriers.values()) if ((await plane.repair()) > 0) drifted.push(name)
			return drifted
		},
		async read() {
			const programs: Partial<Record<ServiceProxyMode, unknown>> = {}
			for (const { mode: name, plane, dataplane } of carriers.values()) {
				if (name !== 'nftables') programs[name] = dataplane.toJson(await plane.read())
			}
			return programs
		},
		async switchTo(next) {
			if (next === current) return
			const why = await serviceProxies[next]?.usable()
			if (serviceProxies[next] === undefined || why !== undefined) {
				throw new Failure('Unsupported', `Cannot use service proxy ${next}: ${why ?? 'it is not there'}`)
			}
			const before = carriersOf(current)
			const after = carriersOf(next)
			if (last !== undefined) {
				try {
					for (const name of after) if (!before.includes(name)) await up(name, last)
				} catch (e) {
					for (const name of after) if (!before.includes(name)) await remove(name).catch(() => {})
					throw e
				}
			}
			current = next
			for (const name of before) if (!after.includes(name)) await remove(name)
		},
		async clean(modes) {
			for (const name of modes) {
				if (carriersOf(current).includes(name) || serviceProxies[name] === undefined) continue
				if ((await serviceProxies[name].usable()) === undefined) await remove(name)
			}
		},
		close() {
			for (const { dataplane } of carriers.values()) dataplane.close()
		},
	}
}
