// Finds a Node that runs TypeScript by itself (24 or newer): this process's own, else the one of the npm package `node`.
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import * as module from 'node:module'
import { homedir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'

export const root = dirname(dirname(fileURLToPath(import.meta.url)))

/** Flags every Podwire process runs with: node:sqlite still prints a warning in Node 24. */
export const nodeFlags = ['--disable-warning=ExperimentalWarning']

/** The path of a Node 24 or newer, or undefined. */
export function findNode() {
	if (Number(process.versions.node.split('.')[0]) >= 24) return process.execPath
	const require = module.createRequire(import.meta.url)
	for (const name of ['node/bin/node', `node-linux-${process.arch}/bin/node`, `node-darwin-${process.arch}/bin/node`]) {
		for (const base of [join(root, 'node_modules'), ...(require.resolve.paths('node') ?? [])]) {
			const path = join(base, name)
			if (existsSync(path)) return path
		}
	}
	return undefined
}

/** Runs `file` with `args` and ends as it ends. */
export function launch(file, args) {
	const node = findNode()
	if (node === undefined) {
		process.stderr.write(
			`podwire: needs Node 24 or newer and found ${process.version}; run \`npm ci\` here (it brings one), or start podwire with a newer Node\n`,
		)
		process.exit(2)
	}
	const path = resolve(file)
	// Types are stripped once, not at every start: 120 files load in 60 ms instead of 330.
	process.env.NODE_COMPILE_CACHE ??= join(process.env.XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'podwire', 'node')
	if (node === process.execPath) {
		module.enableCompileCache?.(process.env.NODE_COMPILE_CACHE)
		process.argv.splice(1, process.argv.length - 1, path, ...args)
		import(pathToFileURL(path).href)
		return
	}
	const child = spawn(node, [...nodeFlags, path, ...args], { stdio: 'inherit' })
	for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
	child.on('error', (e) => {
		process.stderr.write(`podwire: cannot start ${node}: ${e.message}\n`)
		process.exit(10)
	})
	child.on('exit', (code, signal) => {
		if (signal !== null) process.kill(process.pid, signal)
		else process.exit(code ?? 10)
	})
}
