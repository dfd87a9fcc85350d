// The manifests a command was given with -f: all problems at once, unknown kinds in one line.

import { isFailure } from '../base/failure.ts'
import { failureOf, readManifests } from '../kube/manifests.ts'
import { recordSource } from '../model/state.ts'
import { type Ignored, type Item, sortItems } from './apply.ts'
import { CommandError, exit } from './exit.ts'

export interface Loaded {
	readonly items: readonly Item[]
	readonly ignored: readonly Ignored[]
}

/** Throws CommandError (usage) with every problem as file:line:column. */
export async function loadManifests(paths: readonly string[], namespace: string): Promise<Loaded> {
	const stdin = paths.includes('-') ? await readStdin('manifests') : undefined
	try {
		const manifests = await readManifests(paths, stdin === undefined ? {} : { stdin })
		const failure = failureOf(manifests.problems)
		if (failure !== undefined) throw failure
		if (manifests.objects.length === 0) {
			throw new CommandError(exit.usage, `Cannot use the manifests: there is no object in ${paths.join(', ')}`)
		}
		return sortItems(
			manifests.objects.map(({ object, source }) => ({ object, source: recordSource(object, source) })),
			namespace,
		)
	} catch (e) {
		if (isFailure(e))
			throw new CommandError(exit.usage, `Cannot use the manifests:\n  ${e.message.replaceAll('\n', '\n  ')}`)
		throw e
	}
}

/** Most of what standard input may hold, bytes; the reader has bounds of its own below it. */
const stdinLimit = 64 * 1024 * 1024

/** All of standard input. Throws CommandError (usage) where it is a terminal or too much; `what` words that. */
export async function readStdin(what: 'manifests' | 'flows'): Promise<string> {
	if (process.stdin.isTTY === true)
		throw new CommandError(exit.usage, `Cannot read ${what} from -: standard input is a terminal`)
	const chunks: Buffer[] = []
	let size = 0
	for await (const chunk of process.stdin) {
		size += (chunk as Buffer).length
		if (size > stdinLimit)
			throw new CommandError(exit.usage, `Cannot read ${what} from -: more than ${stdinLimit >> 20} MiB`)
		chunks.push(chunk as Buffer)
	}
	return Buffer.concat(chunks).toString('utf8')
}

/** `not modelled, ignored: VirtualService networking.istio.io/v1alpha3 (mesh.yaml:19), Gateway … (2)`; undefined where nothing is. */
export function ignoredText(ignored: readonly Ignored[]): string | undefined {
	if (ignored.length === 0) return undefined
	const kinds = new Map<string, Ignored[]>()
	for (const item of ignored) {
		const id = `${item.kind} ${item.apiVersion}`
		kinds.set(id, [...(kinds.get(id) ?? []), item])
	}
	const parts = [...kinds].map(([id, items]) => {
		const first = items[0]
		const count = items.length === 1 ? '' : `, ${items.length} objects`
		return `${id} (${first?.source.file}:${first?.source.lines[''] ?? 1}${count})`
	})
	return `not modelled, ignored: ${parts.join('; ')}`
}
