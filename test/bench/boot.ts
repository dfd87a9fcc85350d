// P5: from the command to a ready cluster, as a user sees it: `podwire up` as a process of its own, with a home of its own.

import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { application, skip as noBoutique } from '../boutique.ts'
import type { Row } from './row.ts'
import { median } from './row.ts'

const command = join(import.meta.dirname, '../../bin/podwire.js')
const shop = join(import.meta.dirname, '../../examples/shop')

interface Boot {
	readonly seconds: number
	readonly pods: number
	/** Kernel memory that was not there before, bytes. */
	readonly kernelBytes: number
}

export async function run(options: { full: boolean }): Promise<readonly Row[]> {
	const rows: Row[] = []
	const repeats = 5
	rows.push(bootRow('3 nodes, no manifests', [], repeats))
	rows.push(
		noBoutique === false
			? { ...bootRow('3 nodes and Online Boutique, command to ready', ['-f', application], repeats), bar: '≤ 2 s' }
			: bootRow(
					'3 nodes and the example shop (Online Boutique is not on this machine), command to ready',
					['-f', shop],
					repeats,
				),
	)
	for (const count of options.full ? [250, 500, 1000] : [250, 1000]) {
		const { seconds, kernelBytes, pods } = bootMany(count, count === 1000 && options.full ? 3 : 1)
		rows.push({
			group: 'boot',
			name: `${count} pods in 10 Deployments on 5 nodes, command to ready`,
			unit: 's',
			ours: median(seconds),
			spread: [Math.min(...seconds), Math.max(...seconds)],
			repeats: seconds.length,
			...(count === 1000 ? { bar: '≤ 10 s' } : {}),
			note: `${(pods / median(seconds)).toFixed(0)} pods/s (KWOK publishes 20); ${(kernelBytes / pods / 2 ** 20).toFixed(2)} MiB kernel memory a pod (bar ≤ 0.5)`,
		})
	}
	return rows
}

function bootRow(name: string, args: readonly string[], repeats: number): Row {
	bootOnce(args)
	const boots = Array.from({ length: repeats }, () => bootOnce(args))
	const seconds = boots.map((b) => b.seconds)
	return {
		group: 'boot',
		name,
		unit: 's',
		ours: median(seconds),
		spread: [Math.min(...seconds), Math.max(...seconds)],
		repeats,
		note: `${boots[0]?.pods} pods; published for kind: 12 to 17 s`,
	}
}

export function bootMany(count: number, repeats: number): { seconds: number[]; kernelBytes: number; pods: number } {
	const folder = mkdtempSync(join(tmpdir(), 'podwire-bench-'))
	try {
		const file = join(folder, 'many.yaml')
		const each = count / 10
		writeFileSync(file, Array.from({ length: 10 }, (_, i) => deployment(`app-${i}`, each)).join('---\n'))
		const boots = Array.from({ length: repeats }, () => bootOnce(['--nodes', '5', '--timeout', '2m', '-f', file]))
		return {
			seconds: boots.map((b) => b.seconds),
			kernelBytes: median(boots.map((b) => b.kernelBytes)),
			pods: boots[0]?.pods ?? count,
		}
	} finally {
		rmSync(folder, { recursive: true, force: true })
	}
}

function deployment(name: string, replicas: number): string {
	return `apiVersion: apps/v1
kind: Deployment
metadata: { name: ${name} }
spec:
  replicas: ${replicas}
  selector: { matchLabels: { app: ${name} } }
  template:
    metadata: { labels: { app: ${name} } }
    spec:
      containers: [{ name: main, image: example.com/${name}, ports: [{ containerPort: 8080 }] }]
`
}

/** Up, measured around the command; then down. Throws with the command's own words. */
export function bootOnce(args: readonly string[]): Boot {
	const home = mkdtempSync(join(tmpdir(), 'podwire-bench-'))
	const env = {
		...process.env,
		XDG_STATE_HOME: join(home, 'state'),
		XDG_RUNTIME_DIR: join(home, 'run'),
		KUBECONFIG: join(home, 'kubeconfig'),
		PODWIRE_NAME: 'bench',
	}
	try {
		const before = kernelMemory()
		const begun = performance.now()
		const up = spawnSync(process.execPath, [command, 'up', '-o', 'json', ...args], {
			env,
			encoding: 'utf8',
			maxBuffer: 64 << 20,
		})
		const seconds = (performance.now() - begun) / 1000
		if (up.status !== 0) throw new Error(`podwire up ended with ${up.status}: ${up.stderr}`)
		const kernelBytes = kernelMemory() - before
		const document = JSON.parse(up.stdout) as { readiness?: { ready: number } }
		return { seconds, pods: document.readiness?.ready ?? 0, kernelBytes }
	} finally {
		spawnSync(process.execPath, [command, 'down', '-q'], { env })
		rmSync(home, { recursive: true, force: true })
	}
}

/** What the kernel holds for itself: slab, per-CPU data, kernel stacks. */
function kernelMemory(): number {
	const text = readFileSync('/proc/meminfo', 'utf8')
	return ['Slab', 'Percpu', 'KernelStack'].reduce(
		(sum, name) => sum + Number(new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(text)?.[1] ?? 0) * 1024,
		0,
	)
}
