// Who hears TERM when: hooks at once, sidecars last and backwards, everything within the grace period.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Clock } from '../../base/clock.ts'
import type { Container } from '../../kube/objects/pod.ts'
import { endContainers } from './termination.ts'

/** Time that moves only by `pass`, in whole steps, everything that follows from a step happening before the next. */
function heldClock(): Clock & { readonly pass: (ms: number) => Promise<void> } {
	let now = 0
	const due = new Set<{ readonly at: number; readonly task: () => void }>()
	const settle = () => new Promise<void>((resolve) => setImmediate(resolve))
	return {
		now: () => now,
		after(ms, task) {
			const entry = { at: now + ms, task }
			due.add(entry)
			return () => due.delete(entry)
		},
		async pass(ms) {
			const end = now + ms
			await settle()
			for (;;) {
				const next = [...due].sort((a, b) => a.at - b.at)[0]
				if (next === undefined || next.at > end) break
				due.delete(next)
				now = next.at
				next.task()
				await settle()
			}
			now = end
		},
	}
}

/** Seconds: how long a hook takes, how long a container takes after TERM, when nobody sends there any more. */
interface Case {
	readonly what: string
	readonly grace: number
	readonly main: Readonly<Record<string, { readonly hook?: number; readonly end?: number }>>
	readonly sidecars?: Readonly<Record<string, { readonly hook?: number; readonly end?: number }>>
	readonly ready?: number
	readonly shorten?: { readonly at: number; readonly to: number }
	/** `second:what container`, in order. */
	readonly heard: readonly string[]
}

const never = Number.POSITIVE_INFINITY
const cases: readonly Case[] = [
	{
		what: 'TERM at once',
		grace: 30,
		main: { a: {}, b: {} },
		heard: ['0:TERM a 30', '0:over a', '0:TERM b 30', '0:over b'],
	},
	{
		what: 'grace 0: killed, no hook, no order',
		grace: 0,
		main: { a: { hook: 5, end: never } },
		sidecars: { s: {} },
		heard: ['0:KILL a', '0:over a', '0:KILL s', '0:over s'],
	},
	{
		what: 'a hook first, its time is part of the grace',
		grace: 30,
		main: { a: { hook: 10, end: 1 }, b: {} },
		heard: ['0:hook a', '0:TERM b 30', '0:over b', '10:TERM a 20', '11:over a'],
	},
	{
		what: 'a hook without end is left, two seconds remain',
		grace: 5,
		main: { a: { hook: never, end: never } },
		heard: ['0:hook a', '5:TERM a 2', '7:over a'],
	},
	{
		what: 'not before nobody sends there any more',
		grace: 30,
		main: { a: {} },
		ready: 3,
		heard: ['3:TERM a 27', '3:over a'],
	},
	{
		what: 'sidecars after the others, the last first; their hooks with all',
		grace: 30,
		main: { a: { end: 4 } },
		sidecars: { s: { hook: 1, end: 1 }, t: { end: 2 } },
		heard: ['0:hook s', '0:TERM a 30', '4:over a', '4:TERM t 26', '6:over t', '6:TERM s 24', '7:over s'],
	},
	{
		what: 'a hook of a sidecar that takes longer than its turn',
		grace: 30,
		main: { a: { end: 1 } },
		sidecars: { s: { hook: 9 } },
		heard: ['0:hook s', '0:TERM a 30', '1:over a', '9:TERM s 21', '9:over s'],
	},
	{
		what: 'sidecars whose turn never comes',
		grace: 5,
		main: { a: { end: never } },
		sidecars: { s: { end: never } },
		heard: ['0:TERM a 5', '5:TERM s 2', '5:over a', '7:over s'],
	},
	{
		what: 'deleted again with less patience',
		grace: 30,
		main: { a: { end: never } },
		sidecars: { s: { end: never } },
		shorten: { at: 3, to: 1 },
		heard: ['0:TERM a 30', '4:KILL a', '4:over a', '4:KILL s', '4:over s'],
	},
	{
		what: 'more patience changes nothing',
		grace: 5,
		main: { a: { end: never } },
		shorten: { at: 3, to: 60 },
		heard: ['0:TERM a 5', '5:over a'],
	},
]

for (const one of cases) {
	test(`end of containers: ${one.what}`, async () => {
		const clock = heldClock()
		const heard: string[] = []
		const say = (text: string) => heard.push(`${clock.now() / 1000}:${text}`)
		const behaviour = { ...one.main, ...one.sidecars }
		const over = new Map<string, () => void>()
		const later = (seconds: number) =>
			new Promise<void>((resolve) => {
				if (seconds === 0) resolve()
				else if (seconds !== never) clock.after(seconds * 1000, resolve)
			})
		const ending = endContainers({
			clock,
			grace: one.grace * 1000,
			initContainers: Object.keys(one.sidecars ?? {}).map((name): Container => ({ name, restartPolicy: 'Always' })),
			containers: Object.keys(one.main).map((name): Container => ({ name })),
			async preStop({ name }, signal) {
				const { hook } = behaviour[name] ?? {}
				if (hook === undefined) return
				say(`hook ${name}`)
				await Promise.race([later(hook), new Promise((resolve) => signal.addEventListener('abort', resolve))])
			},
			ready: () => later(one.ready ?? 0),
			stop({ name }, grace) {
				const known = over.get(name)
				if (grace === 0) say(`KILL ${name}`)
				else if (known === undefined) say(`TERM ${name} ${grace / 1000}`)
				if (known !== undefined) {
					known()
					return Promise.resolve()
				}
				return new Promise<void>((resolve) => {
					let isOver = false
					const end = () => {
						if (isOver) return
						isOver = true
						say(`over ${name}`)
						resolve()
					}
					over.set(name, end)
					const seconds = Math.min(behaviour[name]?.end ?? 0, grace / 1000)
					if (seconds === 0) end()
					else clock.after(seconds * 1000, end)
				})
			},
		})
		let done = false
		void ending.done.then(() => {
			done = true
		})
		if (one.shorten !== undefined) {
			await clock.pass(one.shorten.at * 1000)
			ending.shorten(clock.now() + one.shorten.to * 1000)
		}
		await clock.pass(60_000)
		assert.deepEqual(heard, one.heard)
		assert.equal(done, true)
	})
}
