// Stories: a cluster in YAML, flows to follow in it, and everything that should come of it as reviewed text.
// A folder a story: cluster.yaml over the common base.yaml, config.json (what no object says), flows.txt (`FROM -> TO`,
// # comments), expect.golden.txt. `UPDATE_GOLDENS=1` rewrites the goldens; read their diff like code.
//
// A flow with `=> RESULT` is not in the golden: its result is written by hand, from the rules of Kubernetes, before it
// is seen. Each way is `TARGET from SOURCE by NODES` or `DISPOSITION HOW`, with its chance where there are several.

import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFailure } from '../../src/base/failure.ts'
import { build } from '../../src/model/build.ts'
import type { NetworkModel } from '../../src/model/network.ts'
import { planFlows } from '../../src/walk/endpoint.ts'
import { walk } from '../../src/walk/walk.ts'
import { loadState } from './load.ts'
import { endsText, findingsText, modelText, tracesText } from './text.ts'

const folder = join(import.meta.dirname, 'stories')

for (const story of readdirSync(folder).sort()) {
	const path = (file: string) => join(folder, story, file)
	if (!existsSync(path('cluster.yaml'))) continue
	test(story, () => {
		const config = existsSync(path('config.json')) ? JSON.parse(readFileSync(path('config.json'), 'utf8')) : {}
		const state = loadState(join(import.meta.dirname, 'base.yaml'), path('cluster.yaml'))
		const model = build({ ...state, config: { ...state.config, ...config } })
		const flows = existsSync(path('flows.txt')) ? readFileSync(path('flows.txt'), 'utf8') : ''
		const parts = [`# findings\n${findingsText(model)}`, `# model\n${withoutBase(modelText(model))}`]
		const should: { text: string; result: string }[] = []
		for (const line of flows.split('\n')) {
			const [text = '', result] = line
				.replace(/#.*/, '')
				.split('=>', 2)
				.map((t) => t.trim())
			if (result !== undefined) should.push({ text, result })
			else if (text !== '') parts.push(`# ${text}\n${followed(model, text)}`)
		}
		const actual = `${parts.join('\n\n')}\n`
		if (process.env.UPDATE_GOLDENS === '1') writeFileSync(path('expect.golden.txt'), actual)
		const expected = existsSync(path('expect.golden.txt')) ? readFileSync(path('expect.golden.txt'), 'utf8') : ''
		assert.equal(actual, expected)
		const lines = (of: (flow: string, result: string) => string) =>
			should.map((s) => `${s.text} => ${of(s.text, s.result)}`)
		assert.deepEqual(
			lines((flow) => ends(model, flow)),
			lines((_, result) => result),
		)
	})
}

/** What becomes of a flow, in one line. */
function ends(model: NetworkModel, text: string): string {
	const [from = '', to = ''] = text.split('->').map((s) => s.trim())
	const { flows } = planFlows(model, { from, to, namespace: 'default' })
	return endsText(flows.flatMap((flow) => walk(model, flow)))
}

function followed(model: NetworkModel, text: string): string {
	const [from = '', to = ''] = text.split('->').map((s) => s.trim())
	try {
		const { flows } = planFlows(model, { from, to, namespace: 'default' })
		return flows
			.map((flow) => {
				const traces = walk(model, flow, { explain: true })
				const sum = traces.reduce((total, trace) => total + trace.chance, 0)
				assert.ok(Math.abs(sum - 1) < 1e-9, `chances sum to ${sum}`)
				return `${'ip' in flow.to ? flow.to.ip : flow.to.name} ${flow.protocol}/${flow.port}\n${tracesText(traces)}`
			})
			.join('\n')
	} catch (e) {
		if (!isFailure(e)) throw e
		return `${e.code}: ${e.message}`
	}
}

/** The base is the same in every story. */
function withoutBase(text: string): string {
	const lines = text.split('\n')
	return lines
		.filter((line) => !/^(node node-[123] 172\.18\.0\.[234] pods|pod kube-system\/coredns-)/.test(line))
		.join('\n')
}
