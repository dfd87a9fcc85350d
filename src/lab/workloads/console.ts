// What a client sees and types when it attaches to a program: output as it comes, as bytes, and where the container has
// one, its standard input. A slow client holds the program back.

import type { Readable, Writable } from 'node:stream'

export interface Output {
	readonly stream: 'stdout' | 'stderr'
	readonly data: Buffer
}

export interface Console {
	/** `listener` returns false when it has enough for now; `resume` asks for more. */
	attach(listener: (output: Output) => boolean): { detach(): void; resume(): void }
	/** Resolves when the program's side has taken it; what nobody reads any more is dropped. */
	write(data: Buffer): Promise<void>
	/** No more input will come; a terminal's is never at its end. */
	closeInput(): void
	resize(size: { readonly width: number; readonly height: number }): void
	/** Resolves when all output has been passed on. */
	readonly drained: Promise<void>
}

/** Bytes of output kept for the first client. */
const keptLimit = 64 * 1024

export function createConsole(options: {
	readonly outputs: readonly { readonly stream: Output['stream']; readonly from: Readable }[]
	readonly input: Writable | undefined
	readonly isTerminal: boolean
	/** Output that comes before the first client is kept for it: the container is made to be attached to. */
	readonly keeps: boolean
	readonly resize: (size: { readonly width: number; readonly height: number }) => void
	/** Hears everything, attached or not: the log. */
	readonly heard: (output: Output) => void
}): Console {
	const { outputs, input } = options
	const listeners = new Set<(output: Output) => boolean>()
	const full = new Set<(output: Output) => boolean>()
	let kept: Output[] | undefined = options.keeps ? [] : undefined
	let keptBytes = 0
	input?.on('error', () => {})
	for (const { stream, from } of outputs) {
		from.on('data', (data: Buffer) => {
			const output = { stream, data }
			options.heard(output)
			if (kept !== undefined) {
				kept.push(output)
				keptBytes += data.length
				while (keptBytes > keptLimit && kept.length > 1) keptBytes -= (kept.shift() as Output).data.length
			}
			for (const listener of listeners) if (!listener(output)) full.add(listener)
			hold()
		})
		// EIO is how a terminal says that nobody holds it any more.
		from.on('error', () => from.destroy())
	}

	function hold(): void {
		for (const { from } of outputs) {
			if (full.size > 0) from.pause()
			else if (from.isPaused()) from.resume()
		}
	}

	return {
		attach(listener) {
			listeners.add(listener)
			for (const output of kept ?? []) if (!listener(output)) full.add(listener)
			kept = undefined
			hold()
			return {
				detach() {
					listeners.delete(listener)
					full.delete(listener)
					hold()
				},
				resume() {
					if (full.delete(listener)) hold()
				},
			}
		},
		write(data) {
			if (input === undefined || !input.writable) return Promise.resolve()
			return new Promise((resolve) => {
				input.write(data, () => resolve())
			})
		},
		closeInput() {
			if (!options.isTerminal) input?.end()
		},
		resize: options.resize,
		drained: Promise.all(
			outputs.map(({ from }) => new Promise<void>((resolve) => from.once('close', () => resolve()))),
		).then(() => {}),
	}
}

/** The output as a stream of items, for one client, until the program has ended or `signal` aborts. */
export async function* followConsole(
	console: Console,
	signal: AbortSignal,
): AsyncIterable<{ readonly stream: Output['stream']; readonly data: string }> {
	const queue: Output[] = []
	let bytes = 0
	let ended = false
	let wake: () => void = () => {}
	const stop = () => {
		ended = true
		wake()
	}
	const attached = console.attach((output) => {
		queue.push(output)
		bytes += output.data.length
		wake()
		return bytes < keptLimit
	})
	void console.drained.then(stop)
	signal.addEventListener('abort', stop, { once: true })
	try {
		for (;;) {
			const output = queue.shift()
			if (output !== undefined) {
				if (signal.aborted) return
				yield { stream: output.stream, data: output.data.toString('base64') }
				bytes -= output.data.length
				if (bytes < keptLimit) attached.resume()
			} else if (ended || signal.aborted) return
			else {
				await new Promise<void>((resolve) => {
					wake = resolve
				})
			}
		}
	} finally {
		attached.detach()
		signal.removeEventListener('abort', stop)
	}
}
