// Small line charts side by side, as SVG: enough to see whether something grows, and how.

export interface Panel {
	readonly title: string
	readonly unit: string
	/** Ascending by x. */
	readonly points: readonly { readonly x: number; readonly y: number }[]
}

const width = 260
const height = 200
const left = 48
const bottom = 34
const top = 34

export function plot(title: string, panels: readonly Panel[]): string {
	const total = panels.length * width
	return [
		`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${total} ${height + 24}" font-family="sans-serif" font-size="11" role="img" aria-label="${title}">`,
		`<rect width="${total}" height="${height + 24}" fill="white"/>`,
		`<text x="8" y="16" font-size="13" font-weight="bold">${title}</text>`,
		...panels.map((panel, i) => `<g transform="translate(${i * width} 24)">${draw(panel)}</g>`),
		'</svg>',
		'',
	].join('\n')
}

function draw({ title, unit, points }: Panel): string {
	const maxX = Math.max(...points.map((p) => p.x))
	const maxY = ceiling(Math.max(...points.map((p) => p.y)))
	const x = (value: number) => left + (value / maxX) * (width - left - 16)
	const y = (value: number) => height - bottom - (value / maxY) * (height - bottom - top)
	const line = points.map((p) => `${x(p.x).toFixed(1)},${y(p.y).toFixed(1)}`).join(' ')
	const grid = [0, maxY / 2, maxY].map(
		(value) =>
			`<line x1="${left}" x2="${width - 16}" y1="${y(value)}" y2="${y(value)}" stroke="#ddd"/><text x="${left - 6}" y="${y(value) + 4}" text-anchor="end">${short(value)}</text>`,
	)
	const marks = points.map((p) => `<circle cx="${x(p.x).toFixed(1)}" cy="${y(p.y).toFixed(1)}" r="3" fill="#326ce5"/>`)
	const ticks = [0, maxX / 2, maxX].map(
		(value) => `<text x="${x(value)}" y="${height - bottom + 16}" text-anchor="middle">${short(value)}</text>`,
	)
	return [
		`<text x="${left}" y="20" font-weight="bold">${title}, ${unit}</text>`,
		...grid,
		...ticks,
		`<polyline points="${line}" fill="none" stroke="#326ce5" stroke-width="2"/>`,
		...marks,
		`<text x="${(left + width - 16) / 2}" y="${height - 4}" text-anchor="middle">Services</text>`,
	].join('')
}

/** The next of 1, 2, 5, 10, … above. */
function ceiling(value: number): number {
	const power = 10 ** Math.floor(Math.log10(value || 1))
	return [1, 2, 5, 10].map((n) => n * power).find((n) => n >= value) as number
}

function short(value: number): string {
	return value >= 1000 ? `${value / 1000}k` : String(Number(value.toPrecision(3)))
}
