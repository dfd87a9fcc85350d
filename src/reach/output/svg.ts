// A small layered drawing of the graph: columns from left to right by the longest way, edges as curves, nothing to load.
// For what a person can look at; larger graphs are for a program that draws (dot).

import { type GraphEdge, type GraphInput, type GraphNode, graphOf } from './graph.ts'

const nodeHeight = 30
const rowGap = 18
const columnGap = 190
const margin = 24
const characterWidth = 7.2
/** What a line takes that passes through a column. */
const laneHeight = 10
const laneGap = 4

/** More than these, and lines pass behind nodes: no room between them would do. */
const mostLanes = 3000

/** What stands in a column: a node, or a line that goes on to the next. */
interface Slot {
	readonly id: string
	readonly name: string
	readonly lane: boolean
}

/** The slots an edge passes from its node to the other, both included. */
interface Route {
	readonly edge: GraphEdge
	readonly through: readonly string[]
}

export function svgGraph(input: GraphInput): string {
	const { nodes, edges } = graphOf(input)
	const layers = layersOf(nodes, edges)
	const columns: Slot[][] = []
	for (const { id, name } of nodes) (columns[layers.get(id)!] ??= []).push({ id, name, lane: false })
	const spanOf = ({ from, to }: GraphEdge) => layers.get(to)! - layers.get(from)!
	const sparse = edges.reduce((sum, edge) => sum + Math.abs(spanOf(edge)), 0) <= mostLanes
	const routes = edges.map((edge, i): Route => {
		const [from, to] = [layers.get(edge.from)!, layers.get(edge.to)!]
		const step = Math.sign(to - from)
		const through = [edge.from]
		for (let layer = from + step; sparse && step !== 0 && layer !== to; layer += step) {
			const lane = { id: `e${i} ${layer}`, name: '', lane: true }
			columns[layer]!.push(lane)
			through.push(lane.id)
		}
		return { edge, through: [...through, edge.to] }
	})
	arrange(columns, routes, sparse)
	const width = Math.max(80, ...nodes.map((node) => node.name.length * characterWidth + 20))
	const place = new Map<string, Place>()
	const heights = columns.map((column) => column.reduce((sum, slot) => sum + heightOf(slot), 0))
	const tallest = Math.max(nodeHeight + rowGap, ...heights)
	for (const [i, column] of columns.entries()) {
		let y = margin + (tallest - heights[i]!) / 2
		for (const slot of column) {
			place.set(slot.id, { x: margin + i * (width + columnGap), y, lane: slot.lane })
			y += heightOf(slot)
		}
	}
	const total = {
		width: Math.ceil(2 * margin + columns.length * width + Math.max(0, columns.length - 1) * columnGap + loopWidth),
		height: Math.ceil(2 * margin + tallest),
	}
	const lines = [
		`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${total.width} ${total.height}" width="${total.width}" height="${total.height}" font-family="ui-monospace, monospace" font-size="12">`,
		'<title>Who can talk to whom</title>',
		'<defs><marker id="a" viewBox="0 0 8 8" refX="8" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="#567"/></marker></defs>',
		`<rect width="${total.width}" height="${total.height}" fill="#fff"/>`,
	]
	const labels: string[] = []
	for (const { edge, through } of routes) {
		const { path, at } = curve(
			through.map((id) => place.get(id)!),
			width,
		)
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

function heightOf({ lane }: Slot): number {
	return lane ? laneHeight + laneGap : nodeHeight + rowGap
}

/** Each slot near the middle of those it hangs together with in other columns (sparse: all in the next ones): fewer lines cross. */
function arrange(columns: Slot[][], routes: readonly Route[], sparse: boolean): void {
	const neighbours = new Map<string, string[]>()
	const join = (a: string, b: string) => {
		const list = neighbours.get(a)
		if (list === undefined) neighbours.set(a, [b])
		else list.push(b)
	}
	for (const { through } of routes) {
		for (let i = 0; i + 1 < through.length; i++) {
			join(through[i]!, through[i + 1]!)
			join(through[i + 1]!, through[i]!)
		}
	}
	const sweep = (list: readonly number[]) => {
		for (const i of list) {
			const column = columns[i]
			if (column === undefined) continue
			const at = new Map<string, number>()
			for (const other of sparse ? [columns[i - 1], columns[i + 1]] : columns)
				if (other !== undefined && other !== column)
					for (const [j, slot] of other.entries()) at.set(slot.id, (j + 0.5) / other.length)
			const middle = (node: Slot, own: number) => {
				const places = (neighbours.get(node.id) ?? []).flatMap((id) => at.get(id) ?? [])
				return places.length === 0 ? own : places.reduce((a, b) => a + b, 0) / places.length
			}
			const weights = new Map(column.map((node, j) => [node.id, middle(node, (j + 0.5) / column.length)]))
			column.sort((a, b) => weights.get(a.id)! - weights.get(b.id)! || order(a.name, b.name) || order(a.id, b.id))
		}
	}
	for (let i = 0; i < columns.length; i++) columns[i] ??= []
	const forth = columns.map((_, i) => i)
	for (let round = 0; round < 6; round++) sweep(round % 2 === 0 ? forth : [...forth].reverse())
}

function order(a: string, b: string): number {
	return a < b ? -1 : a > b ? 1 : 0
}

interface Place {
	readonly x: number
	readonly y: number
	readonly lane: boolean
}

/** What the line of a node to itself, or to another of its column, takes to its right. */
const loopWidth = 60

/** A line through the places, from one column to the next each. The text is near its end: lines from one source have parted there. */
function curve(
	places: readonly Place[],
	width: number,
): { readonly path: string; readonly at: { x: number; y: number } } {
	const f = (n: number) => n.toFixed(1)
	const middle = ({ y, lane }: Place) => y + (lane ? laneHeight : nodeHeight) / 2
	const [a, b] = [places[0]!, places.at(-1)!]
	if (a === b) {
		const [x, y] = [a.x + width, middle(a)]
		return { path: `M${f(x)} ${f(y - 6)}c40 -20 40 32 0 12`, at: { x: x + 38, y: y + 4 } }
	}
	if (a.x === b.x) {
		const x = a.x + width
		const [from, to] = [middle(a), middle(b)]
		return {
			path: `M${f(x)} ${f(from)}C${f(x + 70)} ${f(from)} ${f(x + 70)} ${f(to)} ${f(x)} ${f(to)}`,
			at: { x: x + 52, y: (from + to) / 2 },
		}
	}
	const forward = b.x > a.x
	const leave = (place: Place) => (forward ? place.x + width : place.x)
	const enter = (place: Place) => (forward ? place.x : place.x + width)
	const parts = [`M${f(leave(a))} ${f(middle(a))}`]
	for (let i = 1; i < places.length; i++) {
		const [from, to] = [places[i - 1]!, places[i]!]
		const bend = (leave(from) + enter(to)) / 2
		parts.push(`C${f(bend)} ${f(middle(from))} ${f(bend)} ${f(middle(to))} ${f(enter(to))} ${f(middle(to))}`)
		if (to.lane) parts.push(`H${f(leave(to))}`)
	}
	// The point of the last curve at 0.7 of its way.
	const last = places.at(-2)!
	const t = 0.7
	const near = 3 * (1 - t) * t ** 2 + t ** 3
	const bend = 3 * (1 - t) ** 2 * t + 3 * (1 - t) * t ** 2
	const x = (1 - t) ** 3 * leave(last) + bend * ((leave(last) + enter(b)) / 2) + t ** 3 * enter(b)
	return { path: parts.join(''), at: { x, y: (1 - near) * middle(last) + near * middle(b) - 3 } }
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
