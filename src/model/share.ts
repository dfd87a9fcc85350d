// Keeps what did not change the same object, so that everything after the model can compare by identity.

/**
 * `next`, with every part that equals its counterpart in `before` replaced by that counterpart; `before` itself when
 * all is equal. Plain data only. Lists are compared place by place.
 */
export function share<T>(before: unknown, next: T): T {
	if (Object.is(before, next)) return next
	if (typeof next !== 'object' || next === null || typeof before !== 'object' || before === null) return next
	if (Array.isArray(next)) {
		if (!Array.isArray(before)) return next
		let same = before.length === next.length
		const list = next.map((item, i) => {
			const shared = share(before[i], item)
			if (!Object.is(shared, before[i])) same = false
			return shared
		})
		return (same ? before : list) as T
	}
	if (Array.isArray(before)) return next
	const old = before as Record<string, unknown>
	const entries = Object.entries(next)
	let same = Object.keys(old).length === entries.length
	const out: Record<string, unknown> = {}
	for (const [key, value] of entries) {
		const shared = share(old[key], value)
		out[key] = shared
		if (!Object.is(shared, old[key]) || !Object.hasOwn(old, key)) same = false
	}
	return (same ? before : out) as T
}
