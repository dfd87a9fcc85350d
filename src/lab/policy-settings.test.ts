import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { labPathsIn } from './paths.ts'
import { policyStatusOf, readPolicySettings, settlePolicySettings } from './policy-settings.ts'

test('what is asked for is kept, what is not stays, a profile says the rest', () => {
	const root = mkdtempSync(join(tmpdir(), 'pw-'))
	try {
		const paths = labPathsIn('x', root, root)
		const after = (choice: Parameters<typeof settlePolicySettings>[1]) => {
			const settled = settlePolicySettings(paths, choice)
			assert.deepEqual(readPolicySettings(paths), settled)
			return policyStatusOf(settled)
		}
		assert.deepEqual(after({}), { profile: 'default', cutEstablished: false })
		assert.deepEqual(after({ profile: 'cilium-like' }), { profile: 'cilium-like', cutEstablished: true })
		assert.deepEqual(after({ cutEstablished: false }), { profile: 'cilium-like', cutEstablished: false })
		assert.deepEqual(after({}), { profile: 'cilium-like', cutEstablished: false })
		assert.deepEqual(after({ profile: 'calico-like' }), { profile: 'calico-like', cutEstablished: false })
		assert.deepEqual(after({ profile: 'default', cutEstablished: true }), { profile: 'default', cutEstablished: true })
		writeFileSync(paths.policies, '{"profile": "no such"}\n')
		assert.deepEqual(after({}), { profile: 'default', cutEstablished: false })
	} finally {
		rmSync(root, { recursive: true, force: true })
	}
})
