// The CustomResourceDefinitions that are kept, and the kinds they make the server serve: as soon as one is kept its kind
// is there, when it goes its objects go first. What works on schemas is loaded with the first definition.

import type { UnknownObject } from '../../kube/objects/meta.ts'
import { type Json, sameJson } from '../../kube/schema/json.ts'
import type { Api } from '../api.ts'
import type { Served } from '../registry.ts'
import type { Change, Entry } from '../store.ts'
import {
	type Condition,
	cleanupFinalizer,
	compareVersions,
	conditionOf,
	type Definition,
	definitionsStorage,
	isEstablished,
	type Names,
} from './definition.ts'

type Library = typeof import('./library.ts')

interface Installed {
	readonly uid: string
	readonly generation: number
	readonly rows: readonly Served[]
	readonly storage: string
	/** Its definition is being deleted. */
	terminating: boolean
	/** Ends listening to its objects. */
	stop?: () => void
}

/** Serves what the definitions in the store say, from now on. */
export async function serveDefinitions(api: Api): Promise<void> {
	const { store, registry } = api
	let library: Library | undefined
	const load = async (): Promise<void> => {
		library ??= await import('./library.ts')
	}
	const row = registry.find('apiextensions.k8s.io', 'v1', 'customresourcedefinitions')!
	registry.add({
		resource: row.resource,
		apiVersion: row.apiVersion,
		storage: row.storage,
		custom: false,
		get type() {
			return row.type
		},
		prepare: load,
		rules: { check: (object, before) => library!.checkDefinition(object, before) },
	})
	if (store.count(definitionsStorage) > 0) await load()
	const keeper = new Keeper(api, () => library!)
	for (const entry of store.list(definitionsStorage)) keeper.look(entry.key)
	store.subscribe(definitionsStorage, (changes) => keeper.hear(changes))
}

class Keeper {
	readonly #api: Api
	readonly #library: () => Library
	readonly #installed = new Map<string, Installed>()

	constructor(api: Api, library: () => Library) {
		this.#api = api
		this.#library = library
	}

	hear(changes: readonly Change[]): void {
		for (const name of new Set(changes.map((change) => change.entry.key))) this.look(name)
	}

	/** Brings what is served in line with one definition. Never throws: it is called in the middle of a write. */
	look(name: string): void {
		try {
			this.#look(name)
		} catch (e) {
			this.#api.reportFault(
				e,
				new Request(`http://podwire/apis/apiextensions.k8s.io/v1/customresourcedefinitions/${name}`),
			)
		}
	}

	#look(name: string): void {
		const entry = this.#api.store.current(definitionsStorage, name)
		if (entry === undefined) {
			this.#uninstall(name)
			return
		}
		const definition = entry.object as Definition
		if (definition.metadata.deletionTimestamp !== undefined) {
			this.#terminate(entry, definition)
			return
		}
		const status = this.#statusOf(definition)
		const established = status.conditions?.some((c) => c.type === 'Established' && c.status === 'True') === true
		if (established) this.#install({ ...definition, status } as Definition)
		if (!sameJson(status as unknown as Json, (definition.status ?? {}) as unknown as Json))
			this.#api.store.put(definitionsStorage, name, { ...definition, status } as UnknownObject, entry)
	}

	#install(definition: Definition): void {
		const { name = '', uid = '', generation = 1 } = definition.metadata
		const have = this.#installed.get(name)
		if (have !== undefined && have.uid === uid && have.generation === generation) return
		if (have !== undefined) this.#uninstall(name)
		// The names that are used are those that were accepted.
		const accepted = { ...definition.spec.names, ...definition.status?.acceptedNames } as Names
		const named = { ...definition, spec: { ...definition.spec, names: accepted } } as Definition
		const installed: Installed = {
			uid,
			generation,
			rows: this.#library().servedOf(named, () => installed.terminating, this.#conversion(name)),
			storage: name,
			terminating: false,
		}
		this.#installed.set(name, installed)
		this.#arrange(definition.spec.group)
	}

	#conversion(storage: string): import('./kind.ts').ConversionWorld {
		const api = this.#api
		return {
			call: async (client, review) => (await import('./webhook.ts')).callWebhook(api, client, review),
			count: () => api.store.count(storage),
			has: (key) => api.store.get(storage, key) !== undefined,
			*all() {
				for (const entry of api.store.list(storage)) yield entry.object
			},
		}
	}

	#uninstall(name: string): void {
		const have = this.#installed.get(name)
		if (have === undefined) return
		have.stop?.()
		this.#installed.delete(name)
		const { registry } = this.#api
		for (const row of have.rows) registry.remove(row.apiVersion, row.resource.plural)
		const group = have.rows[0]?.resource.group
		this.#api.watches.endOf(have.storage)
		// Names are free again: another definition may have been waiting for them.
		if (group !== undefined)
			for (const other of this.#ofGroup(group)) if (!isEstablished(other)) this.look(other.metadata.name)
	}

	*#ofGroup(group: string): Generator<Definition & { metadata: { name: string } }, void, undefined> {
		for (const entry of this.#api.store.list(definitionsStorage)) {
			if (!entry.key.endsWith(`.${group}`)) continue
			const definition = (this.#api.store.current(definitionsStorage, entry.key) ?? entry).object as Definition
			if (definition.spec.group === group) yield definition as Definition & { metadata: { name: string } }
		}
	}

	/** The rows of a group in the order they are announced: newest versions first, then by name. */
	#arrange(group: string): void {
		const { registry } = this.#api
		const rows = [...this.#installed.values()].flatMap((i) => i.rows).filter((row) => row.resource.group === group)
		rows.sort(
			(a, b) =>
				compareVersions(a.resource.version, b.resource.version) || (a.resource.plural < b.resource.plural ? -1 : 1),
		)
		for (const row of rows) registry.remove(row.apiVersion, row.resource.plural)
		for (const row of rows) registry.add(row)
	}

	#statusOf(definition: Definition): NonNullable<Definition['status']> {
		const { names, conflict } = this.#acceptNames(definition)
		const conditions = [...(definition.status?.conditions ?? [])]
		const set = (type: string, is: boolean, reason: string, message: string): void => {
			const at = conditions.findIndex((c) => c.type === type)
			const status = is ? 'True' : 'False'
			const have = conditions[at]
			if (have !== undefined && have.status === status && have.reason === reason && have.message === message) return
			const lastTransitionTime =
				have?.status === status ? (have.lastTransitionTime ?? this.#api.now()) : this.#api.now()
			const next: Condition = { lastTransitionTime, message, reason, status, type }
			if (at < 0) conditions.push(next)
			else conditions[at] = next
		}
		const library = this.#library()
		if (library.isProtected(definition.spec.group)) {
			const value = definition.metadata.annotations?.['api-approved.kubernetes.io'] ?? ''
			const approved = /^[a-z]+:\/\//i.test(value)
			set(
				'KubernetesAPIApprovalPolicyConformant',
				approved,
				approved ? 'ApprovedAnnotation' : value === '' ? 'MissingAnnotation' : 'UnapprovedAnnotation',
				approved ? `approved in ${value}` : `not approved: ${JSON.stringify(value)}`,
			)
		}
		if (conflict === undefined) set('NamesAccepted', true, 'NoConflicts', 'no conflicts found')
		else set('NamesAccepted', false, conflict.reason, conflict.message)
		const was = conditionOf(definition, 'Established')?.status === 'True'
		if (conflict === undefined || was) {
			if (!was) set('Established', true, 'InitialNamesAccepted', 'the initial names have been accepted')
		} else set('Established', false, 'NotAccepted', 'not all names are accepted')
		const stored = definition.spec.versions.find((version) => version.storage)?.name
		const before = definition.status?.storedVersions ?? []
		return {
			conditions,
			acceptedNames: names,
			storedVersions: stored === undefined || before.includes(stored) ? before : [...before, stored],
		}
	}

	/** Which of the names asked for nobody else in the group has. */
	#acceptNames(definition: Definition): {
		readonly names: Names
		readonly conflict: { readonly reason: string; readonly message: string } | undefined
	} {
		const { spec, metadata } = definition
		const resources = new Set<string>()
		const kinds = new Set<string>()
		for (const other of this.#ofGroup(spec.group)) {
			if (other.metadata.name === metadata.name) continue
			const taken = other.status?.acceptedNames ?? {}
			for (const name of [taken.plural, taken.singular, ...(taken.shortNames ?? [])]) if (name) resources.add(name)
			for (const name of [taken.kind, taken.listKind]) if (name) kinds.add(name)
		}
		for (const { resource, custom } of this.#api.registry.all()) {
			if (custom || resource.group !== spec.group) continue
			for (const name of [resource.plural, resource.singular, ...resource.shortNames]) resources.add(name)
			for (const name of [resource.kind, `${resource.kind}List`]) kinds.add(name)
		}
		const have = definition.status?.acceptedNames ?? {}
		const { names } = spec
		let conflict: { reason: string; message: string } | undefined
		const refuse = (reason: string, name: string): void => {
			// The last one is told, as on the real server.
			conflict = { reason, message: `${JSON.stringify(name)} is already in use` }
		}
		const pick = (name: string, taken: ReadonlySet<string>, reason: string, before: string | undefined): string => {
			if (!taken.has(name)) return name
			refuse(reason, name)
			return before ?? ''
		}
		const shortNames: string[] = []
		for (const name of names.shortNames ?? []) {
			if (resources.has(name)) refuse('ShortNamesConflict', name)
			else shortNames.push(name)
		}
		const accepted: Names = {
			plural: pick(names.plural, resources, 'PluralConflict', have.plural),
			singular: pick(names.singular, resources, 'SingularConflict', have.singular),
			...(shortNames.length > 0 ? { shortNames } : {}),
			kind: pick(names.kind, kinds, 'KindConflict', have.kind),
			listKind: pick(names.listKind, kinds, 'ListKindConflict', have.listKind),
			...(names.categories ? { categories: names.categories } : {}),
		}
		return { names: accepted, conflict }
	}

	/** Deletes the objects of a definition that is deleted; when none is left the definition may go. */
	#terminate(entry: Entry, definition: Definition): void {
		const { store } = this.#api
		const { name = '', finalizers = [] } = definition.metadata
		const storage = name
		const installed = this.#installed.get(name)
		if (installed !== undefined) installed.terminating = true
		if (!finalizers.includes(cleanupFinalizer)) return
		for (const object of [...store.list(storage)]) this.#deleteObject(storage, object.key)
		if (hasObjects(this.#api, storage)) {
			if (installed !== undefined)
				installed.stop ??= store.subscribe(storage, () => queueMicrotask(() => this.look(name)))
			this.#setTerminating(
				entry,
				definition,
				'InstanceDeletionInProgress',
				'CustomResource deletion is in progress',
				true,
			)
			return
		}
		const left = finalizers.filter((finalizer) => finalizer !== cleanupFinalizer)
		const conditions = withTerminating(
			definition,
			this.#api.now(),
			'InstanceDeletionCompleted',
			'removed all instances',
			false,
		)
		const { finalizers: _, ...metadata } = definition.metadata
		const last = {
			...definition,
			metadata: { ...metadata, ...(left.length > 0 ? { finalizers: left } : {}) },
			status: { ...definition.status, conditions },
		} as unknown as UnknownObject
		if (left.length > 0) store.put(definitionsStorage, name, last, entry)
		else store.remove(entry, last)
	}

	#deleteObject(storage: string, key: string): void {
		const { store } = this.#api
		const entry = store.current(storage, key)
		if (entry === undefined) return
		const { metadata } = entry.object
		if ((metadata.finalizers ?? []).length === 0) {
			store.remove(entry)
			return
		}
		if (metadata.deletionTimestamp !== undefined) return
		store.put(
			storage,
			key,
			{
				...entry.object,
				metadata: {
					...metadata,
					generation: (metadata.generation ?? 1) + 1,
					deletionTimestamp: this.#api.now(),
					deletionGracePeriodSeconds: 0,
				},
			} as UnknownObject,
			entry,
		)
	}

	#setTerminating(entry: Entry, definition: Definition, reason: string, message: string, is: boolean): void {
		const have = conditionOf(definition, 'Terminating')
		if (have?.reason === reason) return
		const conditions = withTerminating(definition, this.#api.now(), reason, message, is)
		const next = { ...definition, status: { ...definition.status, conditions } } as UnknownObject
		this.#api.store.put(definitionsStorage, entry.key, next, entry)
	}
}

function hasObjects({ store }: Api, storage: string): boolean {
	for (const entry of store.list(storage)) if (store.current(storage, entry.key) !== undefined) return true
	return false
}

function withTerminating(
	definition: Definition,
	now: string,
	reason: string,
	message: string,
	is: boolean,
): readonly Condition[] {
	const rest = (definition.status?.conditions ?? []).filter((condition) => condition.type !== 'Terminating')
	return [...rest, { lastTransitionTime: now, message, reason, status: is ? 'True' : 'False', type: 'Terminating' }]
}
