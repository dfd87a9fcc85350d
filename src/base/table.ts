// An immutable table keyed by strings: a hash array mapped trie (Bagwell 2001) in canonical form.
// Tables that share history share subtrees, so comparing two costs what differs between them.
// The trie is canonical (a branch never holds a lone leaf, except at the root), hence the same entries
// make the same shape whatever the order they came in.

/** An immutable map. Iteration order is unspecified: sort to print. */
export interface Table<K extends string, V> extends Iterable<readonly [K, V]> {
	readonly size: number
	get(key: K): V | undefined
	has(key: K): boolean
	/** The same table when `key` already holds exactly `value` (Object.is). */
	set(key: K, value: V): Table<K, V>
	/** The same table when `key` is absent. */
	delete(key: K): Table<K, V>
	keys(): IterableIterator<K>
	values(): IterableIterator<V>
	/** Many changes at the cost of few: `change` edits a draft that is valid until it returns. The same table when nothing changed. */
	mutate(change: (draft: Draft<K, V>) => void): Table<K, V>
}

export interface Draft<K extends string, V> {
	readonly size: number
	get(key: K): V | undefined
	has(key: K): boolean
	set(key: K, value: V): void
	delete(key: K): void
}

interface Leaf {
	readonly kind: 0
	readonly hash: number
	readonly key: string
	value: unknown
	readonly owner: object | undefined
}
/** Two or more keys of one 32-bit hash. */
interface Collision {
	readonly kind: 1
	readonly hash: number
	readonly leaves: readonly Leaf[]
}
interface Branch {
	readonly kind: 2
	/** Bit i: there is a child for hash bits i. `children` is packed in that order. */
	map: number
	children: Node[]
	/** The draft that made it and may edit it in place. */
	readonly owner: object | undefined
}
type Node = Leaf | Collision | Branch

const bits = 5
const mask = 31

/** FNV-1a over UTF-16 units, then the finalizer of MurmurHash3 so that every bit depends on every unit. */
function hashOf(key: string): number {
	let h = 0x811c9dc5
	for (let i = 0; i < key.length; i++) h = Math.imul(h ^ key.charCodeAt(i), 0x01000193)
	h = Math.imul(h ^ (h >>> 16), 0x85ebca6b)
	h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35)
	return (h ^ (h >>> 16)) | 0
}

function countBits(x: number): number {
	x -= (x >>> 1) & 0x55555555
	x = (x & 0x33333333) + ((x >>> 2) & 0x33333333)
	return Math.imul((x + (x >>> 4)) & 0x0f0f0f0f, 0x01010101) >>> 24
}

/** `shift`: which hash bits the branch `root` itself is indexed by. */
function find(root: Node | undefined, hash: number, key: string, shift = 0): Leaf | undefined {
	let node = root
	for (; node !== undefined; shift += bits) {
		if (node.kind === 0) return node.hash === hash && node.key === key ? node : undefined
		if (node.kind === 1) return node.hash === hash ? node.leaves.find((leaf) => leaf.key === key) : undefined
		const bit = 1 << ((hash >>> shift) & mask)
		if ((node.map & bit) === 0) return undefined
		node = node.children[countBits(node.map & (bit - 1))]
	}
	return undefined
}

/** What an edit did to the number of entries. */
interface Edit {
	delta: number
	readonly owner: object | undefined
}

function makeBranch(a: Node, aHash: number, b: Leaf, shift: number, owner: object | undefined): Branch {
	const ai = (aHash >>> shift) & mask
	const bi = (b.hash >>> shift) & mask
	if (ai === bi) return { kind: 2, map: 1 << ai, children: [makeBranch(a, aHash, b, shift + bits, owner)], owner }
	return { kind: 2, map: (1 << ai) | (1 << bi), children: ai < bi ? [a, b] : [b, a], owner }
}

function insert(node: Node, shift: number, hash: number, key: string, value: unknown, edit: Edit): Node {
	if (node.kind === 2) {
		const bit = 1 << ((hash >>> shift) & mask)
		const at = countBits(node.map & (bit - 1))
		const mine = edit.owner !== undefined && node.owner === edit.owner
		if ((node.map & bit) === 0) {
			edit.delta++
			const leaf: Leaf = { kind: 0, hash, key, value, owner: edit.owner }
			if (mine) {
				node.children.splice(at, 0, leaf)
				node.map |= bit
				return node
			}
			return { kind: 2, map: node.map | bit, children: node.children.toSpliced(at, 0, leaf), owner: edit.owner }
		}
		const before = node.children[at] as Node
		const after = insert(before, shift + bits, hash, key, value, edit)
		if (after === before) return node
		if (mine) {
			node.children[at] = after
			return node
		}
		const children = node.children.slice()
		children[at] = after
		return { kind: 2, map: node.map, children, owner: edit.owner }
	}
	if (node.kind === 0 && node.key === key && node.hash === hash) {
		if (Object.is(node.value, value)) return node
		if (edit.owner !== undefined && node.owner === edit.owner) {
			node.value = value
			return node
		}
		return { kind: 0, hash, key, value, owner: edit.owner }
	}
	if (node.kind === 1 && node.hash === hash) {
		const at = node.leaves.findIndex((leaf) => leaf.key === key)
		const old = node.leaves[at]
		if (old !== undefined && Object.is(old.value, value)) return node
		if (old === undefined) edit.delta++
		const leaf: Leaf = { kind: 0, hash, key, value, owner: undefined }
		return { kind: 1, hash, leaves: at < 0 ? [...node.leaves, leaf] : node.leaves.with(at, leaf) }
	}
	edit.delta++
	if (node.kind === 0 && node.hash === hash) {
		return { kind: 1, hash, leaves: [node, { kind: 0, hash, key, value, owner: undefined }] }
	}
	return makeBranch(node, node.hash, { kind: 0, hash, key, value, owner: edit.owner }, shift, edit.owner)
}

/** undefined: nothing is left of the node. */
function remove(node: Node, shift: number, hash: number, key: string, edit: Edit): Node | undefined {
	if (node.kind === 0) {
		if (node.hash !== hash || node.key !== key) return node
		edit.delta--
		return undefined
	}
	if (node.kind === 1) {
		const leaves = node.hash === hash ? node.leaves.filter((leaf) => leaf.key !== key) : node.leaves
		if (leaves.length === node.leaves.length) return node
		edit.delta--
		return leaves.length === 1 ? leaves[0] : { kind: 1, hash, leaves }
	}
	const bit = 1 << ((hash >>> shift) & mask)
	if ((node.map & bit) === 0) return node
	const at = countBits(node.map & (bit - 1))
	const before = node.children[at] as Node
	const after = remove(before, shift + bits, hash, key, edit)
	if (after === before) return node
	if (after === undefined) {
		if (node.children.length === 1) return undefined
		const other = node.children[1 - at]
		// A lone leaf moves up, to keep the shape canonical.
		if (node.children.length === 2 && other !== undefined && other.kind !== 2) return other
		const children = node.children.toSpliced(at, 1)
		return { kind: 2, map: node.map & ~bit, children, owner: edit.owner }
	}
	if (node.children.length === 1 && after.kind !== 2) return after
	if (edit.owner !== undefined && node.owner === edit.owner) {
		node.children[at] = after
		return node
	}
	const children = node.children.slice()
	children[at] = after
	return { kind: 2, map: node.map, children, owner: edit.owner }
}

/** Walks the leaves with an explicit stack: a generator per level costs several times as much. */
class Leaves<T> implements IterableIterator<T> {
	readonly #stack: Node[]
	readonly #project: (leaf: Leaf) => T
	constructor(root: Node | undefined, project: (leaf: Leaf) => T) {
		this.#stack = root === undefined ? [] : [root]
		this.#project = project
	}
	[Symbol.iterator](): this {
		return this
	}
	next(): IteratorResult<T> {
		for (;;) {
			const node = this.#stack.pop()
			if (node === undefined) return { done: true, value: undefined }
			if (node.kind === 0) return { done: false, value: this.#project(node) }
			this.#stack.push(...(node.kind === 1 ? node.leaves : node.children))
		}
	}
}

class Trie<K extends string, V> implements Table<K, V> {
	readonly root: Node | undefined
	readonly size: number
	constructor(root: Node | undefined, size: number) {
		this.root = root
		this.size = size
	}
	get(key: K): V | undefined {
		return find(this.root, hashOf(key), key)?.value as V | undefined
	}
	has(key: K): boolean {
		return find(this.root, hashOf(key), key) !== undefined
	}
	set(key: K, value: V): Table<K, V> {
		const hash = hashOf(key)
		const edit: Edit = { delta: 0, owner: undefined }
		const root = put(this.root, hash, key, value, edit)
		return root === this.root ? this : new Trie(root, this.size + edit.delta)
	}
	delete(key: K): Table<K, V> {
		if (this.root === undefined) return this
		const edit: Edit = { delta: 0, owner: undefined }
		const root = remove(this.root, 0, hashOf(key), key, edit)
		if (root === this.root) return this
		return root === undefined ? emptyTable() : new Trie(root, this.size - 1)
	}
	mutate(change: (draft: Draft<K, V>) => void): Table<K, V> {
		const draft = new TrieDraft<K, V>(this.root, this.size)
		change(draft)
		const root = draft.close()
		if (root === this.root) return this
		return root === undefined ? emptyTable() : new Trie(root, draft.size)
	}
	keys(): IterableIterator<K> {
		return new Leaves(this.root, (leaf) => leaf.key as K)
	}
	values(): IterableIterator<V> {
		return new Leaves(this.root, (leaf) => leaf.value as V)
	}
	[Symbol.iterator](): IterableIterator<readonly [K, V]> {
		return new Leaves(this.root, (leaf) => [leaf.key as K, leaf.value as V] as const)
	}
}

function put(root: Node | undefined, hash: number, key: string, value: unknown, edit: Edit): Node {
	if (root !== undefined) return insert(root, 0, hash, key, value, edit)
	edit.delta++
	return { kind: 0, hash, key, value, owner: edit.owner }
}

class TrieDraft<K extends string, V> implements Draft<K, V> {
	#root: Node | undefined
	#size: number
	#edit: Edit | undefined = { delta: 0, owner: {} }
	constructor(root: Node | undefined, size: number) {
		this.#root = root
		this.#size = size
	}
	get size(): number {
		return this.#size
	}
	get(key: K): V | undefined {
		return find(this.#root, hashOf(key), key)?.value as V | undefined
	}
	has(key: K): boolean {
		return find(this.#root, hashOf(key), key) !== undefined
	}
	set(key: K, value: V): void {
		const edit = this.#open()
		this.#root = put(this.#root, hashOf(key), key, value, edit)
		this.#size += edit.delta
	}
	delete(key: K): void {
		const edit = this.#open()
		if (this.#root === undefined) return
		this.#root = remove(this.#root, 0, hashOf(key), key, edit)
		this.#size += edit.delta
	}
	close(): Node | undefined {
		this.#edit = undefined
		return this.#root
	}
	#open(): Edit {
		if (this.#edit === undefined) throw new Error('Cannot edit a table draft after mutate returned')
		this.#edit.delta = 0
		return this.#edit
	}
}

const empty = new Trie<string, unknown>(undefined, 0)

export function emptyTable<K extends string, V>(): Table<K, V> {
	return empty as unknown as Table<K, V>
}

/** Of two entries with one key the later stays. */
export function tableOf<K extends string, V>(entries: Iterable<readonly [K, V]>): Table<K, V> {
	return emptyTable<K, V>().mutate((draft) => {
		for (const [key, value] of entries) draft.set(key, value)
	})
}

/**
 * Calls `each` once for every key whose value differs (Object.is): `before` undefined where only `want` has it,
 * `after` undefined where only `have` has it. Shared subtrees are skipped, so the cost follows the difference.
 */
export function diffTables<K extends string, V>(
	have: Table<K, V>,
	want: Table<K, V>,
	each: (key: K, before: V | undefined, after: V | undefined) => void,
): void {
	const report = each as (key: string, before: unknown, after: unknown) => void
	diffNodes((have as Trie<K, V>).root, (want as Trie<K, V>).root, 0, report)
}

function diffNodes(
	a: Node | undefined,
	b: Node | undefined,
	shift: number,
	each: (key: string, before: unknown, after: unknown) => void,
): void {
	if (a === b) return
	if (a === undefined || b === undefined) {
		for (const leaf of new Leaves(a ?? b, (x) => x)) {
			if (a === undefined) each(leaf.key, undefined, leaf.value)
			else each(leaf.key, leaf.value, undefined)
		}
		return
	}
	if (a.kind === 2 && b.kind === 2) {
		if (a.map === b.map) {
			// Of a few changes among many entries this is every branch but the last one of a way, nearly all children shared.
			const { children } = a
			for (let i = 0; i < children.length; i++) {
				if (children[i] !== b.children[i]) diffNodes(children[i], b.children[i], shift + bits, each)
			}
			return
		}
		let ai = 0
		let bi = 0
		for (let rest = a.map | b.map; rest !== 0; ) {
			const bit = rest & -rest
			rest ^= bit
			const before = (a.map & bit) === 0 ? undefined : a.children[ai++]
			const after = (b.map & bit) === 0 ? undefined : b.children[bi++]
			if (before !== after) diffNodes(before, after, shift + bits, each)
		}
		return
	}
	// At least one side is a leaf or a collision: at most a handful of keys to look up on the other side.
	for (const leaf of new Leaves(a, (x) => x)) {
		const other = find(b, leaf.hash, leaf.key, shift)
		if (other === undefined) each(leaf.key, leaf.value, undefined)
		else if (!Object.is(other.value, leaf.value)) each(leaf.key, leaf.value, other.value)
	}
	for (const leaf of new Leaves(b, (x) => x)) {
		if (find(a, leaf.hash, leaf.key, shift) === undefined) each(leaf.key, undefined, leaf.value)
	}
}
