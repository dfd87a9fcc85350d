// A container's log: its last lines in memory, with followers. Bounded, because a stand-in may be asked for ever.

import type { LogLine } from './protocol.ts'

export interface ContainerLog {
	write(stream: LogLine['stream'], text: string): void
	/** The lines held, then, with `follow`, every new one until `signal` or `end`. */
	read(query: {
		readonly follow: boolean
		readonly tailLines?: number
		readonly since?: number
		readonly signal?: AbortSignal
	}): AsyncIterable<LogLine>
	/** No line will come any more; followers end. */
	end(): void
}

/** `limit`: bytes of text kept, the oldest lines go first. */
export function createContainerLog(now: () => number = Date.now, limit = 256 * 1024): ContainerLog {
	const lines: LogLine[] = []
	let first = 0
	let dropped = 0
	let bytes = 0
	let ended = false
	let wake = Promise.withResolvers<void>()

	const changed = () => {
		wake.resolve()
		wake = Promise.withResolvers<void>()
	}
	return {
		write(stream, text) {
			lines.push({ time: now(), stream, text })
			bytes += text.length + 1
			while (bytes > limit && lines.length - first > 1) {
				bytes -= lines[first]!.text.length + 1
				first++
			}
			if (first > 1024 && first * 2 > lines.length) {
				lines.splice(0, first)
				dropped += first
				first = 0
			}
			changed()
		},
		async *read(query) {
			// Positions count from the beginning of the log, so that they stay right when old lines go.
			let at = dropped + first
			if (query.since !== undefined) {
				while (at - dropped < lines.length && lines[at - dropped]!.time < query.since) at++
			}
			if (query.tailLines !== undefined) at = Math.max(at, dropped + lines.length - query.tailLines)
			const stopped = new Promise<void>((resolve) =>
				query.signal?.addEventListener('abort', () => resolve(), { once: true }),
			)
			for (;;) {
				at = Math.max(at, dropped + first)
				const line = lines[at - dropped]
				if (line !== undefined) {
					at++
					yield line
				} else if (!query.follow || ended || query.signal?.aborted) return
				else await Promise.race([wake.promise, stopped])
			}
		},
		end() {
			ended = true
			changed()
		},
	}
}

/** Splits what a program writes into lines; `flush` gives the last one that had no end. */
export function lineSplitter(each: (line: string) => void): { push(chunk: string): void; flush(): void } {
	let rest = ''
	return {
		push(chunk) {
			const parts = (rest + chunk).split('\n')
			rest = parts.pop() as string
			for (const part of parts) each(part)
			// A line without end must not grow without bound: cut as container runtimes do, at 16 KiB.
			while (rest.length >= 16384) {
				each(rest.slice(0, 16384))
				rest = rest.slice(16384)
			}
		},
		flush() {
			if (rest !== '') each(rest)
			rest = ''
		},
	}
}
