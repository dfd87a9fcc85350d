// The names, sets and chains of our tables. One lookup for ports on one address of the node, one for ports on all.

import type { Cidr } from '../../base/ip.ts'
import {
	addresses,
	count,
	decide,
	dnatByMap,
	fieldsOf,
	inSet,
	l4proto,
	matchPrefix,
	type Part,
	th,
} from '../../linux/nft/build.ts'
import { dataType } from '../../linux/nft/datatype.ts'
import type { Expression } from '../../linux/nft/expr/expression.ts'
import type { BaseChain, NftChain, NftRule, NftSet } from '../../linux/nft/program.ts'

/** Our tables: `ip podwire-hostports`, `ip6 podwire-hostports`. There only while a pod of the node asks for a port. */
export const tableName = 'podwire-hostports'

export const names = {
	/** Ports on every address of the node. */
	ports: 'host-ports',
	/** Ports on one address. */
	addressPorts: 'host-ip-ports',
	/** Pods that could reach themselves through the node. */
	hairpin: 'hairpin',
	translate: 'to-pods',
} as const

export type Family = 'ip' | 'ip6'

export const portKey: readonly Part[] = [l4proto, th.dport]

export function addressPortKey(family: Family): readonly Part[] {
	return [addresses(family).daddr, ...portKey]
}

type Declaration = Omit<NftSet, 'elements'>

export function declarationsOf(family: Family): Readonly<Record<'ports' | 'addressPorts' | 'hairpin', Declaration>> {
	const { saddr, daddr } = addresses(family)
	const pod = fieldsOf([daddr, th.dport])
	return {
		ports: {
			name: names.ports,
			key: fieldsOf(portKey),
			data: pod,
			flags: [],
			comment: 'hostPorts on all addresses of the node',
		},
		addressPorts: {
			name: names.addressPorts,
			key: fieldsOf(addressPortKey(family)),
			data: pod,
			flags: [],
			comment: 'hostPorts on one address of the node (hostIP)',
		},
		hairpin: {
			name: names.hairpin,
			key: fieldsOf([saddr, daddr]),
			flags: [],
			comment: 'pods with a hostPort, to themselves',
		},
	}
}

/** After the Services' -100: a node port goes before a hostPort of the same number, as with kube-proxy and portmap. */
const afterServices = -99
const srcnat = 100

export function chainsOf(family: Family): NftChain[] {
	const go = [count, decide('goto', names.translate)]
	const local: NftRule = {
		expressions: [...localDestination, ...go],
		comment: 'addresses of this node',
	}
	const loopback: NftRule = {
		expressions: [
			...matchPrefix(addresses(family).daddr, (family === 'ip' ? '127.0.0.0/8' : '::1/128') as Cidr),
			decide('return'),
		],
		comment: 'what is sent from a loopback address cannot leave the node',
	}
	return [
		{ name: 'prerouting', base: base('prerouting', afterServices), rules: [local] },
		{ name: 'output', base: base('output', afterServices), rules: [loopback, local] },
		{
			name: names.translate,
			rules: [
				{
					expressions: dnatByMap(family, addressPortKey(family), names.addressPorts),
					comment: 'hostPorts on this address',
				},
				{ expressions: dnatByMap(family, portKey, names.ports), comment: 'hostPorts on all addresses' },
			],
		},
		{
			name: 'postrouting',
			base: base('postrouting', srcnat),
			rules: [
				{
					expressions: [
						...inSet([addresses(family).saddr, addresses(family).daddr], names.hairpin),
						count,
						{ kind: 'masquerade' },
					],
					comment: 'a pod that reached itself through a hostPort answers through the node',
				},
			],
		},
	]
}

function base(hook: BaseChain['hook'], priority: number): BaseChain {
	return { type: 'nat', hook, priority, policy: 'accept' }
}

/** `fib daddr type local` */
const localDestination: readonly Expression[] = (() => {
	const value = Buffer.alloc(4)
	value.writeUInt32LE(dataType('fib_addrtype').symbols?.local ?? 2)
	return [
		{ kind: 'fib', result: 'type', by: ['daddr'], to: 0 },
		{ kind: 'cmp', op: 'eq', from: 0, value: value.toString('hex') },
	]
})()
