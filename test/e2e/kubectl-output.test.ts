// Sessions of real kubectl commands with what each prints (test/data/kubectl/*.txt), on a lab of two nodes. A line
// `$ …` is a command for sh, lines `> …` go on with it; what follows is all it said, and `exit N` where it failed.
// What differs from run to run is shown as <age>, <hash>, <pod-ip> and so on, and columns are two spaces apart.
// UPDATE_GOLDENS=1 writes anew what was printed.

import assert from 'node:assert/strict'
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { carriedTool, folderOf } from '../tools.ts'
import { type Home, makeHome, reasonToSkip } from './support/home.ts'
import { root, run } from './support/run.ts'

const folder = join(root, 'test/data/kubectl')
const skip = reasonToSkip('kubectl')
const update = process.env.UPDATE_GOLDENS === '1'

interface Step {
	/** As it is written, with its marks. */
	readonly shown: string
	readonly script: string
	readonly expected: string
}

function stepsOf(text: string): { readonly head: string; readonly steps: readonly Step[] } {
	const parts = text.split(/^(?=\$ )/m)
	const head = parts[0]?.startsWith('$ ') ? '' : (parts.shift() ?? '')
	const steps = parts.map((part) => {
		const lines = part.replace(/\n+$/, '').split('\n')
		let end = 1
		while (lines[end]?.startsWith('>')) end++
		const command = lines.slice(0, end)
		return {
			shown: command.join('\n'),
			script: command.map((line) => line.replace(/^[$>] ?/, '')).join('\n'),
			expected: lines.slice(end).join('\n'),
		}
	})
	return { head, steps }
}

const letters = '[bcdfghjklmnpqrstvwxz2456789]'
const varying: readonly (readonly [RegExp, string])[] = [
	[/\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z\b/g, '<time>'],
	[/\b\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}\b/g, '<date>'],
	[/\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b/g, '<uid>'],
	[/(resourceVersion: )"\d+"/g, '$1"<revision>"'],
	[/("resourceVersion": )"\d+"/g, '$1"<revision>"'],
	[new RegExp(`-${letters}{6,10}-${letters}{5}\\b`, 'g'), '-<hash>-<id>'],
	[new RegExp(`-${letters}{6,10}\\b`, 'g'), '-<hash>'],
	[new RegExp(`(pod-template-hash[=:] ?)${letters}{6,10}\\b`, 'g'), '$1<hash>'],
	[new RegExp(`-${letters}{5}(?=\\s|$|:)`, 'gm'), '-<id>'],
	[/(SHA256=)[0-9a-f]{64}/g, '$1<hash>'],
	[/\b10\.244\.\d+\.\d+\b/g, '<pod-ip>'],
	[/\b10\.96\.(?!0\.(?:0|1|10)\b)\d+\.\d+\b/g, '<cluster-ip>'],
	[/\b172\.18\.255\.\d+\b/g, '<lb-ip>'],
	// The API server's may look like a node port.
	[/(127\.0\.0\.1:)\d+/g, '$1<port>'],
	[/:3[0-2]\d{3}\//g, ':<node-port>/'],
	[/(nodePort: )3[0-2]\d{3}\b/g, '$1<node-port>'],
	[/\b(?:\d+h)?(?:\d+m)?\d+(?:s|m)(?= ago|\)|\s|$)/gm, '<age>'],
	[/<invalid>/g, '<age>'],
	[/\/tmp\/[\w./-]+/g, '<file>'],
]

function normalised(text: string): string {
	let out = text.replace(/\r/g, '').replace(/\s+$/gm, (end) => (end.includes('\n') ? end.replace(/[^\n]/g, '') : ''))
	for (const [pattern, name] of varying) out = out.replace(pattern, name)
	return out
		.split('\n')
		.map((line) => line.replace(/(\S)(?: {2,}| *\t *)(?=\S)/g, '$1  ').trimEnd())
		.join('\n')
		.replace(/\n+$/, '')
}

suite('kubectl prints what it prints with any cluster', { skip }, () => {
	let home: Home
	let path = ''
	before(async () => {
		const kubectl = await carriedTool('kubectl')
		path = `${folderOf(kubectl)}:${process.env.PATH ?? ''}`
		home = makeHome()
		const config = home.write('podwire.yaml', 'apiVersion: podwire.dev/v1alpha1\nkind: Config\nallowCommands: true\n')
		await home.up('--nodes', '2', '--config', config)
	})
	after(() => home?.remove())

	for (const file of readdirSync(folder).sort()) {
		const name = file.replace(/\.txt$/, '')
		test(name, async () => {
			const { head, steps } = stepsOf(readFileSync(join(folder, file), 'utf8'))
			const config = JSON.parse(await home.ask('config', 'view', '--raw', '-o', 'json')) as {
				contexts: { context: { namespace?: string } }[]
			}
			for (const { context } of config.contexts) context.namespace = name
			const env = {
				...home.env,
				PATH: path,
				KUBECONFIG: home.write(`kubeconfig-${name}`, JSON.stringify(config)),
				KUBE_EDITOR: 'sed -i s/old/new/',
			}
			await home.ask('create', 'namespace', name)
			const out: string[] = []
			for (const step of steps) {
				const ran = await run('sh', ['-c', `exec 2>&1\n${step.script}`], { env, cwd: home.folder })
				const said = normalised(ran.stdout)
				const text = ran.code === 0 ? said : `${said}${said === '' ? '' : '\n'}exit ${ran.code}`
				out.push(`${step.shown}\n${text}${text === '' ? '' : '\n'}`)
				if (!update) assert.equal(text, step.expected, `${file}: ${step.shown}`)
			}
			if (update) writeFileSync(join(folder, file), head + out.join('\n'))
		})
	}
})
