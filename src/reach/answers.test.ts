// What is printed and said of one small cluster: rows, lines, answers, differences, graphs.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { policies, shop } from '../../test/reach/shop.ts'
import { isFailure } from '../base/failure.ts'
import { originText } from '../model/origin.ts'
import { policyProfiles } from '../model/policy-profile.ts'
import { connectionsText } from './connections.ts'
import { type Difference, differenceCells, differences, summaryText } from './diff.ts'
import { Reach } from './engine.ts'
import { exposureOf } from './exposure.ts'
import { collapse, portsText } from './output/collapse.ts'
import { rowDocument } from './output/document.ts'
import { dotGraph, mermaidGraph } from './output/graph.ts'
import { pullRequestText } from './output/pull-request.ts'
import { svgGraph } from './output/svg.ts'
import { csvTable, markdownTable } from './output/tables.ts'
import type { Party } from './parties.ts'
import { answerQuery, queryText } from './query.ts'
import { endName, type ReachRow, rowsOf } from './table.ts'

/** The shop with a policy that selects one of the two pods of web. */
function relabelled(text: string, pod: string) {
	const only = `${text}---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: half, namespace: shop }
spec: { podSelector: { matchLabels: { only: one } } }
---
apiVersion: v1
kind: Pod
metadata:
  name: ${pod}
  namespace: shop
  labels: { app: web, only: one }
  ownerReferences: [{ apiVersion: apps/v1, kind: StatefulSet, name: web, uid: web, controller: true }]
spec: { nodeName: node-1, containers: [{ name: c }] }
status: { phase: Running, podIP: 10.244.1.81 }
`
	return shop(only)
}

const open = shop()
const closed = shop(policies)

test('rows: every pair that may talk, and no other', () => {
	const rows = [...rowsOf(closed)].map((row) => `${endName(row.from)} > ${endName(row.to)}: ${portsText(row)}`)
	assert.deepEqual(rows, [
		'other/sts/agent > other/sts/agent: all',
		'other/sts/agent > other/sts/client: all',
		'other/sts/agent > shop/sts/api: all',
		'other/sts/agent > shop/sts/db: all',
		'other/sts/agent > shop/sts/web: all',
		'other/sts/agent > 0.0.0.0/0: all',
		'other/sts/client > other/sts/agent: all',
		'other/sts/client > shop/sts/web: all',
		'other/sts/client > 0.0.0.0/0: all',
		'shop/sts/api > shop/sts/db: TCP 5432',
		'shop/sts/api > shop/sts/web: all',
		'shop/sts/db > other/sts/agent: all',
		'shop/sts/db > other/sts/client: all',
		'shop/sts/db > shop/sts/web: all',
		'shop/sts/db > 0.0.0.0/0: all',
		'shop/sts/web > other/sts/agent: all',
		'shop/sts/web > other/sts/client: all',
		'shop/sts/web > shop/sts/api: TCP 9000',
		'shop/sts/web > shop/sts/web: all',
		'shop/sts/web > 0.0.0.0/0: all',
		'0.0.0.0/0 > other/sts/agent: all',
		'0.0.0.0/0 > other/sts/client: all',
		'192.0.2.0/24 > shop/sts/api: TCP 9000',
		'0.0.0.0/0 > shop/sts/web: all',
		'ingress-controller > shop/sts/web: TCP 8080',
	])
})

test('why', () => {
	const why = (from: string, to: string) =>
		[...rowsOf(closed)].find((row) => endName(row.from) === from && endName(row.to) === to)!.because.map(originText)
	assert.deepEqual(why('shop/sts/web', 'shop/sts/api'), [
		'no policy selects the source for egress',
		'NetworkPolicy shop/api spec.ingress[0] (policies.yaml:18)',
	])
	assert.deepEqual(why('shop/sts/api', 'shop/sts/db'), [
		'NetworkPolicy shop/api spec.egress[0] (policies.yaml:21)',
		'NetworkPolicy shop/db spec.ingress[0] (policies.yaml:8)',
	])
	assert.deepEqual(why('192.0.2.0/24', 'shop/sts/api'), ['NetworkPolicy shop/api spec.ingress[0] (policies.yaml:18)'])
	assert.deepEqual(why('other/sts/agent', 'shop/sts/db'), [
		'hostNetwork pods are not subject to NetworkPolicy',
		"traffic from the pod's own node is always allowed",
	])
})

test('lines stand for rows that are all there', () => {
	const lines = (s: typeof open) => collapse([...rowsOf(s)], s.parties).map((l) => `${l.from} > ${l.to}: ${l.ports}`)
	assert.deepEqual(lines(open), [
		'any workload > any workload: all',
		'0.0.0.0/0 > any workload: all',
		'ingress-controller > shop/sts/web: TCP 8080',
		'any workload > 0.0.0.0/0: all',
	])
	const rows = new Set([...rowsOf(closed)].map((row) => `${endName(row.from)} ${endName(row.to)} ${portsText(row)}`))
	const names = closed.parties.map((p) => p.name)
	const spelled = new Set<string>()
	for (const { from, to, ports } of collapse([...rowsOf(closed)], closed.parties)) {
		const expand = (text: string) =>
			text === 'any workload'
				? names
				: text.endsWith('/*')
					? names.filter((n) => n.startsWith(text.slice(0, -1)))
					: [text]
		for (const a of expand(from)) for (const b of expand(to)) spelled.add(`${a} ${b} ${ports}`)
	}
	for (const row of rows) assert.ok(spelled.has(row), `${row} is in no line`)
	for (const row of spelled) {
		const [a, b] = row.split(' ')
		const alone = a === b && closed.parties.find((p) => p.name === a)!.pods === 1
		assert.ok(alone || rows.has(row), `${row} is said and is not so`)
	}
})

const questions: readonly (readonly [string, boolean, string])[] = [
	['web -> db:5432', false, 'podSelector wants app=api, has app=web'],
	['web → api:80', true, 'NetworkPolicy shop/api spec.ingress[0]'],
	['api => db:5432', true, 'spec.egress[0]'],
	['api -> 203.0.113.9:443', false, 'shop/api'],
	['203.0.113.9 -> sts/web:8080', true, 'no policy selects the pod for ingress'],
	['192.0.2.7 -> sts/api:9000', true, 'spec.ingress[0]'],
	['192.0.2.7 -> sts/api:9001', false, 'ports allow TCP/9000'],
	['outside -> sts/db:5432', false, 'selects pods'],
	['node/node-1 -> sts/db:5432', true, "traffic from the pod's own node is always allowed"],
	['client -> api', false, 'shop/api'],
	['db -> outside:443', true, 'no policy selects the pod for egress'],
]
for (const [query, allowed, text] of questions) {
	test(`query ${query}`, () => {
		const answer = answerQuery(closed, query)
		assert.equal(answer.allowed, allowed)
		const said = queryText(answer, true)
		assert.ok(said.startsWith(allowed ? 'yes: ' : 'no: '), said)
		assert.ok(said.includes(text), said)
	})
}

for (const [query, text] of [
	['web', /Cannot read the query/],
	['web -> nobody:1', /no pod, workload or Service "default\/nobody"|Cannot find/],
	['svc/web -> db:5432', /starts no connection/],
	['web -> api:81', /Service "shop\/api" has 80/],
	['web -> example.com:80', /not DNS names/],
] as const) {
	test(`query ${query} is refused`, () => {
		assert.throws(
			() => answerQuery(closed, query),
			(e) => isFailure(e) && text.test(e.message),
		)
	})
}

test('a query as another network would answer it', () => {
	const blocks = shop(`apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: web, namespace: shop }
spec: { podSelector: { matchLabels: { app: web } }, ingress: [{ from: [{ ipBlock: { cidr: 10.0.0.0/8 } }] }] }
`)
	assert.equal(answerQuery(blocks, 'client -> web:80').allowed, true)
	const profile = policyProfiles['cilium-like']
	const other = answerQuery(
		{ ...blocks, reach: new Reach({ model: blocks.model, profile }), profile },
		'client -> web:80',
	)
	assert.equal(other.allowed, false)
	assert.match(queryText(other, true), /ipBlock 10\.0\.0\.0\/8 does not mean pods/)
})

test('differences name what made them', () => {
	const list = differences(open, closed)
	assert.equal(summaryText(list), 'Connections: 9 removed, 3 changed')
	const lines = list.map((d) => differenceCells(d).join(' | '))
	assert.ok(
		lines.includes(
			'changed | shop/sts/api | shop/sts/db | all | TCP 5432 | NetworkPolicy shop/api spec.egress[0] (policies.yaml:21); NetworkPolicy shop/db spec.ingress[0] (policies.yaml:8)',
		),
		lines.join('\n'),
	)
	assert.ok(
		lines.includes(
			'changed | 192.0.2.0/24 | shop/sts/api | all | TCP 9000 | NetworkPolicy shop/api spec.ingress[0] (policies.yaml:18)',
		),
	)
	assert.ok(lines.includes('removed | shop/sts/api | 0.0.0.0/0 | all | - | NetworkPolicy shop/api (policies.yaml:11)'))
	assert.deepEqual(differences(closed, closed), [])
	assert.deepEqual(differences(closed, shop(policies)), [])
	// There and back: what was removed is added.
	const back = differences(closed, open).map((d) =>
		[d.change, endName(d.from), endName(d.to), connectionsText(d.after.connections)].join(' '),
	)
	assert.ok(back.includes('added shop/sts/api 0.0.0.0/0 all'))
	assert.equal(back.length, list.length)
})

test('a rule that moves to another line is no difference; one that says another port is', () => {
	assert.deepEqual(differences(closed, shop(`# a comment\n${policies}`)), [])
	const other = differences(closed, shop(policies.replace('port: 5432', 'port: 5433')))
	assert.deepEqual(
		other.map((d) => differenceCells(d).join(' | ')),
		[
			'changed | shop/sts/api | shop/sts/db | TCP 5432 | TCP 5433 | NetworkPolicy shop/db spec.ingress[0] (policies.yaml:8)',
		],
	)
})

test('a policy for some pods of a workload', () => {
	const half = shop(`${policies}---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: half, namespace: shop }
spec: { podSelector: { matchExpressions: [{ key: statefulset.kubernetes.io/pod-name, operator: In, values: [web-0] }] } }
`)
	const list = differences(closed, half)
	// No pod has the label: nothing changes. With it on one of two pods, some pairs may still talk.
	assert.deepEqual(list, [])
	const labelled = relabelled(policies, 'web-0')
	assert.deepEqual(
		differences(closed, labelled)
			.filter((d) => endName(d.to) === 'shop/sts/web' && endName(d.from) === 'other/sts/client')
			.map((d) => differenceCells(d).join(' | ')),
		[
			'changed | other/sts/client | shop/sts/web | all | all (between every pair: none) | NetworkPolicy shop/half (policies.yaml:23)',
		],
	)
})

test('exposure', () => {
	const items = exposureOf(closed)
	const of = (name: string) => items.find((i) => i.name === name)!
	assert.deepEqual(
		of('shop/sts/web').internet.map((d) => `${d.connections.text} via ${d.via}`),
		['TCP 8080 via Service shop/web (LoadBalancer)', 'TCP 8080 via Ingress shop/shop'],
	)
	assert.deepEqual(of('shop/sts/api').isolated, ['ingress', 'egress'])
	assert.equal(of('shop/sts/api').fromCluster.text, 'none')
	assert.equal(of('shop/sts/web').fromCluster.text, 'all')
	assert.deepEqual(
		of('shop/sts/api').fromOutside.map((r) => `${r.ranges}: ${r.connections.text}`),
		['192.0.2.0/24: TCP 9000'],
	)
	assert.deepEqual(of('shop/sts/api').toOutside, [])
	assert.deepEqual(
		of('other/sts/agent').internet.map((d) => d.via),
		['hostNetwork'],
	)
})

test('documents, tables and graphs', () => {
	const rows = [...rowsOf(closed)]
	const document = rowDocument(
		rows.find((r) => endName(r.to) === 'shop/sts/db' && endName(r.from) === 'shop/sts/api')!,
		true,
	)
	assert.deepEqual(JSON.parse(JSON.stringify(document)).connections, {
		text: 'TCP 5432',
		ranges: [{ protocol: 'TCP', first: 5432, last: 5432 }],
	})
	assert.equal(csvTable(['a'], [['x,"y"'], ['=1+1']]), 'a\r\n"x,""y"""\r\n\'=1+1\r\n')
	assert.equal(markdownTable(['a'], [['x|y']]), '| a |\n| --- |\n| x\\|y |\n')
	const dot = dotGraph({ rows, parties: closed.parties })
	assert.match(dot, /^digraph reach \{/)
	assert.match(dot, /label="shop"/)
	const mermaid = mermaidGraph({ rows, parties: closed.parties })
	assert.match(mermaid, /^flowchart LR\n/)
	const svg = svgGraph({ rows, parties: closed.parties })
	assert.equal(svg, svgGraph({ ...shop(policies), rows: [...rowsOf(shop(policies))] }), 'the same in every run')
	assert.equal((svg.match(/<text /g) ?? []).length > closed.parties.length, true)
	assert.equal(
		(svg.replaceAll(/"[^"]*"/g, '""').match(/<(\w+)[^>/]*>/g) ?? []).length,
		(svg.match(/<\/\w+>/g) ?? []).length,
		'every element is closed',
	)
	assert.ok(!/NaN|undefined/.test(svg + dot + mermaid))
	assert.match(svgGraph({ rows: [], parties: [] }), /<\/svg>/)
})

test('graphs: what is drawn, and that no line passes behind a node', () => {
	const { parties } = closed
	const drawn = (rows: readonly ReachRow[], alone?: () => boolean) =>
		mermaidGraph({ rows, parties, ...(alone === undefined ? {} : { alone }) })
	const toDb = [...rowsOf(closed)].filter((r) => endName(r.to) === 'shop/sts/db')
	assert.match(drawn(toDb), /sts\/client/)
	assert.doesNotMatch(
		drawn(toDb, () => false),
		/sts\/client/,
	)
	// As a source and as a destination addresses are not the same node: that would read as a way through.
	const outside = [...rowsOf(closed)].filter((r) => r.from.kind === 'outside' || r.to.kind === 'outside')
	assert.ok(outside.some((r) => r.from.kind === 'outside') && outside.some((r) => r.to.kind === 'outside'))
	for (const line of drawn(outside).match(/^ {2}(n\d+) -->.*(n\d+)$/gm) ?? []) {
		const [, from, to] = /(n\d+) -->.* (n\d+)$/.exec(line)!
		const isOutside = (id: string) => new RegExp(`^  ${id}\\["[\\d:]`, 'm').test(drawn(outside))
		assert.ok(!(isOutside(from!) && isOutside(to!)), line)
	}
	// One row to the next column, and one over it: that goes straight through the column between.
	const [a, b, c] = parties
	const row = (from: Party, to: Party) =>
		({
			from: { kind: 'workload', party: from },
			to: { kind: 'workload', party: to },
			connections: [80, 81],
			because: [],
		}) as const
	const svg = svgGraph({ rows: [row(a!, b!), row(b!, c!), row(a!, c!)], parties, alone: () => false })
	const lanes = [...svg.matchAll(/ ([\d.]+) ([\d.]+)H[\d.]+/g)].map(([, x, y]) => [Number(x), Number(y)] as const)
	assert.equal(lanes.length, 1)
	const [x, y] = lanes[0]!
	const boxes = [...svg.matchAll(/<rect x="([\d.]+)" y="([\d.]+)" width="[\d.]+" height="30"/g)]
	const within = boxes.filter((box) => Number(box[1]) === x)
	assert.equal(within.length, 1, 'a node in the column it passes')
	assert.ok(y < Number(within[0]![2]) || y > Number(within[0]![2]) + 30, `${y} is behind the node at ${within[0]![2]}`)
})

test('a difference as the comment of a pull request: opening before closing, alike together, never too long', () => {
	const many = 40
	const workloads = Array.from({ length: many }, (_, i) => ({
		...closed.parties[0]!,
		name: `shop/deploy/w-${String(i).padStart(2, '0')}`,
		namespace: 'shop',
		pods: 1,
	}))
	const end = (party: Party) => ({ kind: 'workload', party }) as const
	const extent = (connections: readonly number[]) => ({ connections })
	const difference = (
		from: Party,
		to: Party,
		was: readonly number[],
		is: readonly number[],
		line: number,
	): Difference => ({
		change: was.length === 0 ? 'added' : is.length === 0 ? 'removed' : 'changed',
		from: end(from),
		to: end(to),
		before: extent(was),
		after: extent(is),
		fresh: [],
		because: [{ kind: 'NetworkPolicy', key: 'shop/p`*|', source: { file: 'p.yaml', line } }],
	})
	const [first, second, third] = workloads as [Party, Party, Party]
	const text = pullRequestText({
		differences: [
			...workloads.map((w) => difference(w, first, [80, 81], [], 1)),
			difference(first, second, [], [443, 444], 2),
			difference(second, third, [80, 81], [443, 444], 3),
		],
		parties: workloads,
		size: 60_000,
	})
	assert.match(
		text,
		/\n\| ➕ added \| shop\/deploy\/w-00 \| shop\/deploy\/w-01 \| - \| TCP 443 \|\n\| ✏️ changed .*\n\| ➖ removed \| any workload \| shop\/deploy\/w-00 \| TCP 80 \| - \|\n\n/,
	)
	assert.match(text, /- `any workload → shop\/deploy\/w-00`\n {2}- `NetworkPolicy shop\/p'\*\| \(p\.yaml:1\)`/)
	const apart = workloads.flatMap((from, i) =>
		workloads.map((to, j) => difference(from, to, [], [80 + i * many + j, 81 + i * many + j], i * many + j)),
	)
	for (const size of [2_000, 20_000, 60_000]) {
		const cut = pullRequestText({ differences: apart, parties: workloads, size })
		assert.ok(cut.length <= size, `${cut.length} > ${size}`)
		assert.match(cut, /\*\*Connections: 1600 added\*\*[\s\S]*\n\d+ more rows are not shown/)
		assert.match(cut, /\n\| ➕ added \|.*\|\n/)
	}
	assert.match(
		pullRequestText({ differences: apart, parties: workloads, size: 400_000 }),
		/w-39`\n {2}- `Net.*1599\)`\n\n<\/details>\n$/,
	)
	assert.equal(
		pullRequestText({ differences: [], parties: [], size: 60_000 }),
		'### Reachability\n\n**No connection changes**\n',
	)
})
