import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { isFailure } from '../base/failure.ts'
import type { KubeObject, Labels } from './objects/meta.ts'
import {
	formatSelector,
	matches,
	matchesFields,
	matchesLabelSelector,
	matchesLabels,
	parseFieldSelector,
	parseSelector,
	type Selector,
	selectorOf,
} from './selector.ts'

test('label selectors, query form', () => {
	const table: [string, Labels, boolean][] = [
		['', {}, true],
		['a=b', { a: 'b' }, true],
		['a==b', { a: 'b' }, true],
		['a=b', { a: 'c' }, false],
		['a=b', {}, false],
		['a=', { a: '' }, true],
		['a=,b=c', { a: '', b: 'c' }, true],
		['a!=b', {}, true],
		['a!=b', { a: 'b' }, false],
		['a', { a: '' }, true],
		['a', {}, false],
		['!a', {}, true],
		['! a', { a: 'x' }, false],
		['a in (x,y)', { a: 'y' }, true],
		['a in ( x , y )', { a: 'x' }, true],
		['a in (x,)', { a: '' }, true],
		['a in ()', { a: '' }, true],
		['a notin (x,y)', { a: 'y' }, false],
		['a notin (x,y)', {}, true],
		['a=b, c in (x,y), !d', { a: 'b', c: 'y' }, true],
		['a=b, c in (x,y), !d', { a: 'b', c: 'y', d: '' }, false],
		['n>5', { n: '10' }, true],
		['n>5', { n: 'x' }, false],
		['n<5', { n: '4' }, true],
		['n<5', { n: '5' }, false],
		['app.kubernetes.io/name=web', { 'app.kubernetes.io/name': 'web' }, true],
		['in in (in,notin)', { in: 'in' }, true],
		['toString', {}, false],
	]
	for (const [text, labels, want] of table) assert.equal(matches(parseSelector(text), labels), want, text)
})

test('a bad label selector is a BadRequest that says why', () => {
	const table: [string, RegExp][] = [
		['a=b,', /expected a label key, found the end/],
		['=b', /expected a label key, found "="/],
		['a b', /expected an operator/],
		['a in x', /expected "\("/],
		['a in (x', /found the end/],
		['a=b=c', /expected ","/],
		['-a=b', /label key "-a"/],
		['a=b c', /expected ","/],
		['a=/x', /label value "\/x"/],
		['n>x', /not an integer/],
		['x/y/z', /label key/],
		[`${'a'.repeat(64)}`, /at most 63/],
	]
	for (const [text, why] of table) {
		assert.throws(
			() => parseSelector(text),
			(e) => isFailure(e, 'BadRequest') && why.test(e.message),
			text,
		)
	}
})

test('format then parse is the same selector', () => {
	const word = fc.stringMatching(/^[a-z0-9]([-a-z0-9_.]{0,5}[a-z0-9])?$/)
	const plain = { noNullPrototype: true }
	const requirement = fc.oneof(
		fc.record(
			{
				key: word,
				operator: fc.constantFrom('In' as const, 'NotIn' as const),
				values: fc.uniqueArray(word, { minLength: 1, maxLength: 3 }).map((v) => v.toSorted()),
			},
			plain,
		),
		fc.record(
			{ key: word, operator: fc.constantFrom('Exists' as const, 'DoesNotExist' as const), values: fc.constant([]) },
			plain,
		),
	)
	fc.assert(
		fc.property(fc.array(requirement), (selector: Selector) => {
			assert.deepEqual(parseSelector(formatSelector(selector)), selector)
		}),
	)
})

test('any text is read or refused', () => {
	fc.assert(
		fc.property(fc.oneof(fc.string(), fc.stringMatching(/^[ab(),!=<> in]*$/)), (text) => {
			for (const parse of [parseSelector, parseFieldSelector]) {
				try {
					parse(text)
				} catch (e) {
					assert.ok(isFailure(e, 'BadRequest'))
				}
			}
		}),
	)
})

test('label selectors, object form', () => {
	assert.equal(matchesLabelSelector({}, undefined), true)
	assert.equal(matchesLabelSelector(undefined, { a: 'b' }), false)
	const selector = {
		matchLabels: { a: 'b' },
		matchExpressions: [
			{ key: 'c', operator: 'In' as const, values: ['x'] },
			{ key: 'd', operator: 'DoesNotExist' as const },
		],
	}
	assert.equal(matchesLabelSelector(selector, { a: 'b', c: 'x' }), true)
	assert.equal(matchesLabelSelector(selector, { a: 'b', c: 'x', d: '1' }), false)
	assert.equal(formatSelector(selectorOf(selector)), 'a=b,c=x,!d')
	assert.equal(matchesLabels({ a: 'b' }, { a: 'b', c: 'd' }), true)
	assert.equal(matchesLabels({ a: 'b' }, undefined), false)
	assert.equal(matchesLabels({}, undefined), true)
})

test('field selectors', () => {
	const pod = {
		apiVersion: 'v1',
		kind: 'Pod',
		metadata: { name: 'web', namespace: 'default' },
		spec: { nodeName: 'node-1' },
		status: { phase: 'Running' },
	} as KubeObject
	const table: [string, boolean][] = [
		['', true],
		['metadata.name=web', true],
		['metadata.name==web,spec.nodeName=node-1', true],
		['status.phase!=Running', false],
		['status.podIP=', true],
		['spec.nodeName!=', true],
		['spec.hostNetwork=false', true],
		['metadata.name=a\\,b', false],
	]
	for (const [text, want] of table) assert.equal(matchesFields(parseFieldSelector(text), pod), want, text)
	assert.deepEqual(parseFieldSelector('a=x\\,y\\=z\\\\'), [{ field: 'a', equal: true, value: 'x,y=z\\' }])
	const job = { apiVersion: 'batch/v1', kind: 'Job', metadata: { name: 'j' }, status: { succeeded: 2 } } as KubeObject
	assert.equal(matchesFields(parseFieldSelector('status.successful=2'), job), true)
	assert.throws(() => parseFieldSelector('web'), /is not field=value/)
})
