// Why something is so: the object, the field, and the line of the manifest it came from, or a named default.

/** `namespace/name`, or `name` for cluster-scoped objects. */
export type ObjectKey = string

export interface SourceLine {
	readonly file: string
	/** 1-based. */
	readonly line: number
}

export type Origin =
	| {
			readonly kind: string
			readonly key: ObjectKey
			/** A JSON path inside the object as kubectl would write it: `spec.ports[0].targetPort`. */
			readonly field?: string
			readonly source?: SourceLine
	  }
	| { readonly default: string }

export function objectOrigin(kind: string, key: ObjectKey, field?: string, source?: SourceLine): Origin {
	return { kind, key, ...(field === undefined ? {} : { field }), ...(source === undefined ? {} : { source }) }
}

export function defaultOrigin(text: string): Origin {
	return { default: text }
}

/** `Service default/web spec.ports[0] (web.yaml:12)`; the comment of a kernel rule and the text of a hop. */
export function originText(origin: Origin): string {
	if ('default' in origin) return origin.default
	const field = origin.field === undefined ? '' : ` ${origin.field}`
	const source = origin.source === undefined ? '' : ` (${origin.source.file}:${origin.source.line})`
	return `${origin.kind} ${origin.key}${field}${source}`
}
