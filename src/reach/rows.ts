// What a list of rules comes to: for every class, and for every piece of the address space. A row is computed when first
// asked for, and kept current cell by cell.

import type { AddressSpace, Pieces } from './addresses.ts'
import { eachOfAll } from './bits.ts'
import { anyPod, type ClassIndex } from './classes.ts'
import type { Block, CompiledRule, Compiler } from './compile.ts'
import { ConnectionPool } from './connections.ts'
import { holds, isOrdered, matchesClass, type Profile } from './profile.ts'

export class Rows {
	readonly #index: ClassIndex
	readonly #compiler: Compiler
	readonly #pool: ConnectionPool
	#space: AddressSpace
	/** Pieces that are a node's address, where networks do not mean nodes. */
	#nodePieces: ReadonlySet<number>

	constructor(
		index: ClassIndex,
		compiler: Compiler,
		pool: ConnectionPool,
		space: AddressSpace,
		nodePieces: ReadonlySet<number>,
	) {
		this.#index = index
		this.#compiler = compiler
		this.#pool = pool
		this.#space = space
		this.#nodePieces = nodePieces
	}

	/** Pieces have other numbers. */
	recut(space: AddressSpace, nodePieces: ReadonlySet<number>, profiles: Iterable<Profile>): void {
		this.#space = space
		this.#nodePieces = nodePieces
		for (const profile of profiles) profile.pieces = undefined
	}

	withClass(profile: Profile, other: number): number {
		if (profile.open) return ConnectionPool.all
		profile.row ??= this.#fillRow(profile)
		return profile.row[other]!
	}

	withPiece(profile: Profile, piece: number): number {
		if (profile.open) return ConnectionPool.all
		profile.pieces ??= this.#fillPieces(profile)
		return profile.pieces[piece]!
	}

	matchesPiece(rule: CompiledRule, piece: number): boolean {
		if (rule.peers === undefined) return true
		const { family, first } = this.#space.intervalOf(piece)
		return rule.peers.some(({ blocks }) =>
			blocks.some((block) => holds(block, family, first) && !(block.network === true && this.#nodePieces.has(piece))),
		)
	}

	/** The class is new, or what matchers say of it changed. */
	refresh(profile: Profile, id: number): void {
		if (profile.row !== undefined) this.#roomFor(profile.row, profile, id)[id] = this.#cell(profile, id)
	}

	/** Classes that are new, of which the rules say what they say of another. */
	copy(profile: Profile, made: readonly { readonly id: number; readonly from: number }[]): void {
		if (profile.row === undefined) return
		let { row } = profile
		for (const { id, from } of made) {
			if (id >= row.length) row = this.#roomFor(row, profile, id)
			row[id] = row[from]!
		}
	}

	#roomFor(row: Uint32Array, profile: Profile, id: number): Uint32Array {
		if (id < row.length) return row
		const more = new Uint32Array(roomy(id + 1))
		more.set(row)
		profile.row = more
		return more
	}

	#fillRow(profile: Profile): Uint32Array {
		const { classes } = this.#index
		const size = classes.length
		const row = new Uint32Array(roomy(size))
		if (isOrdered(profile)) {
			for (let id = 0; id < size; id++) row[id] = this.#cell(profile, id)
			return row
		}
		for (const rule of profile.rules ?? []) {
			const fixed = rule.names.length === 0 || profile.destination !== undefined
			const id = fixed ? this.#compiler.portsOf(rule, profile.destination) : 0
			const add = (c: number) => {
				const more = fixed ? id : this.#compiler.portsOf(rule, classes[c])
				const has = row[c]!
				row[c] = has === 0 ? more : this.#pool.unite(has, more)
			}
			if (rule.peers === undefined) for (let c = 0; c < size; c++) add(c)
			else
				for (const { matchers } of rule.peers)
					eachOfAll(
						matchers.map((m) => m.bits),
						add,
					)
		}
		return row
	}

	#cell(profile: Profile, other: number): number {
		const end = this.#index.classes[other]!
		if (!isOrdered(profile)) {
			let id: number = ConnectionPool.none
			for (const rule of profile.rules ?? [])
				if (matchesClass(rule, other))
					id = this.#pool.unite(id, this.#compiler.portsOf(rule, profile.destination ?? end))
			return id
		}
		return this.#fold(
			profile,
			(rule) => matchesClass(rule, other) || (other === anyPod && rule.action === 'Deny'),
			(rule) => this.#compiler.portsOf(rule, profile.destination ?? end),
		)
	}

	#fillPieces(profile: Profile): Uint32Array {
		const { size } = this.#space
		const row = new Uint32Array(size)
		if (isOrdered(profile)) {
			for (let piece = 0; piece < size; piece++)
				row[piece] = this.#fold(
					profile,
					(rule) => this.matchesPiece(rule, piece),
					(rule) => this.#compiler.portsOf(rule, profile.destination),
				)
			return row
		}
		for (const rule of profile.rules ?? []) {
			const id = this.#compiler.portsOf(rule, profile.destination)
			const ranges =
				rule.peers === undefined
					? [{ from: 0, to: size }]
					: rule.peers.flatMap((peer) => peer.blocks.flatMap((block) => this.#piecesOf(block)))
			for (const { from, to } of ranges)
				for (let piece = from; piece < to; piece++) row[piece] = this.#pool.unite(row[piece]!, id)
		}
		return row
	}

	#piecesOf(block: Block): readonly Pieces[] {
		let ranges: Pieces[] = [this.#space.piecesOf(block.cidr)]
		for (const except of block.except) {
			const hole = this.#space.piecesOf(except)
			ranges = ranges.flatMap(({ from, to }) =>
				[
					{ from, to: Math.min(to, hole.from) },
					{ from: Math.max(from, hole.to), to },
				].filter((r) => r.from < r.to),
			)
		}
		if (block.network === undefined || this.#nodePieces.size === 0) return ranges
		return ranges.flatMap(({ from, to }) =>
			Array.from({ length: to - from }, (_, i) => ({ from: from + i, to: from + i + 1 })).filter(
				(piece) => !this.#nodePieces.has(piece.from),
			),
		)
	}

	/** Admin tier → NetworkPolicy → Baseline tier → allowed. */
	#fold(profile: Profile, matches: (rule: CompiledRule) => boolean, portsOf: (rule: CompiledRule) => number): number {
		const pool = this.#pool
		let allowed: number = ConnectionPool.none
		let open: number = ConnectionPool.all
		const tier = (rules: readonly CompiledRule[]) => {
			let passed: number = ConnectionPool.none
			for (const rule of rules) {
				if (open === ConnectionPool.none) break
				if (!matches(rule)) continue
				const part = pool.intersect(open, portsOf(rule))
				open = pool.subtract(open, part)
				if (rule.action === 'Accept') allowed = pool.unite(allowed, part)
				else if (rule.action === 'Pass') passed = pool.unite(passed, part)
			}
			open = pool.unite(open, passed)
		}
		tier(profile.admin)
		if (profile.rules !== undefined) {
			let named: number = ConnectionPool.none
			for (const rule of profile.rules) if (matches(rule)) named = pool.unite(named, portsOf(rule))
			allowed = pool.unite(allowed, pool.intersect(open, named))
			if (!profile.trial) return allowed
			open = pool.subtract(open, named)
		}
		tier(profile.baseline)
		return pool.unite(allowed, open)
	}
}

/** Room for classes to come. */
function roomy(size: number): number {
	return size + (size >> 2) + 16
}
