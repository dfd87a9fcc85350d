// A small layered drawing of the graph: columns from left to right by the longest way, edges as curves, nothing to load.
// For what a person can look at; larger graphs are for a program that draws (dot).

import type { Party } from '../parties.ts'
import type { ReachRow } from '../table.ts'
import { type GraphEdge, type GraphNode, graphOf } from './graph.ts'

const nodeHeight = 30
const rowGap = 18
const columnGap = 190
const margin = 24
const characterWidth = 7.2

export function svgGraph(rows: readonly ReachRow[], parties: readonly Party[]): string {
	const { nodes, edges } = graphOf(rows, parties)
	const layers = layersOf(nodes, edges)
	const columns: GraphNode[][] = []
	for (const node of nodes) (columns[layers.get(node.id)!] ??= []).push(node)
	arrange(columns, edges)
	const width = Math.max(80, ...nodes.map((node) => node.name.length * characterWidth + 20))
	const place = new Map<string, { x: number; y: number }>()
	const tallest = Math.max(1, ...columns.map((c) => c.length))
	for (const [i, column] of columns.entries()) {
		const top = margin + ((tallest - column.length) * (nodeHeight + rowGap)) / 2
		for (const [j, node] of column.entries())
			place.set(node.id, { x: margin + i * (width + columnGap), y: top + j * (nodeHeight + rowGap) })
	}
	const total = {
		width: Math.ceil(2 * margin + columns.length * width + Math.max(0, columns.length - 1) * columnGap + 60),
		height: Math.ceil(2 * margin + tallest * (nodeHeight + rowGap) + 20),
	}
	const lines = [
		`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${total.width} ${total.height}" width="${total.width}" height="${total.height}" font-family="ui-monospace, monospace" font-size="12">`,
		'<title>Who can talk to whom</title>',
		'<defs><marker id="a" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="#567"/></marker></defs>',
		`<rect width="${total.width}" height="${total.height}" fill="#fff"/>`,
	]
	const labels: string[] = []
	for (const edge of edges) {
		const a = place.get(edge.from)!
		const b = place.get(edge.to)!
		const { path, at } = curve(a, b, width)
		lines.push(`<path d="${path}" fill="none" stroke="#9ab" marker-end="url(#a)"/>`)
		labels.push(
			`<text x="${at.x.toFixed(1)}" y="${at.y.toFixed(1)}" text-anchor="middle" font-size="10" fill="#345" stroke="#fff" stroke-width="3" paint-order="stroke">${escapeXml(shorten(edge.text))}<title>${escapeXml(edge.text)}</title></text>`,
		)
	}
	lines.push(...labels)
	for (const node of nodes) {
		const { x, y } = place.get(node.id)!
		const colour = node.namespace === undefined ? '#fbe9d0' : colourOf(node.namespace)
		lines.push(
			`<rect x="${x.toFixed(1)}" y="${y.toFixed(1)}" width="${width.toFixed(1)}" height="${nodeHeight}" rx="6" fill="${colour}" stroke="#567"/>`,
			`<text x="${(x + width / 2).toFixed(1)}" y="${(y + 19).toFixed(1)}" text-anchor="middle">${escapeXml(node.name)}</text>`,
		)
	}
	return `${[...lines, '</svg>'].join('\n')}\n`
}

/** The longest way from a node without edges to it; an edge that would close a circle is left out of account. */
function layersOf(nodes: readonly GraphNode[], edges: readonly GraphEdge[]): Map<string, number> {
	const next = new Map<string, string[]>()
	for (const { from, to } of edges) {
		const list = next.get(from)
		if (list === undefined) next.set(from, [to])
		else list.push(to)
	}
	const state = new Map<string, 'open' | 'done'>()
	const order: string[] = []
	const forward: GraphEdge[] = []
	for (const { id: root } of nodes) {
		if (state.has(root)) continue
		// Depth first without recursion: graphs may be deep.
		const stack = [{ id: root, at: 0 }]
		state.set(root, 'open')
		while (stack.length > 0) {
			const top = stack.at(-1)!
			const child = (next.get(top.id) ?? [])[top.at++]
			if (child === undefined) {
				state.set(top.id, 'done')
				order.push(top.id)
				stack.pop()
				continue
			}
			if (state.get(child) === 'open') continue
			forward.push({ from: top.id, to: child, text: '' })
			if (!state.has(child)) {
				state.set(child, 'open')
				stack.push({ id: child, at: 0 })
			}
		}
	}
	const layers = new Map(nodes.map((node) => [node.id, 0]))
	const out = new Map<string, string[]>()
	for (const { from, to } of forward) out.set(from, [...(out.get(from) ?? []), to])
	for (const id of order.reverse()) {
		for (const to of out.get(id) ?? []) layers.set(to, Math.max(layers.get(to)!, layers.get(id)! + 1))
	}
	return layers
}

/** Each node near the middle of those it hangs together with in the column before: fewer lines cross. */
function arrange(columns: GraphNode[][], edges: readonly GraphEdge[]): void {
	const neighbours = new Map<string, string[]>()
	for (const { from, to } of edges) {
		neighbours.set(from, [...(neighbours.get(from) ?? []), to])
		neighbours.set(to, [...(neighbours.get(to) ?? []), from])
	}
	const sweep = (list: readonly number[]) => {
		for (const i of list) {
			const column = columns[i]
			if (column === undefined) continue
			const at = new Map<string, number>()
			for (const other of columns)
				if (other !== column) for (const [j, node] of (other ?? []).entries()) at.set(node.id, (j + 0.5) / other.length)
			const middle = (node: GraphNode, own: number) => {
				const places = (neighbours.get(node.id) ?? []).flatMap((id) => at.get(id) ?? [])
				return places.length === 0 ? own : places.reduce((a, b) => a + b, 0) / places.length
			}
			const weights = new Map(column.map((node, j) => [node.id, middle(node, (j + 0.5) / column.length)]))
			column.sort((a, b) => weights.get(a.id)! - weights.get(b.id)! || (a.name < b.name ? -1 : 1))
		}
	}
	for (let i = 0; i < columns.length; i++) columns[i] ??= []
	const forth = columns.map((_, i) => i)
	for (let round = 0; round < 4; round++) sweep(round % 2 === 0 ? forth : [...forth].reverse())
}

interface Place {
	readonly x: number
	readonly y: number
}

function curve(a: Place, b: Place, width: number): { readonly path: string; readonly at: Place } {
	const f = (n: number) => n.toFixed(1)
	if (a === b) {
		const [x, y] = [a.x + width, a.y + nodeHeight / 2]
		return { path: `M${f(x)} ${f(y - 6)}c40 -20 40 32 0 12`, at: { x: x + 38, y: y + 4 } }
	}
	const forward = b.x > a.x
	const from = { x: forward ? a.x + width : a.x, y: a.y + nodeHeight / 2 }
	const to = { x: forward ? b.x : b.x + width, y: b.y + nodeHeight / 2 }
	if (a.x === b.x) {
		const x = a.x + width
		return {
			path: `M${f(x)} ${f(from.y)}C${f(x + 70)} ${f(from.y)} ${f(x + 70)} ${f(to.y)} ${f(x)} ${f(to.y)}`,
			at: { x: x + 52, y: (from.y + to.y) / 2 },
		}
	}
	const bend = (to.x - from.x) / 2
	// The text near its destination, where lines from one source have parted.
	const t = 0.7
	const c = [from.x, from.x + bend, to.x - bend, to.x] as const
	const x = (1 - t) ** 3 * c[0] + 3 * (1 - t) ** 2 * t * c[1] + 3 * (1 - t) * t ** 2 * c[2] + t ** 3 * c[3]
	const y = ((1 - t) ** 3 + 3 * (1 - t) ** 2 * t) * from.y + (3 * (1 - t) * t ** 2 + t ** 3) * to.y
	return {
		path: `M${f(from.x)} ${f(from.y)}C${f(c[1])} ${f(from.y)} ${f(c[2])} ${f(to.y)} ${f(to.x)} ${f(to.y)}`,
		at: { x, y: y - 3 },
	}
}

function shorten(text: string): string {
	return text.length > 28 ? `${text.slice(0, 27)}…` : text
}

function escapeXml(text: string): string {
	return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;')
}

/** The same light colour for a namespace in every drawing. */
function colourOf(namespace: string): string {
	let hash = 0
	for (let i = 0; i < namespace.length; i++) hash = (hash * 31 + namespace.charCodeAt(i)) % 360
	return `hsl(${hash} 45% 91%)`
}
