// Lifecycle hooks: postStart and preStop as exec, httpGet or sleep.

import type { Clock } from '../../base/clock.ts'
import type { Handler } from '../../kube/objects/pod.ts'
import { type CheckResult, type CheckTarget, check } from './probe-check.ts'

/** Milliseconds: a hook has no timeout of its own; who calls it ends it. */
const longest = 3_600_000

/**
 * Runs one hook to its end; resolves early, as failed, when `signal` aborts. `skipped` hears what is not run: a program
 * of an image whose place a stand-in takes.
 */
export async function runHook(
	handler: Handler,
	target: CheckTarget,
	clock: Clock,
	signal: AbortSignal,
	skipped: (text: string) => void,
): Promise<CheckResult> {
	if (handler.exec !== undefined && target.isStandIn) {
		skipped(
			`the hook ${JSON.stringify((handler.exec.command ?? []).join(' '))} was not run: it needs the image, and a stand-in takes its place`,
		)
		return { ok: true }
	}
	let release = () => {}
	const aborted = new Promise<CheckResult>((resolve) => {
		const give = () => resolve({ ok: false, text: 'the grace period is over' })
		signal.addEventListener('abort', give, { once: true })
		if (signal.aborted) give()
		release = () => signal.removeEventListener('abort', give)
	})
	let cancel = () => {}
	const work =
		handler.sleep === undefined
			? check(handler, target, longest)
			: new Promise<CheckResult>((resolve) => {
					cancel = clock.after((handler.sleep?.seconds ?? 0) * 1000, () => resolve({ ok: true }))
				})
	try {
		return await Promise.race([work, aborted])
	} finally {
		cancel()
		release()
	}
}
