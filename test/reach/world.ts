// Clusters made by chance, of any size: few labels, few networks and named ports, so that selectors, blocks and exceptions
// meet often. The same seed gives the same cluster.

import { type Cidr, parseCidr } from '../../src/base/ip.ts'
import type { KubeObject } from '../../src/kube/objects/meta.ts'
import { type ClusterState, deleteObject, emptyState, setObject, setObjects } from '../../src/model/state.ts'

export interface Chance {
	/** 0 to `n` - 1. */
	below(n: number): number
	/** True in `percent` of 100. */
	mostly(percent: number): boolean
	pick<T>(list: readonly T[]): T
}

/** mulberry32 */
export function chance(seed: number): Chance {
	let state = seed >>> 0
	const next = () => {
		state = (state + 0x6d2b79f5) >>> 0
		let t = Math.imul(state ^ (state >>> 15), state | 1)
		t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
		return ((t ^ (t >>> 14)) >>> 0) / 4294967296
	}
	const below = (n: number) => Math.floor(next() * n)
	return { below, mostly: (percent) => next() * 100 < percent, pick: (list) => list[below(list.length)]! }
}

export interface WorldOptions {
	readonly seed: number
	readonly pods: number
	readonly policies: number
	readonly namespaces: number
	/** Replicas of one workload. */
	readonly replicas: number
	readonly nodes?: number
	/** Some pods with both families, hostNetwork, without an address, finished; labels that tell replicas apart. */
	readonly odd?: boolean
	/** Policies of the tiers, and NetworkPolicies on trial. */
	readonly tiers?: number
	/** Networks of any size among the pods' addresses, so that most changes of a policy divide pods that were alike. */
	readonly divided?: boolean
}

const networks = [
	'10.244.0.0/16',
	'10.244.1.0/24',
	'10.0.0.0/8',
	'0.0.0.0/0',
	'172.18.0.0/16',
	'192.0.2.0/24',
	'198.51.100.7/32',
	'fd00::/8',
	'::/0',
	'fd00:10:244:1::/64',
]
const inside: Readonly<Record<string, readonly string[]>> = {
	'10.244.0.0/16': ['10.244.1.0/24', '10.244.0.0/25'],
	'10.0.0.0/8': ['10.244.0.0/16', '10.1.0.0/16'],
	'0.0.0.0/0': ['10.0.0.0/8', '192.0.2.0/25', '10.244.2.0/24'],
	'::/0': ['fd00::/8'],
	'fd00::/8': ['fd00:10:244:2::/64'],
}

export interface World {
	readonly state: ClusterState
	/** One change: a policy, a pod's labels, a namespace's labels, or something that comes or goes. */
	change(state: ClusterState): ClusterState
}

export function makeWorld(options: WorldOptions): World {
	const { pods, policies, namespaces, replicas, odd = false, nodes = 5, tiers = 0, divided = false } = options
	const random = chance(options.seed)
	const names = Array.from({ length: namespaces }, (_, i) => `ns-${i}`)
	const workloads = Math.max(1, Math.ceil(pods / replicas))
	const home = (workload: number) => names[workload % namespaces]!
	const apps = Math.max(2, Math.ceil(workloads / namespaces))

	const namespaceObject = (name: string): KubeObject =>
		({
			apiVersion: 'v1',
			kind: 'Namespace',
			metadata: {
				name,
				labels: { team: random.pick(['red', 'blue', 'green']), ...(random.mostly(40) ? { env: 'prod' } : {}) },
			},
		}) as KubeObject

	const labelsOf = (workload: number): Record<string, string> => ({
		app: `app-${Math.floor(workload / namespaces) % apps}`,
		tier: random.pick(['web', 'api', 'db']),
	})
	const templates = Array.from({ length: workloads }, (_, w) => ({
		labels: labelsOf(w),
		hostNetwork: odd && random.mostly(5),
		ports: [
			...(random.mostly(70) ? [{ name: 'http', containerPort: random.pick([8080, 9000]) }] : []),
			...(random.mostly(30) ? [{ name: 'dns', containerPort: 53, protocol: 'UDP' }] : []),
			...(random.mostly(20) ? [{ name: 'alt', containerPort: random.pick([9090, 9091]) }] : []),
		],
	}))
	const podObject = (index: number, labels?: Record<string, string>): KubeObject => {
		const workload = Math.floor(index / replicas)
		const template = templates[workload]!
		const node = index % nodes
		const v4 = `10.244.${node}.${(Math.floor(index / nodes) % 250) + 2}`
		const wide = nodes * 250 < pods ? `10.${244 + (index >> 16)}.${(index >> 8) & 255}.${index & 255}` : v4
		const v6 = `fd00:10:244:${node}::${(Math.floor(index / nodes) + 2).toString(16)}`
		const ips = template.hostNetwork ? [`172.18.0.${node + 2}`] : odd && random.mostly(20) ? [wide, v6] : [wide]
		return {
			apiVersion: 'v1',
			kind: 'Pod',
			metadata: {
				name: `w${workload}-${index}`,
				namespace: home(workload),
				uid: `u${index}`,
				labels: {
					...(labels ?? template.labels),
					'pod-template-hash': `h${workload}`,
					...(odd ? { 'apps.kubernetes.io/pod-index': `${index % replicas}` } : {}),
				},
				ownerReferences: [
					{ apiVersion: 'apps/v1', kind: 'StatefulSet', name: `w${workload}`, uid: `o${workload}`, controller: true },
				],
			},
			spec: {
				nodeName: `node-${node}`,
				...(template.hostNetwork ? { hostNetwork: true } : {}),
				containers: [{ name: 'c', ports: template.ports }],
			},
			status: {
				phase: odd && random.mostly(3) ? 'Succeeded' : 'Running',
				...(odd && random.mostly(3) ? {} : { podIPs: ips.map((ip) => ({ ip })) }),
			},
		} as unknown as KubeObject
	}

	const selector = () => {
		const app = { app: `app-${random.below(apps + 1)}` }
		return random.pick([
			() => ({}),
			() => ({ matchLabels: app }),
			() => ({ matchLabels: app }),
			() => ({ matchLabels: { tier: random.pick(['web', 'api', 'db']) } }),
			() => ({ matchExpressions: [{ key: 'tier', operator: random.pick(['In', 'NotIn']), values: ['web', 'db'] }] }),
			() => ({
				matchExpressions: [{ key: random.pick(['tier', 'none']), operator: random.pick(['Exists', 'DoesNotExist']) }],
			}),
			() =>
				odd && random.mostly(20) ? { matchLabels: { 'apps.kubernetes.io/pod-index': '0' } } : { matchLabels: app },
		])()
	}
	const namespaceSelector = () =>
		random.pick([
			() => ({}),
			() => ({ matchLabels: { team: random.pick(['red', 'blue']) } }),
			() => ({ matchLabels: { 'kubernetes.io/metadata.name': random.pick(names) } }),
			() => ({ matchExpressions: [{ key: 'env', operator: 'NotIn', values: ['prod'] }] }),
		])()
	/** Half of them with a hole. */
	const anyBlock = () => {
		const v6 = odd && random.mostly(25)
		const ip = v6
			? `fd00:10:244:${random.below(nodes)}::${random.below(pods + 2).toString(16)}`
			: `10.244.${random.below(nodes)}.${random.below(16)}`
		const length = v6 ? random.pick([48, 63, 64, 122, 125, 126, 127, 128]) : 14 + random.below(19)
		const cidr = parseCidr(`${ip}/${length}`, { mask: true })
		const part = parseCidr(`${ip}/${Math.min(length + 1, v6 ? 128 : 32)}`, { mask: true })
		return { cidr, ...(part !== cidr && random.mostly(50) ? { except: [part] } : {}) }
	}
	const peer = () => (divided && random.mostly(60) ? { ipBlock: anyBlock() } : anyPeer())
	const anyPeer = () =>
		random.pick([
			() => ({ podSelector: selector() }),
			() => ({ podSelector: selector() }),
			() => ({ namespaceSelector: namespaceSelector() }),
			() => ({ namespaceSelector: namespaceSelector(), podSelector: selector() }),
			() => {
				const cidr = random.pick(networks)
				const except = inside[cidr]
				return {
					ipBlock: { cidr, ...(except !== undefined && random.mostly(50) ? { except: [random.pick(except)] } : {}) },
				}
			},
		])()
	const port = () =>
		random.pick([
			{ port: 8080 },
			{ port: 'http' },
			{ port: 'alt', protocol: 'TCP' },
			{ port: 53, protocol: 'UDP' },
			{ port: 'dns', protocol: 'UDP' },
			{ protocol: 'UDP' },
			{ protocol: 'SCTP', port: 36412 },
			{ port: 8000, endPort: 8999, protocol: 'TCP' },
			{ port: 1, endPort: 65535, protocol: 'TCP' },
		])
	const several = <T>(make: () => T, least: number, most: number): T[] =>
		Array.from({ length: least + random.below(most - least + 1) }, make)
	const rules = (side: 'from' | 'to') =>
		several(
			() => ({
				...(random.mostly(88) ? { [side]: several(peer, 1, 3) } : {}),
				...(random.mostly(75) ? { ports: several(port, 1, 2) } : {}),
			}),
			0,
			3,
		)
	const policyObject = (index: number): KubeObject =>
		({
			apiVersion: 'networking.k8s.io/v1',
			kind: 'NetworkPolicy',
			metadata: {
				name: `np-${index}`,
				namespace: names[index % namespaces]!,
				...(tiers > 0 && random.mostly(25) ? { annotations: { 'podwire.dev/audit': 'true' } } : {}),
			},
			spec: {
				podSelector: selector(),
				policyTypes: random.pick([['Ingress'], ['Ingress'], ['Egress'], ['Ingress', 'Egress']]),
				ingress: rules('from'),
				egress: rules('to'),
			},
		}) as unknown as KubeObject

	const tierPeer = (direction: 'ingress' | 'egress') =>
		random.pick([
			() => ({ namespaces: namespaceSelector() }),
			() => ({ pods: { namespaceSelector: namespaceSelector(), podSelector: selector() } }),
			() => ({ pods: { namespaceSelector: {}, podSelector: selector() } }),
			() =>
				direction === 'ingress'
					? { namespaces: {} }
					: random.pick([
							{ networks: [random.pick(networks), '192.0.2.0/24'] },
							{ nodes: { matchLabels: { pool: random.pick(['a', 'b']) } } },
						]),
		])()
	const tierProtocol = () =>
		random.pick([
			{ tcp: { destinationPort: { number: 8080 } } },
			{ tcp: { destinationPort: { range: { start: 1, end: 65535 } } } },
			{ udp: { destinationPort: { number: 53 } } },
			{ destinationNamedPort: 'http' },
			{ destinationNamedPort: 'dns' },
		])
	const tierObject = (index: number): KubeObject => {
		const tierRules = (direction: 'ingress' | 'egress') =>
			several(
				() => ({
					action: random.pick(['Accept', 'Deny', 'Pass']),
					[direction === 'ingress' ? 'from' : 'to']: several(() => tierPeer(direction), 1, 2),
					...(random.mostly(70) ? { protocols: several(tierProtocol, 1, 2) } : {}),
				}),
				0,
				3,
			)
		return {
			apiVersion: 'policy.networking.k8s.io/v1alpha2',
			kind: 'ClusterNetworkPolicy',
			metadata: { name: `cnp-${index}` },
			spec: {
				tier: random.pick(['Admin', 'Baseline']),
				priority: random.below(3),
				subject: random.pick([
					{ namespaces: namespaceSelector() },
					{ pods: { namespaceSelector: namespaceSelector(), podSelector: selector() } },
				]),
				ingress: tierRules('ingress'),
				egress: tierRules('egress'),
			},
		} as unknown as KubeObject
	}

	const objects: KubeObject[] = names.map(namespaceObject)
	for (let i = 0; i < nodes; i++)
		objects.push({
			apiVersion: 'v1',
			kind: 'Node',
			metadata: { name: `node-${i}`, labels: { pool: i % 2 === 0 ? 'a' : 'b' } },
			spec: {},
			status: { addresses: [{ type: 'InternalIP', address: `172.18.0.${i + 2}` }] },
		} as unknown as KubeObject)
	for (let i = 0; i < tiers; i++) objects.push(tierObject(i))
	for (let i = 0; i < pods; i++) objects.push(podObject(i))
	for (let i = 0; i < policies; i++) objects.push(policyObject(i))
	const state = setObjects(
		emptyState({ podCidrs: ['10.244.0.0/16', 'fd00:10:244::/48'] as Cidr[] }),
		objects.map((object) => ({ object })),
	)
	return {
		state,
		change(state) {
			if (tiers > 0 && random.mostly(20)) return setObject(state, tierObject(random.below(tiers)))
			const what = random.below(100)
			if (what < 35) return setObject(state, policyObject(random.below(policies + 2)))
			if (what < 45) {
				const index = random.below(policies)
				return deleteObject(state, 'NetworkPolicy', `${names[index % namespaces]}/np-${index}`)
			}
			if (what < 60) return setObject(state, namespaceObject(random.pick(names)))
			const index = random.below(pods)
			if (what < 70) {
				const workload = Math.floor(index / replicas)
				return deleteObject(state, 'Pod', `${home(workload)}/w${workload}-${index}`)
			}
			return setObject(
				state,
				podObject(index, { ...labelsOf(random.below(workloads)), ...(random.mostly(10) ? { extra: 'x' } : {}) }),
			)
		},
	}
}
