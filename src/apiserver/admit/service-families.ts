// Of which address families a Service is, by what its client says, what it had and what the cluster has (KEP-563).
// Rules: registry/core/service/storage/alloc.go (initIPFamilyFields).

import { familyOf, tryParseIp } from '../../base/ip.ts'
import type { StatusCause } from '../../kube/objects/meta.ts'
import type { JsonObject } from '../../kube/schema/json.ts'
import { isObject } from '../../kube/schema/json.ts'
import { cause } from '../status.ts'
import { clusterIpsOf, type Fail, type Family, listOf, none, type Policy, sameList, textOf } from './service-spec.ts'

export interface Families {
	readonly families: readonly Family[]
	readonly policy: Policy
	/** The addresses asked for, or had; no more than families. */
	readonly ips: readonly string[]
}

/**
 * `have`: the families of the cluster's networks for Services, the first is the default; `spec` is not ExternalName's,
 * and carried over from `old`. Throws what `fail` makes.
 */
export function chooseFamilies(
	spec: JsonObject,
	old: JsonObject | undefined,
	have: readonly Family[],
	fail: Fail,
): Families {
	let ips = clusterIpsOf(spec)
	let families = listOf(spec.ipFamilies) as readonly Family[]
	const oldIps = old === undefined ? [] : listOf(old.clusterIPs)
	const oldFamilies = old === undefined ? [] : (listOf(old.ipFamilies) as readonly Family[])
	const oldPolicy = textOf(old?.ipFamilyPolicy) as Policy | ''
	const selectorless = !isObject(spec.selector) || Object.keys(spec.selector).length === 0
	const bare = ips[0] === none && selectorless
	// Without a word: as it was; else one family, and any for those whose endpoints others keep.
	const policy: Policy =
		(textOf(spec.ipFamilyPolicy) as Policy | '') || oldPolicy || (bare ? 'RequireDualStack' : 'SingleStack')
	// One that prefers both is neither raised nor lowered because the cluster has changed.
	if (
		policy === 'PreferDualStack' &&
		oldPolicy === policy &&
		sameList(ips, oldIps) &&
		sameList(families, oldFamilies) &&
		families.length > 0
	) {
		return { families, policy, ips }
	}
	const causes: StatusCause[] = []
	const wrongPolicy = (why: string) => causes.push(cause.invalid('spec.ipFamilyPolicy', policy, why))
	if (old !== undefined) {
		if (policy === 'SingleStack') {
			// Who says so and leaves the lists as they were wants the second to go.
			if (sameList(ips, oldIps)) ips = ips.slice(0, 1)
			if (sameList(families, oldFamilies)) families = families.slice(0, 1)
		} else {
			if (ips.length > 0 && ips.length < oldIps.length)
				wrongPolicy("must be 'SingleStack' to release the secondary cluster IP")
			if (families.length > 0 && families.length < oldFamilies.length)
				wrongPolicy("must be 'SingleStack' to release the secondary IP family")
		}
	}
	if (policy === 'SingleStack') {
		if (ips.length === 2)
			wrongPolicy("must be 'RequireDualStack' or 'PreferDualStack' when multiple cluster IPs are specified")
		if (families.length === 2)
			wrongPolicy("must be 'RequireDualStack' or 'PreferDualStack' when multiple IP families are specified")
	}
	const out = [...families]
	for (const [i, family] of families.entries()) {
		if (families.indexOf(family) !== i) causes.push(cause.duplicate(`spec.ipFamilies[${i}]`, family))
	}
	if (ips[0] !== none) causes.push(...addFamiliesOf(ips, out, have))
	if (causes.length > 0) throw fail(...causes)
	if (bare) {
		if (out.length === 0) out.push(have[0]!)
		if (out.length === 1 && policy !== 'SingleStack') out.push(otherThan(out[0]!))
		return { families: out, policy, ips }
	}
	if (policy === 'RequireDualStack' && have.length < 2)
		wrongPolicy('this cluster is not configured for dual-stack services')
	for (const [i, family] of out.entries()) {
		if (!have.includes(family))
			causes.push(cause.invalid(`spec.ipFamilies[${i}]`, family, 'not configured on this cluster'))
	}
	if (causes.length > 0) throw fail(...causes)
	if (out.length === 0) out.push(have[0]!)
	if (out.length === 1 && policy !== 'SingleStack' && have.length === 2) out.push(otherThan(out[0]!))
	return { families: out, policy, ips }
}

/** Adds the families of the addresses to those named; the answer is what is wrong. */
function addFamiliesOf(ips: readonly string[], families: Family[], have: readonly Family[]): StatusCause[] {
	const causes: StatusCause[] = []
	for (const [i, ip] of ips.entries()) {
		const field = `spec.clusterIPs[${i}]`
		const parsed = tryParseIp(ip)
		if (parsed === undefined) {
			causes.push(cause.invalid(field, ip, 'must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)'))
			continue
		}
		const family: Family = familyOf(parsed) === 4 ? 'IPv4' : 'IPv6'
		const named = families[i]
		if (named === undefined) {
			if (have.includes(family)) families.push(family)
			else causes.push(cause.invalid(field, ips, `${family} is not configured on this cluster`))
		} else if (named !== family) {
			causes.push(cause.invalid(field, ip, `expected an ${named} value as indicated by \`ipFamilies[${i}]\``))
		}
	}
	return causes
}

function otherThan(family: Family): Family {
	return family === 'IPv4' ? 'IPv6' : 'IPv4'
}
