// What is written reads back as the same data, and looks as one would write it.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parse } from 'yaml'
import { blockText, type Data } from './yaml-block.ts'

const cases: readonly [Data, string][] = [
	[{ from: [{ podSelector: {} }] }, 'from:\n  - podSelector: {}'],
	[{ ports: [{ protocol: 'TCP', port: 80 }] }, 'ports:\n  - protocol: TCP\n    port: 80'],
	[{ labels: { 'app.kubernetes.io/name': 'web', on: 'yes', v: '1.0' } }, ''],
	[{ ipBlock: { cidr: '192.0.2.1/32' } }, 'ipBlock:\n  cidr: 192.0.2.1/32'],
	[{ cidr: 'fd00::1/128', empty: '', list: [], nested: [['a'], [{ b: true }]] }, ''],
	[{ labels: { a: '~', b: '#x', c: 'null', d: '- x', e: 'x: y', f: "it's", g: '"' } }, ''],
]

for (const [data, text] of cases) {
	test(JSON.stringify(data), () => {
		assert.deepEqual(parse(blockText(data)), data)
		if (text !== '') assert.equal(blockText(data), text)
	})
}
