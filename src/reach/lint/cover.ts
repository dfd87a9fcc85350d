// Whether one selector, peer or rule certainly matches all that another one matches, now and with any pods to come.
// Sound, not complete: what it says holds; what it cannot show it leaves alone.

import { cidrAddress, cidrContains, cidrLength, familyOf } from '../../base/ip.ts'
import { subtractPorts, unitePorts } from '../../base/ports.ts'
import { namespaceNameLabel } from '../../model/labels.ts'
import type { LabelSelector, PolicyPeer, PolicyPort, PolicyRule } from '../../model/network.ts'
import { isNothing } from '../../model/selector.ts'
import { allConnections, type Connections, connectionsOf, noConnections } from '../connections.ts'

interface Requirement {
	readonly key: string
	readonly operator: 'In' | 'NotIn' | 'Exists' | 'DoesNotExist'
	readonly values: readonly string[]
}

function requirementsOf(selector: LabelSelector): readonly Requirement[] {
	return [
		...Object.entries(selector.matchLabels).map(([key, value]) => ({ key, operator: 'In' as const, values: [value] })),
		...selector.matchExpressions,
	]
}

/** Every requirement of `wide` follows from one of `narrow`. */
export function selectorCovers(wide: LabelSelector, narrow: LabelSelector): boolean {
	const given = requirementsOf(narrow)
	return requirementsOf(wide).every((wanted) => given.some((g) => follows(wanted, g)))
}

function follows(wanted: Requirement, given: Requirement): boolean {
	if (wanted.key !== given.key) return false
	switch (wanted.operator) {
		case 'In':
			return given.operator === 'In' && given.values.every((v) => wanted.values.includes(v))
		case 'NotIn':
			if (given.operator === 'DoesNotExist') return true
			if (given.operator === 'In') return !given.values.some((v) => wanted.values.includes(v))
			return given.operator === 'NotIn' && wanted.values.every((v) => given.values.includes(v))
		case 'Exists':
			return given.operator === 'Exists' || given.operator === 'In'
		case 'DoesNotExist':
			return given.operator === 'DoesNotExist'
		default: {
			const never: never = wanted.operator
			throw new Error(`No such selector operator: ${never}`)
		}
	}
}

const everything: LabelSelector = { matchLabels: {}, matchExpressions: [] }

/** Peers of policies of one namespace. */
function peerCovers(wide: PolicyPeer, narrow: PolicyPeer, namespace: string): boolean {
	if (narrow.kind === 'pods' && isNothing(narrow.pods)) return true
	if (wide.kind === 'block' && narrow.kind === 'block') {
		if (familyOf(wide.cidr) !== familyOf(narrow.cidr) || cidrLength(wide.cidr) > cidrLength(narrow.cidr)) return false
		if (!cidrContains(wide.cidr, cidrAddress(narrow.cidr))) return false
		// Each exception of the wide one must lie outside of the narrow one, or be excepted there too.
		return wide.except.every(
			(hole) =>
				narrow.except.some(
					(other) => cidrLength(other) <= cidrLength(hole) && cidrContains(other, cidrAddress(hole)),
				) ||
				(!cidrContains(narrow.cidr, cidrAddress(hole)) && !cidrContains(hole, cidrAddress(narrow.cidr))),
		)
	}
	if (wide.kind !== 'pods' || narrow.kind !== 'pods' || isNothing(wide.pods)) return false
	if (!selectorCovers(wide.pods ?? everything, narrow.pods ?? everything)) return false
	const own: LabelSelector = { matchLabels: { [namespaceNameLabel]: namespace }, matchExpressions: [] }
	if (wide.namespaces === undefined) return narrow.namespaces === undefined || selectorCovers(own, narrow.namespaces)
	return selectorCovers(wide.namespaces, narrow.namespaces ?? own)
}

/** All that `narrow` allows `wide` allows as well. Rules of policies of one namespace and direction. */
export function ruleCovers(wide: PolicyRule, narrow: PolicyRule, namespace: string): boolean {
	if (!portsCover(wide.ports, narrow.ports)) return false
	if (wide.peers.length === 0) return true
	return (
		narrow.peers.length > 0 &&
		narrow.peers.every((peer) => wide.peers.some((other) => peerCovers(other, peer, namespace)))
	)
}

function portsCover(wide: readonly PolicyPort[], narrow: readonly PolicyPort[]): boolean {
	if (wide.length === 0) return true
	if (narrow.length === 0) return false
	const numbers = numbersOf(wide)
	if (subtractPorts(numbersOf(narrow), numbers).length > 0) return false
	return narrow.every(
		(port) =>
			typeof port.port !== 'string' ||
			wide.some(
				(other) => other.protocol === port.protocol && (other.port === port.port || other.port === undefined),
			) ||
			subtractPorts(connectionsOf(port.protocol), numbers).length === 0,
	)
}

export function numbersOf(ports: readonly PolicyPort[]): Connections {
	if (ports.length === 0) return allConnections
	let set = noConnections
	for (const { protocol, port, endPort } of ports)
		if (typeof port !== 'string') set = unitePorts(set, connectionsOf(protocol, port, endPort ?? port))
	return set
}
