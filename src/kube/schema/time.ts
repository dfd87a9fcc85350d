// Times as the API writes them: RFC 3339 in UTC, of whole seconds (Time) or of microseconds (MicroTime).

/** Whole seconds since 1970 and the nanoseconds after them. */
export interface Instant {
	readonly seconds: number
	readonly nanos: number
}

/** Reads RFC 3339 with any offset; undefined if it is not. */
export function parseTime(text: string): Instant | undefined {
	const m = /^(\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2})(?:[.,](\d{1,9}))?(Z|[+-]\d{2}:\d{2})$/.exec(text)
	if (!m) return undefined
	const ms = Date.parse(`${m[1]}${m[3]}`)
	if (Number.isNaN(ms) || Number(m[1]!.slice(8, 10)) > lastDay(m[1]!)) return undefined
	return { seconds: ms / 1000, nanos: Number((m[2] ?? '').padEnd(9, '0')) }
}

function lastDay(text: string): number {
	return new Date(Date.UTC(Number(text.slice(0, 4)), Number(text.slice(5, 7)), 0)).getUTCDate()
}

/** `2006-01-02T15:04:05Z`, with six decimals for `micro`. */
export function printTime(instant: Instant, micro = false): string {
	const whole = new Date(instant.seconds * 1000).toISOString().slice(0, 19)
	if (!micro) return `${whole}Z`
	return `${whole}.${String(Math.floor(instant.nanos / 1000)).padStart(6, '0')}Z`
}
