// Reads a story: the objects of a cluster as a live API server would hold them, with the line of every field.

import { readFileSync } from 'node:fs'
import { basename } from 'node:path'
import { isMap, isPair, isScalar, isSeq, LineCounter, type Node, parseAllDocuments } from 'yaml'
import type { KubeObject } from '../../src/kube/objects/meta.ts'
import { type ClusterState, emptyState, type ObjectSource, setObject } from '../../src/model/state.ts'

/** The state that the files describe, later files over earlier ones. Sources name the file without its folder. */
export function loadState(...files: readonly string[]): ClusterState {
	let state = emptyState()
	for (const file of files) {
		const counter = new LineCounter()
		for (const document of parseAllDocuments(readFileSync(file, 'utf8'), { lineCounter: counter })) {
			if (document.errors.length > 0) throw new Error(`${file}: ${document.errors[0]!.message}`)
			if (document.contents === null) continue
			const lines: Record<string, number> = {}
			number(document.contents as unknown as Node, '', counter, lines)
			const source: ObjectSource = { file: basename(file), lines }
			state = setObject(state, document.toJS() as KubeObject, source)
		}
	}
	return state
}

function number(node: Node, path: string, counter: LineCounter, lines: Record<string, number>): void {
	lines[path] ??= counter.linePos(node.range![0]).line
	if (isSeq(node)) for (const [i, item] of node.items.entries()) number(item as Node, `${path}[${i}]`, counter, lines)
	if (!isMap(node)) return
	for (const pair of node.items) {
		if (!isPair(pair) || !isScalar(pair.key)) continue
		const key = String(pair.key.value)
		const at = path === '' ? key : `${path}.${key}`
		lines[at] = counter.linePos((pair.key as Node).range![0]).line
		if (pair.value !== null) number(pair.value as Node, at, counter, lines)
	}
}
