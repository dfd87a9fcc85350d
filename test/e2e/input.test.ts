// Bad input: each gets one clear message with file and line, exit code 2, and nothing of it is applied.

import assert from 'node:assert/strict'
import { closeSync, openSync, readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { type Home, makeHome, reasonToSkip } from './support/home.ts'
import { leavingsIn } from './support/leavings.ts'
import { type Ran, root } from './support/run.ts'

const shop = readFileSync(join(root, 'examples/shop/shop.yaml'), 'utf8')

const service = (name: string, spec: string) => `apiVersion: v1
kind: Service
metadata:
  name: ${name}
spec:
${spec}
`
const good = service('good', '  ports:\n    - port: 80')

/** Usage error: one message, no stack, nothing on stdout. */
function refused(ran: Ran): void {
	assert.equal(ran.code, 2, ran.text)
	assert.equal(ran.stdout, '', ran.text)
	assert.match(ran.stderr, /^(podwire|error): /, ran.text)
	assert.doesNotMatch(ran.stderr, /internal error|^ +at .*:\d+:\d+\)?$/m, ran.text)
}

suite('input that is seen to be wrong before a lab is started', () => {
	let home: Home
	before(() => {
		home = makeHome()
	})
	after(() => home.remove())

	const cases: Readonly<Record<string, { readonly text: string | Uint8Array; readonly say: readonly RegExp[] }>> = {
		'YAML that is broken': {
			text: 'apiVersion: v1\nkind: Service\nmetadata:\n  name: a\n spec: {\n',
			say: [/broken\.yaml:5:\d+: /],
		},
		'a tab for indent': {
			text: 'apiVersion: v1\nkind: Service\nmetadata:\n\tname: a\n',
			say: [/broken\.yaml:4:\d+: .*tab/i],
		},
		'a key twice': {
			text: 'apiVersion: v1\nkind: Service\nmetadata:\n  name: a\n  name: b\n',
			say: [/broken\.yaml:5:\d+: .*name/],
		},
		'no object at all': { text: '# nothing\n---\n', say: [/no object in \S*broken\.yaml/] },
		'an empty file': { text: '', say: [/no object in \S*broken\.yaml/] },
		'not text': {
			text: Uint8Array.from({ length: 4096 }, (_, i) => (i * 167 + 13) % 256),
			say: [/broken\.yaml: is not UTF-8 text/],
		},
		'what is no object, each named with its line': {
			text: 'kind: Service\nmetadata:\n  name: a\n---\n- 1\n---\njust text\n---\napiVersion: v1\nkind: Service\n',
			say: [
				/broken\.yaml:1: apiVersion is missing/,
				/broken\.yaml:5: expected an object.*found a list/,
				/broken\.yaml:7: expected an object.*found "just text"/,
				/broken\.yaml:9: metadata\.name is missing/,
			],
		},
		'the same object twice': {
			text: `${good}---\n${good}`,
			say: [/broken\.yaml:9: Service "good" is given twice \(first in \S*broken\.yaml:1\)/],
		},
		'an alias bomb': {
			text: `a: &a [x,x,x,x,x,x,x,x,x]\n${['b', 'c', 'd', 'e', 'f', 'g', 'h', 'i', 'j']
				.map((k, i) => `${k}: &${k} [${Array(9).fill(`*${'abcdefghij'[i]}`).join(',')}]`)
				.join('\n')}\n`,
			say: [/broken\.yaml:\d+.*alias/i],
		},
	}
	for (const [name, { text, say }] of Object.entries(cases)) {
		test(name, async () => {
			const ran = await home.podwire(['up', '-f', home.write('broken.yaml', text)])
			refused(ran)
			for (const pattern of say) assert.match(ran.stderr, pattern)
			assert.ok(ran.seconds < 30, ran.text)
		})
	}

	test('a file that is not there', async () => {
		const ran = await home.podwire(['up', '-f', join(home.folder, 'missing.yaml')])
		refused(ran)
		assert.match(ran.stderr, /missing\.yaml: no such file or directory/)
	})

	test('a folder without a manifest', async () => {
		const ran = await home.podwire(['up', '-f', join(home.folder, 's')])
		refused(ran)
		assert.match(ran.stderr, /\/s\b/)
	})

	test('a manifest of 50 MB is refused in a moment, and it is said how much is read', async () => {
		const path = join(home.folder, 'big.yaml')
		const fd = openSync(path, 'w')
		for (let i = 0, size = 0; size < 50 * 1024 * 1024; i++) {
			size += writeSync(
				fd,
				`apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c${i}\ndata:\n  k: ${'x'.repeat(20_000)}\n---\n`,
			)
		}
		closeSync(fd)
		const ran = await home.podwire(['up', '-f', path])
		refused(ran)
		assert.match(ran.stderr, /big\.yaml: is 50 MiB of YAML; at most \d+ MiB/)
		assert.ok(ran.seconds < 30, ran.text)
		const piped = await home.podwire(['up', '-f', '-'], { input: readFileSync(path) })
		refused(piped)
	})

	test('options that are wrong', async () => {
		for (const [args, say] of [
			[['--nodes', '0'], /--nodes must be a whole number from 1 to \d+, not "0"/],
			[['--nodes', '2.5'], /not "2\.5"/],
			[['--nodes', '-1'], /-1/],
			[['--nodes', '100000'], /not "100000"/],
			[['--name', 'My_Lab'], /"My_Lab" as the name of a lab/],
			[['--name', '../../etc'], /as the name of a lab/],
			[['--dataplane', 'quantum'], /Unknown data plane "quantum"/],
			[['--timeout', 'soon'], /duration "soon"/],
			[['--output', 'xml'], /Unknown output format "xml"/],
			[['--config', join(home.folder, 'none.yaml')], /none\.yaml/],
			[
				[
					'--config',
					home.write(
						'podwire.yaml',
						'apiVersion: podwire.dev/v1alpha1\nkind: Config\nimages:\n  - match: a\n    comand: [x]\n',
					),
				],
				/podwire\.yaml:5:\d+: unknown field "images\[0\]\.comand"/,
			],
			[['--frobnicate'], /unknown option '--frobnicate'/],
			[['shop.yaml'], /too many arguments/],
		] as const) {
			const ran = await home.podwire(['up', ...args])
			refused(ran)
			assert.match(ran.stderr, say, ran.text)
		}
	})

	test('nothing has been started or written', () => {
		const left = leavingsIn(home.folder)
		assert.deepEqual(left.processes, [])
		assert.deepEqual(left.mounts, [])
		assert.deepEqual(
			left.files.filter((f) => f.includes('podwire/')),
			[],
		)
	})
})

suite('input that the API server refuses', { skip: reasonToSkip('kubectl') }, () => {
	let home: Home
	before(async () => {
		home = makeHome()
		await home.up('--nodes', '1')
	})
	after(() => home.remove())

	const objects = () => home.ask('get', 'ns,svc,deploy,sts,cm,netpol', '-A', '-o', 'name')

	const cases: Readonly<Record<string, { readonly text: string; readonly say: readonly RegExp[] }>> = {
		'a field that does not exist, at its line': {
			text: `${good}---\n${service('bad', '  selektor: {app: a}\n  ports:\n    - port: 80\n      targetport: 8080')}`,
			say: [
				/bad\.yaml:14: Service default\/bad: unknown field "spec\.selektor"/,
				/bad\.yaml:17: .*"spec\.ports\[0\]\.targetport"/,
			],
		},
		'a value of the wrong type': {
			text: `${good}---\n${service('bad', '  ports:\n    - port: eighty')}`,
			say: [/bad\.yaml:15: Service default\/bad: spec\.ports\[0\]\.port: expected an integer, got the string "eighty"/],
		},
		'a port out of range': {
			text: `${good}---\n${service('bad', '  ports:\n    - name: http\n      port: 70000')}`,
			say: [
				/bad\.yaml:16: Service default\/bad: spec\.ports\[0\]\.port: Invalid value: 70000: must be between 1 and 65535/,
			],
		},
		'a name that is not one': {
			text: `${good}---\n${service('My_Service', '  ports:\n    - port: 80')}`,
			say: [/bad\.yaml:12: Service default\/My_Service: metadata\.name: Invalid value: "My_Service"/],
		},
		'two Services with one address': {
			text: `${service('a', '  clusterIP: 10.96.7.7\n  ports:\n    - port: 80')}---\n${service('b', '  clusterIP: 10.96.7.7\n  ports:\n    - port: 80')}`,
			say: [/bad\.yaml:15: Service default\/b: spec\.clusterIP: .*10\.96\.7\.7.*Service default\/a \(\S*bad\.yaml:6\)/],
		},
		'an address of a Service that is there': {
			text: `${good}---\n${service('bad', '  clusterIP: 10.96.0.10\n  ports:\n    - port: 80')}`,
			say: [/bad\.yaml:14: Service default\/bad: spec\.clusterIPs?.*10\.96\.0\.10.*already allocated/],
		},
		'an address outside of the range': {
			text: `${good}---\n${service('bad', '  clusterIP: 192.168.1.1\n  ports:\n    - port: 80')}`,
			say: [/bad\.yaml:14: Service default\/bad: spec\.clusterIPs?.*192\.168\.1\.1/],
		},
		'a namespace that is not there': {
			text: `${good}---\n${good.replace('name: good', 'name: bad\n  namespace: nowhere')}`,
			say: [/bad\.yaml:9: Service nowhere\/bad: namespaces "nowhere" not found/],
		},
		'a selector that does not fit its template, in a namespace of its own': {
			text: shop.replace('      labels:\n        app: api\n', '      labels:\n        app: apis\n'),
			say: [/bad\.yaml:\d+: Deployment shop\/api: spec\.template\.metadata\.labels: .*selector/],
		},
		'several faults are all told at once': {
			text: `${service('first', '  ports:\n    - port: 0')}---\n${service('second', '  ports:\n    - port: 99999')}---\n${service('third', '  type: Magic\n  ports:\n    - port: 80')}`,
			say: [
				/3 of 3 objects were refused/,
				/bad\.yaml:7: Service default\/first/,
				/bad\.yaml:15: Service default\/second/,
				/bad\.yaml:22: Service default\/third: spec\.type: .*"Magic"/,
			],
		},
	}
	for (const [name, { text, say }] of Object.entries(cases)) {
		test(name, async () => {
			const there = await objects()
			const ran = await home.podwire(['up', '-f', home.write('bad.yaml', text)])
			refused(ran)
			for (const pattern of say) assert.match(ran.stderr, pattern)
			assert.equal(await objects(), there)
		})
	}

	test('standard input is named', async () => {
		const there = await objects()
		const ran = await home.podwire(['up', '-f', '-'], { input: service('bad', '  ports:\n    - port: 70000') })
		refused(ran)
		assert.match(ran.stderr, /(-|stdin\S*):7: Service default\/bad/)
		assert.equal(await objects(), there)
		const empty = await home.podwire(['up', '-f', '-'], { input: '' })
		refused(empty)
		const ok = await home.podwire(['up', '--no-wait', '-f', '-'], { input: good })
		assert.equal(ok.code, 0, ok.text)
		assert.match(await objects(), /service\/good/)
	})

	test('a kind that is not known is ignored, in one line that names it', async () => {
		const manifest = home.write(
			'kinds.yaml',
			`${service('known', '  ports:\n    - port: 80')}---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: v}\n---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: w}\n---\napiVersion: v2\nkind: Service\nmetadata: {name: of-the-future}\n`,
		)
		const ran = await home.podwire(['up', '--no-wait', '-f', manifest])
		assert.equal(ran.code, 0, ran.text)
		const lines = ran.stderr.split('\n').filter((l) => l.includes('ignored'))
		assert.equal(lines.length, 1, ran.text)
		assert.match(lines[0] ?? '', /VirtualService networking\.istio\.io\/v1 \(\S*kinds\.yaml:9, 2 objects\)/)
		assert.match(lines[0] ?? '', /Service v2 \(\S*kinds\.yaml:17\)/)
		assert.match(await objects(), /service\/known/)
	})

	test('what never becomes ready: 1, and the reason', async () => {
		const manifest = home.write(
			'never.yaml',
			'apiVersion: apps/v1\nkind: Deployment\nmetadata:\n  name: never\nspec:\n  selector: {matchLabels: {app: never}}\n  template:\n    metadata: {labels: {app: never}}\n    spec:\n      nodeSelector: {disk: fast}\n      containers:\n        - name: c\n          image: example.com/c\n',
		)
		const ran = await home.podwire(['up', '--timeout', '2s', '-f', manifest])
		assert.equal(ran.code, 1, ran.text)
		assert.match(ran.stderr, /not everything is ready/)
		assert.match(ran.stderr, /Deployment default\/never: 0 of 1 pods ready/)
		assert.match(ran.stderr, /nodes are available|didn't match|node selector/i)
		await home.ask('delete', 'deploy', 'never')
	})

	test('a second up with another number of nodes says that it has no effect', async () => {
		const ran = await home.podwire(['up', '--no-wait', '--nodes', '4'])
		assert.equal(ran.code, 0, ran.text)
		assert.match(ran.stderr, /with 1 nodes? already; --nodes 4 has no effect/)
	})

	test('two at once: one waits its turn or says who is busy, both end well', async () => {
		const both = await Promise.all(
			[1, 2].map(() => home.podwire(['up', '--name', `${home.name}-2`, '--nodes', '1', '--no-kubeconfig'])),
		)
		assert.ok(
			both.some((r) => r.code === 0),
			both.map((r) => r.text).join('\n'),
		)
		for (const ran of both) {
			if (ran.code === 0) continue
			assert.equal(ran.code, 3, ran.text)
			assert.match(ran.stderr, /Another podwire \(process \d+\) is starting or removing lab/)
		}
		const again = await home.podwire(['up', '--name', `${home.name}-2`, '--no-kubeconfig'])
		assert.equal(again.code, 0, again.text)
	})
})
