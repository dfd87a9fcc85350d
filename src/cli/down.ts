// `podwire down`: removes a lab and every trace of it, also after a crash. Again: nothing to do.

import { isFailure, messageOf } from '../base/failure.ts'
import { listLabs, stopLab } from '../lab/start.ts'
import { CommandError, exit } from './exit.ts'
import { contextName, defaultName, givenName } from './lab.ts'
import type { CommonOptions } from './options.ts'
import { outputFormat, printDocument, progressOn } from './output.ts'

interface DownOptions extends CommonOptions {
	readonly all?: boolean
}

export async function down(options: DownOptions): Promise<number> {
	const format = outputFormat(options.output)
	const progress = progressOn(process.stderr, { quiet: options.quiet === true, verbose: options.verbose === true })
	const names = options.all === true ? (await listLabs()).map((l) => l.name) : [await nameOf(options.name)]
	const removed: string[] = []
	for (const name of names) {
		progress.say(`removing ${name}`)
		try {
			if (await stopLab(name)) removed.push(name)
		} catch (e) {
			progress.done()
			if (isFailure(e)) throw new CommandError(exit.unknown, e.message)
			throw e
		}
		await forgetContext(name)
	}
	progress.done()
	if (format === 'json' || format === 'yaml')
		printDocument(format, { apiVersion: 'podwire.dev/v1alpha1', kind: 'Down', removed })
	else if (options.quiet !== true) {
		process.stderr.write(removed.length === 0 ? 'nothing to remove\n' : `removed ${removed.join(', ')}\n`)
	}
	return exit.ok
}

/** The lab named, else the only one there is, else the default name. */
async function nameOf(option: string | undefined): Promise<string> {
	const given = givenName(option)
	if (given !== undefined) return given
	const labs = await listLabs()
	if (labs.length > 1) {
		throw new CommandError(
			exit.usage,
			`There are several labs: ${labs.map((l) => l.name).join(', ')}`,
			'choose one with --name, or --all',
		)
	}
	return labs[0]?.name ?? defaultName
}

async function forgetContext(name: string): Promise<void> {
	const { removeContext } = await import('../kube/kubeconfig.ts')
	try {
		await removeContext(contextName(name))
	} catch (e) {
		process.stderr.write(`podwire: the context ${contextName(name)} stays in the kubeconfig: ${messageOf(e)}\n`)
	}
}
