// `podwire version`.

import { readFileSync } from 'node:fs'
import { arch, release } from 'node:os'
import { exit } from './exit.ts'
import type { CommonOptions } from './options.ts'
import { outputFormat, printDocument } from './output.ts'

export async function version(options: CommonOptions): Promise<number> {
	const format = outputFormat(options.output)
	const document = {
		apiVersion: 'podwire.dev/v1alpha1',
		kind: 'Version',
		podwire: packageVersion(),
		node: process.versions.node,
		kernel: `${process.platform} ${release()} ${arch()}`,
	}
	if (format === 'json' || format === 'yaml') printDocument(format, document)
	else process.stdout.write(`podwire ${document.podwire}, node ${document.node}, ${document.kernel}\n`)
	return exit.ok
}

export function packageVersion(): string {
	const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
	return (JSON.parse(text) as { version: string }).version
}
