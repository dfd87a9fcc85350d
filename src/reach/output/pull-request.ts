// What a change means, as a comment of a pull request: what it comes to in one line, a table, the reasons folded away.

import { originText } from '../../model/origin.ts'
import { type Difference, differenceCells, summaryText } from '../diff.ts'
import type { Party } from '../parties.ts'
import { endName } from '../table.ts'
import { collapseLines, type Line } from './collapse.ts'
import { markdownTable } from './tables.ts'

/** What opens comes before what closes. */
const changes = { added: '➕ added', changed: '✏️ changed', removed: '➖ removed' } as const
const order = Object.keys(changes) as readonly (keyof typeof changes)[]

export interface PullRequestInput {
	readonly differences: readonly Difference[]
	/** Of both sides: a line for all of a namespace stands for rows that are all there. */
	readonly parties: readonly Pick<Party, 'name' | 'namespace' | 'pods'>[]
	/** Most characters: GitHub refuses a comment with more than 65,536. Reasons give way first, then rows. */
	readonly size: number
}

export function pullRequestText({ differences, parties, size }: PullRequestInput): string {
	const title = `### Reachability\n\n**${summaryText(differences)}**\n`
	if (differences.length === 0) return title
	const rows = order.flatMap((change) =>
		linesOf(
			differences.filter((d) => d.change === change),
			parties,
		).map(({ from, to, ports }) => [changes[change], from, to, ...(JSON.parse(ports) as string[])]),
	)
	const head = ['change', 'from', 'to', 'before', 'after']
	// What a row takes is what it adds to the table.
	const empty = markdownTable(head, []).length
	let room = size - title.length - 400 - empty
	const shown = rows.filter((row) => {
		room -= markdownTable(head, [row]).length - empty
		return room >= 0
	})
	const parts = [title, `\n${markdownTable(head, shown)}`]
	if (shown.length < rows.length)
		parts.push(`\n${rows.length - shown.length} more rows are not shown: too much for a comment.\n`)

	const groups = new Map<string, Difference[]>()
	for (const d of differences) {
		if (d.because.length === 0) continue
		const id = d.because.map((o) => `  - ${code(originText(o))}\n`).join('')
		const group = groups.get(id)
		if (group === undefined) groups.set(id, [d])
		else group.push(d)
	}
	const reasons = [...groups].map(([why, list]) => {
		const pairs = linesOf(list, parties).map(({ from, to }) => code(`${from} → ${to}`))
		return `- ${[...new Set(pairs)].join(', ')}\n${why}`
	})
	const told = reasons.filter((text) => {
		room -= text.length
		return room >= 0
	})
	if (told.length > 0) {
		const rest = reasons.length - told.length
		const more = rest === 0 ? '' : `- and ${rest} more\n`
		parts.push(`\n<details>\n<summary>What changed them</summary>\n\n${told.join('')}${more}\n</details>\n`)
	}
	return parts.join('')
}

/** `ports`: what was and what is, as a list. */
function linesOf(list: readonly Difference[], parties: PullRequestInput['parties']): readonly Line[] {
	return collapseLines(
		list.map((d) => ({
			from: endName(d.from),
			to: endName(d.to),
			ports: JSON.stringify(differenceCells(d).slice(3, 5)),
		})),
		parties,
	)
}

function code(text: string): string {
	return `\`${text.replaceAll('`', "'")}\``
}
