// Every command block of the documents is run as it is written, top to bottom, one file in one home.
// `npm ci` and `npm test` are what brought us here; a line that should fail says `# exits N`.

import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { existsSync, globSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import { findRights } from '../../src/lab/rights.ts'

const root = join(import.meta.dirname, '../..')
const files = ['README.md', ...globSync('docs/*.md', { cwd: root })].filter((f) => commandsOf(f).length > 0)

interface Command {
	readonly line: number
	readonly text: string
	readonly exits: number
}

function commandsOf(file: string): readonly Command[] {
	const commands: Command[] = []
	let inside = false
	for (const [i, text] of readFileSync(join(root, file), 'utf8').split('\n').entries()) {
		if (text.startsWith('```')) inside = text === '```sh'
		else if (inside && text.trim() !== '') {
			const exits = Number(/#\s*exits (\d+)/.exec(text)?.[1] ?? 0)
			const wanted = text.replace(/\s#\s.*$/, '').replace(/^npm ci && /, '')
			if (!/^(npm |git )/.test(wanted)) commands.push({ line: i + 1, text: wanted.trim(), exits })
		}
	}
	return commands
}

const rights = findRights()

for (const file of files) {
	describe(file, { skip: rights.rights === 'none' ? rights.why : false }, () => {
		const home = mkdtempSync(join(tmpdir(), 'pw-docs-'))
		const env = {
			...process.env,
			HOME: process.env.HOME ?? home,
			XDG_STATE_HOME: join(home, 'state'),
			XDG_RUNTIME_DIR: join(home, 'run'),
			KUBECONFIG: join(home, 'kubeconfig'),
		}
		after(() => {
			spawnSync(process.execPath, [join(root, 'bin/podwire.js'), 'down', '--all', '-q'], { env })
			rmSync(home, { recursive: true, force: true })
		})
		for (const { line, text, exits } of commandsOf(file)) {
			const program = text.split(' ')[0] ?? ''
			const absent = spawnSync('sh', ['-c', `command -v ${JSON.stringify(program)}`]).status !== 0
			test(`line ${line}: ${text}`, { skip: absent ? `${program} is not installed` : false }, () => {
				const result = spawnSync('sh', ['-c', text], { cwd: root, env, encoding: 'utf8', timeout: 120_000 })
				assert.equal(result.status, exits, `${result.stdout}\n${result.stderr}`)
			})
		}
	})
}

test('every link to a file of the repository leads somewhere', () => {
	const broken: string[] = []
	for (const file of [
		'README.md',
		'ARCHITECTURE.md',
		'CONTRIBUTING.md',
		...globSync('docs/**/*.md', { cwd: root }),
		...globSync('src/**/*.md', { cwd: root }),
	]) {
		for (const [, target] of readFileSync(join(root, file), 'utf8').matchAll(
			/\]\((?!https?:|#)([^)#]+)(?:#[^)]*)?\)/g,
		)) {
			const path = join(root, file, '..', target ?? '')
			if (!existsSync(path)) broken.push(`${file}: ${target}`)
		}
	}
	assert.deepEqual(broken, [])
})
