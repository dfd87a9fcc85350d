// Types of CEL expressions, and whether one fits another.

type Simple =
	| 'bool'
	| 'int'
	| 'uint'
	| 'double'
	| 'string'
	| 'bytes'
	| 'null_type'
	| 'timestamp'
	| 'duration'
	| 'type'
	| 'dyn'
	/** Of what is not there: the items of an empty list. Fits everything. */
	| 'nothing'

export type Type =
	| { readonly kind: Simple }
	| { readonly kind: 'list'; readonly item: Type }
	| { readonly kind: 'map'; readonly key: Type; readonly value: Type }
	| { readonly kind: 'optional'; readonly value: Type }
	/** An object of a schema. */
	| { readonly kind: 'object'; readonly fields: ReadonlyMap<string, Type> }
	/** Of an extension library: `net.IP`. */
	| { readonly kind: 'opaque'; readonly name: string }
	/** A parameter of an overload. */
	| { readonly kind: 'param'; readonly name: string }

const simple = (kind: Simple): Type => ({ kind })

export const types = {
	bool: simple('bool'),
	int: simple('int'),
	uint: simple('uint'),
	double: simple('double'),
	string: simple('string'),
	bytes: simple('bytes'),
	null: simple('null_type'),
	timestamp: simple('timestamp'),
	duration: simple('duration'),
	type: simple('type'),
	dyn: simple('dyn'),
	nothing: simple('nothing'),
	list: (item: Type): Type => ({ kind: 'list', item }),
	map: (key: Type, value: Type): Type => ({ kind: 'map', key, value }),
	optional: (value: Type): Type => ({ kind: 'optional', value }),
	opaque: (name: string): Type => ({ kind: 'opaque', name }),
} as const

export type Bindings = Map<string, Type>

/** Whether `actual` may stand where `formal` is wanted; parameters of `formal` are bound on the way. */
export function fits(formal: Type, actual: Type, bindings: Bindings): boolean {
	if (formal.kind === 'param') {
		const bound = bindings.get(formal.name)
		if (bound === undefined) {
			bindings.set(formal.name, actual)
			return true
		}
		const both = join(bound, actual)
		if (both === undefined) return false
		bindings.set(formal.name, both)
		return true
	}
	if (formal.kind === 'dyn' || actual.kind === 'dyn' || actual.kind === 'nothing' || formal.kind === 'nothing')
		return true
	if (formal.kind !== actual.kind) return false
	switch (formal.kind) {
		case 'list':
			return fits(formal.item, (actual as typeof formal).item, bindings)
		case 'map':
			return (
				fits(formal.key, (actual as typeof formal).key, bindings) &&
				fits(formal.value, (actual as typeof formal).value, bindings)
			)
		case 'optional':
			return fits(formal.value, (actual as typeof formal).value, bindings)
		case 'opaque':
			return formal.name === (actual as typeof formal).name
		case 'object':
			return sameObjects(formal, actual as typeof formal)
		default:
			return true
	}
}

/** Schemas that say the same in two places are of one type. */
function sameObjects(a: Extract<Type, { kind: 'object' }>, b: Extract<Type, { kind: 'object' }>): boolean {
	if (a === b || a.fields === b.fields) return true
	if (a.fields.size !== b.fields.size) return false
	for (const [name, type] of a.fields) {
		const other = b.fields.get(name)
		if (other === undefined || !fits(type, other, new Map())) return false
	}
	return true
}

/** The type of a value that is of one or the other; undefined: they do not go together. */
export function join(a: Type, b: Type): Type | undefined {
	if (a === b || b.kind === 'nothing') return a
	if (a.kind === 'nothing') return b
	if (a.kind === 'dyn' || b.kind === 'dyn') return types.dyn
	// Null may stand for what is never null itself: cel-go lets it be compared and chosen.
	if (a.kind === 'null_type' && isNullable(b)) return b
	if (b.kind === 'null_type' && isNullable(a)) return a
	if (a.kind !== b.kind) return undefined
	switch (a.kind) {
		case 'list': {
			const item = join(a.item, (b as typeof a).item)
			return item && types.list(item)
		}
		case 'map': {
			const key = join(a.key, (b as typeof a).key)
			const value = join(a.value, (b as typeof a).value)
			return key && value && types.map(key, value)
		}
		case 'optional': {
			const value = join(a.value, (b as typeof a).value)
			return value && types.optional(value)
		}
		case 'opaque':
			return a.name === (b as typeof a).name ? a : undefined
		case 'object':
			return sameObjects(a, b as typeof a) ? a : undefined
		default:
			return a
	}
}

function isNullable(type: Type): boolean {
	switch (type.kind) {
		case 'optional':
		case 'opaque':
		case 'object':
		case 'timestamp':
		case 'duration':
			return true
		default:
			return false
	}
}

/** The type with its parameters replaced. */
export function bind(type: Type, bindings: Bindings): Type {
	switch (type.kind) {
		case 'param':
			return bindings.get(type.name) ?? types.dyn
		case 'list':
			return types.list(bind(type.item, bindings))
		case 'map':
			return types.map(bind(type.key, bindings), bind(type.value, bindings))
		case 'optional':
			return types.optional(bind(type.value, bindings))
		default:
			return type
	}
}

/** As compile errors write it. */
export function printType(type: Type): string {
	switch (type.kind) {
		case 'list':
			return `list(${printType(type.item)})`
		case 'map':
			return `map(${printType(type.key)}, ${printType(type.value)})`
		case 'optional':
			return `optional_type(${printType(type.value)})`
		case 'timestamp':
			return 'google.protobuf.Timestamp'
		case 'duration':
			return 'google.protobuf.Duration'
		case 'opaque':
		case 'param':
			return type.name
		case 'null_type':
			return 'null'
		case 'nothing':
			return 'dyn'
		default:
			return type.kind
	}
}

/** Reads a type of a signature: `list<A>`, `map<string, A>`, `net.IP`. */
export function parseType(text: string): Type {
	const trimmed = text.trim()
	const generic = /^(list|map|optional)<(.*)>$/.exec(trimmed)
	if (generic !== null) {
		const [, kind, inner = ''] = generic
		if (kind === 'list') return types.list(parseType(inner))
		if (kind === 'optional') return types.optional(parseType(inner))
		const comma = inner.indexOf(',')
		return types.map(parseType(inner.slice(0, comma)), parseType(inner.slice(comma + 1)))
	}
	if (/^[A-Z]$/.test(trimmed)) return { kind: 'param', name: trimmed }
	if (trimmed === 'null') return types.null
	const known = types[trimmed as keyof typeof types]
	return typeof known === 'object' ? known : types.opaque(trimmed)
}

/** Names of types as values: `type(x) == int`. */
export const typeNames: ReadonlySet<string> = new Set([
	'bool',
	'int',
	'uint',
	'double',
	'string',
	'bytes',
	'list',
	'map',
	'null_type',
	'type',
	'google.protobuf.Timestamp',
	'google.protobuf.Duration',
	'optional_type',
	'net.IP',
	'net.CIDR',
	'kubernetes.URL',
	'kubernetes.Quantity',
])

/** Equal as they are written. */
export function sameType(a: Type, b: Type): boolean {
	return a === b || printType(a) === printType(b)
}

/** Whether values must be looked at to know what they are. */
export function hasDyn(type: Type): boolean {
	switch (type.kind) {
		case 'dyn':
			return true
		case 'list':
			return hasDyn(type.item)
		case 'map':
			return hasDyn(type.key) || hasDyn(type.value)
		case 'optional':
			return hasDyn(type.value)
		default:
			return false
	}
}
