import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Clock } from '../base/clock.ts'
import { createWorkQueue } from './queue.ts'

/** A clock that stands still until told. */
export function heldClock(): Clock & { advance(ms: number): void } {
	let now = 0
	let tasks: { at: number; task: () => void }[] = []
	return {
		now: () => now,
		after(ms, task) {
			const entry = { at: now + ms, task }
			tasks.push(entry)
			return () => {
				tasks = tasks.filter((t) => t !== entry)
			}
		},
		advance(ms) {
			now += ms
			const due = tasks.filter((t) => t.at <= now).sort((a, b) => a.at - b.at)
			tasks = tasks.filter((t) => t.at > now)
			for (const { task } of due) task()
		},
	}
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

test('a burst of one key is handled once, and once more when it is added while it runs', async () => {
	const seen: string[] = []
	let release: () => void = () => {}
	const queue = createWorkQueue({
		clock: heldClock(),
		parallel: 2,
		async handle(key) {
			seen.push(key)
			await new Promise<void>((resolve) => {
				release = resolve
			})
			return undefined
		},
		failed: () => assert.fail(),
	})
	for (let i = 0; i < 100; i++) queue.add('a')
	await turn()
	assert.deepEqual(seen, ['a'])
	queue.add('a')
	queue.add('a')
	await turn()
	assert.deepEqual(seen, ['a'], 'not twice at once')
	release()
	await turn()
	assert.deepEqual(seen, ['a', 'a'])
	assert.equal(queue.idle(), false)
	release()
	await turn()
	assert.equal(queue.idle(), true)
	assert.deepEqual(seen, ['a', 'a'])
})

test('no more keys at once than allowed', async () => {
	let now = 0
	let most = 0
	let done = 0
	const queue = createWorkQueue({
		clock: heldClock(),
		parallel: 3,
		async handle() {
			most = Math.max(most, ++now)
			await turn()
			now--
			done++
			return undefined
		},
		failed: () => assert.fail(),
	})
	for (let i = 0; i < 20; i++) queue.add(`k${i}`)
	while (!queue.idle()) await turn()
	assert.equal(most, 3)
	assert.equal(done, 20)
})

test('a failing key comes back after 5, 10, 20 ms; a success forgets the failures', async () => {
	const clock = heldClock()
	const at: number[] = []
	let broken = true
	const queue = createWorkQueue({
		clock,
		parallel: 1,
		async handle() {
			at.push(clock.now())
			if (broken) throw new Error('no')
			return undefined
		},
		failed: () => {},
	})
	queue.add('a')
	await turn()
	for (let i = 0; i < 40; i++) {
		if (clock.now() === 34) broken = false
		clock.advance(1)
		await turn()
	}
	assert.deepEqual(at, [0, 5, 15, 35])
	assert.equal(queue.idle(), true)
	broken = true
	queue.add('a')
	await turn()
	clock.advance(5)
	await turn()
	assert.deepEqual(at, [0, 5, 15, 35, 40, 45])
})

test('the earlier of two dates counts, and a stopped queue does nothing', async () => {
	const clock = heldClock()
	const at: number[] = []
	const queue = createWorkQueue({
		clock,
		parallel: 1,
		async handle() {
			at.push(clock.now())
			return undefined
		},
		failed: () => {},
	})
	queue.addAfter('a', 50)
	queue.addAfter('a', 10)
	queue.addAfter('a', 100)
	assert.equal(queue.idle(), true, 'a date is no work')
	clock.advance(10)
	await turn()
	clock.advance(100)
	await turn()
	assert.deepEqual(at, [10])
	queue.stop()
	queue.add('a')
	await turn()
	assert.deepEqual(at, [10])
})
