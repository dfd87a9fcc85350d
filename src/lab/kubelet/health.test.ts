import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Clock } from '../../base/clock.ts'
import type { Container } from '../../kube/objects/pod.ts'
import { type ContainerHealth, type HealthOptions, watchHealth } from './health.ts'
import { grpcResult, healthRequest, portOf } from './probe-check.ts'

/** Time that moves only by `pass`, which lets everything that follows from it happen. */
function heldClock(): Clock & { readonly pass: (ms: number) => Promise<void>; readonly timers: number } {
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
		get timers() {
			return due.size
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

function watch(container: Partial<Container>, more: Partial<HealthOptions> = {}) {
	const clock = heldClock()
	const seen = {
		answers: new Map<number | string | undefined, boolean>(),
		asked: [] as string[],
		killed: [] as string[],
	}
	const made = watchHealth(
		{ name: 'c', ...container },
		{
			clock,
			skipDelay: false,
			before: undefined,
			async check(probe) {
				// The test says what the answers are before the first is read.
				await Promise.resolve()
				const port = probe.tcpSocket?.port
				seen.asked.push(`${clock.now() / 1000}:${port}`)
				return { ok: seen.answers.get(port) ?? true }
			},
			postStart: async () => ({ ok: seen.answers.get('hook') ?? true }),
			changed() {},
			unhealthy() {},
			kill: (why) => void seen.killed.push(`${clock.now() / 1000}:${why}`),
			...more,
		},
	)
	const health = (): ContainerHealth => made.health
	return { clock, seen, health, stop: () => made.stop(), terminate: () => made.terminate() }
}
const probe = (port: number, more: object = {}) => ({ tcpSocket: { port }, periodSeconds: 10, ...more })

test('without probes it is healthy at once, and no timer is set', async () => {
	const { clock, health } = watch({})
	assert.deepEqual(health(), { started: true, ready: true })
	assert.equal(clock.timers, 0)
})

test('readiness follows its thresholds both ways', async () => {
	const { clock, seen, health } = watch({ readinessProbe: probe(1, { failureThreshold: 2, successThreshold: 2 }) })
	await clock.pass(0)
	assert.equal(health().ready, false, 'one success of two')
	await clock.pass(10_000)
	assert.equal(health().ready, true)
	seen.answers.set(1, false)
	await clock.pass(10_000)
	assert.equal(health().ready, true, 'one failure of two')
	await clock.pass(10_000)
	assert.equal(health().ready, false)
	assert.deepEqual(seen.killed, [])
	assert.deepEqual(seen.asked, ['0:1', '10:1', '20:1', '30:1'])
})

test('a startup probe holds the others back; its failures end the run', async () => {
	const { clock, seen, health } = watch({
		startupProbe: probe(1, { failureThreshold: 3 }),
		livenessProbe: probe(2),
		readinessProbe: probe(3),
	})
	seen.answers.set(1, false)
	await clock.pass(10_000)
	assert.deepEqual(health(), { started: false, ready: false })
	seen.answers.set(1, true)
	await clock.pass(10_000)
	assert.deepEqual(health(), { started: true, ready: true })
	const failing = watch({ startupProbe: probe(1) })
	failing.seen.answers.set(1, false)
	await failing.clock.pass(60_000)
	assert.deepEqual(failing.seen.killed, ['20:Startup'])
})

test('liveness waits its initial delay, unless there is nothing to initialise', async () => {
	const container = { livenessProbe: probe(1, { initialDelaySeconds: 15, failureThreshold: 1 }) }
	const real = watch(container)
	real.seen.answers.set(1, false)
	await real.clock.pass(60_000)
	assert.deepEqual(real.seen.killed, ['15:Liveness'])
	const standIn = watch(container, { skipDelay: true })
	standIn.seen.answers.set(1, false)
	await standIn.clock.pass(60_000)
	assert.deepEqual(
		standIn.seen.killed.map((k) => k.split(':')[1]),
		['Liveness'],
	)
	assert.equal(standIn.seen.asked[0], '0:1')
})

test('a failed postStart ends the run; what was healthy before a restart of ours stays so', async () => {
	const hooked = { lifecycle: { postStart: { exec: { command: ['x'] } } } }
	const failed = watch(hooked, { postStart: async () => ({ ok: false }) })
	await failed.clock.pass(0)
	assert.deepEqual(failed.seen.killed, ['0:PostStartHook'])
	const before = { started: true, ready: true }
	const kept = watch({ ...hooked, readinessProbe: probe(1, { initialDelaySeconds: 5 }) }, { before })
	assert.deepEqual(kept.health(), before)
	kept.stop()
	await kept.clock.pass(60_000)
	assert.deepEqual(kept.seen.asked, [], 'stopped')
})

test('gRPC health messages', () => {
	assert.equal(healthRequest('').toString('hex'), '0000000000')
	assert.equal(healthRequest('ab').toString('hex'), '00000000040a026162')
	assert.equal(healthRequest('x'.repeat(200)).subarray(0, 8).toString('hex'), '00000000cb0ac801')
	for (const [status, body, ok] of [
		['0', '00000000020801', true],
		['0', '00000000020802', false],
		['0', '0000000000', false],
		['12', '', false],
		[undefined, '00000000020801', false],
	] as const) {
		assert.equal(grpcResult(200, status, Buffer.from(body, 'hex')).ok, ok, `${status} ${body}`)
	}
})

test('a port by number, by name, by number as text', () => {
	const container = { name: 'c', ports: [{ name: 'web', containerPort: 8080 }] }
	assert.equal(portOf(80, container), 80)
	assert.equal(portOf('web', container), 8080)
	assert.equal(portOf('81', container), 81)
	assert.throws(() => portOf('nope', container), /couldn't find port: "nope"/)
})

test('while the pod ends readiness is asked on, liveness and startup are not', async () => {
	const { clock, seen, health, terminate } = watch({ readinessProbe: probe(1), livenessProbe: probe(2) })
	await clock.pass(1_000)
	terminate()
	seen.asked.length = 0
	seen.answers.set(1, false).set(2, false)
	await clock.pass(60_000)
	assert.deepEqual(seen.asked, ['10:1', '20:1', '30:1', '40:1', '50:1', '60:1'])
	assert.deepEqual(health(), { started: true, ready: false })
	assert.deepEqual(seen.killed, [])
	const starting = watch({ startupProbe: probe(3) })
	starting.seen.answers.set(3, false)
	await starting.clock.pass(1_000)
	starting.terminate()
	await starting.clock.pass(100_000)
	assert.deepEqual(starting.seen.asked, ['0:3'])
	assert.deepEqual(starting.seen.killed, [])
})
