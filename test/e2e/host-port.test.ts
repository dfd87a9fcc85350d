// A port of a node that leads to a pod, explained: should, would and did agree, each with the line of the manifest; and
// when somebody deletes the rule by hand, they do not.

import assert from 'node:assert/strict'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { type Home, makeHome, reasonToSkip } from './support/home.ts'
import { run } from './support/run.ts'

const manifest = `apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  nodeName: node-2
  containers:
    - name: c
      image: nginx
      ports:
        - {containerPort: 80, hostPort: 8080}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec: {nodeName: node-1, containers: [{name: c, image: nginx}]}
`

interface Report {
	readonly verdict: string
	readonly headline: string
	readonly disagreement?: { readonly stage: string; readonly text: string }
	readonly stages: readonly {
		readonly stage: string
		readonly agree: boolean
		readonly should?: Point
		readonly would?: Point
		readonly did?: Point
	}[]
}
interface Point {
	readonly result: string
	readonly text: string
	readonly because: readonly { readonly key?: string; readonly source?: { readonly line: number } }[]
}

suite('trace of a host port', { skip: reasonToSkip('nft', 'nsenter') }, () => {
	let home: Home
	before(async () => {
		home = makeHome()
		await home.up('-f', home.write('web.yaml', manifest))
	})
	after(() => home.remove())

	const trace = async (from: string, to: string): Promise<Report> => {
		const ran = await home.podwire(['trace', from, to, '-o', 'json'])
		const [report] = (JSON.parse(ran.stdout) as { items: [Report] }).items
		return report
	}

	for (const from of ['pod/client', 'node/node-1', 'node/node-2', 'pod/web', 'outside']) {
		test(`from ${from}`, async () => {
			const report = await trace(from, 'node/node-2:8080')
			assert.equal(report.verdict, 'delivered', report.headline)
			assert.equal(report.disagreement, undefined, report.headline)
			const service = report.stages.find((s) => s.stage === 'service')
			for (const witness of ['should', 'would'] as const) {
				const point = service?.[witness]
				assert.match(point?.result ?? '', /^10\.244\.\d+\.\d+:80$/, witness)
				assert.ok(
					point?.because.some((o) => o.key === 'default/web' && o.source?.line === 10),
					`${witness} names the line: ${JSON.stringify(point?.because)}`,
				)
			}
		})
	}

	test('somebody deletes the element: the witnesses disagree', async () => {
		const netns = `--net=${join(home.runtime, 'netns', 'node-2')}`
		const element = ['delete', 'element', 'ip', 'podwire-hostports', 'host-ports', '{ tcp . 8080 }']
		const ran = await run('nsenter', [netns, 'nft', ...element])
		assert.equal(ran.code, 0, ran.text)
		const report = await trace('pod/client', 'node/node-2:8080')
		assert.notEqual(report.disagreement, undefined, report.headline)
	})
})
