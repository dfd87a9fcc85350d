// Rows as text, Markdown and CSV.

import { alignColumns } from '../../base/text.ts'

export function textTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
	return `${alignColumns([head, ...rows]).join('\n')}\n`
}

/** GitHub's tables; a bar within a cell is escaped. */
export function markdownTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
	const line = (cells: readonly string[]) => `| ${cells.map(markdownCell).join(' | ')} |`
	return `${[line(head), `| ${head.map(() => '---').join(' | ')} |`, ...rows.map(line)].join('\n')}\n`
}

function markdownCell(text: string): string {
	return text
		.replaceAll('\\', '\\\\')
		.replaceAll('|', '\\|')
		.replaceAll('<', '&lt;')
		.replaceAll('*', '\\*')
		.replaceAll(/\s*\n\s*/g, '<br>')
}

/** RFC 4180, with lines that end in CR LF. */
export function csvTable(head: readonly string[], rows: readonly (readonly string[])[]): string {
	return [head, ...rows].map((cells) => `${cells.map(csvCell).join(',')}\r\n`).join('')
}

function csvCell(text: string): string {
	// A spreadsheet takes a cell that begins so for a formula.
	const safe = /^[=+\-@\t]/.test(text) ? `'${text}` : text
	return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe
}
