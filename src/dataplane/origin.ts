// The short text form of an Origin that is a rule's or an element's comment in the kernel: reading back is enough to
// say why something is there.

import { commentLimit } from '../linux/nft/comment.ts'
import type { Origin } from '../model/origin.ts'

/**
 * `Service default/web spec.ports[0] web.yaml:12`. What does not fit goes, least useful first: the folder of the file,
 * the file, the field, the kind.
 */
export function originComment(origin: Origin): string {
	if ('default' in origin) return plain(origin.default)
	const head = `${origin.kind} ${origin.key}`
	const field = origin.field === undefined ? head : `${head} ${origin.field}`
	if (origin.source !== undefined) {
		const { file, line } = origin.source
		const short = file.slice(file.lastIndexOf('/') + 1)
		for (const name of [file, short]) {
			const text = `${field} ${name}:${line}`
			if (fits(text) && !/\s/.test(name)) return plain(text)
		}
	}
	return plain([field, head].find(fits) ?? origin.key)
}

function fits(text: string): boolean {
	// A UTF-16 unit takes at most three bytes.
	return text.length * 3 <= commentLimit || Buffer.byteLength(text) <= commentLimit
}

/** A quote would end the comment in nft's own language. */
function plain(text: string): string {
	return text.includes('"') ? text.replaceAll('"', "'") : text
}

const name = '[a-z0-9][-a-z0-9.:]*'
// A field starts in lower case and holds no colon; a file ends in a line number.
const form = new RegExp(
	`^(?:([A-Z][A-Za-z0-9]*) )?(${name}(?:/${name})?)(?: ([a-z][A-Za-z0-9]*(?:[.[][^\\s:]*)?))?(?: (\\S+):([0-9]+))?$`,
)

/** What originComment wrote; undefined for other text. A bare key is a Service: only their names are that long. */
export function parseOrigin(comment: string): Origin | undefined {
	const match = form.exec(comment)
	if (match === null) return undefined
	const [, kind, key = '', field, file, line] = match
	if (kind === undefined && (!key.includes('/') || field !== undefined || file !== undefined)) return undefined
	return {
		kind: kind ?? 'Service',
		key,
		...(field === undefined ? {} : { field }),
		...(file === undefined ? {} : { source: { file, line: Number(line) } }),
	}
}
