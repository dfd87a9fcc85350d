// Writes src/kube/schema/types.json from the Go sources of the Kubernetes API: names, numbers, types and markers of
// the fields. Facts only: no documentation text is read into the table. Development time only.
//
//   node scripts/generate-schema.ts <k8s.io/api> <k8s.io/apimachinery> <k8s.io/apiextensions-apiserver> \
//     <k8s.io/kube-aggregator>
//
// (each a module directory, as `go mod download -json k8s.io/api@VERSION` prints it)

import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

interface GoField {
	name: string
	type: string
	tags: Record<string, string>
	embedded: boolean
	markers: string[]
	file: GoFile
}
interface GoType {
	name: string
	pkg: GoPackage
	file: GoFile
	struct?: GoField[]
	underlying?: string
	markers: string[]
}
interface GoFile {
	imports: Map<string, string>
}
interface GoPackage {
	/** `core.v1`: how the table names it. */
	id: string
	importPath: string
	/** `io.k8s.api.core.v1` */
	model: string
	types: Map<string, GoType>
	constants: { name: string; type: string; value: string }[]
	proto: Map<string, Map<number, { label: string; type: string; name: string }>>
	group: string
	version: string
	kinds: string[]
}

/** Types with their own JSON or wire form: the table names them, the codec knows them. */
const special: Record<string, string> = {
	'k8s.io/apimachinery/pkg/apis/meta/v1.Time': 'Time',
	'k8s.io/apimachinery/pkg/apis/meta/v1.MicroTime': 'MicroTime',
	'k8s.io/apimachinery/pkg/apis/meta/v1.Duration': 'Duration',
	'k8s.io/apimachinery/pkg/apis/meta/v1.FieldsV1': 'FieldsV1',
	'k8s.io/apimachinery/pkg/api/resource.Quantity': 'Quantity',
	'k8s.io/apimachinery/pkg/util/intstr.IntOrString': 'IntOrString',
	'k8s.io/apimachinery/pkg/runtime.RawExtension': 'RawExtension',
	'k8s.io/apimachinery/pkg/types.UID': 'string',
	'k8s.io/apimachinery/pkg/types.NodeName': 'string',
	'k8s.io/apimachinery/pkg/types.PatchType': 'string',
	'k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSON': 'JSON',
	'k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrBool': 'SchemaOrBool',
	'k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrArray': 'SchemaOrArray',
	'k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSONSchemaPropsOrStringArray': 'SchemaOrStrings',
}
const scalars = new Set(['string', 'bool', 'int32', 'int64', 'float64', 'uint32', 'uint64'])

const packages = new Map<string, GoPackage>()

const [apiDir, machineryDir, extensionsDir, aggregatorDir] = process.argv.slice(2)
if (!apiDir || !machineryDir || !extensionsDir || !aggregatorDir) {
	console.error(
		'usage: generate-schema.ts <k8s.io/api> <…/apimachinery> <…/apiextensions-apiserver> <…/kube-aggregator>',
	)
	process.exit(2)
}
for (const group of readdirSync(apiDir, { withFileTypes: true })) {
	if (!group.isDirectory() || group.name === 'testdata') continue
	for (const version of readdirSync(join(apiDir, group.name))) {
		const dir = join(apiDir, group.name, version)
		if (!existsSync(join(dir, 'register.go')) || !existsSync(join(dir, 'generated.proto'))) continue
		readPackage(dir, `k8s.io/api/${group.name}/${version}`, `${group.name}.${version}`, 'io.k8s.api.')
	}
}
readPackage(
	join(machineryDir, 'pkg/apis/meta/v1'),
	'k8s.io/apimachinery/pkg/apis/meta/v1',
	'meta.v1',
	'io.k8s.apimachinery.pkg.apis.',
)
readPackage(
	join(extensionsDir, 'pkg/apis/apiextensions/v1'),
	'k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1',
	'apiextensions.v1',
	'io.k8s.apiextensions-apiserver.pkg.apis.',
)
readPackage(
	join(aggregatorDir, 'pkg/apis/apiregistration/v1'),
	'k8s.io/kube-aggregator/pkg/apis/apiregistration/v1',
	'apiregistration.v1',
	'io.k8s.kube-aggregator.pkg.apis.',
)
write()

function readPackage(dir: string, importPath: string, id: string, prefix: string): void {
	const pkg: GoPackage = {
		id,
		importPath,
		model: prefix + id,
		types: new Map(),
		constants: [],
		proto: readProto(readFileSync(join(dir, 'generated.proto'), 'utf8')),
		group: '',
		version: '',
		kinds: [],
	}
	for (const name of readdirSync(dir)) {
		if (!name.endsWith('.go') || /_test\.go$|^zz_generated|^generated\.|^types_swagger/.test(name)) continue
		readGo(readFileSync(join(dir, name), 'utf8'), pkg)
	}
	const register = readFileSync(join(dir, 'register.go'), 'utf8')
	pkg.group = /GroupName\s*=\s*"([^"]*)"/.exec(register)?.[1] ?? ''
	pkg.version = /Version:\s*"([^"]+)"/.exec(register)?.[1] ?? 'v1'
	pkg.kinds = [...register.matchAll(/^\s*&(\w+)\{\}/gm)].map((m) => m[1]!)
	packages.set(importPath, pkg)
}

function readProto(text: string): GoPackage['proto'] {
	const messages: GoPackage['proto'] = new Map()
	let current: Map<number, { label: string; type: string; name: string }> | undefined
	for (const line of text.split('\n')) {
		const open = /^message (\w+) \{/.exec(line)
		if (open) messages.set(open[1]!, (current = new Map()))
		const field = /^ {2}(?:(optional|repeated) )?(map<[^>]+>|[\w.]+) (\w+) = (\d+);/.exec(line)
		if (field && current) current.set(Number(field[4]), { label: field[1] ?? 'map', type: field[2]!, name: field[3]! })
	}
	return messages
}

function readGo(text: string, pkg: GoPackage): void {
	const file: GoFile = { imports: new Map() }
	const imports = /^import \(([\s\S]*?)^\)/m.exec(text)?.[1] ?? /^import (.*)$/m.exec(text)?.[1] ?? ''
	for (const m of imports.matchAll(/^\s*(\w+)?\s*"([^"]+)"/gm)) {
		const path = m[2]!
		file.imports.set(m[1] ?? path.split('/').at(-1)!, path)
	}
	let comment: string[] = []
	let earlier: string[] = [] // the comment block before the closest one: markers may stand there
	let struct: GoField[] | undefined
	const plain = text.replace(/\/\*[\s\S]*?\*\//g, '//')
	for (const line of plain.split('\n')) {
		const markerLine = /^\s*\/\/\s*(\+\S.*)$/.exec(line)
		if (/^\s*\/\//.test(line)) {
			if (markerLine) comment.push(markerLine[1]!.trim())
			continue
		}
		if (line.trim() === '') {
			earlier = comment
			comment = []
			continue
		}
		if (struct) {
			if (/^\}/.test(line)) struct = undefined
			else {
				const field = readField(line, comment, file)
				if (field) struct.push(field)
			}
			comment = []
			earlier = []
			continue
		}
		const opened = /^type (\w+) struct ?\{(\})?/.exec(line)
		const named = /^type (\w+) =? ?([\w.[\]*]+)/.exec(line)
		if (opened) {
			const type: GoType = { name: opened[1]!, pkg, file, struct: [], markers: [...earlier, ...comment] }
			pkg.types.set(type.name, type)
			if (!opened[2]) struct = type.struct
		} else if (named && named[2] !== 'interface' && named[2] !== 'func') {
			pkg.types.set(named[1]!, {
				name: named[1]!,
				pkg,
				file,
				underlying: named[2]!,
				markers: [...earlier, ...comment],
			})
		}
		const constant = /^(?:const\s+|\t)(\w+)\s+([\w.]+)\s*=\s*"([^"]*)"/.exec(line)
		const converted = /^(?:const\s+|\t)(\w+)\s*=\s*(\w+)\("([^"]*)"\)/.exec(line)
		const value = constant ?? converted
		if (value) pkg.constants.push({ name: value[1]!, type: value[2]!, value: value[3]! })
		comment = []
		earlier = []
	}
}

function readField(line: string, markers: string[], file: GoFile): GoField | undefined {
	const m = /^\s*(?:(\w+)\s+)?([\w.[\]*{}]+)\s*`([^`]*)`/.exec(line)
	if (!m) {
		if (/^\s*[A-Z]\w*\s+\S/.test(line)) throw new Error(`cannot read the field: ${line}`)
		return undefined
	}
	const tags: Record<string, string> = {}
	for (const t of m[3]!.matchAll(/(\w+):"([^"]*)"/g)) tags[t[1]!] = t[2]!
	return { name: m[1] ?? '', type: m[2]!, tags, embedded: m[1] === undefined, markers, file }
}

/** The table's word for a Go type: `*int32`, `[]core.v1.Container`, `{}Quantity`. */
function typeWord(type: string, at: { file: GoFile; pkg: GoPackage }, reach: (type: GoType) => void): string {
	if (type.startsWith('*')) return `*${typeWord(type.slice(1), at, reach)}`
	if (type === '[]byte') return 'bytes'
	if (type.startsWith('[]')) return `[]${typeWord(type.slice(2), at, reach)}`
	if (type.startsWith('map[')) return `{}${typeWord(type.slice(type.indexOf(']') + 1), at, reach)}`
	if (scalars.has(type)) return type
	const dot = type.indexOf('.')
	const path = dot < 0 ? at.pkg.importPath : at.file.imports.get(type.slice(0, dot))
	const name = type.slice(dot + 1)
	const known = special[`${path}.${name}`]
	if (known) return known
	const go = path === undefined ? undefined : packages.get(path)?.types.get(name)
	if (!go) throw new Error(`no type ${type} (${path}) in ${at.pkg.importPath}`)
	if (go.struct) {
		reach(go)
		return `${go.pkg.id}.${go.name}`
	}
	const word = typeWord(go.underlying!, go, reach)
	if (word === 'string' && go.markers.includes('+enum')) {
		reach(go)
		return `${go.pkg.id}.${go.name}`
	}
	// A named list that has a message of its own is wrapped on the wire.
	if (word.startsWith('[]') && go.pkg.proto.has(go.name)) return `()${word}`
	return word
}

function marker(markers: string[], name: string): string | undefined {
	return markers.find((m) => m.startsWith(`+${name}=`))?.slice(name.length + 2)
}

function defaultOf(field: GoField, pkg: GoPackage): unknown {
	const text = marker(field.markers, 'default')
	if (text === undefined) return undefined
	const ref = /^ref\((\w+)\)$/.exec(text)
	if (ref) return pkg.constants.find((c) => c.name === ref[1])?.value
	return JSON.parse(text)
}

function write(): void {
	const types: Record<string, unknown[]> = {}
	const enums: Record<string, string[]> = {}
	const atomic: string[] = []
	const queue: GoType[] = []
	const seen = new Set<GoType>()
	const reach = (type: GoType) => {
		if (seen.has(type)) return
		seen.add(type)
		queue.push(type)
	}
	const groups: Record<string, { package: string; kinds: string[] }> = {}
	const metaKinds = 'WatchEvent ListOptions GetOptions DeleteOptions CreateOptions UpdateOptions PatchOptions'.split(
		' ',
	)
	for (const pkg of [...packages.values()].sort((a, b) => (a.id < b.id ? -1 : 1))) {
		const kinds = pkg.id === 'meta.v1' ? ['PartialObjectMetadata', 'PartialObjectMetadataList'] : pkg.kinds
		groups[pkg.group === '' ? pkg.version : `${pkg.group}/${pkg.version}`] = { package: pkg.id, kinds }
		for (const kind of kinds) reach(pkg.types.get(kind)!)
	}
	const meta = packages.get('k8s.io/apimachinery/pkg/apis/meta/v1')!
	for (const kind of [...metaKinds, 'Status', 'APIVersions', 'APIGroup', 'APIGroupList', 'APIResourceList'])
		reach(meta.types.get(kind)!)
	for (let type = queue.shift(); type; type = queue.shift()) {
		const id = `${type.pkg.id}.${type.name}`
		if (!type.struct && type.underlying!.includes('.')) {
			// A kind that is another package's struct under its own name (core.v1.List).
			const dot = type.underlying!.indexOf('.')
			const target = packages.get(type.file.imports.get(type.underlying!.slice(0, dot))!)!
			types[id] = rows(target.types.get(type.underlying!.slice(dot + 1))!, reach)
			continue
		}
		if (!type.struct) {
			enums[id] = [...new Set(type.pkg.constants.filter((c) => c.type === type!.name).map((c) => c.value))].sort()
			continue
		}
		if (type.markers.includes('+structType=atomic') || type.markers.includes('+mapType=atomic')) atomic.push(id)
		types[id] = rows(type, reach)
	}
	const table = {
		packages: Object.fromEntries([...packages.values()].map((p) => [p.id, p.model]).sort()),
		groups,
		atomic: atomic.sort(),
		enums: Object.fromEntries(Object.entries(enums).sort()),
		types: Object.fromEntries(Object.entries(types).sort(([a], [b]) => (a < b ? -1 : 1))),
	}
	const lines = Object.entries(table).map(([key, part]) => {
		const inner = Array.isArray(part)
			? JSON.stringify(part)
			: `{\n${Object.entries(part)
					.map(([k, v]) => `${JSON.stringify(k)}:${JSON.stringify(v)}`)
					.join(',\n')}\n}`
		return `${JSON.stringify(key)}:${inner}`
	})
	const out = new URL('../src/kube/schema/types.json', import.meta.url)
	writeFileSync(out, `{${lines.join(',\n')}}\n`)
	console.log(`${Object.keys(types).length} types, ${Object.keys(enums).length} enumerations`)
}

/** One row a field: [JSON name, protobuf number, type, flags, rest]. Flags: r required, e omitempty, z omitzero. */
function rows(type: GoType, reach: (type: GoType) => void): unknown[] {
	const out: unknown[] = []
	const message = type.pkg.proto.get(type.name)
	const numbers = new Set<number>()
	for (const field of type.struct!) {
		const at = { file: field.file, pkg: type.pkg }
		const [json, ...options] = (field.tags.json ?? '').split(',')
		const inline = field.embedded && (options.includes('inline') || json === '')
		const number = Number(field.tags.protobuf?.split(',')[1] ?? 0)
		if (/(^|\.)TypeMeta$/.test(field.type) && number === 0) continue
		if (json === '-') continue
		if (field.type === 'Object' || json === undefined) throw new Error(`${type.name}.${field.name}: no JSON name`)
		const word = typeWord(field.type, at, reach)
		if (number !== 0) {
			const wire = message?.get(number)
			if (!wire) throw new Error(`${type.pkg.id}.${type.name}.${json}: number ${number} is not in the proto file`)
			const repeated = /^\*?\[\]/.test(word)
			if (repeated !== (wire.label === 'repeated')) throw new Error(`${type.name}.${json}: ${word} is ${wire.label}`)
			numbers.add(number)
		}
		const optional = field.markers.includes('+optional')
		const required = field.markers.includes('+required') || (!optional && !options.includes('omitempty'))
		const flags =
			(required ? 'r' : '') + (options.includes('omitempty') ? 'e' : '') + (options.includes('omitzero') ? 'z' : '')
		const rest: Record<string, unknown> = {}
		if (field.tags.patchStrategy) rest.strategy = field.tags.patchStrategy
		if (field.tags.patchMergeKey) rest.mergeKey = field.tags.patchMergeKey
		const listType = marker(field.markers, 'listType')
		if (listType && listType !== 'atomic') rest.list = listType
		const keys = field.markers.filter((m) => m.startsWith('+listMapKey=')).map((m) => m.slice('+listMapKey='.length))
		if (keys.length > 0) rest.keys = keys
		const structure = marker(field.markers, 'structType') ?? marker(field.markers, 'mapType')
		if (structure === 'atomic') rest.atomic = 1
		if (structure === 'granular') rest.atomic = 0
		const preset = defaultOf(field, type.pkg)
		if (preset !== undefined) rest.default = preset
		const row: unknown[] = [inline ? '' : json, number, word]
		if (flags !== '' || Object.keys(rest).length > 0) row.push(flags)
		if (Object.keys(rest).length > 0) row.push(rest)
		out.push(row)
	}
	for (const [number, wire] of message ?? [])
		if (!numbers.has(number)) throw new Error(`${type.pkg.id}.${type.name}: ${wire.name} = ${number} has no Go field`)
	return out
}
