// May this user do this? Roles and bindings as the store holds them, bindings indexed by their subjects and kept with
// every change, so that a question costs a few lookups. Members of system:masters may do everything.

import type { KubeObject } from '../../kube/objects/meta.ts'
import type { User } from '../api.ts'
import type { Change, Store } from '../store.ts'
import { type Attributes, denied } from './attributes.ts'
import { allows, type Rule } from './rules.ts'

export interface Decision {
	readonly allowed: boolean
	/** Why, where there is something to tell: the binding that allows, the roles that are missing. */
	readonly reason: string
}

export interface Authorizer {
	decide(user: User, attributes: Attributes): Decision
	/** Throws Refusal 403 in the words of Kubernetes. */
	require(user: User, attributes: Attributes): void
	/** All rules that hold for the user in a namespace ('': at the cluster scope alone), and what could not be found. */
	rulesOf(user: User, namespace: string): { readonly rules: readonly Rule[]; readonly errors: readonly string[] }
	/** The rules of the role that a binding in `namespace` names; undefined: there is none. */
	rulesOfRole(role: RoleRef, namespace: string): readonly Rule[] | undefined
	close(): void
}

export interface RoleRef {
	readonly apiGroup?: string
	readonly kind: 'Role' | 'ClusterRole'
	readonly name: string
}

interface Subject {
	readonly apiGroup?: string
	readonly kind: string
	readonly name: string
	readonly namespace?: string
}

export interface Binding extends KubeObject {
	readonly roleRef: RoleRef
	readonly subjects?: readonly Subject[]
}

export interface Role extends KubeObject {
	readonly rules?: readonly Rule[]
	readonly aggregationRule?: { readonly clusterRoleSelectors?: readonly object[] }
}

export const rbacGroup = 'rbac.authorization.k8s.io'
export const storages = {
	roles: `roles.${rbacGroup}`,
	clusterRoles: `clusterroles.${rbacGroup}`,
	roleBindings: `rolebindings.${rbacGroup}`,
	clusterRoleBindings: `clusterrolebindings.${rbacGroup}`,
} as const

export function isAdmin(user: User): boolean {
	return user.groups.includes('system:masters')
}

/** One binding, to one of its subjects. */
interface Grant {
	/** The key of the binding. */
	readonly binding: string
	readonly role: RoleRef
	/** Of the binding; '' for a ClusterRoleBinding. */
	readonly namespace: string
	readonly subject: Subject
}

/** The grants of one namespace, or of ClusterRoleBindings, by the names of users and groups. */
interface Scope {
	readonly users: Map<string, Grant[]>
	readonly groups: Map<string, Grant[]>
}

const always: Decision = { allowed: true, reason: '' }

export function createAuthorizer(store: Store): Authorizer {
	const scopes = new Map<string, Scope>()

	function rulesOfRole(role: RoleRef, namespace: string): readonly Rule[] | undefined {
		const entry =
			role.kind === 'Role'
				? store.get(storages.roles, `${namespace}/${role.name}`)
				: store.get(storages.clusterRoles, role.name)
		return entry === undefined ? undefined : ((entry.object as unknown as Role).rules ?? [])
	}

	/** Calls `visit` with each grant's rules until it answers true. */
	function visit(
		user: User,
		namespace: string,
		errors: string[],
		each: (rules: readonly Rule[], grant: Grant) => boolean,
	): boolean {
		const one = (grants: readonly Grant[] | undefined): boolean => {
			if (grants === undefined) return false
			for (const grant of grants) {
				const rules = rulesOfRole(grant.role, grant.namespace)
				if (rules === undefined) errors.push(noRole(grant.role))
				else if (each(rules, grant)) return true
			}
			return false
		}
		const scope = (found: Scope | undefined): boolean =>
			found !== undefined &&
			(one(found.users.get(user.name)) || user.groups.some((group) => one(found.groups.get(group))))
		return scope(scopes.get('')) || (namespace !== '' && scope(scopes.get(namespace)))
	}

	function decide(user: User, attributes: Attributes): Decision {
		if (isAdmin(user)) return always
		const errors: string[] = []
		let by: Grant | undefined
		const namespace = 'path' in attributes ? '' : attributes.namespace
		visit(user, namespace, errors, (rules, grant) => {
			for (const rule of rules) {
				if (!allows(rule, attributes)) continue
				by = grant
				return true
			}
			return false
		})
		if (by !== undefined) return { allowed: true, reason: `RBAC: allowed by ${describe(by)}` }
		return { allowed: false, reason: errors.length === 0 ? '' : `RBAC: ${together(errors)}` }
	}

	function replace(change: Change): void {
		const was = change.before?.object as unknown as Binding | undefined
		if (was !== undefined)
			for (const [grant, list] of grantsOf(was, false))
				list?.splice(0, list.length, ...list.filter((g) => g.binding !== grant.binding))
		if (change.type !== 'DELETED') add(change.entry.object as unknown as Binding)
	}

	function add(binding: Binding): void {
		for (const [grant, list] of grantsOf(binding, true)) list?.push(grant)
	}

	/** The grants of a binding, each with the list it belongs to. */
	function* grantsOf(
		binding: Binding,
		make: boolean,
	): Generator<readonly [Grant, Grant[] | undefined], void, undefined> {
		const { namespace = '', name } = binding.metadata
		let scope = scopes.get(namespace)
		if (scope === undefined) scopes.set(namespace, (scope = { users: new Map(), groups: new Map() }))
		const { kind, name: roleName } = binding.roleRef
		for (const subject of binding.subjects ?? []) {
			const grant: Grant = { binding: name, role: { kind, name: roleName }, namespace, subject }
			const [map, key] =
				subject.kind === 'Group' ? [scope.groups, subject.name] : [scope.users, userOf(subject, namespace)]
			if (key === undefined) continue
			let list = map.get(key)
			if (list === undefined && make) map.set(key, (list = []))
			yield [grant, list]
			if (list?.length === 0) map.delete(key)
		}
		if (scope.users.size === 0 && scope.groups.size === 0) scopes.delete(namespace)
	}

	for (const storage of [storages.clusterRoleBindings, storages.roleBindings]) {
		for (const entry of store.list(storage)) add(entry.object as unknown as Binding)
	}
	const stops = [storages.clusterRoleBindings, storages.roleBindings].map((storage) =>
		store.subscribe(storage, (changes) => changes.forEach(replace)),
	)
	return {
		decide,
		require(user, attributes) {
			if (isAdmin(user)) return
			const { allowed, reason } = decide(user, attributes)
			if (!allowed) throw denied(user, attributes, reason)
		},
		rulesOf(user, namespace) {
			const rules: Rule[] = []
			const errors: string[] = []
			visit(user, namespace, errors, (found) => {
				rules.push(...found)
				return false
			})
			return { rules, errors }
		},
		rulesOfRole,
		close: () => stops.forEach((stop) => void stop()),
	}
}

/** The user a subject of kind User or ServiceAccount names. */
function userOf(subject: Subject, namespace: string): string | undefined {
	if (subject.kind === 'User') return subject.name
	if (subject.kind !== 'ServiceAccount') return undefined
	const of = subject.namespace || namespace
	return of === '' ? undefined : `system:serviceaccount:${of}:${subject.name}`
}

export function noRole(role: RoleRef): string {
	return `${role.kind.toLowerCase()}.${rbacGroup} ${JSON.stringify(role.name)} not found`
}

/** Several errors as one text. */
export function together(errors: readonly string[]): string {
	const all = [...new Set(errors)]
	return all.length === 1 ? all[0]! : `[${all.join(', ')}]`
}

function describe({ binding, role, namespace, subject }: Grant): string {
	const name = namespace === '' ? JSON.stringify(binding) : JSON.stringify(`${binding}/${namespace}`)
	const kind = namespace === '' ? 'ClusterRoleBinding' : 'RoleBinding'
	const who =
		subject.kind === 'ServiceAccount'
			? `ServiceAccount ${JSON.stringify(`${subject.name}/${subject.namespace || namespace}`)}`
			: `${subject.kind} ${JSON.stringify(subject.name)}`
	return `${kind} ${name} of ${role.kind} ${JSON.stringify(role.name)} to ${who}`
}
