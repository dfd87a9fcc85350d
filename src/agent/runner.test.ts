import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Clock } from '../base/clock.ts'
import { createRunner } from './runner.ts'

/** A clock that stands still until it is moved. */
function handClock(): Clock & { move(ms: number): void } {
	let now = 0
	let timers: { at: number; task: () => void }[] = []
	return {
		now: () => now,
		after(ms, task) {
			const timer = { at: now + ms, task }
			timers.push(timer)
			return () => {
				timers = timers.filter((t) => t !== timer)
			}
		},
		move(ms) {
			now += ms
			const due = timers.filter((t) => t.at <= now)
			timers = timers.filter((t) => t.at > now)
			for (const timer of due) timer.task()
		},
	}
}
const turn = () => new Promise((resolve) => setImmediate(resolve))

test('the first change goes at once, those of the same turn with it, later ones are gathered', async () => {
	const clock = handClock()
	let runs = 0
	const runner = createRunner(clock, 10, async () => {
		runs++
		return undefined
	})
	runner.trigger()
	runner.trigger()
	assert.equal(runs, 0, 'not within the caller')
	await turn()
	assert.equal(runs, 1)
	await turn()
	runner.trigger()
	runner.trigger()
	await turn()
	assert.equal(runs, 1, 'the interval is not over')
	clock.move(10)
	assert.equal(runs, 2)
	await turn()
	clock.move(1000)
	runner.trigger()
	await turn()
	assert.equal(runs, 3, 'after a pause at once again')
	await runner.stop()
})

test('never two at a time; what changes during a run is run after it', async () => {
	const clock = handClock()
	const gates: (() => void)[] = []
	let running = 0
	let most = 0
	const runner = createRunner(clock, 5, async () => {
		most = Math.max(most, ++running)
		await new Promise<void>((resolve) => gates.push(resolve))
		running--
		return undefined
	})
	runner.trigger()
	await turn()
	runner.trigger()
	await turn()
	assert.equal(gates.length, 1)
	gates[0]!()
	await turn()
	clock.move(5)
	await turn()
	assert.equal(gates.length, 2)
	assert.equal(most, 1)
	gates[1]!()
	await runner.stop()
})

test('a run may ask for the next one', async () => {
	const clock = handClock()
	let runs = 0
	const runner = createRunner(clock, 1, async () => (++runs === 1 ? 250 : undefined))
	runner.trigger()
	await turn()
	await turn()
	clock.move(249)
	await turn()
	assert.equal(runs, 1)
	clock.move(1)
	await turn()
	assert.equal(runs, 2)
	await runner.stop()
	clock.move(10_000)
	await turn()
	assert.equal(runs, 2)
})
