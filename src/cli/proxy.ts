// `podwire proxy switch MODE`: another data plane carries the Services of a running lab.

import { isFailure } from '../base/failure.ts'
import type { ServiceProxyMode } from '../dataplane/dataplane.ts'
import { carriersOf, isServiceProxyMode, serviceProxyModes } from '../dataplane/proxies/service-proxies.ts'
import { labClient } from '../lab/client.ts'
import { isScheduler, type ServiceProxyChoice } from '../lab/service-proxy.ts'
import { type Scheduler, schedulers } from '../linux/ipvs/ipvs.ts'
import { CommandError, exit } from './exit.ts'
import { findLab } from './lab.ts'
import type { CommonOptions } from './options.ts'
import { outputFormat, printDocument } from './output.ts'

/** Throws CommandError usage. */
export function readServiceProxyChoice(text: string): ServiceProxyChoice {
	if (text === 'auto' || isServiceProxyMode(text)) return text
	throw new CommandError(
		exit.usage,
		`Unknown service proxy ${JSON.stringify(text)}`,
		`use ${serviceProxyModes.join(', ')} or auto`,
	)
}

/** Throws CommandError usage. */
export function readScheduler(text: string | undefined): Scheduler | undefined {
	if (text === undefined || isScheduler(text)) return text
	throw new CommandError(exit.usage, `Unknown scheduler ${JSON.stringify(text)}`, `use ${schedulers.join(', ')}`)
}

interface SwitchOptions extends CommonOptions {
	readonly ipvsScheduler?: string
}

export async function switchProxy(options: SwitchOptions, args: readonly string[]): Promise<number> {
	const choice = readServiceProxyChoice(args[0] as string)
	const scheduler = readScheduler(options.ipvsScheduler)
	const format = outputFormat(options.output)
	const { name } = await findLab(options.name)
	const client = labClient(name)
	const before = (await client.status()).serviceProxy
	const begun = performance.now()
	try {
		await client.setServiceProxy(choice, scheduler)
	} catch (e) {
		if (isFailure(e, 'Unsupported'))
			throw new CommandError(exit.unknown, e.message, 'podwire doctor says what is missing')
		if (isFailure(e, 'Unavailable')) throw new CommandError(exit.unknown, e.message)
		throw e
	}
	const after = (await client.status()).serviceProxy
	const seconds = (performance.now() - begun) / 1000
	if (format === 'json' || format === 'yaml') {
		printDocument(format, {
			apiVersion: 'podwire.dev/v1alpha1',
			kind: 'ProxySwitch',
			lab: name,
			before,
			after,
			seconds,
		})
	} else if (options.quiet !== true) {
		process.stderr.write(
			before === after
				? `lab ${name}: Services are carried by ${after} already\n`
				: `lab ${name}: Services are carried by ${after} now${leftOf(before, after)}, ${seconds.toFixed(2)} s\n`,
		)
	}
	return exit.ok
}

/** eBPF leaves to nftables what sockets do not see, so nftables stays with it. */
function leftOf(before: ServiceProxyMode | undefined, after: ServiceProxyMode | undefined): string {
	if (before === undefined || after === undefined) return ''
	const kept = carriersOf(after).includes(before)
	return kept ? `, ${before} beside it for what sockets do not see` : `, nothing of ${before} is left`
}
