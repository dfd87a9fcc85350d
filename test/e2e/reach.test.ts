// reach, diff and policy as a user runs them: from manifests alone, without rights, without a lab.

import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { application as app, callers, policies, skip } from '../boutique.ts'
import { type Ran, root, run } from './support/run.ts'

let folder: string
before(() => {
	folder = mkdtempSync(join(tmpdir(), 'pw-reach-'))
})
after(() => rmSync(folder, { recursive: true, force: true }))

function podwire(...args: readonly string[]): Promise<Ran> {
	return run(process.execPath, [join(root, 'bin/podwire.js'), ...args])
}

function file(name: string, text: string): string {
	const path = join(folder, name)
	writeFileSync(path, text)
	return path
}

interface Row {
	readonly from: { readonly kind: string; readonly workload?: string; readonly namespace?: string }
	readonly to: { readonly kind: string; readonly workload?: string; readonly namespace?: string }
	readonly connections: { readonly text: string }
}

/** Sources and ports by destination, within the namespace of the application. */
function callsOf(ran: Ran): Record<string, string[]> {
	const found: Record<string, string[]> = {}
	for (const { from, to, connections } of (JSON.parse(ran.stdout) as { items: Row[] }).items) {
		if (from.namespace !== 'default' || to.namespace !== 'default') continue
		;(found[to.workload!] ??= []).push(`${from.workload} ${connections.text}`)
	}
	return found
}

suite('Online Boutique', { skip }, () => {
	test('its 13 policies let exactly the declared calls through', async () => {
		const ran = await podwire('reach', '-f', app, '-f', policies, '-o', 'json')
		assert.equal(ran.code, 0, ran.text)
		const { frontend, ...others } = callsOf(ran)
		assert.deepEqual(others, callers)
		assert.equal(frontend!.length, 11, 'its own policy opens the front to everybody')
	})

	test('generated policies do as well, and open the front to its callers only', async () => {
		const made = await podwire('policy', 'generate', '-f', app)
		assert.equal(made.code, 0, made.text)
		assert.equal(made.stderr, '')
		const path = file('generated.yaml', made.stdout)
		// Applied through the API server with strict validation.
		const ran = await podwire('reach', '-f', app, '-f', path, '-o', 'json')
		assert.equal(ran.code, 0, ran.text)
		const { frontend, ...others } = callsOf(ran)
		assert.deepEqual(others, callers)
		assert.deepEqual(frontend, ['loadgenerator TCP 8080'])
		const lint = await podwire('policy', 'lint', '-f', app, '-f', path)
		assert.equal(lint.code, 0, lint.text)
	})

	test('queries', async () => {
		const ask = (query: string) => podwire('reach', '-f', app, '-f', policies, '--query', query)
		assert.equal((await ask('frontend → cartservice:7070')).code, 0)
		const no = await ask('frontend -> redis-cart:6379')
		assert.equal(no.code, 1)
		assert.match(no.stdout, /network-policies\.yaml:\d+\): podSelector wants app=cartservice, has app=frontend/)
	})
})

suite('the shop', () => {
	const shop = 'examples/shop'
	const strict = 'examples/shop/shop.yaml,examples/shop-strict'

	test('every format, without the made-up names of pods', async () => {
		for (const format of ['txt', 'wide', 'md', 'csv', 'json', 'yaml', 'dot', 'mermaid', 'svg']) {
			const first = await podwire('reach', '-f', shop, '-o', format)
			assert.equal(first.code, 0, first.text)
			if (format === 'wide' || format === 'svg')
				assert.equal(
					first.stdout,
					(await podwire('reach', '-f', shop, '-o', format)).stdout,
					`${format}: the same twice`,
				)
			assert.doesNotMatch(first.stdout, /-[a-z0-9]{9,10}-[a-z0-9]{5}\b/, `${format} has the made-up name of a pod`)
		}
	})

	test('diff', async () => {
		const same = await podwire('diff', shop, shop)
		assert.deepEqual([same.code, same.stdout], [0, 'No connection changes\n'])
		const ran = await podwire('diff', shop, strict, '-o', 'md', '-n', 'shop')
		assert.equal(ran.code, 1, ran.text)
		assert.match(ran.stdout, /^### Reachability\n\n\*\*Connections: 10 removed, 6 changed\*\*\n\n\| change \| from/)
		assert.match(ran.stdout, /<details>\n<summary>/)
		const json = JSON.parse((await podwire('diff', shop, strict, '-o', 'json')).stdout) as {
			kind: string
			items: unknown[]
		}
		assert.equal(json.kind, 'ReachDiff')
		const stdin = await run(process.execPath, [join(root, 'bin/podwire.js'), 'diff', '-', shop], {
			input: ['shop', 'policies']
				.map((name) => readFileSync(join(root, `examples/shop/${name}.yaml`), 'utf8'))
				.join('\n---\n'),
		})
		assert.equal(stdin.code, 0, stdin.text)
	})

	test('lint', async () => {
		const path = file(
			'wrong.yaml',
			readFileSync(join(root, 'examples/shop/policies.yaml'), 'utf8')
				.replace('app: api', 'app: apis')
				.replace('port: sql', 'port: mysql'),
		)
		const args = ['policy', 'lint', '-f', 'examples/shop/shop.yaml', '-f', path] as const
		const ran = await podwire(...args)
		assert.equal(ran.code, 1, ran.text)
		assert.match(ran.stdout, /wrong\.yaml:18: error PW0043: /)
		assert.equal((await podwire(...args, '--fail-on', 'never')).code, 0)
		const sarif = JSON.parse((await podwire(...args, '-o', 'sarif')).stdout) as {
			version: string
			runs: { results: { ruleId: string; locations: { physicalLocation?: { region: { startLine: number } } }[] }[] }[]
		}
		assert.equal(sarif.version, '2.1.0')
		const found = sarif.runs[0]!.results.find((r) => r.ruleId === 'PW0043')
		assert.equal(found?.locations[0]?.physicalLocation?.region.startLine, 18)
		const junit = await podwire(...args, '-o', 'junit')
		assert.match(junit.stdout, /<testsuite name="podwire policy lint" tests="\d+" failures="1"/)
	})

	test('generate from flows', async () => {
		const flows = file(
			'flows.jsonl',
			'{"source":"shop/web","destination":"shop/api","port":9000}\n{"source":"shop/api","destination":"shop/db","port":5432}\n',
		)
		const made = await podwire('policy', 'generate', '-f', 'examples/shop/shop.yaml', '--from-flows', flows)
		assert.equal(made.code, 0, made.text)
		assert.match(made.stdout, /from shop\/deploy\/web TCP 9000: observed \S*flows\.jsonl:1/)
	})
})

const team = `apiVersion: apps/v1
kind: Deployment
metadata: { name: web, namespace: team }
spec:
  selector: { matchLabels: { app: web } }
  template:
    metadata: { labels: { app: web } }
    spec: { containers: [{ name: c, image: nginx, ports: [{ containerPort: 80 }] }] }
---
apiVersion: v1
kind: Service
metadata: { name: web, namespace: team }
spec: { selector: { app: web }, ports: [{ port: 80 }] }
---
apiVersion: apps/v1
kind: Deployment
metadata: { name: client, namespace: other }
spec:
  selector: { matchLabels: { app: client } }
  template:
    metadata: { labels: { app: client } }
    spec: { containers: [{ name: c, image: nginx, env: [{ name: WEB, value: "http://web.team" }] }] }
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: web, namespace: team }
spec:
  podSelector: {}
  ingress: [{ from: [{ namespaceSelector: { matchLabels: { kubernetes.io/metadata.name: other } } }], ports: [{ port: 80 }] }]
`

suite('manifests without their namespaces', () => {
	const said =
		/^podwire: namespaces not among the manifests, taken as there: other \(\S*team\.yaml:15\), team \(\S*team\.yaml:1\)$/gm
	const cases: readonly (readonly [string, readonly string[], number, RegExp])[] = [
		['reach', [], 0, /^other\/deploy\/client +team\/deploy\/web +TCP 80$/m],
		// The label every namespace has, by which the rule knows the source.
		['reach', ['--query', 'other/deploy/client -> team/deploy/web:80'], 0, /^yes: /],
		['trace', ['other/deploy/client', 'team/svc/web:80'], 0, /delivered/],
		['policy', ['lint', '--fail-on', 'never'], 0, /PW0049/],
		['policy', ['generate'], 0, /from other\/deploy\/client TCP 80: env WEB/],
	]
	for (const [command, args, code, text] of cases) {
		test([command, ...args].join(' '), async () => {
			const ran = await podwire(command, ...args, '-f', file('team.yaml', team))
			assert.equal(ran.code, code, ran.text)
			assert.match(ran.stdout, text)
			assert.equal([...ran.stderr.matchAll(said)].length, 1, ran.stderr)
			const quiet = await podwire(command, ...args, '-q', '-f', file('team.yaml', team))
			assert.equal(quiet.stderr, '')
		})
	}

	test('diff: of both sides', async () => {
		const old = file('team.yaml', team)
		const ran = await podwire('diff', old, file('open.yaml', team.slice(0, team.lastIndexOf('---'))))
		assert.equal(ran.code, 1, ran.text)
		assert.match(ran.stdout, /team\/deploy\/web/)
		assert.match(ran.stderr, /team\.yaml:1\)$/m)
		assert.match(ran.stderr, /open\.yaml:1\)$/m)
	})

	test('a name that no namespace can have', async () => {
		const ran = await podwire('reach', '-f', file('bad.yaml', team.replaceAll('namespace: team', 'namespace: Team_1')))
		assert.equal(ran.code, 2, ran.text)
		assert.match(ran.stderr, /bad\.yaml:1: .*"?Team_1"?/)
	})
})

const refusals: readonly (readonly [readonly string[], RegExp])[] = [
	[['reach', '-f', 'examples/shop', '-o', 'png'], /Unknown output format "png"/],
	[['reach', '-f', 'nowhere'], /nowhere: no such file or directory/],
	[['reach', 'web'], /unexpected|too many|takes no argument/i],
	[['reach', '-f', 'examples/shop', '--query', 'web'], /Cannot read the query "web"/],
	[['reach', '-f', 'examples/shop', '--query', 'nobody -> db:5432'], /Cannot find "nobody"/],
	[['reach', '-f', 'examples/shop', '--query', 'web -> db:1'], /Service "shop\/db" has 5432 \(sql\)/],
	[
		['reach', '-f', 'examples/shop', '--query', 'web -> api:9000'],
		/has 80 .*; for the port of its pods ask for shop\/deploy\/api:9000/,
	],
	[['reach', '-f', 'examples/shop', '--from', 'nobody'], /--from: there is no workload "nobody"/],
	[['reach', '-f', 'examples/shop', '--limit', '0'], /--limit must be a whole number/],
	[['diff', 'examples/shop'], /missing required argument/],
	[['diff', '-', '-'], /Only one of OLD and NEW/],
	[['policy', 'lint', '-f', 'examples/shop', '--fail-on', 'maybe'], /Unknown value "maybe" for --fail-on/],
	[['policy', 'generate', '-f', 'examples/shop', '-n', 'empty'], /there is no workload with pods/],
	[['policy', 'generate', '-f', 'examples/shop', '--from-flows', 'nowhere'], /Cannot read the flows "nowhere"/],
]
for (const [args, text] of refusals) {
	test(`refused: podwire ${args.join(' ')}`, async () => {
		const ran = await podwire(...args)
		assert.equal(ran.code, 2, ran.text)
		assert.equal(ran.stdout, '', ran.text)
		assert.match(ran.stderr, text)
		assert.doesNotMatch(ran.stderr, /internal error/)
	})
}

test('flows that cannot be read are told by line', async () => {
	const flows = file('bad.jsonl', '{"source":"shop/web","destination":"shop/api","port":9000}\nnot json\n')
	const ran = await podwire('policy', 'generate', '-f', 'examples/shop', '--from-flows', flows)
	assert.equal(ran.code, 2, ran.text)
	assert.match(ran.stderr, /bad\.jsonl:2: is no JSON/)
})
