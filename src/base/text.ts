// Text in columns, as terminals show it.

/** Cells that a terminal uses for a text: colour codes use none, East Asian wide characters and emoji two. */
export function textWidth(text: string): number {
	const bare = text.includes('\x1b') ? text.replaceAll(escapes, '') : text
	if (ascii.test(bare)) return bare.length
	let width = 0
	for (const character of bare) width += marks.test(character) ? 0 : wide.test(character) ? 2 : 1
	return width
}
const ascii = /^[\x20-\x7e]*$/
// biome-ignore lint/suspicious/noControlCharactersInRegex: the escape character is what is looked for
const escapes = /\x1b\[[\d;]*[A-Za-z]/g
const marks = /^(?:\p{Mn}|\p{Me}|\u200b|\u200c|\u200d)/u
const wide =
	/^[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff00-\uff60\uffe0-\uffe6\u{1f300}-\u{1faff}\u{20000}-\u{3fffd}]/u

/**
 * Lines with their cells under each other: every column as wide as its widest cell, `gap` spaces between (3, as kubectl).
 * No space at the end of a line. Cells with line breaks are not for this.
 */
export function alignColumns(
	rows: readonly (readonly string[])[],
	options: { readonly gap?: number; readonly indent?: number } = {},
): string[] {
	const widths: number[] = []
	for (const row of rows) {
		for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, textWidth(cell))
	}
	const gap = ' '.repeat(options.gap ?? 3)
	const indent = ' '.repeat(options.indent ?? 0)
	return rows.map((row) => {
		const cells = row.map((cell, i) => cell + ' '.repeat(widths[i]! - textWidth(cell)))
		return (indent + cells.join(gap)).trimEnd()
	})
}
