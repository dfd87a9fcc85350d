// Nobody gives away more than he has: who writes a role needs all it allows (or the verb `escalate`), who writes a
// binding all its role allows (or the verb `bind`). Source: kubernetes.io/docs/reference/access-authn-authz/rbac,
// "Privilege escalation prevention and bootstrapping".

import type { UnknownObject } from '../../kube/objects/meta.ts'
import { type Json, sameJson } from '../../kube/schema/json.ts'
import type { AdmitHook } from '../admit/admission.ts'
import type { User } from '../api.ts'
import { forbidden, notFound } from '../status.ts'
import { type Authorizer, type Binding, isAdmin, type Role, rbacGroup, storages, together } from './rbac.ts'
import { compact, missing, type Rule, writeList, writeRule } from './rules.ts'

const everything: readonly Rule[] = [
	{ apiGroups: ['*'], resources: ['*'], verbs: ['*'] },
	{ nonResourceURLs: ['*'], verbs: ['*'] },
]

/** Refuses writes of roles and bindings by which a user would gain what he does not have. */
export function createEscalationCheck(authorizer: Authorizer): AdmitHook {
	return (served, object, before, { user }) => {
		const { storage } = served
		const isRole = storage === storages.roles || storage === storages.clusterRoles
		const isBinding = storage === storages.roleBindings || storage === storages.clusterRoleBindings
		if ((!isRole && !isBinding) || isAdmin(user) || (before !== undefined && isHousekeeping(before, object)))
			return object
		const { name = '', namespace = '' } = object.metadata
		const refuseUnlessHeld = (rules: readonly Rule[]) => {
			const why = notHeld(authorizer, user, namespace, rules)
			if (why !== undefined) throw forbidden(served.resource, name, why)
		}
		const may = (verb: string, resource: string, which: string) =>
			authorizer.decide(user, { verb, group: rbacGroup, resource, subresource: '', name: which, namespace }).allowed
		if (isRole) {
			if (may('escalate', served.resource.plural, name)) return object
			const role = object as unknown as Role
			refuseUnlessHeld(role.rules ?? [])
			// What it will gather is not known yet.
			if ([role, before as unknown as Role | undefined].some((r) => r?.aggregationRule !== undefined)) {
				if (notHeld(authorizer, user, namespace, everything) !== undefined) {
					throw forbidden(served.resource, name, 'must have cluster-admin privileges to use the aggregationRule')
				}
			}
			return object
		}
		const { roleRef } = object as unknown as Binding
		// Who names no role hears so from the checks of values.
		if (roleRef?.name === undefined || (roleRef.kind !== 'Role' && roleRef.kind !== 'ClusterRole')) return object
		const plural = roleRef.kind === 'Role' ? 'roles' : 'clusterroles'
		if (may('bind', plural, roleRef.name)) return object
		const rules = authorizer.rulesOfRole(roleRef, namespace)
		if (rules === undefined) throw notFound({ group: rbacGroup, plural, kind: roleRef.kind }, roleRef.name)
		refuseUnlessHeld(rules)
		return object
	}
}

/** Why the user does not hold all these rules; undefined: he does. */
function notHeld(authorizer: Authorizer, user: User, namespace: string, rules: readonly Rule[]): string | undefined {
	const own = authorizer.rulesOf(user, namespace)
	const lacking = missing(own.rules, rules)
	if (lacking?.length === 0) return undefined
	const what =
		lacking === undefined
			? 'too many combinations of groups, resources, verbs and names to compare'
			: compact(lacking).map(writeRule).sort().join('\n')
	const errors = own.errors.length === 0 ? '' : `; resolution errors: ${together(own.errors)}`
	const who = `user ${JSON.stringify(user.name)} (groups=${writeList(user.groups)})`
	return `${who} is attempting to grant RBAC permissions not currently held:\n${what}${errors}`
}

/** An update of nothing but what garbage collection needs. */
function isHousekeeping(before: UnknownObject, after: UnknownObject): boolean {
	const rest = (object: UnknownObject) => {
		const { ownerReferences: _, finalizers: _f, managedFields: _m, resourceVersion: _r, ...metadata } = object.metadata
		return { ...object, metadata } as unknown as Json
	}
	return sameJson(rest(before), rest(after))
}
