// Many connections from one pod to one Service, and whether chance alone explains who answered them.

import assert from 'node:assert/strict'
import { ProbeConnection } from '../../../src/agent/connection.ts'
import type { Ip } from '../../../src/base/ip.ts'
import { openNetns } from '../../../src/linux/netns.ts'
import { close } from '../../../src/linux/syscalls.ts'

const greeting = Buffer.from('GET / HTTP/1.1\r\nHost: law\r\nConnection: close\r\n\r\n')
const atOnce = 16

/** The names of the pods that answered, one a connection. `namespace`: path of the client's network namespace. */
export async function connectMany(
	namespace: string,
	from: Ip,
	to: Ip,
	port: number,
	count: number,
): Promise<readonly string[]> {
	const netns = openNetns(namespace)
	const answers: string[] = []
	let begun = 0
	try {
		await Promise.all(
			Array.from({ length: atOnce }, async () => {
				while (begun < count) {
					begun++
					const connection = new ProbeConnection(netns, from, 'TCP')
					try {
						const { outcome, answer } = await connection.run(to, port, 5_000, greeting)
						assert.equal(outcome, 'connected')
						answers.push(JSON.parse(answer?.toString().split('\r\n\r\n')[1] ?? '').pod)
					} finally {
						connection.close()
					}
				}
			}),
		)
	} finally {
		close(netns)
	}
	return answers
}

/**
 * Pearson's chi-squared test against equal shares: `p` is the chance that a fair choice is at least as uneven. For an
 * odd number of names: with an even number 2m of degrees of freedom the tail is exp(-x/2) times the sum of (x/2)^k/k!
 * for k < m.
 */
export function fairness(answers: readonly string[], names: readonly string[]): { p: number; text: string } {
	assert.equal(names.length % 2, 1)
	const expected = answers.length / names.length
	const counts = names.map((name) => answers.filter((a) => a === name).length)
	assert.equal(
		counts.reduce((a, b) => a + b, 0),
		answers.length,
		'a stranger answered',
	)
	const half = counts.reduce((sum, n) => sum + (n - expected) ** 2 / expected, 0) / 2
	let [term, sum] = [1, 0]
	for (let k = 0; k < (names.length - 1) / 2; k++) {
		sum += term
		term *= half / (k + 1)
	}
	const p = Math.exp(-half) * sum
	return { p, text: `${counts.join(', ')}: chi-squared ${(2 * half).toFixed(2)}, p ${p.toPrecision(3)}` }
}
