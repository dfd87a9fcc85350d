// The IPAddress objects of Services, and when a ServiceCIDR may go (KEP-1880): each address a Service has is seen as an
// object; one that someone makes by hand holds its address; a ServiceCIDR that addresses are still of stays.
// The Services are the truth: objects follow them at once, and are made anew where someone deletes one.

import { randomUUID } from 'node:crypto'
import { cidrContains, familyOf, type Ip, tryParseIp } from '../../base/ip.ts'
import type { UnknownObject } from '../../kube/objects/meta.ts'
import { isObject, type Json, sameJson } from '../../kube/schema/json.ts'
import type { Change, Entry, Store } from '../store.ts'
import { cidrStorage, cidrsOf, serviceNetworks } from './service-networks.ts'
import { addressesOf, textOf } from './service-spec.ts'

export const addressStorage = 'ipaddresses.networking.k8s.io'
const finalizer = 'networking.k8s.io/service-cidr-finalizer'
const managedBy = 'ipaddress.kubernetes.io/managed-by'
const manager = 'ipallocator.k8s.io'

/** The key of the Service an IPAddress belongs to; of another parent a text that is no key of a Service. */
export function parentOf(address: UnknownObject | undefined): string | undefined {
	if (address === undefined) return undefined
	const spec = isObject(address.spec) ? address.spec : {}
	const ref = isObject(spec.parentRef) ? spec.parentRef : {}
	const key = `${textOf(ref.namespace)}/${textOf(ref.name)}`
	return textOf(ref.group) === '' && ref.resource === 'services' ? key : `${textOf(ref.resource)} ${key}`
}

/** Keeps the objects until the returned function is called. `now`: RFC 3339. */
export function keepAddresses(
	store: Store,
	options: { readonly now: () => string; readonly onFailure: (e: unknown) => void },
): () => void {
	const { now, onFailure } = options
	const holder = store.index('services', addressesOf)
	const kept = (write: { readonly kept: Promise<void> }) => {
		write.kept.catch(onFailure)
	}

	/** Makes or removes the object of one address, as the Services say. */
	function follow(ip: string): void {
		const owner = holder.owner(ip)
		const entry = store.current(addressStorage, ip)
		if (owner === undefined) {
			if (entry !== undefined && entry.object.metadata.labels?.[managedBy] === manager) kept(store.remove(entry))
		} else if (entry === undefined) kept(store.put(addressStorage, ip, addressObject(ip, owner, now()), undefined))
		else if (parentOf(entry.object) !== owner) {
			const spec = addressObject(ip, owner, now()).spec
			kept(store.put(addressStorage, ip, { ...entry.object, spec } as UnknownObject, entry))
		}
	}

	function onServices(changes: readonly Change[]): void {
		const ips = new Set<string>()
		for (const { entry, before } of changes)
			for (const one of [before, entry]) if (one !== undefined) for (const ip of addressesOf(one.object)) ips.add(ip)
		for (const ip of ips) if (tryParseIp(ip) !== undefined) follow(ip)
	}

	function onAddresses(changes: readonly Change[]): void {
		for (const { type, entry } of changes) if (type === 'DELETED') follow(entry.key)
		for (const entry of store.list(cidrStorage)) followCidr(entry)
	}

	/** Says that a network is ready; lets one go that is deleted and that no address needs. */
	function followCidr({ key }: Entry): void {
		const entry = store.current(cidrStorage, key)
		if (entry === undefined) return
		const { object } = entry
		const { metadata } = object
		const finalizers = metadata.finalizers ?? []
		if (metadata.deletionTimestamp !== undefined) {
			if (!finalizers.includes(finalizer)) return
			if (isNeeded(object)) {
				const why =
					'There are still IPAddresses referencing the ServiceCIDR, please remove them or create a new ServiceCIDR'
				keepCidr(entry, withCondition(object, 'False', 'Terminating', why, now()))
				return
			}
			const rest = finalizers.filter((name) => name !== finalizer)
			const next = { ...object, metadata: { ...metadata, finalizers: rest } } as UnknownObject
			kept(rest.length === 0 ? store.remove(entry, next) : store.put(cidrStorage, key, next, entry))
			return
		}
		const withFinalizer = finalizers.includes(finalizer)
			? object
			: ({ ...object, metadata: { ...metadata, finalizers: [...finalizers, finalizer] } } as UnknownObject)
		keepCidr(entry, withCondition(withFinalizer, 'True', '', 'Kubernetes Service CIDR is ready', now()))
	}

	function keepCidr(entry: Entry, next: UnknownObject): void {
		if (next !== entry.object) kept(store.put(cidrStorage, entry.key, next, entry))
	}

	/** Is there an address of it that is of no other network? */
	function isNeeded(object: UnknownObject): boolean {
		const own = cidrsOf(object)
		const others = serviceNetworks(store, [])().map((network) => network.cidr)
		for (const { key } of store.list(addressStorage)) {
			const ip = tryParseIp(key)
			if (ip === undefined || !own.some((cidr) => cidrContains(cidr, ip))) continue
			if (!others.some((cidr) => cidrContains(cidr, ip))) return true
		}
		return false
	}

	const stops = [
		store.subscribe('services', onServices),
		store.subscribe(addressStorage, onAddresses),
		store.subscribe(cidrStorage, (changes) => {
			for (const { type, entry } of changes) if (type !== 'DELETED') followCidr(entry)
			// One that came may free one that waits.
			if (changes.some((change) => change.type === 'ADDED'))
				for (const entry of store.list(cidrStorage)) followCidr(entry)
		}),
	]
	// What happened while no one was there to follow.
	for (const entry of store.list('services')) for (const ip of addressesOf(entry.object)) follow(ip)
	for (const entry of [...store.list(addressStorage)]) follow(entry.key)
	for (const entry of [...store.list(cidrStorage)]) followCidr(entry)
	return () => {
		for (const stop of stops) stop()
	}
}

function addressObject(ip: string, owner: string, now: string): UnknownObject {
	const [namespace = '', name = ''] = owner.split('/')
	return {
		kind: 'IPAddress',
		apiVersion: 'networking.k8s.io/v1',
		metadata: {
			name: ip,
			uid: randomUUID(),
			creationTimestamp: now,
			labels: {
				'ipaddress.kubernetes.io/ip-family': familyOf(ip as Ip) === 4 ? 'IPv4' : 'IPv6',
				[managedBy]: manager,
			},
		},
		spec: { parentRef: { group: '', resource: 'services', namespace, name } },
	} as unknown as UnknownObject
}

/** The same object where it says so already. */
function withCondition(
	object: UnknownObject,
	status: string,
	reason: string,
	message: string,
	now: string,
): UnknownObject {
	const before = isObject(object.status) ? object.status : {}
	const conditions = Array.isArray(before.conditions) ? (before.conditions as readonly Json[]) : []
	const had = conditions.find((c) => isObject(c) && c.type === 'Ready')
	const said = { type: 'Ready', status, reason, message }
	if (isObject(had)) {
		const { lastTransitionTime: _, ...rest } = had
		if (sameJson(rest, said)) return object
	}
	const rest = conditions.filter((c) => !(isObject(c) && c.type === 'Ready'))
	const next = { type: 'Ready', status, lastTransitionTime: now, reason, message }
	return { ...object, status: { ...before, conditions: [...rest, next] } } as UnknownObject
}
