// The real iptables programs, run inside a network namespace: which of them works here, restore and save. Two of each
// may be installed, one that speaks to nf_tables and one to the old interface (`-nft`, `-legacy`); the plain name is
// what the system's administrator chose.

import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { Failure } from '../../base/failure.ts'
import type { IpFamily } from '../../base/ip.ts'
import { inNetns } from '../netns.ts'
import { type IptablesChange, restoreText, tableOfChange } from './change.ts'
import { parseRuleset } from './parse.ts'
import { occupied, type Ruleset } from './program.ts'

export type IptablesVariant = '' | 'nft' | 'legacy'

export interface IptablesCommand {
	readonly variant: IptablesVariant
	/** `iptables v1.8.9 (nf_tables)` */
	readonly version: string
	/** MASQUERADE --random-fully, from 1.6.2. */
	readonly randomFully: boolean
}

const folders = ['/usr/sbin', '/sbin', '/usr/bin', '/bin', '/usr/local/sbin']

function programOf(family: IpFamily, variant: IptablesVariant, what: 'restore' | 'save' | ''): string | undefined {
	const name = [family === 4 ? 'iptables' : 'ip6tables', variant, what].filter((part) => part !== '').join('-')
	return folders.map((folder) => `${folder}/${name}`).find(existsSync)
}

const missing = () =>
	new Failure(
		'ENOENT',
		'Cannot use iptables: the program "iptables-restore" is not installed (Debian and Ubuntu: apt-get install iptables)',
	)

/**
 * The variant that works in the namespace, tried on an empty transaction: the system's own choice, nft, legacy, in this
 * order. `only` tries just that one. Throws Failure ENOENT (not installed) or EOPNOTSUPP (the kernel refuses all).
 */
export async function findIptables(
	netns: number,
	only?: IptablesVariant,
	signal?: AbortSignal,
): Promise<IptablesCommand> {
	const refusals: string[] = []
	for (const variant of only === undefined ? (['', 'nft', 'legacy'] as const) : [only]) {
		const program = programOf(4, variant, 'restore')
		const plain = programOf(4, variant, '')
		if (program === undefined || plain === undefined) continue
		const trial = await run(netns, program, ['--noflush', '--test'], '*nat\nCOMMIT\n*filter\nCOMMIT\n', signal)
		if (trial.code !== 0) {
			refusals.push(`${program}: ${firstLine(trial.errors)}`)
			continue
		}
		const version = firstLine((await run(netns, plain, ['--version'], '', signal)).output)
		return { variant, version, randomFully: !olderThan(version, [1, 6, 2]) }
	}
	if (refusals.length === 0) throw missing()
	throw new Failure('EOPNOTSUPP', `Cannot use iptables: ${refusals.join('; ')}`)
}

function olderThan(version: string, least: readonly number[]): boolean {
	const have = /v(\d+)\.(\d+)\.(\d+)/.exec(version)?.slice(1).map(Number)
	if (have === undefined) return true
	const i = least.findIndex((n, at) => have[at] !== n)
	return i >= 0 && (have[i] as number) < (least[i] as number)
}

/** What is installed in the namespace, with counters; chains of iptables itself only where somebody uses them. */
export async function saveRuleset(
	netns: number,
	command: IptablesCommand,
	family: IpFamily,
	signal?: AbortSignal,
): Promise<Ruleset> {
	const program = programOf(family, command.variant, 'save')
	if (program === undefined) throw missing()
	const { code, output, errors } = await run(netns, program, ['-c'], '', signal)
	if (code !== 0) throw new Failure('EIO', `Cannot read the rules with ${program}: ${firstLine(errors)}`)
	return occupied(parseRuleset(output, family))
}

/**
 * Applies changes of one family: one transaction a table. Throws Failure EIO with what iptables-restore said and the
 * line it means; details.failed are the changes not in force.
 */
export async function restoreChanges(
	netns: number,
	command: IptablesCommand,
	family: IpFamily,
	changes: readonly IptablesChange[],
	signal?: AbortSignal,
): Promise<void> {
	const program = programOf(family, command.variant, 'restore')
	if (program === undefined) throw missing()
	const { text, commits } = restoreText(changes)
	// Only the old interface has a lock, in a file that all namespaces share.
	const legacy = command.version.includes('legacy') || !command.version.includes('nf_tables')
	const wait = legacy ? ['--wait=5'] : []
	const { code, errors } = await run(netns, program, [...wait, '--noflush', '--counters'], text, signal)
	if (code === 0) return
	const line = Number(/line:? (\d+)/.exec(errors)?.[1] ?? 0)
	// Tables that were committed before that line are in force.
	const done = new Set(commits.filter((c) => c.line < line).map((c) => c.table))
	const failed = changes.filter((c) => !done.has(tableOfChange(c)))
	const quoted = text.split('\n')[line - 1]
	const at = line > 0 && quoted !== undefined ? ` (line ${line}: ${quoted.slice(0, 200)})` : ''
	throw new Failure('EIO', `Cannot apply ${changes.length} changes with ${program}: ${firstLine(errors)}${at}`, {
		failed,
	})
}

interface Ran {
	readonly code: number | null
	readonly output: string
	readonly errors: string
}

/** The child is born in the namespace; this thread is back before anything is awaited. */
function run(
	netns: number,
	program: string,
	args: readonly string[],
	input: string,
	signal?: AbortSignal,
): Promise<Ran> {
	const child: ChildProcess = inNetns(netns, () =>
		spawn(program, args, { stdio: ['pipe', 'pipe', 'pipe'], env: { PATH: folders.join(':'), LC_ALL: 'C' }, signal }),
	)
	return new Promise((resolve, reject) => {
		const output: Buffer[] = []
		const errors: Buffer[] = []
		child.stdout?.on('data', (data: Buffer) => output.push(data))
		child.stderr?.on('data', (data: Buffer) => errors.push(data))
		child.on('error', reject)
		child.on('close', (code) =>
			resolve({ code, output: Buffer.concat(output).toString(), errors: Buffer.concat(errors).toString() }),
		)
		// EPIPE: it ended before it had read all; its exit code says why.
		child.stdin?.on('error', () => {})
		child.stdin?.end(input)
	})
}

function firstLine(text: string): string {
	return text.trim().split('\n')[0] ?? ''
}
