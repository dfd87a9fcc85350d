// The three testimonies side by side; their first disagreement is the diagnosis.

import {
	type Path,
	type Point,
	pathKey,
	pointAt,
	type Stage,
	stages,
	type Testimony,
	type WitnessName,
} from './witness.ts'

export interface Row {
	readonly stage: Stage
	readonly should?: Point
	readonly would?: Point
	readonly did?: Point
	readonly agree: boolean
}

export interface Disagreement {
	readonly stage: Stage
	/** Who says what, in one sentence. */
	readonly text: string
}

export interface Comparison {
	/** The stages of one path: the one the packet took, else the first possible. */
	readonly rows: readonly Row[]
	readonly disagreement?: Disagreement
	/** As the packet fared; without a packet as the rules say; without rules as the manifests say. */
	readonly verdict: 'delivered' | 'not-delivered' | 'unknown'
	readonly disposition: string
	/** The first line a person reads. */
	readonly headline: string
}

export function compare(should: Testimony, would: Testimony, did: Testimony): Comparison {
	const path = choose(should, would, did)
	const fork = forkOf(path)
	const rows = stages.flatMap((stage): Row[] => {
		const row = {
			stage,
			...at('should', path.should, stage),
			...at('would', path.would, stage),
			...at('did', path.did, stage),
		}
		if (row.should === undefined && row.would === undefined && row.did === undefined) return []
		return [{ ...row, agree: agree(row) && stage !== fork }]
	})
	const unenforced = rows.find((r) => r.should?.enforced === false && r.should.result === 'deny')
	const disagreement = firstDisagreement(rows, should, would, did, unenforced)
	const decisive = path.did ?? path.would ?? path.should
	const verdict = decisive === undefined ? 'unknown' : decisive.delivered ? 'delivered' : 'not-delivered'
	const disposition = dispositionOf(path) ?? 'unknown'
	return {
		rows,
		verdict,
		disposition,
		headline: headline({ verdict, path, disagreement, unenforced, heard: heard(should, would, did) }),
		...(disagreement === undefined ? {} : { disagreement }),
	}
}

type Chosen = { readonly [W in WitnessName]: Path | undefined }

function pathsOf(testimony: Testimony): readonly Path[] {
	return 'paths' in testimony ? testimony.paths : []
}

function choose(should: Testimony, would: Testimony, did: Testimony): Chosen {
	const taken = pathsOf(did)[0]
	// The same endpoint, of several addresses of a name the same, else at least the same end.
	const likeness = (a: Path, b: Path): number =>
		(pathKey(a) === pathKey(b) ? 4 : 0) +
		(pointAt(a, 'name')?.result === pointAt(b, 'name')?.result ? 2 : 0) +
		(a.delivered === b.delivered ? 1 : 0) +
		// Of several endpoints a policy may deny some: the packet was denied as one of them is.
		(['egress', 'ingress'] as const).filter((stage) => pointAt(a, stage)?.result === pointAt(b, stage)?.result).length *
			0.8 +
		// From outside several nodes lead to one endpoint.
		(pointAt(a, 'route')?.result === pointAt(b, 'route')?.result ? 0.5 : 0)
	const find = (paths: readonly Path[], like: Path | undefined): Path | undefined => {
		if (like === undefined) return paths[0]
		const most = Math.max(...paths.map((p) => likeness(p, like)))
		return paths.find((p) => likeness(p, like) === most)
	}
	const rules = find(pathsOf(would), taken)
	const expected = find(pathsOf(should), taken ?? rules)
	// A packet that was dropped on its way may not tell which endpoint it was meant for: then the two tell of the same.
	const untold = taken !== undefined && pointAt(taken, 'service') === undefined && expected !== undefined
	if (!untold) return { should: expected, would: rules, did: taken }
	const alike = find(pathsOf(would), expected)
	// Rules that remember the endpoint of a client know no other one: then the manifests tell of that.
	const remembered = alike !== undefined && pathKey(alike) !== pathKey(expected)
	return { should: remembered ? find(pathsOf(should), alike) : expected, would: alike, did: taken }
}

function at(name: WitnessName, path: Path | undefined, stage: Stage): { [W in WitnessName]?: Point } {
	const point = pointAt(path, stage)
	return point === undefined ? {} : { [name]: point }
}

/** Where should and would part though they came the same way: one flow ends at this stage, the other goes on. */
function forkOf({ should, would }: Chosen): Stage | undefined {
	if (should === undefined || would === undefined || should.delivered === would.delivered) return undefined
	const last = (should.delivered ? would : should).points.at(-1)
	// Rules are not asked for the way back.
	return last?.enforced === false || last?.stage === 'reply' ? undefined : last?.stage
}

/** Witnesses that speak at a stage must say the same; a stage the data plane does not carry out yet is not compared. */
function agree(row: { should?: Point; would?: Point; did?: Point }): boolean {
	if (row.should?.enforced === false) return true
	// What others answer outside of the cluster the manifests cannot know.
	const said = [row.should, row.would, row.did].flatMap((p) =>
		p === undefined || p.result === 'forwarded' ? [] : [p.result],
	)
	return new Set(said).size <= 1
}

function firstDisagreement(
	rows: readonly Row[],
	should: Testimony,
	would: Testimony,
	did: Testimony,
	unenforced: Row | undefined,
): Disagreement | undefined {
	const sets = compareSets(should, would, did)
	for (const stage of stages) {
		if (sets?.stage === stage) return sets
		const row = rows.find((r) => r.stage === stage)
		if (row !== undefined && !row.agree) return { stage, text: sentence(row) }
	}
	// Each stage agrees or only some witnesses reach it: then the ends are compared.
	const ends = (['should', 'would', 'did'] as const).flatMap((name) => {
		const path = choose(should, would, did)[name]
		// What becomes of it outside of the cluster neither manifests nor rules say.
		return path === undefined || path.disposition === 'left-cluster' ? [] : [{ name, path }]
	})
	// Who listens at the end is no matter of the network (docs/dispositions.md).
	const arrived = (path: Path) => path.delivered || pointAt(path, 'deliver')?.result === 'delivered'
	if (unenforced === undefined && new Set(ends.map((e) => arrived(e.path))).size > 1) {
		return {
			stage: 'deliver',
			text: ends.map((e) => `${e.name}: ${e.path.disposition}`).join('; '),
		}
	}
	return undefined
}

/** Should and would must allow the same endpoints with the same chances, and did must have reached one of them. */
function compareSets(should: Testimony, would: Testimony, did: Testimony): Disagreement | undefined {
	if (!('paths' in should)) return undefined
	const weigh = (paths: readonly Path[]): Map<string, number> => {
		const map = new Map<string, number>()
		for (const path of paths) map.set(pathKey(path), (map.get(pathKey(path)) ?? 0) + path.chance)
		return map
	}
	const expected = weigh(should.paths)
	const taken = 'paths' in did ? did.paths[0] : undefined
	if ('paths' in would && should.paths.length > 1) {
		// Of a name with several addresses the rules were asked for one.
		const name = pointAt(taken, 'name')?.result ?? pointAt(should.paths[0], 'name')?.result
		const asked = should.paths.filter((p) => pointAt(p, 'name')?.result === name)
		const all = asked.reduce((sum, p) => sum + p.chance, 0)
		const expected = weigh(asked.map((p) => ({ ...p, chance: p.chance / all })))
		const found = weigh(would.paths)
		// The rules remember which endpoint a client had; the manifests cannot know it.
		const remembered = found.size === 1 && should.paths.every((p) => p.sticky === true)
		const missing = remembered ? [] : [...expected.keys()].filter((k) => !found.has(k))
		const extra = [...found.keys()].filter((k) => !expected.has(k))
		if (missing.length > 0 || extra.length > 0) {
			const parts = [
				...(missing.length > 0 ? [`the manifests name ${missing.join(', ')}, the rules on the node do not`] : []),
				...(extra.length > 0 ? [`the rules on the node name ${extra.join(', ')}, the manifests do not`] : []),
			]
			return { stage: 'service', text: parts.join('; ') }
		}
		for (const [key, chance] of remembered ? [] : expected) {
			const other = found.get(key) ?? 0
			if (Math.abs(other - chance) > 1e-6) {
				return {
					stage: 'service',
					text: `${key} should be taken with chance ${chance}, the rules take it with ${other}`,
				}
			}
		}
	}
	const service = pointAt(taken, 'service')
	if (service !== undefined && expected.size > 0 && !expected.has(service.result)) {
		return {
			stage: 'service',
			text: `the packet went to ${service.result}; should: ${[...expected.keys()].join(', ')}`,
		}
	}
	return undefined
}

function sentence(row: Row): string {
	const said = (['should', 'would', 'did'] as const).flatMap((name) => {
		const point = row[name]
		return point === undefined ? [] : [{ name, point }]
	})
	const same = new Set(said.map((s) => s.point.result)).size === 1
	return said.map(({ name, point }) => `${name}: ${same ? point.text : point.result}`).join('; ')
}

function heard(should: Testimony, would: Testimony, did: Testimony): readonly WitnessName[] {
	const all = { should, would, did }
	return (['should', 'would', 'did'] as const).filter((name) => 'paths' in all[name] && pathsOf(all[name]).length > 0)
}

function headline(input: {
	verdict: Comparison['verdict']
	path: Chosen
	disagreement: Disagreement | undefined
	unenforced: Row | undefined
	heard: readonly WitnessName[]
}): string {
	const { verdict, path, disagreement, unenforced } = input
	const fate = verdict === 'unknown' ? 'could not tell' : fateOf(path)
	if (disagreement !== undefined)
		return `${fate}; the witnesses disagree at ${disagreement.stage}: ${disagreement.text}`
	if (unenforced?.should !== undefined && verdict === 'delivered') {
		return `${fate}; NetworkPolicy denies it (${unenforced.stage}), which is not enforced here`
	}
	const names = input.heard
	if (names.length < 2) return names.length === 1 ? `${fate} (${names[0]})` : fate
	return `${fate}: ${names.slice(0, -1).join(', ')} and ${names.at(-1)} agree`
}

function fateOf(path: Chosen): string {
	const decisive = path.did ?? path.would ?? path.should
	if (decisive === undefined) return 'could not tell'
	if (decisive.delivered) return 'delivered'
	const end = pointAt(decisive, 'deliver')
	return end?.result === 'delivered' ? `not answered: it ${end.text}` : `not delivered: ${dispositionOf(path)}`
}

/** A socket sees only `refused` or `timeout`; where the model knows that the flow ends, it knows why, too. */
function dispositionOf(path: Chosen): string | undefined {
	const decisive = path.did ?? path.would ?? path.should
	const known = path.should
	return decisive?.delivered === false &&
		known !== undefined &&
		!known.delivered &&
		known.disposition !== 'left-cluster'
		? known.disposition
		: decisive?.disposition
}
