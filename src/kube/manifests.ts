// The user's manifests: files, directories and standard input to API objects, each knowing the file and line of every
// field. One broken document hides nothing: all problems come back together.

import { readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { Failure, messageOf } from '../base/failure.ts'
import { parseJsonText } from './manifest-json.ts'
import { findLine, lineOfPlace, type ParsedDocument, type ParsedText, type Place } from './manifest-place.ts'
import { parseYamlText } from './manifest-yaml.ts'
import { type KubeObject, keyOf, splitApiVersion } from './objects/meta.ts'
import { findResource } from './resources.ts'

export interface ManifestSource {
	/** As the user named it; `-` is standard input. */
	readonly file: string
	/** 1-based line where the object begins. */
	readonly line: number
	/** The line of the field at `path`, or of the nearest one around it that is written. '' is the object. */
	lineOf(path: string): number
}

export interface Manifest {
	readonly object: KubeObject
	readonly source: ManifestSource
}

export interface ManifestProblem {
	readonly file: string
	/** 1-based; absent where it is about the file itself. */
	readonly line?: number
	readonly column?: number
	readonly text: string
}

export interface Manifests {
	/** In the order of the files and of the documents in them. */
	readonly objects: readonly Manifest[]
	readonly problems: readonly ManifestProblem[]
}

/** Bounds of one reading. YAML is read at about 2 MB/s, JSON at some 50. */
export const limits = {
	yamlBytes: 16 * 1024 * 1024,
	jsonBytes: 64 * 1024 * 1024,
	totalBytes: 64 * 1024 * 1024,
	/** Files in directories. */
	files: 10_000,
}

export interface ReadOptions {
	/** The text of standard input, for `-`. */
	readonly stdin?: string
	/** The namespace of objects that name none, where their kind has one. Absent: they stay as they are. */
	readonly namespace?: string
}

/** `web.yaml:12:3: key "ports" is given twice (first in line 9): keep one` */
export function problemText(problem: ManifestProblem): string {
	const { file, line, column, text } = problem
	return `${file}${line === undefined ? '' : `:${line}${column === undefined ? '' : `:${column}`}`}: ${text}`
}

/** One failure (code `InvalidManifest`, details `{ problems }`) of all problems; undefined where there is none. */
export function failureOf(problems: readonly ManifestProblem[]): Failure | undefined {
	if (problems.length === 0) return undefined
	const shown = problems.slice(0, 20).map(problemText)
	if (problems.length > shown.length) shown.push(`and ${problems.length - shown.length} more`)
	return new Failure('InvalidManifest', shown.join('\n'), { problems })
}

/** Reads files, directories (recursively: .yaml, .yml, .json) and `-`. Never throws for what the user gave. */
export async function readManifests(paths: readonly string[], options: ReadOptions = {}): Promise<Manifests> {
	const gathered = new Gathered(options)
	for (const path of paths) {
		if (path === '-') gathered.addText(options.stdin ?? '', '-')
		else if (/^https?:\/\//.test(path)) gathered.problem(path, 'URLs are not read: download it and give the file')
		else for (const file of await listFiles(path, gathered)) await readOne(file, gathered)
	}
	return gathered.result()
}

/** The objects in one text. `file` names it in messages; a name ending in .json makes YAML an error. */
export function parseManifests(text: string, file: string, options: ReadOptions = {}): Manifests {
	const gathered = new Gathered(options)
	gathered.addText(text, file)
	return gathered.result()
}

async function listFiles(path: string, gathered: Gathered): Promise<string[]> {
	try {
		if (!(await stat(path)).isDirectory()) return [path]
		const found: string[] = []
		await listDirectory(path, found)
		if (found.length === 0) gathered.problem(path, 'no .yaml, .yml or .json file in this directory')
		if (found.length <= limits.files) return found.sort()
		gathered.problem(
			path,
			`holds ${found.length} manifest files; at most ${limits.files} are read: name a directory inside`,
		)
	} catch (e) {
		gathered.problem(path, reasonOf(e))
	}
	return []
}

/** Directories behind symbolic links are not entered, nor hidden ones: both may lead round in circles or to .git. */
async function listDirectory(path: string, found: string[]): Promise<void> {
	for (const entry of await readdir(path, { withFileTypes: true })) {
		if (entry.name.startsWith('.')) continue
		const child = join(path, entry.name)
		if (entry.isDirectory()) await listDirectory(child, found)
		else if (/\.(ya?ml|json)$/.test(entry.name)) found.push(child)
	}
}

async function readOne(file: string, gathered: Gathered): Promise<void> {
	try {
		const { size } = await stat(file)
		if (!gathered.admit(file, size)) return
		const text = new TextDecoder('utf-8', { fatal: true }).decode(await readFile(file))
		gathered.addText(text, file, size)
	} catch (e) {
		gathered.problem(file, e instanceof TypeError ? 'is not UTF-8 text' : reasonOf(e))
	}
}

function reasonOf(e: unknown): string {
	const code = typeof e === 'object' && e !== null && 'code' in e ? e.code : undefined
	switch (code) {
		case 'ENOENT':
			return 'no such file or directory'
		case 'EACCES':
		case 'EPERM':
			return 'may not be read: permission denied'
		case 'EISDIR':
			return 'is a directory'
		default:
			return `cannot be read: ${messageOf(e)}`
	}
}

const megabytes = (bytes: number) => `${(bytes / 1024 / 1024).toFixed(bytes < 10 * 1024 * 1024 ? 1 : 0)} MiB`

class Gathered {
	readonly #options: ReadOptions
	readonly #objects: Manifest[] = []
	readonly #problems: ManifestProblem[] = []
	readonly #first = new Map<string, ManifestSource>()
	#bytes = 0
	constructor(options: ReadOptions) {
		this.#options = options
	}

	result(): Manifests {
		return { objects: this.#objects, problems: this.#problems }
	}

	problem(file: string, text: string, line?: number, column?: number): void {
		this.#problems.push({
			file,
			text,
			...(line === undefined ? {} : { line }),
			...(column === undefined ? {} : { column }),
		})
	}

	/** Whether so many bytes may still be read. */
	admit(file: string, bytes: number): boolean {
		if (bytes > limits.jsonBytes) {
			this.problem(
				file,
				`is ${megabytes(bytes)} large; at most ${megabytes(limits.jsonBytes)} are read from one file: split it`,
			)
			return false
		}
		this.#bytes += bytes
		if (this.#bytes <= limits.totalBytes) return true
		this.problem(file, `would make more than ${megabytes(limits.totalBytes)} in all: give fewer manifests at once`)
		return false
	}

	addText(given: string, file: string, admitted?: number): void {
		const text = given.charCodeAt(0) === 0xfeff ? given.slice(1) : given
		if (admitted === undefined && !this.admit(file, Buffer.byteLength(text))) return
		const parsed = this.#parse(text, file)
		if (parsed === undefined) return
		for (const { line, column, text } of parsed.errors) this.problem(file, text, line, column)
		for (const document of parsed.documents) this.#addDocument(document, file)
	}

	#parse(text: string, file: string): ParsedText | undefined {
		if (/^\s*[{[]/.test(text)) {
			const parsed = parseJsonText(text)
			// `{a: b}` may be YAML in its flow form, if the name does not say otherwise.
			if (parsed.errors.length === 0 || file.endsWith('.json')) return parsed
		}
		if (text.length > limits.yamlBytes) {
			const size = `${megabytes(text.length)} of YAML; at most ${megabytes(limits.yamlBytes)} are read from one file`
			this.problem(file, `is ${size}: split it, or give it as JSON (up to ${megabytes(limits.jsonBytes)})`)
			return undefined
		}
		return parseYamlText(text)
	}

	#addDocument({ value, place }: ParsedDocument, file: string): void {
		if (value === null || value === undefined) return
		const line = lineOfPlace(place)
		if (typeof value !== 'object' || Array.isArray(value)) {
			const what = Array.isArray(value) ? 'a list' : JSON.stringify(String(value).slice(0, 40))
			this.problem(file, `expected an object (apiVersion, kind, metadata…), found ${what}`, line)
			return
		}
		const record = value as Record<string, unknown>
		const { kind, apiVersion } = record
		if (typeof kind === 'string' && kind.endsWith('List') && Array.isArray(record.items)) {
			const places = placesOfItems(place)
			const element = kind === 'List' ? {} : { apiVersion, kind: kind.slice(0, -4) }
			for (const [i, item] of record.items.entries()) {
				const whole = typeof item === 'object' && item !== null && !Array.isArray(item) ? { ...element, ...item } : item
				this.#addDocument({ value: whole, place: places[i] ?? line }, file)
			}
			return
		}
		const wrong = shapeProblems(record)
		for (const { path, text } of wrong) this.problem(file, text, findLine(place, path))
		if (wrong.length > 0) return
		const source: ManifestSource = { file, line, lineOf: (path) => findLine(place, path) }
		this.#addObject(this.#inNamespace(record as unknown as KubeObject), source)
	}

	#inNamespace(object: KubeObject): KubeObject {
		const { namespace } = this.#options
		if (namespace === undefined || object.metadata.namespace || !findResource(object)?.namespaced) return object
		return { ...object, metadata: { ...object.metadata, namespace } }
	}

	#addObject(object: KubeObject, source: ManifestSource): void {
		const { group } = splitApiVersion(object.apiVersion)
		const id = `${object.kind}${group === '' ? '' : `.${group}`} ${object.metadata.name === undefined ? '' : keyOf(object)}`
		const first = object.metadata.name === undefined ? undefined : this.#first.get(id)
		if (first !== undefined) {
			const text = `${object.kind} "${keyOf(object)}" is given twice (first in ${first.file}:${first.line}): keep one`
			this.problem(source.file, text, source.line)
			return
		}
		this.#first.set(id, source)
		this.#objects.push({ object, source })
	}
}

function placesOfItems(place: Place): readonly Place[] {
	if (typeof place === 'number' || !('fields' in place)) return []
	const items = place.fields.get('items')?.value
	return items === undefined || typeof items === 'number' || !('items' in items) ? [] : items.items
}

/** What keeps a mapping from being an API object at all. Whether its fields are right is the API's business. */
function shapeProblems(record: Record<string, unknown>): { path: string; text: string }[] {
	const out: { path: string; text: string }[] = []
	const say = (path: string, text: string) => out.push({ path, text })
	const { apiVersion, kind, metadata } = record
	if (typeof apiVersion === 'string' && apiVersion.startsWith('kustomize.config.k8s.io/')) {
		say('', 'is a kustomization, not an object: give the output of `kubectl kustomize DIRECTORY` instead')
		return out
	}
	for (const field of ['apiVersion', 'kind'] as const) {
		const value = record[field]
		if (typeof value === 'string' && value !== '') continue
		const example = field === 'apiVersion' ? 'apiVersion: apps/v1' : 'kind: Deployment'
		if (value === undefined || value === null || value === '')
			say(field, `${field} is missing: write for example "${example}"`)
		else say(field, `${field} must be a string, found ${describe(value)}`)
	}
	const subject = typeof kind === 'string' && kind !== '' ? kind : 'object'
	if (metadata === undefined || metadata === null) {
		say('metadata', `metadata.name is missing: the ${subject} needs a name`)
		return out
	}
	if (typeof metadata !== 'object' || Array.isArray(metadata)) {
		say('metadata', `metadata must be a mapping with a name, found ${describe(metadata)}`)
		return out
	}
	const { name, generateName, namespace } = metadata as Record<string, unknown>
	const unnamed = name === undefined || name === null || name === ''
	if (unnamed && typeof generateName !== 'string')
		say('metadata.name', `metadata.name is missing: the ${subject} needs a name`)
	for (const [field, value] of Object.entries({ name, namespace })) {
		if (value !== undefined && value !== null && typeof value !== 'string')
			say(`metadata.${field}`, wantsString(`metadata.${field}`, value))
	}
	for (const field of ['labels', 'annotations'] as const) {
		const map = (metadata as Record<string, unknown>)[field]
		if (map === undefined || map === null) continue
		if (typeof map !== 'object' || Array.isArray(map)) {
			say(`metadata.${field}`, `metadata.${field} must be a mapping of strings, found ${describe(map)}`)
			continue
		}
		for (const [key, value] of Object.entries(map)) {
			const path = `metadata.${field}.${key}`
			if (typeof value !== 'string' && value !== null) say(path, wantsString(path, value))
		}
	}
	return out
}

function wantsString(path: string, value: unknown): string {
	const quote = typeof value === 'number' || typeof value === 'boolean' ? `: put quotes around it ("${value}")` : ''
	return `${path} must be a string, found ${describe(value)}${quote}`
}

function describe(value: unknown): string {
	if (Array.isArray(value)) return 'a list'
	if (typeof value === 'object') return value === null ? 'nothing' : 'a mapping'
	return `${typeof value === 'boolean' ? 'the truth value' : `the ${typeof value}`} ${JSON.stringify(value)}`
}
