// Label selectors, as the API defines them.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { LabelSelector } from './network.ts'
import { countMatches, firstMismatch, selectorText } from './selector.ts'

const labels = { app: 'web', tier: 'front' }
const select = (
	matchLabels: Record<string, string>,
	...matchExpressions: LabelSelector['matchExpressions']
): LabelSelector => ({
	matchLabels,
	matchExpressions,
})

test('requirements', () => {
	const rows: [string, LabelSelector, string | undefined][] = [
		['everything', select({}), undefined],
		['app=web', select({ app: 'web' }), undefined],
		['app=web,tier=back', select({ app: 'web', tier: 'back' }), 'wants tier=back, has tier=front'],
		['zone=a', select({ zone: 'a' }), 'wants zone=a, has no label zone'],
		['toString=x', select({ toString: 'x' }), 'wants toString=x, has no label toString'],
		['app in (a, web)', select({}, { key: 'app', operator: 'In', values: ['a', 'web'] }), undefined],
		['app in ()', select({}, { key: 'app', operator: 'In', values: [] }), 'wants app in (), has app=web'],
		['zone notin (a)', select({}, { key: 'zone', operator: 'NotIn', values: ['a'] }), undefined],
		[
			'app notin (web)',
			select({}, { key: 'app', operator: 'NotIn', values: ['web'] }),
			'wants app not in (web), has app=web',
		],
		['zone', select({}, { key: 'zone', operator: 'Exists', values: [] }), 'wants a label zone'],
		['!app', select({}, { key: 'app', operator: 'DoesNotExist', values: [] }), 'wants no label app, has app=web'],
		['!zone', select({}, { key: 'zone', operator: 'DoesNotExist', values: [] }), undefined],
	]
	for (const [text, selector, want] of rows) {
		assert.equal(selectorText(selector), text)
		assert.equal(firstMismatch(selector, labels), want, text)
	}
})

test('the nearest is the one with the most requirements met', () => {
	const selector = select({ app: 'web', tier: 'back' }, { key: 'app', operator: 'Exists', values: [] })
	assert.equal(countMatches(selector, labels), 2)
	assert.equal(countMatches(selector, {}), 0)
})
