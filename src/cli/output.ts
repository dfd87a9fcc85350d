// How commands speak: data on stdout, the rest on stderr; colour and progress only on a terminal.

import { stringify } from 'yaml'
import { CommandError, exit } from './exit.ts'

export type OutputFormat = 'text' | 'wide' | 'json' | 'yaml'

export interface Style {
	readonly colour: boolean
}

/** Reads -o. Throws CommandError (usage) on another word. */
export function outputFormat(text: string | undefined): OutputFormat {
	switch (text) {
		case undefined:
		case '':
			return 'text'
		case 'wide':
		case 'json':
		case 'yaml':
			return text
		default:
			throw new CommandError(
				exit.usage,
				`Unknown output format ${JSON.stringify(text)}`,
				'use one of: json, yaml, wide',
			)
	}
}

/** Reads -o. Throws CommandError (usage) on a word that is not in `formats`; the first is the default. */
export function formatOf<F extends string>(text: string | undefined, formats: readonly F[]): F {
	const format = text === undefined || text === '' ? formats[0] : formats.find((f) => f === text)
	if (format !== undefined) return format
	throw new CommandError(
		exit.usage,
		`Unknown output format ${JSON.stringify(text)}`,
		`use one of: ${formats.join(', ')}`,
	)
}

/** --color auto|always|never and NO_COLOR (https://no-color.org). */
export function styleFor(stream: NodeJS.WriteStream, flag: string | undefined): Style {
	if (flag === 'always') return { colour: true }
	if (flag === 'never') return { colour: false }
	if (flag !== undefined && flag !== 'auto') {
		throw new CommandError(exit.usage, `Unknown value ${JSON.stringify(flag)} for --color`, 'use auto, always or never')
	}
	const off = (process.env.NO_COLOR ?? '') !== '' || process.env.TERM === 'dumb'
	return { colour: stream.isTTY === true && !off }
}

const codes = { red: 31, green: 32, yellow: 33, blue: 34, cyan: 36, dim: 2, bold: 1 } as const
export type Colour = keyof typeof codes

export function paint(style: Style, colour: Colour, text: string): string {
	return style.colour ? `\u001b[${codes[colour]}m${text}\u001b[0m` : text
}

/** Writes one document as JSON or YAML on stdout. */
export function printDocument(format: 'json' | 'yaml', document: unknown): void {
	process.stdout.write(format === 'json' ? `${JSON.stringify(document, null, 2)}\n` : stringify(document))
}

/** One line of progress, rewritten in place on a terminal, silent elsewhere unless verbose. */
export interface Progress {
	say(text: string): void
	/** Clears the line. */
	done(): void
}

export function progressOn(stream: NodeJS.WriteStream, options: { quiet: boolean; verbose: boolean }): Progress {
	if (options.quiet) return { say() {}, done() {} }
	if (options.verbose || stream.isTTY !== true) {
		const begun = performance.now()
		return {
			say(text) {
				if (options.verbose) stream.write(`${((performance.now() - begun) / 1000).toFixed(2)}s ${text}\n`)
			},
			done() {},
		}
	}
	let last = ''
	return {
		say(text) {
			const width = Math.max(20, (stream.columns ?? 80) - 1)
			const line = text.length > width ? `${text.slice(0, width - 1)}…` : text
			if (line === last) return
			last = line
			stream.write(`\r\u001b[2K${line}`)
		},
		done() {
			if (last !== '') stream.write('\r\u001b[2K')
			last = ''
		},
	}
}
