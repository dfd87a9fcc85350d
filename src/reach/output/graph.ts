// Rows as graphs for Graphviz and Mermaid. One edge stands for all rows that have the same ends.

import type { Party } from '../parties.ts'
import { endName, type ReachRow, type RowEnd } from '../table.ts'
import { folderOf, portsText } from './collapse.ts'

export interface GraphNode {
	readonly id: string
	readonly name: string
	/** Undefined: not in a namespace. */
	readonly namespace?: string
}

export interface GraphEdge {
	readonly from: string
	readonly to: string
	readonly text: string
}

export interface GraphInput {
	readonly rows: readonly ReachRow[]
	/** All of the cluster. */
	readonly parties: readonly Party[]
	/** Those that are drawn also where nobody talks to them. Undefined: all. */
	readonly alone?: (party: Party) => boolean
}

/** As a source and as a destination addresses are two nodes: nobody gets into the cluster by way of what pods may reach. */
function keyOf(end: RowEnd, side: 'from' | 'to'): string {
	return end.kind === 'outside' ? `${side} ${endName(end)}` : endName(end)
}

/** Nodes by name. A destination that all workloads, or all of a namespace, reach alike gets one edge, from all of them. */
export function graphOf({ rows, parties, alone = () => true }: GraphInput): {
	readonly nodes: readonly GraphNode[]
	readonly edges: readonly GraphEdge[]
} {
	const namespaces = new Map(parties.map((p) => [p.name, p.namespace]))
	const keys = new Map<string, string>(parties.filter(alone).map((p) => [p.name, p.name]))
	const edges: GraphEdge[] = []
	const fold = folderOf(parties)
	const groups = new Map<string, ReachRow[]>()
	for (const row of rows) {
		const id = `${keyOf(row.to, 'to')}\n${portsText(row)}`
		const group = groups.get(id)
		if (group === undefined) groups.set(id, [row])
		else group.push(row)
	}
	const add = (from: string, to: string, text: string) => edges.push({ from, to, text })
	for (const group of groups.values()) {
		const [first] = group
		const to = keyOf(first!.to, 'to')
		const text = portsText(first!)
		keys.set(to, endName(first!.to))
		const sources = new Map(group.map((row) => [keyOf(row.from, 'from'), endName(row.from)]))
		const workloads = new Set([...sources.keys()].filter((key) => namespaces.has(key)))
		for (const from of [...fold(workloads, to), ...[...sources.keys()].filter((key) => !namespaces.has(key))]) {
			keys.set(from, sources.get(from) ?? from)
			add(from, to, text)
		}
	}
	const sorted = [...keys].sort(([a], [b]) => (a < b ? -1 : 1))
	const ids = new Map(sorted.map(([key], i) => [key, `n${i}`]))
	return {
		nodes: sorted.map(([key, name]) => {
			const namespace = namespaces.get(key)
			return { id: ids.get(key)!, name, ...(namespace === undefined ? {} : { namespace }) }
		}),
		edges: edges
			.map(({ from, to, text }) => ({ from: ids.get(from)!, to: ids.get(to)!, text }))
			.sort((a, b) => order(a.from, b.from) || order(a.to, b.to) || order(a.text, b.text)),
	}
}

function order(a: string, b: string): number {
	return a.length - b.length || (a < b ? -1 : a > b ? 1 : 0)
}

/** `shop/deploy/web` within its namespace. */
export function shortName(node: GraphNode): string {
	return node.namespace === undefined ? node.name : node.name.slice(node.namespace.length + 1)
}

function byNamespace(nodes: readonly GraphNode[]): Map<string, GraphNode[]> {
	const found = new Map<string, GraphNode[]>()
	for (const node of nodes) {
		const list = found.get(node.namespace ?? '')
		if (list === undefined) found.set(node.namespace ?? '', [node])
		else list.push(node)
	}
	return found
}

export function dotGraph(input: GraphInput): string {
	const { nodes, edges } = graphOf(input)
	const quote = (text: string) => `"${text.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`
	const lines = ['digraph reach {', '  rankdir=LR', '  node [shape=box, style=rounded]']
	let cluster = 0
	for (const [namespace, members] of byNamespace(nodes)) {
		const list = members.map((node) => `${node.id} [label=${quote(shortName(node))}]`)
		if (namespace === '') lines.push(...list.map((text) => `  ${text}`))
		else
			lines.push(
				`  subgraph cluster_${cluster++} {`,
				`    label=${quote(namespace)}`,
				...list.map((text) => `    ${text}`),
				'  }',
			)
	}
	for (const { from, to, text } of edges) lines.push(`  ${from} -> ${to} [label=${quote(text)}]`)
	return `${[...lines, '}'].join('\n')}\n`
}

export function mermaidGraph(input: GraphInput): string {
	const { nodes, edges } = graphOf(input)
	const quote = (text: string) => `"${text.replaceAll('&', '#amp;').replaceAll('"', '#quot;').replaceAll('<', '#lt;')}"`
	const lines = ['flowchart LR']
	let group = 0
	for (const [namespace, members] of byNamespace(nodes)) {
		const list = members.map((node) => `${node.id}[${quote(shortName(node))}]`)
		if (namespace === '') lines.push(...list.map((text) => `  ${text}`))
		else lines.push(`  subgraph g${group++}[${quote(namespace)}]`, ...list.map((text) => `    ${text}`), '  end')
	}
	for (const { from, to, text } of edges) lines.push(`  ${from} -->|${quote(text)}| ${to}`)
	return `${lines.join('\n')}\n`
}
