import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Outcome } from '../dataplane/dataplane.ts'
import { createPlane, PlaneFailure } from './plane.ts'

/** A kernel that holds one text; a change is the text wanted. */
function fakeKernel() {
	const kernel = { holds: '', reads: 0, refuse: undefined as Error | undefined }
	const plane = createPlane<string, string>('fake', {
		diff: (have, want) => (have === want ? [] : [want]),
		async apply(changes): Promise<Outcome> {
			if (kernel.refuse !== undefined) return { ok: false, error: kernel.refuse, applied: 0 }
			kernel.holds = changes.at(-1) as string
			return { ok: true }
		},
		async read() {
			kernel.reads++
			return kernel.holds
		},
	})
	return { kernel, plane }
}

test('what is installed is read once, then the difference is taken in memory', async () => {
	const { kernel, plane } = fakeKernel()
	kernel.holds = 'a'
	assert.equal(await plane.bring('a'), 0, 'a restart changes nothing')
	assert.equal(await plane.bring('b'), 1)
	assert.equal(await plane.bring('c'), 1)
	assert.equal(kernel.reads, 1)
	assert.equal(kernel.holds, 'c')
})

test('after a refusal the kernel is read before the next try', async () => {
	const { kernel, plane } = fakeKernel()
	await plane.bring('a')
	kernel.refuse = new Error('no memory')
	await assert.rejects(plane.bring('b'), (e) => e instanceof PlaneFailure && e.message === 'no memory' && !e.partial)
	kernel.refuse = undefined
	kernel.holds = 'half'
	assert.equal(await plane.bring('b'), 1)
	assert.equal(kernel.reads, 2)
})

test('drift is found and repaired; nothing wanted yet is no drift', async () => {
	const { kernel, plane } = fakeKernel()
	assert.equal(await plane.repair(), 0)
	await plane.bring('a')
	assert.equal(await plane.repair(), 0)
	kernel.holds = 'flushed by hand'
	assert.equal(await plane.repair(), 1)
	assert.equal(kernel.holds, 'a')
})
