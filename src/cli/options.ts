// Options many commands share, and how their text is read.

import { isLabIpFamily, type LabIpFamily, labIpFamilies } from '../lab/ip-family.ts'
import { CommandError, exit } from './exit.ts'

export interface CommonOptions {
	readonly name?: string
	readonly output?: string
	readonly quiet?: boolean
	readonly verbose?: boolean
	readonly color?: string
	readonly timeout?: string
}

export interface ClusterOptions extends CommonOptions {
	readonly filename: readonly string[]
	readonly kubeconfig?: string
	readonly context?: string
	readonly namespace: string
}

/** `30s`, `2m`, `500ms`, `1h`, a bare number is seconds; in milliseconds. */
export function readDuration(text: string | undefined, fallback: number): number {
	if (text === undefined) return fallback
	const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)?$/.exec(text)
	const value = Number(match?.[1])
	if (match === null || !Number.isFinite(value)) {
		throw new CommandError(
			exit.usage,
			`Cannot read the duration ${JSON.stringify(text)}`,
			'write it as 500ms, 30s, 2m or 1h',
		)
	}
	const unit = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }[match[2] ?? 's'] ?? 1000
	return value * unit
}

/** --ip-family, else PODWIRE_IP_FAMILY; undefined: neither says. */
export function readIpFamily(option: string | undefined): LabIpFamily | undefined {
	const text = option ?? process.env.PODWIRE_IP_FAMILY
	if (text === undefined || text === '') return undefined
	if (isLabIpFamily(text)) return text
	throw new CommandError(exit.usage, `Unknown IP family ${JSON.stringify(text)}`, `use ${labIpFamilies.join(', ')}`)
}

/** A whole number within bounds. */
export function readCount(
	flag: string,
	text: string | undefined,
	bounds: { min: number; max: number; fallback: number },
): number {
	if (text === undefined) return bounds.fallback
	const value = Number(text)
	if (!/^\d+$/.test(text) || value < bounds.min || value > bounds.max) {
		throw new CommandError(
			exit.usage,
			`${flag} must be a whole number from ${bounds.min} to ${bounds.max}, not ${JSON.stringify(text)}`,
		)
	}
	return value
}
