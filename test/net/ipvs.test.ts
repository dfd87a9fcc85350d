// Services by IPVS. Kernels often lack it: then in a virtual machine with Debian's kernel, by emulation, where the same
// sources run the same suite (test/vm). That takes a minute or more: only with PODWIRE_VM=1 (CONTRIBUTING.md).

import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { createIpvs, ipvsUsable } from '../../src/dataplane/ipvs/ipvs.ts'
import { runInGuest } from '../vm/machine.ts'
import { fetchGuest, type Guest } from '../vm/packages.ts'
import { readTap } from '../vm/tap.ts'
import { runServicesSuite } from './services-suite.ts'
import { reasonToSkip } from './services-world.ts'

const unusable = reasonToSkip() || ((await ipvsUsable()) ?? false)

runServicesSuite('ipvs', { make: async (options) => [createIpvs({ ...options, scheduler: () => 'mh' })], unusable })

const asked = process.env.PODWIRE_VM === '1'
const guest = asked ? fetchGuest() : { unusable: 'set PODWIRE_VM=1 to run it' }
const skip = 'unusable' in guest ? guest.unusable : false

describe('in a virtual machine', { skip }, () => {
	it('our messages, as ipvsadm and ipset tell it', async (t) => {
		await replay(t, 'test/vm/inside/codec.ts', 120)
	})

	it('the suite of Services by IPVS', async (t) => {
		await replay(t, 'test/vm/inside/suite.ts', 600)
	})
})

interface Context {
	test(name: string, options: { skip?: string | false }, run: () => void): Promise<void>
}

/** Every test of the program inside is one here, passed, failed or skipped with its reason. */
async function replay(t: Context, entry: string, seconds: number): Promise<void> {
	const {
		lines,
		code,
		seconds: took,
	} = await runInGuest(guest as Guest, entry, { seconds, args: ['--test-reporter=tap'] })
	const results = readTap(lines)
	for (const { name, ok, skipped, why } of results) {
		await t.test(name, { skip: skipped ?? false }, () => assert.ok(ok, why))
	}
	assert.notEqual(code, undefined, `the machine did not come to an end in ${took} s:\n${lines.slice(-30).join('\n')}`)
	assert.ok(results.length > 0, lines.join('\n'))
}
