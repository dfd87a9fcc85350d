// Generated clusters for real packets: a few namespaces with workloads and Services of every kind that the data plane
// tells apart, and changes to them. A plan is plain data; `objects.ts` says what it means to the API.

import type { NetworkPolicyPeer, NetworkPolicyPort, NetworkPolicySpec } from '../../../src/kube/objects/networking.ts'
import type { Draw } from './draw.ts'

export interface Plan {
	readonly namespaces: readonly string[]
	readonly groups: readonly Group[]
	readonly services: readonly PlannedService[]
	readonly policies: readonly PlannedPolicy[]
}

/** A NetworkPolicy, as the API writes its spec. */
export interface PlannedPolicy {
	readonly namespace: string
	readonly name: string
	readonly spec: NetworkPolicySpec
}

/** A Deployment. Its stand-ins listen on the ports it declares and on no other. */
export interface Group {
	readonly namespace: string
	readonly name: string
	readonly labels: Readonly<Record<string, string>>
	readonly replicas: number
	readonly ports: readonly { readonly name: string; readonly port: number; readonly protocol: 'TCP' | 'UDP' }[]
	/** Its pods run and never become ready: a readiness gate that nobody opens. */
	readonly gated: boolean
	/** In the namespace of this node. */
	readonly hostNetworkOn?: string
}

export interface PlannedService {
	readonly namespace: string
	readonly name: string
	/** undefined: without a selector, its slices are written by hand. */
	readonly selector?: Readonly<Record<string, string>>
	readonly ports: readonly PlannedPort[]
	readonly headless: boolean
	readonly publishNotReady: boolean
	readonly local: boolean
	/** Also at a port of every node, under that externalTrafficPolicy. */
	readonly nodePorts?: 'Cluster' | 'Local'
	/** Seconds of session affinity. */
	readonly affinity?: number
	/** Each a slice of its own. */
	readonly slices: readonly PlannedSlice[]
}

export interface PlannedPort {
	readonly name: string
	readonly port: number
	readonly protocol: 'TCP' | 'UDP'
	readonly target: number | string
}

export interface PlannedSlice {
	readonly ports: readonly { readonly name: string; readonly port: number; readonly protocol: 'TCP' | 'UDP' }[]
	readonly endpoints: readonly PlannedEndpoint[]
}

export interface PlannedEndpoint {
	/** The `index`-th pod of a group by address, or an address of the node's network that no pod has. */
	readonly at: { readonly group: string; readonly index: number } | { readonly nobodyOn: number }
	readonly conditions: { readonly ready?: boolean; readonly serving?: boolean; readonly terminating?: boolean }
	readonly named: boolean
}

/** A pod to be deleted: the `index`-th of its group by name. */
export interface Deletion {
	readonly group: string
	readonly index: number
}

export interface Change {
	readonly plan: Plan
	readonly deletions: readonly Deletion[]
	/** What was done, for the message of a failure. */
	readonly what: readonly string[]
}

export const nodeNames = ['node-1', 'node-2', 'node-3'] as const

const portChoices: readonly PlannedPort[] = [
	{ name: 'web', port: 80, protocol: 'TCP', target: 'http' },
	{ name: 'alt', port: 81, protocol: 'TCP', target: 9090 },
	{ name: 'dns', port: 53, protocol: 'UDP', target: 'dns' },
	// The same number for both protocols are two frontends.
	{ name: 'dns-tcp', port: 53, protocol: 'TCP', target: 9090 },
	{ name: 'dns-number', port: 54, protocol: 'UDP', target: 5353 },
]
const rarePorts: readonly PlannedPort[] = [
	{ name: 'deaf', port: 82, protocol: 'TCP', target: 7777 },
	{ name: 'ghost', port: 83, protocol: 'TCP', target: 'nobody-has-it' },
]

/** `tag` keeps the names and host ports of one cluster apart from those of the next. */
export function drawPlan(draw: Draw, tag: number): Plan {
	const namespaces = [`law-${tag}-a`, `law-${tag}-b`]
	const groups: Group[] = []
	const add = (namespace: string, name: string, more: Partial<Group>) =>
		groups.push({
			namespace,
			name,
			labels: { app: draw.of(['a', 'b', 'c']), tier: draw.of(['x', 'y']), group: name },
			replicas: draw.between(1, 4),
			ports: [
				// The same name means another number elsewhere.
				{ name: 'http', port: draw.of([8080, 8081]), protocol: 'TCP' },
				{ name: 'alt', port: 9090, protocol: 'TCP' },
				{ name: 'dns', port: 5353, protocol: 'UDP' },
			],
			gated: false,
			...more,
		})
	const [a = '', b = ''] = namespaces
	add(a, 'big', { replicas: draw.between(7, 12) })
	add(a, 'small', {})
	add(a, 'one', { replicas: 1 })
	add(a, 'gated', { replicas: draw.between(1, 2), gated: true })
	add(a, 'none', { replicas: 0 })
	add(b, 'far', {})
	add(b, 'host', {
		replicas: 1,
		hostNetworkOn: draw.of(nodeNames),
		ports: [
			{ name: 'http', port: 20_000 + tag * 10, protocol: 'TCP' },
			{ name: 'alt', port: 20_001 + tag * 10, protocol: 'TCP' },
			{ name: 'dns', port: 20_002 + tag * 10, protocol: 'UDP' },
		],
	})
	const services: PlannedService[] = []
	for (const group of groups)
		services.push(drawService(draw, group.namespace, `to-${group.name}`, { group: group.name }))
	services.push(
		drawService(draw, a, 'app', { app: draw.of(['a', 'b', 'c']) }),
		drawService(draw, a, 'tier', { tier: draw.of(['x', 'y']) }),
		{ ...drawService(draw, a, 'local', { tier: draw.of(['x', 'y']) }), local: true, headless: false },
		{ ...drawService(draw, a, 'sticky', { group: 'big' }), affinity: 600, headless: false },
		{ ...drawService(draw, a, 'headless', { group: draw.of(['big', 'small']) }), headless: true },
		{ ...drawService(draw, a, 'unready', { group: 'gated' }), publishNotReady: true, headless: false },
		drawByHand(draw, a, 'by-hand', groups),
		drawByHand(draw, b, 'by-hand', groups),
	)
	const policies = Array.from({ length: draw.between(2, 4) }, (_, i) =>
		drawPolicy(draw, draw.of(namespaces), `np-${i}`),
	)
	return { namespaces, groups, services, policies }
}

/** A client and Services with 3 endpoints (a map of their own) and 11 (a map for many), port 80. */
export function fixedPlan(namespace: string): Plan {
	const sizes = { client: 1, three: 3, eleven: 11 }
	const groups = Object.entries(sizes).map(
		([name, replicas]): Group => ({
			namespace,
			name,
			labels: { group: name },
			replicas,
			ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
			gated: false,
		}),
	)
	const services = groups.map(
		({ name }): PlannedService => ({
			namespace,
			name,
			selector: { group: name },
			ports: [{ name: 'web', port: 80, protocol: 'TCP', target: 'http' }],
			headless: false,
			publishNotReady: false,
			local: false,
			slices: [],
		}),
	)
	return { namespaces: [namespace], groups, services, policies: [] }
}

const names = { podSelector: {}, namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': 'kube-system' } } }

/** Of some pods of the namespace, for one direction. Who may ask nobody may still ask for names. */
function drawPolicy(draw: Draw, namespace: string, name: string): PlannedPolicy {
	const labels = () =>
		draw.of<Record<string, string>>([
			{ app: draw.of(['a', 'b', 'c']) },
			{ tier: draw.of(['x', 'y']) },
			{ group: draw.of(['big', 'small', 'one', 'far']) },
		])
	const peer = () =>
		draw.of<NetworkPolicyPeer>([
			{ podSelector: { matchLabels: labels() } },
			{ namespaceSelector: {}, podSelector: { matchLabels: labels() } },
			{ namespaceSelector: { matchLabels: { 'kubernetes.io/metadata.name': namespace } } },
			{ ipBlock: { cidr: draw.of(['10.244.0.0/16', '10.244.1.0/24', '172.18.0.0/16']) } },
			{ ipBlock: { cidr: '0.0.0.0/0', except: [`10.244.${draw.below(3)}.0/24`] } },
		])
	const port = () =>
		draw.of<NetworkPolicyPort>([
			{ port: 'http' },
			{ port: 'dns', protocol: 'UDP' },
			{ port: 9090 },
			{ port: 8080, endPort: 9090 },
			{ protocol: 'UDP' },
		])
	const peers = Array.from({ length: draw.below(3) }, peer)
	const ports = Array.from({ length: draw.below(3) }, port)
	const ingress = draw.percent(60)
	const podSelector = draw.percent(15) ? {} : { matchLabels: labels() }
	const rule = ports.length === 0 ? {} : { ports }
	const spec: NetworkPolicySpec = ingress
		? { podSelector, policyTypes: ['Ingress'], ingress: [{ ...rule, ...(peers.length === 0 ? {} : { from: peers }) }] }
		: {
				podSelector,
				policyTypes: ['Egress'],
				egress: [
					{ ...rule, ...(peers.length === 0 ? {} : { to: peers }) },
					{ to: [names], ports: [{ port: 53, protocol: 'UDP' }] },
				],
			}
	return { namespace, name, spec }
}

function drawService(draw: Draw, namespace: string, name: string, selector: Record<string, string>): PlannedService {
	const ports = draw.some(portChoices, draw.between(1, 4))
	if (draw.percent(20)) ports.push(draw.of(rarePorts))
	return {
		namespace,
		name,
		selector,
		ports,
		headless: false,
		publishNotReady: draw.percent(10),
		local: draw.percent(10),
		...(draw.percent(40) ? { nodePorts: draw.of(['Cluster', 'Local'] as const) } : {}),
		...(draw.percent(15) ? { affinity: draw.of([60, 600]) } : {}),
		slices: [],
	}
}

function drawByHand(draw: Draw, namespace: string, name: string, groups: readonly Group[]): PlannedService {
	const base = drawService(draw, namespace, name, {})
	const { selector: _, ...rest } = base
	return { ...rest, slices: drawSlices(draw, base.ports, groups) }
}

const conditionChoices: readonly PlannedEndpoint['conditions'][] = [
	{},
	{ ready: true },
	{ ready: true, serving: true, terminating: false },
	{ ready: false },
	{ ready: false, serving: true, terminating: true },
	{ ready: false, serving: false, terminating: true },
]

function drawSlices(draw: Draw, ports: readonly PlannedPort[], groups: readonly Group[]): PlannedSlice[] {
	const targets = groups.filter((g) => g.hostNetworkOn === undefined && g.replicas > 0)
	return Array.from({ length: draw.between(1, 2) }, () => {
		// Sometimes nobody is ready: then those that serve while terminating do, if any.
		const conditions = draw.percent(40) ? conditionChoices.slice(3) : conditionChoices
		return {
			ports: ports
				.filter(() => draw.percent(85))
				.map(({ name, protocol }) => ({ name, protocol, port: protocol === 'UDP' ? 5353 : 9090 })),
			endpoints: Array.from({ length: draw.between(0, 5) }, (): PlannedEndpoint => {
				const { namespace, name, replicas } = draw.of(targets)
				return {
					at: draw.percent(8)
						? { nobodyOn: draw.below(nodeNames.length) }
						: { group: `${namespace}/${name}`, index: draw.below(replicas) },
					conditions: draw.of(conditions),
					named: draw.percent(80),
				}
			}),
		}
	})
}

/** Some changes at once, as they happen: scaling, deleted pods, other selectors and ports, other slices. */
export function drawChange(draw: Draw, plan: Plan): Change {
	const what: string[] = []
	const deletions: Deletion[] = []
	const say = (text: string) => void what.push(text)
	const groups = plan.groups.map((group): Group => {
		if (group.hostNetworkOn !== undefined) return group
		const key = `${group.namespace}/${group.name}`
		if (draw.percent(50)) {
			const replicas = group.name === 'big' ? draw.between(5, 12) : draw.between(0, 4)
			if (replicas !== group.replicas) say(`scale ${key} from ${group.replicas} to ${replicas}`)
			return { ...group, replicas }
		}
		if (group.replicas > 0 && draw.percent(50)) {
			const index = draw.below(group.replicas)
			deletions.push({ group: key, index })
			say(`delete pod ${index} of ${key}`)
		}
		return group
	})
	const services: PlannedService[] = []
	for (const service of plan.services) {
		const key = `${service.namespace}/${service.name}`
		if (draw.percent(6)) {
			say(`delete Service ${key}`)
			continue
		}
		if (service.selector === undefined) {
			say(`rewrite the slices of ${key}`)
			services.push({ ...service, slices: drawSlices(draw, service.ports, groups) })
			continue
		}
		services.push(draw.percent(50) ? changeService(draw, service, say) : service)
	}
	const policies = plan.policies.flatMap((policy) => {
		if (draw.percent(40)) return [policy]
		const { namespace, name } = policy
		if (draw.percent(30)) {
			say(`delete NetworkPolicy ${namespace}/${name}`)
			return []
		}
		say(`rewrite NetworkPolicy ${namespace}/${name}`)
		return [drawPolicy(draw, namespace, name)]
	})
	return { plan: { ...plan, groups, services, policies }, deletions, what }
}

function changeService(draw: Draw, service: PlannedService, say: (text: string) => void): PlannedService {
	const key = `${service.namespace}/${service.name}`
	switch (draw.below(5)) {
		case 0: {
			const selector = draw.of<Record<string, string>>([{ app: 'a' }, { app: 'b' }, { tier: 'x' }, { group: 'small' }])
			say(`select ${JSON.stringify(selector)} by ${key}`)
			return { ...service, selector }
		}
		case 1: {
			const ports = draw.some([...portChoices, ...rarePorts], draw.between(1, 4))
			say(`give ${key} the ports ${ports.map((p) => p.name).join(', ')}`)
			return { ...service, ports }
		}
		case 2:
			say(`turn internalTrafficPolicy of ${key}`)
			return { ...service, local: !service.local }
		case 3: {
			const { affinity, ...rest } = service
			say(`turn session affinity of ${key}`)
			return affinity === undefined ? { ...rest, affinity: 600 } : rest
		}
		default:
			say(`turn publishNotReadyAddresses of ${key}`)
			return { ...service, publishNotReady: !service.publishNotReady }
	}
}
