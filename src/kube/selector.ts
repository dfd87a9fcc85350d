// Label and field selectors: the query form (`app=web,tier in (a,b),!old`), the object form (LabelSelector), and
// whether a set of labels satisfies them. Source: Kubernetes documentation, "Labels and Selectors", "Field Selectors".

import { Failure } from '../base/failure.ts'
import type { KubeObject, LabelSelector, Labels } from './objects/meta.ts'

export type Operator = 'In' | 'NotIn' | 'Exists' | 'DoesNotExist' | 'Gt' | 'Lt'

export interface Requirement {
	readonly key: string
	readonly operator: Operator
	/** Empty for Exists and DoesNotExist; one number for Gt and Lt. */
	readonly values: readonly string[]
}

/** All requirements must hold; none selects everything. */
export type Selector = readonly Requirement[]

const nothing: Labels = {}

/** Whether `labels` satisfy one requirement. NotIn also holds where the key is absent. */
export function meets(requirement: Requirement, labels: Labels = nothing): boolean {
	const value = Object.hasOwn(labels, requirement.key) ? labels[requirement.key] : undefined
	switch (requirement.operator) {
		case 'In':
			return value !== undefined && requirement.values.includes(value)
		case 'NotIn':
			return value === undefined || !requirement.values.includes(value)
		case 'Exists':
			return value !== undefined
		case 'DoesNotExist':
			return value === undefined
		case 'Gt':
		case 'Lt': {
			const limit = requirement.values[0] ?? ''
			if (value === undefined || !integer.test(value) || !integer.test(limit)) return false
			return requirement.operator === 'Gt' ? BigInt(value) > BigInt(limit) : BigInt(value) < BigInt(limit)
		}
		default:
			return requirement.operator satisfies never
	}
}
const integer = /^[+-]?\d{1,19}$/

export function matches(selector: Selector, labels: Labels | undefined): boolean {
	for (const requirement of selector) if (!meets(requirement, labels)) return false
	return true
}

/** The requirements of a LabelSelector object. An empty selector selects everything. */
export function selectorOf(selector: LabelSelector): Selector {
	const out: Requirement[] = []
	for (const [key, value] of Object.entries(selector.matchLabels ?? {}))
		out.push({ key, operator: 'In', values: [value] })
	for (const e of selector.matchExpressions ?? [])
		out.push({ key: e.key, operator: e.operator, values: e.values ?? [] })
	return out
}

/**
 * Whether `labels` satisfy a LabelSelector. An empty selector matches all, an absent one (undefined) none,
 * as apimachinery's LabelSelectorAsSelector.
 */
export function matchesLabelSelector(selector: LabelSelector | undefined, labels: Labels | undefined): boolean {
	return selector !== undefined && matches(selectorOf(selector), labels)
}

/** Whether `labels` contain every pair of `selector` (a Service's or a ReplicationController's). */
export function matchesLabels(selector: Labels, labels: Labels | undefined): boolean {
	for (const key in selector) if (labels === undefined || labels[key] !== selector[key]) return false
	return true
}

/** The query form of a LabelSelector object: `app=web,tier in (a,b)`. */
export function formatSelector(selector: Selector): string {
	return selector
		.map(({ key, operator, values }) => {
			switch (operator) {
				case 'In':
					return values.length === 1 ? `${key}=${values[0]}` : `${key} in (${values.toSorted().join(',')})`
				case 'NotIn':
					return values.length === 1 ? `${key}!=${values[0]}` : `${key} notin (${values.toSorted().join(',')})`
				case 'Exists':
					return key
				case 'DoesNotExist':
					return `!${key}`
				case 'Gt':
					return `${key}>${values[0]}`
				case 'Lt':
					return `${key}<${values[0]}`
				default:
					return operator satisfies never
			}
		})
		.join(',')
}

const namePart = /^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$/
const prefixPart = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/

/** undefined when `key` is a valid label key, else what is wrong with it. */
export function labelKeyError(key: string): string | undefined {
	const slash = key.indexOf('/')
	const name = key.slice(slash + 1)
	if (name === '') return 'name part must be non-empty'
	if (slash >= 0 && (slash > 253 || !prefixPart.test(key.slice(0, slash)))) return 'prefix part must be a DNS subdomain'
	if (!namePart.test(name)) {
		return "name part must consist of at most 63 alphanumeric characters, '-', '_' or '.', and start and end alphanumeric"
	}
	return undefined
}

/** undefined when `value` is a valid label value, else what is wrong with it. */
export function labelValueError(value: string): string | undefined {
	if (value === '' || namePart.test(value)) return undefined
	return "must be empty or at most 63 alphanumeric characters, '-', '_' or '.', and start and end alphanumeric"
}

/** Reads the query form of a label selector. Throws Failure BadRequest that quotes the text and says what is wrong. */
export function parseSelector(text: string): Selector {
	const reader = new Reader(text)
	const out: Requirement[] = []
	if (reader.peek() === '') return out
	for (;;) {
		out.push(readRequirement(reader))
		const next = reader.take()
		if (next === '') return out
		if (next !== ',') throw reader.error(`expected "," and found ${JSON.stringify(next)}`)
	}
}

function readRequirement(reader: Reader): Requirement {
	const first = reader.take()
	if (first === '!') return { key: reader.key(reader.take()), operator: 'DoesNotExist', values: [] }
	const key = reader.key(first)
	const next = reader.peek()
	if (next === '' || next === ',') return { key, operator: 'Exists', values: [] }
	const operator = reader.take()
	switch (operator) {
		case '=':
		case '==':
			return { key, operator: 'In', values: [reader.value()] }
		case '!=':
			return { key, operator: 'NotIn', values: [reader.value()] }
		case 'in':
			return { key, operator: 'In', values: reader.list() }
		case 'notin':
			return { key, operator: 'NotIn', values: reader.list() }
		case '>':
		case '<': {
			const value = reader.value()
			if (!integer.test(value)) throw reader.error(`${JSON.stringify(value)} is not an integer`)
			return { key, operator: operator === '>' ? 'Gt' : 'Lt', values: [value] }
		}
		default:
			throw reader.error(
				`expected an operator (=, !=, in, notin, <, >) after ${JSON.stringify(key)}, found "${operator}"`,
			)
	}
}

const special = new Set(['(', ')', ',', '!', '=', '==', '!=', '<', '>', ''])

/** Splits a selector into its tokens; '' is the end. */
class Reader {
	readonly #text: string
	readonly #tokens: readonly string[]
	#at = 0
	constructor(text: string) {
		this.#text = text
		this.#tokens = text.match(/!=|==|[(),!=<>]|[^\s(),!=<>]+/g) ?? []
	}
	peek(): string {
		return this.#tokens[this.#at] ?? ''
	}
	take(): string {
		return this.#tokens[this.#at++] ?? ''
	}
	key(token: string): string {
		if (special.has(token)) throw this.error(`expected a label key, found ${token === '' ? 'the end' : `"${token}"`}`)
		const wrong = labelKeyError(token)
		if (wrong !== undefined) throw this.error(`label key ${JSON.stringify(token)}: ${wrong}`)
		return token
	}
	/** An absent value is the empty string: `app=`. */
	value(): string {
		const token = this.peek()
		if (token === '' || token === ',') return ''
		return this.checked(this.take())
	}
	checked(token: string): string {
		if (special.has(token)) throw this.error(`expected a label value, found ${JSON.stringify(token)}`)
		const wrong = labelValueError(token)
		if (wrong !== undefined) throw this.error(`label value ${JSON.stringify(token)}: ${wrong}`)
		return token
	}
	list(): string[] {
		const open = this.take()
		if (open !== '(') throw this.error(`expected "(", found ${JSON.stringify(open)}`)
		const values = new Set<string>()
		for (;;) {
			const token = this.take()
			if (token === ')') {
				values.add('')
				return [...values]
			}
			if (token === ',') {
				values.add('')
				continue
			}
			values.add(this.checked(token))
			const end = this.take()
			if (end === ')') return [...values]
			if (end !== ',') throw this.error(`expected "," or ")", found ${end === '' ? 'the end' : JSON.stringify(end)}`)
		}
	}
	error(why: string): Failure {
		return new Failure('BadRequest', `Cannot read label selector ${JSON.stringify(this.#text)}: ${why}`)
	}
}

/** `metadata.name=web`, `status.phase!=Running`. */
export interface FieldRequirement {
	readonly field: string
	readonly equal: boolean
	readonly value: string
}
export type FieldSelector = readonly FieldRequirement[]

/** Reads the query form of a field selector; `\` escapes `,`, `=` and itself. Throws Failure BadRequest. */
export function parseFieldSelector(text: string): FieldSelector {
	const bad = (why: string) => new Failure('BadRequest', `Cannot read field selector ${JSON.stringify(text)}: ${why}`)
	const out: FieldRequirement[] = []
	for (const term of text.match(/(?:\\.|[^,\\])+|\\$/g) ?? []) {
		const parts = /^((?:\\.|[^\\=!])*)(!=|==|=)((?:\\.|[^\\=])*)$/s.exec(term)
		if (parts === null) throw bad(`${JSON.stringify(term)} is not field=value or field!=value`)
		const [, field = '', operator = '', raw = ''] = parts
		if (/\\[^\\,=]/.test(raw)) throw bad(`${JSON.stringify(term)} escapes what needs no escape`)
		out.push({ field: field.trim(), equal: operator !== '!=', value: raw.replace(/\\(.)/gs, '$1') })
	}
	return out
}

/**
 * Whether an object satisfies a field selector. A field is a dotted path in the object; an absent field is ''.
 * Which fields a resource offers is the API server's business (`supportedFields`).
 */
export function matchesFields(selector: FieldSelector, object: KubeObject): boolean {
	for (const { field, equal, value } of selector) {
		if ((fieldValue(object, field) === value) !== equal) return false
	}
	return true
}

function fieldValue(object: KubeObject, field: string): string {
	let at: unknown = object
	for (const step of (aliases[`${object.kind} ${field}`] ?? field).split('.')) {
		if (typeof at !== 'object' || at === null || !Object.hasOwn(at, step)) return absent[field] ?? ''
		at = (at as Record<string, unknown>)[step]
	}
	return at === undefined || at === null || typeof at === 'object' ? (absent[field] ?? '') : String(at)
}

/** Selectable fields that are not the path of a field of the object. */
const aliases: Readonly<Record<string, string>> = {
	'Namespace name': 'metadata.name',
	'Job status.successful': 'status.succeeded',
	'Event source': 'source.component',
}

/** Fields that read as something else than '' where they are absent. */
const absent: Readonly<Record<string, string>> = {
	'spec.hostNetwork': 'false',
	'spec.unschedulable': 'false',
	'status.replicas': '0',
	'status.successful': '0',
}

const fieldsByKind: Readonly<Record<string, readonly string[]>> = {
	Pod: [
		'spec.nodeName',
		'spec.restartPolicy',
		'spec.schedulerName',
		'spec.serviceAccountName',
		'spec.hostNetwork',
		'status.phase',
		'status.podIP',
		'status.podIPs',
		'status.nominatedNodeName',
	],
	Event: [
		'involvedObject.kind',
		'involvedObject.namespace',
		'involvedObject.name',
		'involvedObject.uid',
		'involvedObject.apiVersion',
		'involvedObject.resourceVersion',
		'involvedObject.fieldPath',
		'reason',
		'reportingComponent',
		'source',
		'type',
	],
	Secret: ['type'],
	Namespace: ['status.phase', 'name'],
	Node: ['spec.unschedulable'],
	ReplicaSet: ['status.replicas'],
	ReplicationController: ['status.replicas'],
	Job: ['status.successful'],
	Service: ['spec.clusterIP', 'spec.type'],
	CertificateSigningRequest: ['spec.signerName'],
}

/** The fields a field selector may name for a kind. */
export function supportedFields(kind: string): readonly string[] {
	return ['metadata.name', 'metadata.namespace', ...(fieldsByKind[kind] ?? [])]
}
