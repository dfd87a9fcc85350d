// What policies mean, read a second time: plainly, from the text of the APIs (NetworkPolicy v1, ClusterNetworkPolicy
// v1alpha2, AdminNetworkPolicy and BaselineAdminNetworkPolicy v1alpha1), over the API objects themselves. Nothing here is
// shared with the model.

export interface OraclePod {
	readonly name: string
	readonly namespace: string
	readonly labels: Readonly<Record<string, string>>
	readonly ip: string
	/** Of a cluster of both families: its other address. */
	readonly ip6?: string
	readonly node: string
	readonly hostNetwork: boolean
	readonly ports: readonly { readonly name?: string; readonly containerPort: number; readonly protocol: string }[]
}

export interface OracleNode {
	readonly ip: string
	readonly ip6?: string
	readonly labels: Readonly<Record<string, string>>
}

export interface OracleCluster {
	readonly namespaces: Readonly<Record<string, Readonly<Record<string, string>>>>
	readonly nodes: Readonly<Record<string, OracleNode>>
	readonly pods: readonly OraclePod[]
	// biome-ignore lint/suspicious/noExplicitAny: an oracle reads the object as it is written
	readonly policies: readonly any[]
	/** Namespaces whose policies are on trial. */
	readonly trials?: readonly string[]
	/** What the cluster's DNS server has answered, by name. */
	readonly names?: Readonly<Record<string, readonly string[]>>
	/** What the APIs leave open; undefined: as this project decides it. */
	readonly corners?: OracleCorners
}

export interface OracleCorners {
	/** A network means only what is no pod and no node of the cluster. */
	readonly networksOutside: boolean
	/** A pod needs its policies' leave to reach itself. */
	readonly selfAsked: boolean
}

export interface OracleConnection {
	readonly direction: 'ingress' | 'egress'
	readonly pod: OraclePod
	readonly other: { readonly ip: string; readonly pod?: OraclePod; readonly node?: string }
	readonly protocol: string
	readonly port: number
}

/** audit: it passes, and would not, were the policies in force that are on trial. */
export type OracleAnswer =
	| 'allow default'
	| 'audit NetworkPolicy'
	| `${'allow' | 'deny'} ${'Admin' | 'NetworkPolicy' | 'Baseline'}`

// biome-ignore lint/suspicious/noExplicitAny: as above
type Any = any

export function oracle(cluster: OracleCluster, c: OracleConnection): OracleAnswer {
	if (c.pod.hostNetwork) return 'allow default'
	if (c.other.pod !== undefined && c.other.pod === c.pod && cluster.corners?.selfAsked !== true) return 'allow default'
	// "the only allowed connections into the pod are those from the pod's node and those allowed by ingress"
	if (c.direction === 'ingress' && c.other.node === c.pod.node) return 'allow default'

	const admin = askTier(cluster, c, 'Admin')
	if (admin === 'Accept') return 'allow Admin'
	if (admin === 'Deny') return 'deny Admin'

	const isolating = cluster.policies.filter(
		(p) =>
			p.kind === 'NetworkPolicy' &&
			p.metadata.namespace === c.pod.namespace &&
			selects(p.spec.podSelector, c.pod.labels) &&
			directionsOf(p).includes(c.direction),
	)
	if (isolating.length > 0) {
		const allowed = isolating.some((p) =>
			(p.spec[c.direction] ?? []).some(
				(rule: Any) =>
					v1Peers(cluster, p.metadata.namespace, rule[c.direction === 'ingress' ? 'from' : 'to'], c) &&
					v1Ports(rule.ports, c),
			),
		)
		if (allowed) return 'allow NetworkPolicy'
		if (!isolating.every((p) => isOnTrial(cluster, p))) return 'deny NetworkPolicy'
	}

	// Policies on trial deny nothing: without them the next tier would be asked, so it is.
	const baseline = askTier(cluster, c, 'Baseline')
	if (baseline === 'Deny') return 'deny Baseline'
	if (isolating.length > 0) return 'audit NetworkPolicy'
	return baseline === 'Accept' ? 'allow Baseline' : 'allow default'
}

function isOnTrial(cluster: OracleCluster, p: Any): boolean {
	return (
		p.metadata.annotations?.['podwire.dev/audit'] === 'true' || cluster.trials?.includes(p.metadata.namespace) === true
	)
}

function directionsOf(p: Any): string[] {
	if (p.spec.policyTypes !== undefined && p.spec.policyTypes.length > 0)
		return p.spec.policyTypes.map((t: string) => t.toLowerCase())
	return p.spec.egress !== undefined && p.spec.egress.length > 0 ? ['ingress', 'egress'] : ['ingress']
}

function v1Peers(cluster: OracleCluster, namespace: string, peers: Any[] | undefined, c: OracleConnection): boolean {
	if (peers === undefined || peers.length === 0) return true
	return peers.some((peer) => {
		if (peer.ipBlock !== undefined) {
			if (!inNetwork(c.other.ip, peer.ipBlock.cidr) || !isMeant(cluster, c)) return false
			return !(peer.ipBlock.except ?? []).some((e: string) => inNetwork(c.other.ip, e))
		}
		const pod = c.other.pod
		if (pod === undefined || pod.hostNetwork) return false
		if (peer.podSelector === undefined && peer.namespaceSelector === undefined) return false
		const there =
			peer.namespaceSelector === undefined
				? pod.namespace === namespace
				: selects(peer.namespaceSelector, cluster.namespaces[pod.namespace]!)
		return there && (peer.podSelector === undefined || selects(peer.podSelector, pod.labels))
	})
}

function v1Ports(ports: Any[] | undefined, c: OracleConnection): boolean {
	if (ports === undefined || ports.length === 0) return true
	return ports.some((p) => {
		const protocol = p.protocol ?? 'TCP'
		if (protocol !== c.protocol) return false
		if (p.port === undefined) return true
		if (typeof p.port === 'string') return isNamed(c, p.port, protocol)
		return p.endPort === undefined ? c.port === p.port : c.port >= p.port && c.port <= p.endPort
	})
}

function isNamed(c: OracleConnection, name: string, protocol: string): boolean {
	const server = c.direction === 'ingress' ? c.pod : c.other.pod
	if (server === undefined) return false
	return server.ports.some((p) => p.name === name && p.protocol === protocol && p.containerPort === c.port)
}

/** Accept, Deny; Pass where a rule passes or none matches: both go on to the next tier. */
function askTier(cluster: OracleCluster, c: OracleConnection, tier: 'Admin' | 'Baseline'): 'Accept' | 'Deny' | 'Pass' {
	const ofTier = cluster.policies.filter((p) => {
		if (p.kind === 'ClusterNetworkPolicy') return p.spec.tier === tier
		if (p.kind === 'AdminNetworkPolicy') return tier === 'Admin'
		return p.kind === 'BaselineAdminNetworkPolicy' && tier === 'Baseline' && p.metadata.name === 'default'
	})
	const rank = (p: Any) => (p.kind === 'BaselineAdminNetworkPolicy' ? 1_000_000 : p.spec.priority)
	ofTier.sort((a, b) => {
		if (rank(a) !== rank(b)) return rank(a) - rank(b)
		// The API leaves ties open; by name, then kind, is our choice.
		if (a.metadata.name !== b.metadata.name) return a.metadata.name < b.metadata.name ? -1 : 1
		return a.kind < b.kind ? -1 : 1
	})
	for (const p of ofTier) {
		if (!isSubject(cluster, p.spec.subject, c.pod)) continue
		for (const rule of p.spec[c.direction] ?? []) {
			const action = ({ Allow: 'Accept', Accept: 'Accept', Deny: 'Deny', Pass: 'Pass' } as Any)[rule.action]
			const peers = rule[c.direction === 'ingress' ? 'from' : 'to'] ?? []
			const ports = p.kind === 'ClusterNetworkPolicy' ? rule.protocols : rule.ports
			const known =
				peers.length > 0 &&
				peers.every((peer: Any) => isKnownPeer(peer, c.direction, action)) &&
				(ports ?? []).every((port: Any) => isKnownPort(port))
			if (!known) {
				// "fail closed": an Accept matches no traffic, a Deny or Pass is a "Deny all".
				if (action === 'Accept') continue
				return 'Deny'
			}
			if (!peers.some((peer: Any) => tierPeer(cluster, peer, c))) continue
			if (ports !== undefined && ports.length > 0 && !ports.some((port: Any) => tierPort(port, c))) continue
			return action
		}
	}
	return 'Pass'
}

function isSubject(cluster: OracleCluster, subject: Any, pod: OraclePod): boolean {
	const labels = cluster.namespaces[pod.namespace]!
	if (subject.namespaces !== undefined) return selects(subject.namespaces, labels)
	return selects(subject.pods.namespaceSelector, labels) && selects(subject.pods.podSelector, pod.labels)
}

function isKnownPeer(peer: Any, direction: string, action: string): boolean {
	const keys = Object.keys(peer)
	if (keys.length !== 1) return false
	if (keys[0] === 'namespaces' || keys[0] === 'pods') return true
	if (direction === 'ingress') return false
	if (keys[0] === 'networks') return peer.networks.every((n: string) => /^[0-9a-f:.]+\/\d+$/.test(n))
	if (keys[0] === 'nodes') return true
	return keys[0] === 'domainNames' && action === 'Accept'
}

function isKnownPort(port: Any): boolean {
	const keys = Object.keys(port)
	if (keys.length !== 1) return false
	const [key] = keys
	if (key === 'destinationNamedPort' || key === 'namedPort' || key === 'portNumber' || key === 'portRange') return true
	if (key !== 'tcp' && key !== 'udp' && key !== 'sctp') return false
	const destination = port[key].destinationPort
	return destination !== undefined && (destination.number !== undefined || destination.range !== undefined)
}

function tierPeer(cluster: OracleCluster, peer: Any, c: OracleConnection): boolean {
	if (peer.networks !== undefined)
		return isMeant(cluster, c) && peer.networks.some((n: string) => inNetwork(c.other.ip, n))
	if (peer.domainNames !== undefined)
		return Object.entries(cluster.names ?? {}).some(
			([name, ips]) => ips.includes(c.other.ip) && peer.domainNames.some((d: string) => isNameOf(d, name)),
		)
	if (peer.nodes !== undefined)
		return c.other.node !== undefined && selects(peer.nodes, cluster.nodes[c.other.node]!.labels)
	// "host-networked pods are not included in this type of peer"
	const pod = c.other.pod
	return pod !== undefined && !pod.hostNetwork && isSubject(cluster, peer, pod)
}

/** "`*`, the wildcard specifier, matches one or more entire labels" */
function isNameOf(domain: string, name: string): boolean {
	const [wanted, is] = [domain, name].map((text) => text.toLowerCase().replace(/\.$/, '').split('.'))
	if (wanted![0] !== '*') return is!.join() === wanted!.join()
	return is!.length >= wanted!.length && is!.slice(1 - wanted!.length).join() === wanted!.slice(1).join()
}

function tierPort(port: Any, c: OracleConnection): boolean {
	const name = port.destinationNamedPort ?? port.namedPort
	if (name !== undefined) return ['TCP', 'UDP', 'SCTP'].some((p) => p === c.protocol && isNamed(c, name, p))
	if (port.portNumber !== undefined)
		return (port.portNumber.protocol ?? 'TCP') === c.protocol && port.portNumber.port === c.port
	if (port.portRange !== undefined)
		return (
			(port.portRange.protocol ?? 'TCP') === c.protocol &&
			c.port >= port.portRange.start &&
			c.port <= port.portRange.end
		)
	const match = port[c.protocol.toLowerCase()]
	if (match === undefined) return false
	const { number, range } = match.destinationPort
	return number !== undefined ? number === c.port : c.port >= range.start && c.port <= range.end
}

function selects(selector: Any, labels: Readonly<Record<string, string>>): boolean {
	for (const key of Object.keys(selector?.matchLabels ?? {}))
		if (labels[key] !== selector.matchLabels[key]) return false
	for (const { key, operator, values } of selector?.matchExpressions ?? []) {
		const has = key in labels
		if (operator === 'In' && !(has && values.includes(labels[key]))) return false
		if (operator === 'NotIn' && has && values.includes(labels[key])) return false
		if (operator === 'Exists' && !has) return false
		if (operator === 'DoesNotExist' && has) return false
	}
	return true
}

/** Whether a network can mean the other side at all. */
function isMeant({ corners }: OracleCluster, { other }: OracleConnection): boolean {
	return corners?.networksOutside !== true || (other.pod === undefined && other.node === undefined)
}

function inNetwork(ip: string, cidr: string): boolean {
	const [base = '', length = ''] = cidr.split('/')
	if (base.includes(':') !== ip.includes(':')) return false
	return bitsOf(ip).slice(0, Number(length)) === bitsOf(base).slice(0, Number(length))
}

function bitsOf(address: string): string {
	if (!address.includes(':'))
		return address
			.split('.')
			.map((n) => Number(n).toString(2).padStart(8, '0'))
			.join('')
	const [front = [], back] = address.split('::').map((part) => (part === '' ? [] : part.split(':'))) as [
		string[],
		string[],
	]
	const zeros = back === undefined ? 0 : 8 - front.length - back.length
	return [...front, ...Array.from({ length: zeros }, () => '0'), ...(back ?? [])]
		.map((n) => Number.parseInt(n, 16).toString(2).padStart(16, '0'))
		.join('')
}
