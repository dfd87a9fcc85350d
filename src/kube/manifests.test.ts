import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { parseJsonText } from './manifest-json.ts'
import { parseYamlText, resolvePlain } from './manifest-yaml.ts'
import { failureOf, limits, parseManifests, problemText, readManifests } from './manifests.ts'

const web = `# the shop
apiVersion: v1
kind: Service
metadata:
  name: web
  labels:
    app.kubernetes.io/name: web
    tier: front
spec:
  ports:
  - name: http
    port: 80
    targetPort: http
  - {name: metrics, port: 9090}
  selector:
    app: web
---
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
`

test('objects know the lines of their fields', () => {
	const { objects, problems } = parseManifests(web, 'web.yaml')
	assert.deepEqual(problems, [])
	const [service, deployment] = objects
	assert.deepEqual(service?.object, {
		apiVersion: 'v1',
		kind: 'Service',
		metadata: { name: 'web', labels: { 'app.kubernetes.io/name': 'web', tier: 'front' } },
		spec: {
			ports: [
				{ name: 'http', port: 80, targetPort: 'http' },
				{ name: 'metrics', port: 9090 },
			],
			selector: { app: 'web' },
		},
	})
	const lines: [string, number][] = [
		['', 2],
		['kind', 3],
		['metadata.name', 5],
		['metadata.labels', 6],
		['metadata.labels.app.kubernetes.io/name', 7],
		['metadata.labels.tier', 8],
		['spec', 9],
		['spec.ports', 10],
		['spec.ports[0]', 11],
		['spec.ports[0].port', 12],
		['spec.ports[0].targetPort', 13],
		['spec.ports[1]', 14],
		['spec.ports[1].port', 14],
		// absent: the nearest around it
		['spec.ports[1].targetPort', 14],
		['spec.ports[7].port', 10],
		['spec.type', 9],
		['status.loadBalancer', 2],
		['spec.selector.app', 16],
		['metadata.labels.absent', 6],
	]
	assert.deepEqual(
		lines.map(([path]) => [path, service?.source.lineOf(path)]),
		lines,
	)
	assert.equal(deployment?.source.line, 19)
	assert.equal(deployment?.source.lineOf('metadata.name'), 21)
})

test('JSON has lines too', () => {
	const text =
		'{\n "apiVersion": "v1", "kind": "List",\n "items": [\n  {"apiVersion": "v1",\n   "kind": "Service",\n   "metadata": {"name": "a"}},\n  {"apiVersion": "v1", "kind": "Service", "metadata": {"name":\n "b\\n"}}]}\n{"apiVersion":"v1","kind":"PodList","items":[{"metadata":{"name":"p"}}]}'
	const { objects, problems } = parseManifests(text, 'x.json')
	assert.deepEqual(problems, [])
	assert.deepEqual(
		objects.map((o) => [o.object.kind, o.object.metadata.name, o.source.line, o.source.lineOf('metadata.name')]),
		[
			['Service', 'a', 4, 6],
			['Service', 'b\n', 7, 7],
			['Pod', 'p', 9, 9],
		],
	)
})

test('problems name the place, what is wrong, and what would be right', () => {
	const head = 'apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n'
	const table: [string, string, RegExp][] = [
		['a.yaml', `${head}spec:\n\tports: []\n`, /^a.yaml:6:1: indented with a tab: YAML wants spaces$/],
		['a.yaml', `${head}spec: {}\nspec: {}\n`, /^a.yaml:6:1: key "spec" is given twice \(first in line 5\): keep one$/],
		[
			'a.yaml',
			'kind: Service\nmetadata: {name: x}\n',
			/^a.yaml:1: apiVersion is missing: write for example "apiVersion: apps\/v1"$/,
		],
		['a.yaml', 'apiVersion: v1\nmetadata: {name: x}\n', /^a.yaml:1: kind is missing/],
		['a.yaml', 'apiVersion: v1\nkind: Pod\n', /^a.yaml:1: metadata.name is missing: the Pod needs a name$/],
		['a.yaml', 'apiVersion: v1\nkind: Pod\nmetadata:\n  labels: {}\n', /^a.yaml:3: metadata.name is missing/],
		[
			'a.yaml',
			'apiVersion: v1\nkind: Pod\nmetadata:\n- name: x\n',
			/^a.yaml:3: metadata must be a mapping with a name, found a list/,
		],
		[
			'a.yaml',
			'apiVersion: v1\nkind: Pod\nmetadata:\n  name: 123\n',
			/^a.yaml:4: metadata.name must be a string, found the number 123: put quotes around it \("123"\)$/,
		],
		[
			'a.yaml',
			`${head}  labels:\n    on: "x"\n    v: yes\n`,
			/^a.yaml:7: metadata.labels.v must be a string, found the truth value true/,
		],
		['a.yaml', '- a\n- b\n', /^a.yaml:1: expected an object .*, found a list$/],
		['a.yaml', 'hello\n', /^a.yaml:1: expected an object .*, found "hello"$/],
		['a.yaml', `${head}spec:\n  a: "x\n`, /^a.yaml:\d+:\d+: Missing closing "quote/],
		['a.yaml', `${head}spec:\n  a: b: c\n`, /^a.yaml:6:\d+: .*needs quotes$/],
		['a.yaml', `${head}spec:\n  a: *nothing\n`, /^a.yaml:6:6: .*(alias|anchor)/],
		['a.yaml', `${head}spec: &s\n  a: *s\n`, /^a.yaml:6:6: \*s stands inside what it refers to$/],
		['a.yaml', `${head}spec:\n  a: !!int x\n`, /^a.yaml:6:\d+: cannot read "x" as !!int$/],
		['a.yaml', `${head}spec:\n  replicas: {{ .Values.n }}\n`, /^a.yaml:6:\d+: .*Helm template: render it first/],
		['a.yaml', 'apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\n', /kubectl kustomize/],
		[
			'a.json',
			'{"apiVersion": "v1",\n "kind": "Pod", "kind": "Pod"}',
			/^a.json:2:17: key "kind" is given twice \(first in line 2\)/,
		],
		['a.json', '{"apiVersion": "v1",\n}', /^a.json:2:1: expected a key in double quotes, found "}"$/],
		['a.json', '{"a": [1, 2', /^a.json:1:12: expected "," or "\]", found the end of the text \(opened in line 1\)$/],
		['a.json', '{"a": tru}', /^a.json:1:7: expected a value, found "tru"$/],
		['a.json', '{"a": "x\n"}', /^a.json:1:7: the string has no closing quote/],
		['a.json', '{"a" 1}', /^a.json:1:6: expected ":" after "a", found "1"$/],
	]
	for (const [file, text, want] of table) {
		const { problems } = parseManifests(text, file)
		assert.match(problems.map(problemText).join('\n'), want, text)
		assert.equal(problems.length, 1, text)
	}
})

test('a broken document hides neither the others nor their problems', () => {
	const text = `${web}---\nkind: [\n---\napiVersion: v1\nkind: Pod\nmetadata: {}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: last}\n`
	const { objects, problems } = parseManifests(text, 'x.yaml')
	assert.deepEqual(
		objects.map((o) => o.object.metadata.name),
		['web', 'web', 'last'],
	)
	assert.equal(problems.length, 2)
	assert.match(problemText(problems[1]!), /^x.yaml:27: metadata.name is missing/)
	assert.match(failureOf(problems)?.message ?? '', /\n/)
	assert.equal(failureOf([]), undefined)
})

test('objects given twice are named with both places', () => {
	const one = 'apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\n'
	const { objects, problems } = parseManifests(
		`${one}---\n${one}---\n${one.replace('{', '{namespace: other, ')}`,
		'x.yaml',
		{
			namespace: 'default',
		},
	)
	assert.equal(objects.length, 2)
	assert.deepEqual(problems.map(problemText), [
		'x.yaml:5: ConfigMap "default/c" is given twice (first in x.yaml:1): keep one',
	])
})

test('the namespace is filled in where the kind has one', () => {
	const text =
		'kind: List\napiVersion: v1\nitems:\n- {apiVersion: v1, kind: Namespace, metadata: {name: shop}}\n- {apiVersion: v1, kind: Pod, metadata: {name: p}}\n'
	const { objects } = parseManifests(text, '-', { namespace: 'shop' })
	assert.deepEqual(
		objects.map((o) => o.object.metadata.namespace),
		[undefined, 'shop'],
	)
})

test('plain scalars mean what they mean to kubectl', () => {
	const table: [string, unknown][] = [
		['', null],
		['~', null],
		['null', null],
		['yes', true],
		['on', true],
		['Off', false],
		['n', false],
		['yEs', 'yEs'],
		['0644', 420],
		['0o17', 15],
		['0x1F', 31],
		['0b11', 3],
		['-12', -12],
		['+5', 5],
		['1_000', 1000],
		['08', 8],
		['0', 0],
		['-0', 0],
		['1.5', 1.5],
		['1.', 1],
		['.5', 0.5],
		['1e3', 1000],
		['1:30', '1:30'],
		['8080:80', '8080:80'],
		['1.2.3', '1.2.3'],
		['10.0.0.1', '10.0.0.1'],
		['2001-01-01', '2001-01-01'],
		['100m', '100m'],
		['1Gi', '1Gi'],
		['-', '-'],
		['.', '.'],
		['0x', '0x'],
		['true ', 'true '],
	]
	assert.deepEqual(
		table.map(([text]) => [text, resolvePlain(text)]),
		table,
	)
	const read = (text: string) => parseYamlText(text).documents[0]?.value
	assert.deepEqual(read('a: "0644"\nb: \'yes\'\nc: !!str 5\nd: |\n  12\ne: !!float 3\n80: x\ntrue: w\n'), {
		a: '0644',
		b: 'yes',
		c: '5',
		d: '12\n',
		e: 3,
		80: 'x',
		true: 'w',
	})
})

test('anchors, aliases and merges', () => {
	const text =
		'base: &b\n  x: 1\n  v: 2\nother: &o {v: 3, z: 4}\none:\n  <<: *b\n  x: 5\ntwo:\n  <<: [*b, *o]\nlist: [*b]\n'
	const { documents, errors } = parseYamlText(text)
	assert.deepEqual(errors, [])
	assert.deepEqual(documents[0]?.value, {
		base: { x: 1, v: 2 },
		other: { v: 3, z: 4 },
		one: { x: 5, v: 2 },
		two: { x: 1, v: 2, z: 4 },
		list: [{ x: 1, v: 2 }],
	})
	assert.match(parseYamlText('a: 1\n<<: 5\n').errors[0]?.text ?? '', /merges mappings/)
})

test('aliases that explode are refused', () => {
	const levels = ['a: &a0 [x, x, x, x, x, x, x, x, x]']
	for (let i = 1; i < 12; i++)
		levels.push(
			`b${i}: &a${i} [${Array(9)
				.fill(`*a${i - 1}`)
				.join(', ')}]`,
		)
	const { documents, errors } = parseYamlText(levels.join('\n'))
	assert.equal(documents.length, 0)
	assert.match(errors[0]?.text ?? '', /aliases expand to more than 100000 values/)
})

test('text that is too deep is refused, not a crash', () => {
	for (const text of ['['.repeat(100_000), '{"a":'.repeat(100_000), '- '.repeat(5_000), `a: ${'[['.repeat(1000)}`]) {
		const { objects, problems } = parseManifests(text, 'deep.yaml')
		assert.equal(objects.length, 0)
		assert.ok(problems.length > 0)
	}
})

test('keys of objects that JavaScript knows are keys like others', () => {
	for (const parse of [parseYamlText, parseJsonText]) {
		const value = parse('{"__proto__": {"x": 1}, "constructor": 2, "toString": 3}').documents[0]?.value as object
		assert.deepEqual(Object.keys(value), ['__proto__', 'constructor', 'toString'])
		assert.equal(Object.getPrototypeOf(value), Object.prototype)
	}
})

test('any text is read or refused', () => {
	const piece = fc.constantFrom(
		'a',
		':',
		' ',
		'\n',
		'- ',
		'{',
		'}',
		'[',
		']',
		'"',
		"'",
		'&a',
		'*a',
		'<<',
		'|',
		'>',
		'#',
		'\t',
		'---\n',
		'!!int',
		',',
		'1',
		'\\',
		'?',
	)
	fc.assert(
		fc.property(
			fc.oneof(
				fc.string({ unit: 'binary' }),
				fc.array(piece, { size: 'max', maxLength: 60 }).map((p) => p.join('')),
			),
			(text) => {
				for (const file of ['x.yaml', 'x.json']) {
					for (const p of parseManifests(text, file).problems) assert.ok((p.line ?? 1) >= 1 && (p.column ?? 1) >= 1)
				}
			},
		),
		{ numRuns: 300 },
	)
})

test('our JSON reads what JSON.parse reads', () => {
	fc.assert(
		fc.property(fc.jsonValue(), fc.constantFrom(undefined, 2), (value, indent) => {
			const { documents, errors } = parseJsonText(JSON.stringify(value, null, indent))
			assert.deepEqual(errors, [])
			assert.deepEqual(documents[0]?.value, JSON.parse(JSON.stringify(value)))
		}),
	)
})

test('files, directories, standard input', async (t) => {
	const root = mkdtempSync(join(tmpdir(), 'manifests-'))
	t.after(() => rmSync(root, { recursive: true }))
	const pod = (name: string) => `apiVersion: v1\nkind: Pod\nmetadata: {name: ${name}}\n`
	mkdirSync(join(root, 'all/sub/.git'), { recursive: true })
	mkdirSync(join(root, 'empty'))
	writeFileSync(join(root, 'all/b.yaml'), pod('b'))
	writeFileSync(join(root, 'all/a.yml'), `\ufeff${pod('a')}`)
	writeFileSync(join(root, 'all/sub/c.json'), '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"c"}}')
	writeFileSync(join(root, 'all/sub/.git/d.yaml'), pod('d'))
	writeFileSync(join(root, 'all/notes.txt'), 'no manifest')
	writeFileSync(join(root, 'binary.yaml'), Buffer.from([0xff, 0xfe, 0x00, 0x61]))
	symlinkSync('..', join(root, 'all/sub/up'))
	const { objects, problems } = await readManifests(
		[
			join(root, 'all'),
			'-',
			join(root, 'gone.yaml'),
			join(root, 'empty'),
			join(root, 'binary.yaml'),
			'https://x.example/a.yaml',
		],
		{ stdin: pod('e') },
	)
	assert.deepEqual(
		objects.map((o) => [o.object.metadata.name, o.source.file.replace(root, '')]),
		[
			['a', '/all/a.yml'],
			['b', '/all/b.yaml'],
			['c', '/all/sub/c.json'],
			['e', '-'],
		],
	)
	assert.deepEqual(
		problems.map((p) => problemText(p).replace(root, '')),
		[
			'/gone.yaml: no such file or directory',
			'/empty: no .yaml, .yml or .json file in this directory',
			'/binary.yaml: is not UTF-8 text',
			'https://x.example/a.yaml: URLs are not read: download it and give the file',
		],
	)
})

test('a manifest that is too large is refused before it is parsed', () => {
	const yaml = parseManifests(`a: b\n${'# x\n'.repeat(limits.yamlBytes / 4)}`, 'big.yaml')
	assert.match(
		problemText(yaml.problems[0]!),
		/^big.yaml: is 16 MiB of YAML; at most 16 MiB are read from one file: split it, or give it as JSON/,
	)
	const json = parseManifests(' '.repeat(limits.jsonBytes + 1), 'big.json')
	assert.match(problemText(json.problems[0]!), /^big.json: is 64 MiB large; at most 64 MiB/)
})
