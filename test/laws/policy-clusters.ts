// Small clusters with many policies of all four kinds, each drawn from few labels, ports and addresses so that they meet.
// From a seed: thousands in a second.

import type { Ip } from '../../src/base/ip.ts'
import { tableOf } from '../../src/base/table.ts'
import type { ProfileName } from '../../src/model/policy-profile.ts'
import type { ResolvedNames } from '../../src/model/resolved-names.ts'
import type { OracleCluster, OracleCorners, OraclePod } from './policy-oracle.ts'

// biome-ignore lint/suspicious/noExplicitAny: objects of the API, malformed ones among them
type Any = any

export interface Dice {
	/** 0 ≤ n < sides. */
	(sides: number): number
	one<T>(of: readonly T[]): T
	some<T>(least: number, most: number, make: () => T): T[]
}

/** The profiles in the oracle's words. */
export const cornersOf: Readonly<Record<ProfileName, OracleCorners>> = {
	default: { networksOutside: false, selfAsked: false },
	'calico-like': { networksOutside: false, selfAsked: true },
	'cilium-like': { networksOutside: true, selfAsked: false },
}

export function diceOf(seed: number): Dice {
	let state = seed >>> 0
	const roll = (sides: number) => {
		// mulberry32
		state = (state + 0x6d2b79f5) >>> 0
		let t = Math.imul(state ^ (state >>> 15), state | 1)
		t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
		return ((t ^ (t >>> 14)) >>> 0) % sides
	}
	return Object.assign(roll, {
		one: <T>(of: readonly T[]): T => of[roll(of.length)]!,
		some: <T>(least: number, most: number, make: () => T): T[] =>
			Array.from({ length: least + roll(most - least + 1) }, make),
	})
}

const podLabels: readonly Record<string, string>[] = [
	{},
	{ app: 'web' },
	{ app: 'db' },
	{ app: 'web', tier: 'x' },
	{ tier: 'y' },
]

export function makeCluster(dice: Dice, kinds: 'v1' | 'all'): OracleCluster {
	const namespaces: Record<string, Record<string, string>> = {}
	for (const name of ['a', 'b', 'c']) {
		namespaces[name] = {
			'kubernetes.io/metadata.name': name,
			...dice.one<Record<string, string>>([{}, { team: 'red' }, { team: 'blue' }]),
		}
	}
	const nodes = {
		n1: { ip: '172.18.0.2', labels: { zone: 'a' } },
		n2: { ip: '172.18.0.3', labels: dice.one<Record<string, string>>([{}, { zone: 'b' }]) },
	}
	const pods: OraclePod[] = Array.from({ length: 4 }, (_, i) => {
		const node = dice.one(['n1', 'n2'] as const)
		const hostNetwork = dice(9) === 0
		return {
			name: `p${i}`,
			namespace: dice.one(['a', 'a', 'b', 'c']),
			labels: dice.one<Record<string, string>>(podLabels),
			ip: hostNetwork ? nodes[node].ip : `10.244.${node === 'n1' ? 0 : 1}.${i + 5}`,
			node,
			hostNetwork,
			ports: dice.one([
				[],
				[{ name: 'http', containerPort: 80, protocol: 'TCP' }],
				[
					{ name: 'http', containerPort: 8080, protocol: 'TCP' },
					{ name: 'dns', containerPort: 53, protocol: 'UDP' },
				],
				[{ name: 'http', containerPort: 80, protocol: 'UDP' }],
			]),
		}
	})
	const policies: Any[] = []
	for (let i = dice(4); i > 0; i--) policies.push(networkPolicy(dice, `np${i}`))
	if (kinds === 'all') {
		for (let i = dice(4); i > 0; i--) policies.push(clusterNetworkPolicy(dice, `cnp${i}`))
		for (let i = dice(3) - 1; i > 0; i--) policies.push(adminNetworkPolicy(dice, dice.one(['anp', 'cnp1'])))
		if (dice(3) === 0) policies.push(baselinePolicy(dice, dice(5) === 0 ? 'other' : 'default'))
	}
	const names: Record<string, readonly string[]> = {}
	for (const name of ['example.org', 'www.example.org', 'a.b.example.org', 'example.com'])
		if (dice(2) === 0) names[name] = dice.some(1, 2, () => dice.one(['203.0.113.9', '203.0.113.10', ...ips(pods)]))
	return { namespaces, nodes, pods, policies, names }
}

function selector(dice: Dice): Any {
	return dice.one<Any>([
		{},
		{ matchLabels: { app: 'web' } },
		{ matchLabels: { app: 'db' } },
		{ matchLabels: { app: 'web', tier: 'x' } },
		{ matchExpressions: [{ key: 'app', operator: 'In', values: ['web', 'db'] }] },
		{ matchExpressions: [{ key: 'app', operator: 'NotIn', values: ['db'] }] },
		{ matchExpressions: [{ key: 'tier', operator: 'Exists' }] },
		{ matchLabels: { app: 'web' }, matchExpressions: [{ key: 'tier', operator: 'DoesNotExist' }] },
	])
}

function namespaceSelector(dice: Dice): Any {
	return dice.one<Any>([
		{},
		{ matchLabels: { team: 'red' } },
		{ matchLabels: { 'kubernetes.io/metadata.name': 'b' } },
		{ matchExpressions: [{ key: 'team', operator: 'In', values: ['blue'] }] },
		{ matchExpressions: [{ key: 'team', operator: 'DoesNotExist' }] },
	])
}

const networks = ['0.0.0.0/0', '::/0', '10.244.0.0/16', '10.244.1.0/24', '172.18.0.0/24', '203.0.113.0/25']

function networkPolicy(dice: Dice, name: string): Any {
	const peer = () =>
		dice.one<() => Any>([
			() => ({ podSelector: selector(dice) }),
			() => ({ namespaceSelector: namespaceSelector(dice) }),
			() => ({ podSelector: selector(dice), namespaceSelector: namespaceSelector(dice) }),
			() => ({ ipBlock: { cidr: dice.one(networks) } }),
			() => ({ ipBlock: { cidr: '0.0.0.0/0', except: dice.some(0, 2, () => dice.one(networks.slice(2))) } }),
		])()
	const port = () =>
		dice.one<Any>([
			{ port: 80 },
			{ port: 'http' },
			{ port: 'http', protocol: 'UDP' },
			{ protocol: 'UDP' },
			{ port: 80, endPort: 8080, protocol: 'TCP' },
			{ port: 53, protocol: 'UDP' },
			{ port: 80, protocol: 'SCTP' },
		])
	const rule = (side: 'from' | 'to') => ({
		...dice.one<() => Any>([() => ({}), () => ({ [side]: dice.some(0, 3, peer) })])(),
		...dice.one<() => Any>([() => ({}), () => ({ ports: dice.some(0, 2, port) })])(),
	})
	return {
		apiVersion: 'networking.k8s.io/v1',
		kind: 'NetworkPolicy',
		metadata: { name, namespace: dice.one(['a', 'a', 'b']) },
		spec: {
			podSelector: selector(dice),
			...dice.one<Any>([{}, { policyTypes: ['Ingress'] }, { policyTypes: ['Egress'] }, { policyTypes: [] }]),
			...(dice(3) === 0 ? {} : { ingress: dice.some(0, 3, () => rule('from')) }),
			...(dice(3) === 0 ? {} : { egress: dice.some(0, 3, () => rule('to')) }),
		},
	}
}

function tierRule(dice: Dice, side: 'from' | 'to', actions: readonly string[], ports: Any): Any {
	const peer = () =>
		dice.one<() => Any>([
			() => ({ namespaces: namespaceSelector(dice) }),
			() => ({ pods: { podSelector: selector(dice), namespaceSelector: namespaceSelector(dice) } }),
			() => ({ pods: { podSelector: selector(dice) } }),
			...(side === 'to'
				? [
						() => ({ networks: dice.some(1, 2, () => dice.one(networks)) }),
						() => ({ nodes: dice.one([{}, { matchLabels: { zone: 'b' } }]) }),
						() => ({ domainNames: dice.some(1, 2, () => dice.one(['example.org', '*.example.org', 'Example.COM.'])) }),
					]
				: []),
			...(dice(4) === 0 ? [() => ({}), () => ({ fromTheFuture: {} }), () => ({ networks: ['10.244.0.0/16'] })] : []),
		])()
	return { action: dice.one(actions), [side]: dice.some(dice(20) === 0 ? 0 : 1, 2, peer), ...ports }
}

function tierSpec(dice: Dice, actions: readonly string[], ports: () => Any): Any {
	const rules = (side: 'from' | 'to') => dice.some(0, 3, () => tierRule(dice, side, actions, ports()))
	return {
		subject: dice.one<() => Any>([
			() => ({ namespaces: namespaceSelector(dice) }),
			() => ({ pods: { namespaceSelector: namespaceSelector(dice), podSelector: selector(dice) } }),
		])(),
		...(dice(4) === 0 ? {} : { ingress: rules('from') }),
		...(dice(4) === 0 ? {} : { egress: rules('to') }),
	}
}

function clusterNetworkPolicy(dice: Dice, name: string): Any {
	const protocol = () =>
		dice.one<Any>([
			{ tcp: { destinationPort: { number: 80 } } },
			{ tcp: { destinationPort: { range: { start: 80, end: 8080 } } } },
			{ udp: { destinationPort: { number: 53 } } },
			{ sctp: { destinationPort: { number: 80 } } },
			{ destinationNamedPort: 'http' },
			...(dice(4) === 0 ? [{ tcp: {} }, { icmp: {} }, {}] : []),
		])
	const ports = () => (dice(2) === 0 ? {} : { protocols: dice.some(1, 2, protocol) })
	return {
		apiVersion: 'policy.networking.k8s.io/v1alpha2',
		kind: 'ClusterNetworkPolicy',
		metadata: { name },
		spec: {
			tier: dice.one(['Admin', 'Baseline']),
			priority: dice(3),
			...tierSpec(dice, ['Accept', 'Deny', 'Pass'], ports),
		},
	}
}

const oldPorts = (dice: Dice) => () =>
	dice(2) === 0
		? {}
		: {
				ports: dice.some(0, 2, () =>
					dice.one<Any>([
						{ portNumber: { port: 80 } },
						{ portNumber: { protocol: 'UDP', port: 53 } },
						{ portRange: { start: 80, end: 8080 } },
						{ namedPort: 'http' },
						...(dice(6) === 0 ? [{}] : []),
					]),
				),
			}

function adminNetworkPolicy(dice: Dice, name: string): Any {
	return {
		apiVersion: 'policy.networking.k8s.io/v1alpha1',
		kind: 'AdminNetworkPolicy',
		metadata: { name },
		spec: { priority: dice(3), ...tierSpec(dice, ['Allow', 'Deny', 'Pass'], oldPorts(dice)) },
	}
}

function baselinePolicy(dice: Dice, name: string): Any {
	return {
		apiVersion: 'policy.networking.k8s.io/v1alpha1',
		kind: 'BaselineAdminNetworkPolicy',
		metadata: { name },
		spec: tierSpec(dice, ['Allow', 'Deny'], oldPorts(dice)),
	}
}

function ips(pods: readonly OraclePod[]): readonly string[] {
	return pods.filter((p) => !p.hostNetwork).map((p) => p.ip)
}

/** What its DNS server has answered, as the model takes it. */
export function resolvedNamesOf({ names = {} }: OracleCluster): ResolvedNames {
	return tableOf(Object.entries(names).map(([name, list]) => [name, [...new Set(list)].sort() as Ip[]] as const))
}

/** The cluster as API objects, as a server would hold them. */
export function objectsOf(cluster: OracleCluster): readonly Any[] {
	return [
		...Object.entries(cluster.namespaces).map(([name, labels]) => ({
			apiVersion: 'v1',
			kind: 'Namespace',
			metadata: { name, labels, ...(cluster.trials?.includes(name) === true ? { annotations: audit } : {}) },
		})),
		...Object.entries(cluster.nodes).map(([name, { ip, ip6, labels }], i) => ({
			apiVersion: 'v1',
			kind: 'Node',
			metadata: { name, labels },
			spec: { podCIDR: networkOf(ip, i), podCIDRs: listOf(ip, ip6).map((address) => networkOf(address, i)) },
			status: {
				addresses: listOf(ip, ip6).map((address) => ({ type: 'InternalIP', address })),
				conditions: [{ type: 'Ready', status: 'True' }],
			},
		})),
		...cluster.pods.map((pod) => ({
			apiVersion: 'v1',
			kind: 'Pod',
			metadata: { name: pod.name, namespace: pod.namespace, labels: pod.labels },
			spec: {
				nodeName: pod.node,
				...(pod.hostNetwork ? { hostNetwork: true } : {}),
				containers: [{ name: 'main', ports: pod.ports }],
			},
			status: {
				phase: 'Running',
				podIPs: listOf(pod.ip, pod.ip6).map((ip) => ({ ip })),
				conditions: [{ type: 'Ready', status: 'True' }],
			},
		})),
		...cluster.policies,
	]
}

function listOf(ip: string, ip6: string | undefined): string[] {
	return ip6 === undefined ? [ip] : [ip, ip6]
}

function networkOf(address: string, i: number): string {
	return address.includes(':') ? `fd00:10:244:${i === 0 ? '' : i}::/64`.replace(':::', '::') : `10.244.${i}.0/24`
}

const audit = { 'podwire.dev/audit': 'true' }

/** Some of its policies, and sometimes a whole namespace, on trial. */
export function withTrials(cluster: OracleCluster, dice: Dice): OracleCluster {
	return {
		...cluster,
		policies: cluster.policies.map((p) =>
			p.kind === 'NetworkPolicy' && dice(2) === 0 ? { ...p, metadata: { ...p.metadata, annotations: audit } } : p,
		),
		trials: ['a', 'b', 'c'].filter(() => dice(5) === 0),
	}
}

export type ClusterFamily = 'ipv4' | 'ipv6' | 'dual'

/** The cluster with IPv6 addresses instead, or with both and policies that name networks of either. */
export function inFamily(cluster: OracleCluster, family: ClusterFamily, dice: Dice): OracleCluster {
	if (family === 'ipv4') return cluster
	const six = family === 'ipv6'
	const moved = (text: string) => (six ? other(text) : text)
	const second = (ip: string) => (six ? {} : { ip6: other(ip) })
	return {
		...cluster,
		nodes: Object.fromEntries(
			Object.entries(cluster.nodes).map(([name, node]) => [name, { ...node, ip: moved(node.ip), ...second(node.ip) }]),
		),
		pods: cluster.pods.map((pod) => ({ ...pod, ip: moved(pod.ip), ...second(pod.ip) })),
		policies: cluster.policies.map((policy) =>
			withNetworks(policy, (text) => (six || dice(2) === 0 ? other(text) : text)),
		),
		names: Object.fromEntries(
			Object.entries(cluster.names ?? {}).map(([name, list]) => [
				name,
				list.flatMap((ip) => (six ? [other(ip)] : dice(2) === 0 ? [ip] : [ip, other(ip)])),
			]),
		),
	}
}

/** Every address by which the pod or node is asked. */
export const addressesOf = ({ ip, ip6 }: { readonly ip: string; readonly ip6?: string }) => listOf(ip, ip6)

/** An address of nobody in the cluster, in each of its families. */
export function strangersOf({ nodes }: OracleCluster): readonly string[] {
	const all = addressesOf(nodes.n1!)
	return ['203.0.113.9', '2001:db8:113::9'].filter((ip) => all.some((a) => a.includes(':') === ip.includes(':')))
}

/** A block and its exceptions are of one family. */
function withNetworks(value: Any, move: (network: string) => string): Any {
	if (Array.isArray(value)) return value.map((v) => withNetworks(v, move))
	if (value === null || typeof value !== 'object') return value
	return Object.fromEntries(
		Object.entries<Any>(value).map(([key, v]) => {
			if (key === 'networks') return [key, v.map(move)]
			if (key !== 'ipBlock') return [key, withNetworks(v, move)]
			const cidr = move(v.cidr)
			const moved = cidr !== v.cidr
			return [
				key,
				{
					...v,
					cidr,
					...(v.except === undefined ? {} : { except: v.except.map((e: string) => (moved ? other(e) : e)) }),
				},
			]
		}),
	)
}

const networksOfBoth: readonly (readonly [RegExp, string])[] = [
	[/^0\.0\.0\.0\/0$/, '::/0'],
	[/^::\/0$/, '0.0.0.0/0'],
	[/^10\.244\.0\.0\/16$/, 'fd00:10:244::/48'],
	[/^10\.244\.(\d+)\.0\/24$/, 'fd00:10:244:$1::/64'],
	[/^172\.18\.0\.0\/24$/, 'fd00:172:18::/64'],
	[/^203\.0\.113\.0\/25$/, '2001:db8:113::/121'],
	[/^10\.244\.0\.(\d+)$/, 'fd00:10:244::$1'],
	[/^10\.244\.(\d+)\.(\d+)$/, 'fd00:10:244:$1::$2'],
	[/^172\.18\.0\.(\d+)$/, 'fd00:172:18::$1'],
	[/^203\.0\.113\.(\d+)$/, '2001:db8:113::$1'],
]

/** What an address or a network is in the other family. */
function other(text: string): string {
	const found = networksOfBoth.find(([pattern]) => pattern.test(text))
	if (found === undefined) throw new Error(`${text} is in one family only`)
	return text.replace(found[0], found[1])
}

/** How many clusters a law asks: as it says, or PODWIRE_LAW_CLUSTERS. */
export function clustersOf(usual: number): number {
	const given = Number(process.env.PODWIRE_LAW_CLUSTERS)
	return given > 0 ? given : usual
}
