import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Origin } from '../model/origin.ts'
import { originComment, parseOrigin } from './origin.ts'

const key63 = `${'n'.repeat(63)}/${'s'.repeat(63)}`
const cases: readonly { readonly origin: Origin; readonly text: string; readonly back?: Origin }[] = [
	{
		origin: { kind: 'Service', key: 'default/web', field: 'spec.ports[0]', source: { file: 'web.yaml', line: 12 } },
		text: 'Service default/web spec.ports[0] web.yaml:12',
	},
	{ origin: { kind: 'Service', key: 'default/web' }, text: 'Service default/web' },
	{ origin: { kind: 'Node', key: 'node-1', field: 'spec' }, text: 'Node node-1 spec' },
	{
		origin: { kind: 'Service', key: 'default/web', source: { file: '/a/b c/web.yaml', line: 3 } },
		text: 'Service default/web web.yaml:3',
		back: { kind: 'Service', key: 'default/web', source: { file: 'web.yaml', line: 3 } },
	},
	{
		origin: {
			kind: 'Service',
			key: `default/${'x'.repeat(63)}`,
			source: { file: `/${'d'.repeat(60)}/web.yaml`, line: 3 },
		},
		text: `Service default/${'x'.repeat(63)} web.yaml:3`,
		back: { kind: 'Service', key: `default/${'x'.repeat(63)}`, source: { file: 'web.yaml', line: 3 } },
	},
	{
		origin: { kind: 'Service', key: key63, field: 'spec.ports[3]' },
		text: key63,
		back: { kind: 'Service', key: key63 },
	},
	{ origin: { kind: 'Pod', key: 'default/web-1', source: { file: '-', line: 9 } }, text: 'Pod default/web-1 -:9' },
]

describe('origins as comments', () => {
	for (const { origin, text, back } of cases) {
		it(`writes and reads ${text.slice(0, 60)}`, () => {
			assert.equal(originComment(origin), text)
			assert.deepEqual(parseOrigin(text), back ?? origin)
		})
	}
	it('leaves other comments alone', () => {
		for (const text of ['no endpoint', 'addresses of Services', 'the flow', 'web', ''])
			assert.equal(parseOrigin(text), undefined)
		assert.equal(originComment({ default: 'no "policy" selects the pod' }), "no 'policy' selects the pod")
	})
})
