// What the server decides about a write beyond its form: may there be objects in this namespace, what a pod gets that
// says nothing, which addresses and ports a Service has. Synchronous, so that it belongs to the write.

import type { Cidr } from '../../base/ip.ts'
import type { UnknownObject } from '../../kube/objects/meta.ts'
import type { User } from '../api.ts'
import type { Served } from '../registry.ts'
import type { Store } from '../store.ts'
import { prepareJob } from './jobs.ts'
import { checkNamespace, prepareNamespace, protectNamespace } from './namespaces.ts'
import { preparePod } from './pods.ts'
import { createServiceAllocator, prepareServiceStatus } from './services.ts'

export interface AdmitContext {
	readonly dryRun: boolean
	readonly user: User
}

/** A further say in writes; throws Failure or Refusal to refuse. `before` undefined: the object is created. */
export type AdmitHook = (
	served: Served,
	object: UnknownObject,
	before: UnknownObject | undefined,
	context: AdmitContext,
) => UnknownObject

export interface Admission {
	create(served: Served, object: UnknownObject, context: AdmitContext): UnknownObject
	update(served: Served, object: UnknownObject, before: UnknownObject, context: AdmitContext): UnknownObject
	/** Throws where the object may not be deleted. */
	delete(served: Served, object: UnknownObject, context: AdmitContext): void
	/** After all checks: takes addresses and ports. Nothing is held until the object is staged. */
	allocate(served: Served, object: UnknownObject, before: UnknownObject | undefined): UnknownObject
}

export function createAdmission(
	store: Store,
	options: {
		readonly serviceCidrs: readonly Cidr[]
		readonly nodePorts: { readonly from: number; readonly to: number }
		readonly random: () => number
		readonly hooks: readonly AdmitHook[]
	},
): Admission {
	const services = createServiceAllocator(store, options)
	const hooked = (served: Served, object: UnknownObject, before: UnknownObject | undefined, context: AdmitContext) =>
		options.hooks.reduce((so, hook) => hook(served, so, before, context), object)
	return {
		create(served, object, context) {
			checkNamespace(store, served, object)
			let out = object
			if (served.storage === 'pods') out = preparePod(out)
			else if (served.storage === 'namespaces') out = prepareNamespace(out)
			else if (served.storage === 'jobs.batch') out = prepareJob(out)
			return hooked(served, out, undefined, context)
		},
		update(served, object, before, context) {
			let out = object
			if (served.storage === 'namespaces') out = prepareNamespace(out)
			else if (served.storage === 'services') out = prepareServiceStatus(out)
			return hooked(served, out, before, context)
		},
		delete(served, object) {
			if (served.storage === 'namespaces') protectNamespace(served, object)
		},
		allocate: (served, object, before) =>
			served.storage === 'services' ? services.allocate(served, object, before) : object,
	}
}
