// Short names for contents: the suffix of a ReplicaSet's, a pod's or a revision's name.

/** No vowels and no look-alikes: the alphabet Kubernetes uses for generated names, so that they spell no words. */
const alphabet = 'bcdfghjklmnpqrstvwxz2456789'

/** JSON with the keys of every object in order and without undefined members, so that equal values give equal text. */
export function canonicalJson(value: unknown): string {
	if (value === null || typeof value !== 'object') return JSON.stringify(value) ?? 'null'
	if (Array.isArray(value)) return `[${value.map(canonicalJson).join(',')}]`
	const members: string[] = []
	for (const key of Object.keys(value).sort()) {
		const member = (value as Record<string, unknown>)[key]
		if (member !== undefined) members.push(`${JSON.stringify(key)}:${canonicalJson(member)}`)
	}
	return `{${members.join(',')}}`
}

/** FNV-1a, 32 bits, over the UTF-8 bytes of `text`. */
export function fnv32a(text: string): number {
	let hash = 0x811c9dc5
	for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 0x01000193)
	return hash >>> 0
}

/** The digits of `n` in the letters of generated names: 1 to 10 characters valid in names and label values. */
export function safeLetters(n: number): string {
	let letters = ''
	for (const digit of String(n)) letters += alphabet[digit.charCodeAt(0) % alphabet.length]
	return letters
}

/**
 * The hash of a pod template as it appears in `pod-template-hash` and `controller-revision-hash`. Equal templates give
 * equal hashes in every run; `collisions` makes another one when the name is taken by a different template.
 */
export function templateHash(template: unknown, collisions = 0): string {
	return safeLetters(fnv32a(canonicalJson(template) + (collisions === 0 ? '' : `#${collisions}`)))
}
