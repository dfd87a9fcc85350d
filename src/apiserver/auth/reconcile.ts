// At start every cluster gets the default roles and bindings, and back what was taken from them: rules and subjects are
// added, never removed, and what says `autoupdate: "false"` is left alone.
// Source: kubernetes.io/docs/reference/access-authn-authz/rbac, "Auto-reconciliation".

import { randomUUID } from 'node:crypto'
import { createKubeClient } from '../../kube/client.ts'
import type { Kind } from '../../kube/kinds.ts'
import { resourceOf } from '../../kube/resources.ts'
import type { Transport } from '../../kube/transport.ts'
import type { Store } from '../store.ts'
import { clusterRoles, gathered } from './aggregation.ts'
import { type DefaultRole, defaultBindings, defaultRoles } from './default-roles.ts'
import { type Binding, type Role, rbacGroup, storages } from './rbac.ts'
import { missing } from './rules.ts'

const clusterRoleBindings: Kind<Binding> = resourceOf(`${rbacGroup}/v1`, 'ClusterRoleBinding')
const autoupdate = 'rbac.authorization.kubernetes.io/autoupdate'
const annotations = { [autoupdate]: 'true' }
const labels = { 'kubernetes.io/bootstrapping': 'rbac-defaults' }
const joinLabel = (name: string) => `${rbacGroup}/aggregate-to-${name}`

/** `now`: RFC 3339. */
export async function reconcileDefaults(store: Store, transport: Transport, now: string): Promise<void> {
	const client = createKubeClient(transport, { fieldManager: 'kube-apiserver', userAgent: 'kube-apiserver' })
	const work: Promise<unknown>[] = []
	for (const role of wantedRoles()) {
		const { name } = role.metadata
		const have = store.get(storages.clusterRoles, name)?.object as unknown as Role | undefined
		if (have === undefined) {
			work.push(isController(name) ? keep(store, storages.clusterRoles, role, now) : client.create(clusterRoles, role))
			continue
		}
		if (have.metadata.annotations?.[autoupdate] === 'false') continue
		const lacking = role.aggregationRule === undefined ? missing(have.rules ?? [], role.rules ?? []) : []
		const metadata = withDefaults(have.metadata, role.metadata)
		if (
			lacking?.length === 0 &&
			metadata === have.metadata &&
			(have.aggregationRule !== undefined) === (role.aggregationRule !== undefined)
		)
			continue
		const { aggregationRule } = role
		const rules = [...(have.rules ?? []), ...(lacking ?? role.rules ?? [])]
		work.push(
			client.update(clusterRoles, { ...have, metadata, rules, ...(aggregationRule ? { aggregationRule } : {}) }),
		)
	}
	for (const binding of wantedBindings()) {
		const { name } = binding.metadata
		const have = store.get(storages.clusterRoleBindings, name)?.object as unknown as Binding | undefined
		if (have === undefined) {
			const storage = storages.clusterRoleBindings
			work.push(isController(name) ? keep(store, storage, binding, now) : client.create(clusterRoleBindings, binding))
			continue
		}
		if (have.metadata.annotations?.[autoupdate] === 'false') continue
		if (have.roleRef.kind !== binding.roleRef.kind || have.roleRef.name !== binding.roleRef.name) {
			// The role of a binding cannot be changed.
			work.push(client.delete(clusterRoleBindings, name).then(() => client.create(clusterRoleBindings, binding)))
			continue
		}
		const own = have.subjects ?? []
		const lacking = (binding.subjects ?? []).filter(
			(want) =>
				!own.some(
					(s) => s.kind === want.kind && s.name === want.name && (s.namespace ?? '') === (want.namespace ?? ''),
				),
		)
		const metadata = withDefaults(have.metadata, binding.metadata)
		if (lacking.length === 0 && metadata === have.metadata) continue
		work.push(client.update(clusterRoleBindings, { ...have, metadata, subjects: [...own, ...lacking] }))
	}
	await Promise.all(work)
}

function isController(name: string): boolean {
	return name.startsWith('system:controller:')
}

/** Kept as it is, past all that a request goes through: there are many, and the first start waits for them. */
function keep(store: Store, storage: string, object: Role | Binding, now: string): Promise<void> {
	const metadata = { ...object.metadata, uid: randomUUID(), creationTimestamp: now }
	return store.put(storage, object.metadata.name, { ...object, metadata }, undefined).kept
}

/** Labels and annotations that are missing are added; those that are there stay. The same object where all are. */
function withDefaults(have: Role['metadata'], want: Role['metadata']): Role['metadata'] {
	const lacks = (a: Readonly<Record<string, string>> = {}, b: Readonly<Record<string, string>> = {}) =>
		Object.keys(b).some((key) => !Object.hasOwn(a, key))
	if (!lacks(have.labels, want.labels) && !lacks(have.annotations, want.annotations)) return have
	return {
		...have,
		labels: { ...want.labels, ...have.labels },
		annotations: { ...want.annotations, ...have.annotations },
	}
}

/** The default roles; those that gather already have the rules they would be given. */
export function wantedRoles(): readonly Role[] {
	const roles = defaultRoles().map(roleOf)
	// `view` before `edit` before `admin`: each takes what the one before has gathered.
	for (const name of ['view', 'edit', 'admin']) {
		const at = roles.findIndex((role) => role.metadata.name === name)
		roles[at] = { ...roles[at]!, rules: gathered(roles[at]!, roles) }
	}
	return roles
}

function roleOf({ name, joins, gathers, rules }: DefaultRole): Role {
	return {
		kind: 'ClusterRole',
		apiVersion: `${rbacGroup}/v1`,
		metadata: {
			name,
			annotations,
			labels: { ...labels, ...(joins === undefined ? {} : { [joinLabel(joins)]: 'true' }) },
		},
		rules,
		...(gathers === undefined
			? {}
			: { aggregationRule: { clusterRoleSelectors: [{ matchLabels: { [joinLabel(gathers)]: 'true' } }] } }),
	}
}

function wantedBindings(): readonly Binding[] {
	return defaultBindings().map((binding) => ({
		kind: 'ClusterRoleBinding',
		apiVersion: `${rbacGroup}/v1`,
		metadata: { name: binding.roleRef.name, annotations, labels },
		...binding,
	}))
}
