// lab.json: who runs a lab, so that a crash can be told from a running lab and cleaned up after.

import { readFileSync } from 'node:fs'
import { replaceFile } from './kept.ts'
import type { LabPaths } from './paths.ts'
import type { ProcessIdentity } from './process-identity.ts'

export interface LabRecord {
	readonly name: string
	readonly daemon: ProcessIdentity
	readonly workloads?: ProcessIdentity
	readonly dataplane: 'kernel' | 'paper'
	readonly whyPaper?: string
	readonly rights: 'root' | 'user namespace' | 'none'
	readonly nodes: number
	readonly apiPort: number
	readonly startedAt: string
	readonly version: string
	/** The kernel's boot: namespaces and processes of another one are gone. */
	readonly bootId: string
}

export function writeRecord(paths: LabPaths, record: LabRecord): void {
	replaceFile(paths.record, `${JSON.stringify(record, undefined, '\t')}\n`)
}

/** undefined where there is none, or it cannot be read. */
export function readRecord(paths: LabPaths): LabRecord | undefined {
	try {
		return JSON.parse(readFileSync(paths.record, 'utf8')) as LabRecord
	} catch {
		return undefined
	}
}

export function bootId(): string {
	try {
		return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
	} catch {
		return ''
	}
}
