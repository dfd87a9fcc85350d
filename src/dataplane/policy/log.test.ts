import assert from 'node:assert/strict'
import { test } from 'node:test'
import { logPrefix, logRules, parseLogPrefix } from './log.ts'

test('what is written is read', () => {
	for (const verdict of ['allow', 'deny', 'audit'] as const) {
		for (const comment of ['NetworkPolicy shop/web web.yaml:3', 'a pod that is not known', '']) {
			const chain = 'egress-kube-system-0a1b2c3d4e5f'
			const read = parseLogPrefix(logPrefix(verdict, chain, comment))
			assert.deepEqual(read, { verdict, direction: 'egress', chain, comment })
		}
	}
})

test('the longest names fit, and the chain is never what is cut', () => {
	const chain = `ingress-${'n'.repeat(63)}-0a1b2c3d4e5f`
	const prefix = logPrefix('audit', chain, `NetworkPolicy ${'n'.repeat(63)}/${'é'.repeat(100)}`)
	assert.ok(Buffer.byteLength(prefix) <= 127)
	const read = parseLogPrefix(prefix)
	assert.equal(read?.chain, chain)
	assert.match(read?.comment ?? '', /^NetworkPolicy n+\.\.\.$/)
})

test('prefixes of others are not ours', () => {
	for (const text of [
		'',
		'podwire',
		'podwire deny',
		'podwire deny forward x',
		'calico-packet: 13',
		'podwire drop ingress-a b',
	])
		assert.equal(parseLogPrefix(text), undefined, text)
})

test('a log is limited and decides nothing; none without somebody to tell', () => {
	assert.deepEqual(logRules(undefined, 'deny', 'ingress-a-b', 'x'), [])
	assert.deepEqual(logRules({ group: 5, allowed: false }, 'allow', 'ingress-a-b', 'x'), [])
	const [rule] = logRules({ group: 5, allowed: false }, 'deny', 'ingress-a-b', 'x')
	assert.deepEqual(
		rule?.expressions.map((e) => e.kind),
		['limit', 'counter', 'log'],
	)
})
