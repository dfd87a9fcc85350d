// Stories: a cluster in YAML, flows to follow in it, and everything that should come of it as reviewed text.
// A folder a story: cluster.yaml over the common base.yaml, flows.txt (`FROM -> TO`, # comments), expect.golden.txt.
// `UPDATE_GOLDENS=1` rewrites the goldens; read their diff like code.

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
import { findingsText, modelText, tracesText } from './text.ts'

const folder = join(import.meta.dirname, 'stories')

for (const story of readdirSync(folder).sort()) {
	const path = (file: string) => join(folder, story, file)
	if (!existsSync(path('cluster.yaml'))) continue
	test(story, () => {
		const model = build(loadState(join(import.meta.dirname, 'base.yaml'), path('cluster.yaml')))
		const flows = existsSync(path('flows.txt')) ? readFileSync(path('flows.txt'), 'utf8') : ''
		const parts = [`# findings\n${findingsText(model)}`, `# model\n${withoutBase(modelText(model))}`]
		for (const line of flows.split('\n')) {
			const text = line.replace(/#.*/, '').trim()
			if (text !== '') parts.push(`# ${text}\n${followed(model, text)}`)
		}
		const actual = `${parts.join('\n\n')}\n`
		if (process.env.UPDATE_GOLDENS === '1') writeFileSync(path('expect.golden.txt'), actual)
		const expected = existsSync(path('expect.golden.txt')) ? readFileSync(path('expect.golden.txt'), 'utf8') : ''
		assert.equal(actual, expected)
	})
}

function followed(model: NetworkModel, text: string): string {
	const [from = '', to = ''] = text.split('->').map((s) => s.trim())
	try {
		const { flows } = planFlows(model, { from, to, namespace: 'default' })
		return flows
			.map((flow) => {
				const traces = walk(model, flow)
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
