// Main processes with a standard input and a terminal, by real kubectl: run -i, attach -i -t, sizes, leaving and coming
// back, the end.

import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { pods } from '../../src/kube/kinds.ts'
import { mergeContext } from '../../src/kube/kubeconfig.ts'
import type { Container } from '../../src/kube/objects/pod.ts'
import { emptyConfig } from '../../src/lab/config.ts'
import { createTestLab, skip as noRights, podObject, type TestLab } from './lab.ts'

const has = (program: string, ...args: string[]) => spawnSync(program, args).status === 0
const skip =
	noRights ||
	(has('kubectl', 'version', '--client') ? false : 'kubectl is not installed') ||
	(has('script', '--version') ? false : 'script (util-linux) is not installed')
const timeout = 60_000
let lab: TestLab
let kubeconfig: string

before(async () => {
	if (skip) return
	lab = await createTestLab('terminal', { ...emptyConfig, allowCommands: true })
	kubeconfig = join(lab.paths.state, 'test.kubeconfig')
	await mergeContext(await lab.handle.client.context(), { path: kubeconfig })
})
after(async () => {
	if (!skip) await lab.remove()
})

interface Session {
	readonly said: () => string
	type(text: string): void
	/** Resolves when the pattern has been said since the last call. */
	hear(pattern: RegExp): Promise<void>
	readonly ended: Promise<number | null>
	kill(): void
}
function start(command: string, args: readonly string[]): Session {
	const child = spawn(command, args, { env: { ...process.env, KUBECONFIG: kubeconfig } })
	let said = ''
	let heard = 0
	child.stdout.on('data', (d) => (said += d))
	child.stderr.on('data', (d) => (said += d))
	child.stdin.on('error', () => {})
	return {
		said: () => said,
		type: (text) => void child.stdin.write(text),
		async hear(pattern) {
			const at = await lab
				.until(async () => {
					const match = pattern.exec(said.slice(heard))
					return match === null ? undefined : heard + match.index + match[0].length
				}, 15)
				.catch(() => assert.fail(`not heard: ${pattern} in ${JSON.stringify(said.slice(heard))}`))
			heard = at
		},
		ended: new Promise((resolve) => child.once('close', resolve)),
		kill: () => void child.kill('SIGKILL'),
	}
}
/** kubectl on a terminal of 40 rows and 120 columns. */
const onTerminal = (...args: string[]) =>
	start('script', ['-qefc', `stty rows 40 cols 120; exec kubectl ${args.join(' ')}`, '/dev/null'])
const program = (name: string, script: string, more: Partial<Container>) =>
	podObject(name, {
		restartPolicy: 'Never',
		terminationGracePeriodSeconds: 1,
		containers: [{ name: 'c', image: 'x', command: ['sh', '-c', script], ...more }],
	})

test('kubectl run -i: what is piped in comes out, to the end of the input, with the exit code', {
	skip,
	timeout,
}, async () => {
	const args = ['run', 'pipe', '-i', '--rm', '--restart=Never', '--image=x', '--command', '--']
	const child = start('kubectl', [...args, 'sh', '-c', 'wc -c; echo to stderr >&2; exit 3'])
	const big = 'x'.repeat(300_000)
	// The input stays open: its end is the client's to say.
	child.type(big)
	const done = spawn('kubectl', [...args.map((a) => (a === 'pipe' ? 'pipe-2' : a)), 'cat'], {
		env: { ...process.env, KUBECONFIG: kubeconfig },
		stdio: ['pipe', 'pipe', 'ignore'],
	})
	let out = ''
	done.stdout.on('data', (d) => (out += d))
	done.stdin.end(big)
	const status = await new Promise((resolve) => done.once('close', resolve))
	assert.equal(status, 0)
	assert.equal(out.replace(/pod "pipe-2" deleted.*\n/, ''), big)
	child.kill()
	await lab.client.delete(pods, 'default/pipe')
})

test('kubectl run -i -t: a shell with job control, of the size of the user; its exit code', {
	skip,
	timeout,
}, async () => {
	const run = ['run', 'shell', '-i', '-t', '--rm', '--restart=Never', '--image=x', '--command', '--', 'sh']
	const shell = onTerminal(...run)
	await lab.pod('shell')
	shell.type('\n')
	await shell.hear(/[#$] /)
	shell.type('stty size; tty; hostname\n')
	await shell.hear(/40 120\r\n\/dev\/pts\/\d+\r\nshell\r\n/)
	// Ctrl-C ends what runs in the foreground, not the shell.
	shell.type('cat\n')
	shell.type('here\n')
	// Once as it is typed; the second time it is cat that says it.
	await shell.hear(/here\s[\s\S]*here\s/)
	shell.type('\x03')
	// What is typed before the shell is back is still for cat.
	await shell.hear(/\^C\s+[#$] /)
	shell.type('echo still $((40 + 2))\n')
	await shell.hear(/still 42/)
	shell.type('exit 5\n')
	assert.equal(await shell.ended, 5)
	await lab.until(async () => ((await lab.client.find(pods, 'default/shell')) === undefined ? true : undefined))
})

test('leaving a terminal leaves the program; coming back finds it as it was', { skip, timeout }, async () => {
	await lab.create(program('stay', 'exec sh', { stdin: true, tty: true }))
	await lab.pod('stay')
	const first = onTerminal('attach', 'stay', '-i', '-t')
	first.type('X=mine; echo set\n')
	await first.hear(/\nset\r\n/)
	first.kill()
	await first.ended
	const second = onTerminal('attach', 'stay', '-i', '-t')
	second.type('echo $X again\n')
	await second.hear(/mine again/)
	// Two at once see the same.
	const third = onTerminal('attach', 'stay', '-i', '-t')
	await lab.until(async () => {
		third.type('\n')
		return third.said().includes('#') || third.said().includes('$') || undefined
	})
	second.type('echo both $((1 + 1))\n')
	await third.hear(/both 2/)
	third.type('exit 4\n')
	await Promise.all([second.ended, third.ended])
	const pod = await lab.until(async () => {
		const found = await lab.client.get(pods, 'default/stay')
		return found.status?.phase === 'Failed' ? found : undefined
	})
	assert.equal(pod.status?.containerStatuses?.[0]?.state?.terminated?.exitCode, 4)
})

test('stdinOnce: the input ends with the first client; without it, it stays open', { skip, timeout }, async () => {
	await lab.create(program('once', 'cat; echo over', { stdin: true, stdinOnce: true }))
	await lab.create(program('ever', 'cat; echo over', { stdin: true }))
	for (const name of ['once', 'ever']) await lab.pod(name)
	const type = async (name: string, text: string) => {
		const child = start('kubectl', ['attach', name, '-i'])
		child.type(text)
		await child.hear(new RegExp(text.trim()))
		child.kill()
		await child.ended
	}
	await type('once', 'first\n')
	const ended = await lab.until(async () => {
		const found = await lab.client.get(pods, 'default/once')
		return found.status?.phase === 'Succeeded' ? found : undefined
	})
	assert.equal(ended.status?.containerStatuses?.[0]?.state?.terminated?.exitCode, 0)
	await type('ever', 'first\n')
	await type('ever', 'second\n')
	assert.equal((await lab.client.get(pods, 'default/ever')).status?.phase, 'Running')
	await lab.client.delete(pods, 'default/ever')
})

test('TERM reaches a program with an input, and its log is what it said', { skip, timeout }, async () => {
	const object = program('polite', `trap 'echo bye; exit 0' TERM; echo hello; while :; do sleep 0.1; done`, {
		stdin: true,
	})
	const kept = { ...object, metadata: { ...object.metadata, finalizers: ['example.com/kept'] } }
	await lab.create(kept)
	await lab.pod('polite')
	const log = start('kubectl', ['logs', '-f', 'polite'])
	await log.hear(/hello/)
	await lab.client.delete(pods, 'default/polite')
	await log.hear(/bye/)
	await lab.until(async () =>
		(await lab.client.get(pods, 'default/polite')).status?.phase === 'Succeeded' ? true : undefined,
	)
	await lab.client.patch(pods, 'default/polite', { metadata: { finalizers: null } })
})

test('attach to a program without an input shows what it writes, and says so', { skip, timeout }, async () => {
	await lab.create(program('mute', 'while :; do echo tick; sleep 0.1; done', {}))
	await lab.pod('mute')
	const child = start('kubectl', ['attach', 'mute'])
	await child.hear(/tick\n/)
	child.kill()
	await lab.client.delete(pods, 'default/mute')
})
