// Traffic that does not stop, from inside a namespace: a new connection every few milliseconds, and what became of each.

import { type ChildProcess, spawn } from 'node:child_process'
import { inNetnsAt } from '../../src/linux/netns.ts'

export interface Tally {
	/** Connections that came about, or that the pod's own kernel refused: the packet got through both ways. */
	readonly reached: number
	/** Without an answer in time, or refused by the network on the way. */
	readonly failed: number
	readonly errors: Readonly<Record<string, number>>
}

export interface Traffic {
	/** So far. */
	tally(): Promise<Tally>
	stop(): Promise<Tally>
}

const program = `
	const net = require('node:net')
	const [targets, every, patience] = JSON.parse(process.argv[1])
	let reached = 0, failed = 0, n = 0
	const errors = {}
	const say = () => console.log(JSON.stringify({ reached, failed, errors }))
	setInterval(() => {
		const [host, port] = targets[n++ % targets.length]
		const s = net.connect({ host, port })
		let done = false
		const end = (ok, why) => { if (done) return; done = true; s.destroy(); if (ok) reached++; else { failed++; errors[why] = (errors[why] ?? 0) + 1 } }
		s.on('connect', () => end(true)).on('error', (e) => end(e.code === 'ECONNREFUSED', e.code))
		setTimeout(() => end(false, 'timeout'), patience)
	}, every)
	process.stdin.on('data', say)
	process.stdin.on('end', () => { setTimeout(() => { say(); process.exit() }, patience + 50) })
	process.stdin.resume()`

/** A connection to one target after the other, every `every` milliseconds; each has `patience` milliseconds. */
export function startTraffic(
	netns: string,
	targets: readonly (readonly [host: string, port: number])[],
	{ every = 4, patience = 400 }: { every?: number; patience?: number } = {},
): Traffic {
	const child: ChildProcess = inNetnsAt(netns, () =>
		spawn(process.execPath, ['-e', program, JSON.stringify([targets, every, patience])], {
			stdio: ['pipe', 'pipe', 'inherit'],
		}),
	)
	let heard = ''
	const waiting: ((tally: Tally) => void)[] = []
	child.stdout?.on('data', (chunk) => {
		heard += chunk
		for (let end = heard.indexOf('\n'); end >= 0; end = heard.indexOf('\n')) {
			waiting.shift()?.(JSON.parse(heard.slice(0, end)) as Tally)
			heard = heard.slice(end + 1)
		}
	})
	const next = () => new Promise<Tally>((resolve) => waiting.push(resolve))
	return {
		tally() {
			const told = next()
			child.stdin?.write('?\n')
			return told
		},
		stop() {
			const told = next()
			child.stdin?.end()
			return told
		},
	}
}
