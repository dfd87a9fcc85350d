// Who needs whom, as the manifests say without meaning to: environment variables and arguments that name Services,
// Ingress backends, Services that answer outside, and the cluster's DNS. Nothing is guessed that no text names.

import type { ConfigMap } from '../kube/objects/core.ts'
import type { KubeObject } from '../kube/objects/meta.ts'
import type { Container, Pod as KubePod } from '../kube/objects/pod.ts'
import type { NetworkModel, Service } from '../model/network.ts'
import type { Origin } from '../model/origin.ts'
import { type ClusterState, lineOf, originOf, sourceKey } from '../model/state.ts'
import type { PortProtocol } from './connections.ts'
import type { IngressBackend } from './ingresses.ts'
import type { Party } from './parties.ts'

export type NeedEnd =
	| { readonly kind: 'workload'; readonly party: Party }
	| { readonly kind: 'outside'; readonly cidrs: readonly string[] }
	| { readonly kind: 'ingress-controller' }

/** One connection that the application makes. Ports are those of the pods, after any Service. */
export interface Need {
	readonly from: NeedEnd
	readonly to: NeedEnd
	readonly protocol: PortProtocol
	readonly port: number
	readonly because: readonly Origin[]
	/** `env CART_ADDR`, `Ingress shop/web`, `cluster DNS`. */
	readonly why: string
}

export interface NeedsInput {
	readonly state: ClusterState
	readonly model: NetworkModel
	readonly parties: readonly Party[]
	readonly ingresses: readonly IngressBackend[]
	readonly configMaps: readonly KubeObject[]
}

/** The same connection once, with everything that asks for it; by source, destination, port. */
export function declaredNeeds(input: NeedsInput): readonly Need[] {
	const owners = partyOfPod(input.parties)
	const needs: Need[] = []
	for (const party of input.parties) {
		if (party.hostNetwork) continue
		needs.push(...ofTexts(input, party, owners), ...ofDns(input, party, owners))
	}
	for (const { ingress, targets, origin } of input.ingresses) {
		for (const { pod, port } of targets) {
			const to = owners.get(pod)
			if (to !== undefined)
				needs.push({
					from: { kind: 'ingress-controller' },
					to: { kind: 'workload', party: to },
					protocol: 'TCP',
					port,
					because: [origin],
					why: `Ingress ${ingress}`,
				})
		}
	}
	for (const service of input.model.services.values()) {
		if (service.type !== 'NodePort' && service.type !== 'LoadBalancer' && service.externalIps.length === 0) continue
		const ranges = service.loadBalancer?.sourceRanges ?? []
		const from = { kind: 'outside', cidrs: ranges.length > 0 ? [...ranges].sort() : anywhere(service) } as const
		for (const { to, protocol, port } of behind(service, undefined, owners))
			needs.push({
				from,
				to: { kind: 'workload', party: to },
				protocol,
				port,
				because: [service.fields?.type ?? service.origin],
				why: `Service ${service.key} (${service.type})`,
			})
	}
	return merge(needs)
}

function anywhere(service: Service): string[] {
	const v6 = service.clusterIps.some((ip) => ip.includes(':'))
	const v4 = service.clusterIps.length === 0 || service.clusterIps.some((ip) => !ip.includes(':'))
	return [...(v4 ? ['0.0.0.0/0'] : []), ...(v6 ? ['::/0'] : [])]
}

export function endId(end: NeedEnd): string {
	return end.kind === 'workload' ? end.party.name : end.kind === 'outside' ? end.cidrs.join(', ') : end.kind
}

/** Equal connections joined, sorted. */
export function merge(needs: readonly Need[]): readonly Need[] {
	const found = new Map<string, Need>()
	for (const need of needs) {
		const id = `${endId(need.to)}\n${endId(need.from)}\n${need.protocol} ${String(need.port).padStart(5, '0')}`
		const same = found.get(id)
		if (same === undefined) found.set(id, need)
		else if (!same.why.split(', ').includes(need.why))
			found.set(id, { ...same, because: [...same.because, ...need.because], why: `${same.why}, ${need.why}` })
	}
	return [...found].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, need]) => need)
}

export function partyOfPod(parties: readonly Party[]): ReadonlyMap<string, Party> {
	const owners = new Map<string, Party>()
	for (const party of parties)
		for (const member of party.members)
			if (member.kind === 'pods') for (const pod of member.pods) owners.set(pod, party)
	return owners
}

interface Behind {
	readonly to: Party
	readonly protocol: PortProtocol
	readonly port: number
}

/** The workloads behind a Service and the ports they listen on; of one of its ports, or of all. */
export function behind(
	service: Service,
	port: number | undefined,
	owners: ReadonlyMap<string, Party>,
): readonly Behind[] {
	const found = new Map<string, Behind>()
	for (const servicePort of service.ports) {
		if ((port !== undefined && servicePort.port !== port) || servicePort.protocol === 'ICMP') continue
		for (const endpoint of servicePort.endpoints) {
			const to = endpoint.pod === undefined ? undefined : owners.get(endpoint.pod)
			if (to !== undefined)
				found.set(`${to.name} ${servicePort.protocol} ${endpoint.port}`, {
					to,
					protocol: servicePort.protocol,
					port: endpoint.port,
				})
		}
	}
	return [...found.values()]
}

function* ofDns({ model, state }: NeedsInput, from: Party, owners: ReadonlyMap<string, Party>): Iterable<Need> {
	const dns = model.services.get(state.config.dnsService)
	if (dns === undefined || !dns.clusterIps.some((ip) => from.sample.dns.nameservers.includes(ip))) return
	for (const { to, protocol, port } of behind(dns, 53, owners))
		if (to !== from)
			yield {
				from: { kind: 'workload', party: from },
				to: { kind: 'workload', party: to },
				protocol,
				port,
				because: [dns.origin],
				why: 'cluster DNS',
			}
}

interface Text {
	readonly text: string
	readonly field: string
	readonly why: string
	/** The whole text is a value, not part of a command line. */
	readonly whole: boolean
	/** The port that a neighbouring variable gives: DB_HOST and DB_PORT. */
	readonly port?: number
}

function* ofTexts(input: NeedsInput, from: Party, owners: ReadonlyMap<string, Party>): Iterable<Need> {
	const pod = input.state.pods.get(from.sample.key)
	if (pod?.spec === undefined) return
	for (const { text, field, why, whole, port: given } of textsOf(input, pod)) {
		for (const mention of mentionsIn(text, whole)) {
			const service = findService(input.model, mention.host, from.namespace)
			if (service === undefined) continue
			const port = mention.port ?? given ?? schemePorts[mention.scheme ?? '']
			// A port it does not have says nothing about what is meant: all of them then.
			const known = port !== undefined && service.ports.some((p) => p.port === port) ? port : undefined
			const headless = service.headless && known === undefined && port !== undefined
			const targets = behind(service, known, owners)
			for (const target of headless
				? [...new Map(targets.map((t) => [t.to.name, { ...t, port, protocol: 'TCP' as const }])).values()]
				: targets) {
				if (target.to === from && from.pods === 1) continue
				yield {
					from: { kind: 'workload', party: from },
					to: { kind: 'workload', party: target.to },
					protocol: target.protocol,
					port: target.port,
					because: [originInTemplate(input.state, from, field), service.origin],
					why,
				}
			}
		}
	}
}

/** The line in the workload's template, where the manifest is known. */
function originInTemplate(state: ClusterState, party: Party, field: string): Origin {
	const pod = party.sample.key
	if (state.sources.has(sourceKey('Pod', pod))) return originOf(state, 'Pod', pod, field)
	const path = `${party.kind === 'CronJob' ? 'spec.jobTemplate.' : ''}spec.template.${field}`
	const source = state.sources.get(sourceKey(party.kind, party.key))
	const line = source === undefined ? undefined : lineOf(source, path)
	return {
		kind: party.kind,
		key: party.key,
		field: path,
		...(line === undefined ? {} : { source: { file: source!.file, line } }),
	}
}

function* textsOf(input: NeedsInput, pod: KubePod): Iterable<Text> {
	const maps = new Map(
		input.configMaps.map((o) => [`${o.metadata.namespace ?? ''}/${o.metadata.name}`, (o as ConfigMap).data ?? {}]),
	)
	const namespace = pod.metadata.namespace ?? ''
	const lists = { containers: pod.spec?.containers ?? [], initContainers: pod.spec?.initContainers ?? [] }
	for (const [list, containers] of Object.entries(lists)) {
		for (const [i, container] of containers.entries()) {
			const field = `spec.${list}[${i}]`
			const variables = environmentOf(container, maps, namespace, field)
			for (const [name, { value, field: at }] of variables) {
				const port = portBeside(name, variables)
				yield {
					text: expand(value, variables),
					field: at,
					why: `env ${name}`,
					whole: true,
					...(port === undefined ? {} : { port }),
				}
			}
			for (const [j, text] of (container.command ?? []).entries())
				yield { text: expand(text, variables), field: `${field}.command[${j}]`, why: 'command', whole: false }
			for (const [j, text] of (container.args ?? []).entries())
				yield { text: expand(text, variables), field: `${field}.args[${j}]`, why: 'args', whole: false }
		}
	}
}

type Variables = ReadonlyMap<string, { readonly value: string; readonly field: string }>

function environmentOf(
	container: Container,
	maps: ReadonlyMap<string, Readonly<Record<string, string>>>,
	namespace: string,
	field: string,
): Variables {
	const variables = new Map<string, { value: string; field: string }>()
	for (const [i, from] of (container.envFrom ?? []).entries()) {
		const map = maps.get(`${namespace}/${from.configMapRef?.name ?? ''}`) ?? {}
		for (const [key, value] of Object.entries(map))
			variables.set(`${from.prefix ?? ''}${key}`, { value, field: `${field}.envFrom[${i}]` })
	}
	for (const [i, { name, value, valueFrom }] of (container.env ?? []).entries()) {
		const reference = valueFrom?.configMapKeyRef
		const text =
			value ?? (reference === undefined ? undefined : maps.get(`${namespace}/${reference.name ?? ''}`)?.[reference.key])
		if (text !== undefined) variables.set(name, { value: text, field: `${field}.env[${i}]` })
	}
	return variables
}

/** `$(NAME)` as the kubelet expands it, `${NAME}` as a shell would. */
function expand(text: string, variables: Variables): string {
	return text.replaceAll(
		/\$[({]([A-Za-z_][A-Za-z0-9_]*)[)}]/g,
		(all, name: string) => variables.get(name)?.value ?? all,
	)
}

/** The number in DB_PORT for DB_HOST, DB_ADDR, DB_SERVER…. */
function portBeside(name: string, variables: Variables): number | undefined {
	const stem = /^(.*?)_?(?:HOST(?:NAME)?|ADDR(?:ESS)?|SERVER|SERVICE|NAME)$/i.exec(name)?.[1]
	if (stem === undefined) return undefined
	const text = variables.get(stem === '' ? 'PORT' : `${stem}_PORT`)?.value ?? ''
	return /^\d{1,5}$/.test(text) ? Number(text) : undefined
}

const schemePorts: Readonly<Record<string, number>> = {
	http: 80,
	ws: 80,
	https: 443,
	wss: 443,
	redis: 6379,
	postgres: 5432,
	postgresql: 5432,
	mysql: 3306,
	amqp: 5672,
	mongodb: 27017,
	nats: 4222,
}

interface Mention {
	readonly host: string
	readonly port?: number
	readonly scheme?: string
}

const hostPattern =
	/^(?:([a-z][a-z0-9+.-]*):\/\/)?(?:[^\s/@]*@)?([a-z0-9](?:[-a-z0-9.]*[a-z0-9])?)\.?(?::(\d{1,5}))?(?:[/?#].*)?$/i

/** Hosts in a text: `host:port`, URLs, and, where the text is a value, a name alone. */
export function mentionsIn(text: string, whole: boolean): readonly Mention[] {
	// A bound: no variable that names hosts is longer.
	if (text.length > 65_536) return []
	const mentions: Mention[] = []
	for (const token of text.split(/[\s,;|"'`()[\]{}<>]+|=(?!=)/)) {
		const match = hostPattern.exec(token)
		if (match === null) continue
		const [, scheme, host = '', port] = match
		const path = /[/?#]/.test(token.slice((scheme?.length ?? -3) + 3))
		if (scheme === undefined && port === undefined && (!whole || path)) continue
		mentions.push({
			host: host.toLowerCase(),
			...(port === undefined ? {} : { port: Number(port) }),
			...(scheme === undefined ? {} : { scheme: scheme.toLowerCase().replace(/^(jdbc|grpc|tcp)[:+]?/, '$1') }),
		})
	}
	return mentions
}

/** `api`, `api.shop`, `api.shop.svc…`, and `db-0.db…` for a pod of a headless Service. */
function findService(model: NetworkModel, host: string, home: string): Service | undefined {
	const domain = `.svc.${model.config.clusterDomain}`
	const short = host.endsWith(domain) ? host.slice(0, -domain.length) : host.endsWith('.svc') ? host.slice(0, -4) : host
	const labels = short.split('.')
	if (labels.length > 3) return undefined
	const [first = '', second, third] = labels
	if (third === undefined) {
		const service = model.services.get(`${second ?? home}/${first}`)
		if (service !== undefined) return service
	}
	if (second === undefined) return undefined
	const governing = model.services.get(`${third ?? home}/${second}`)
	return governing?.headless === true ? governing : undefined
}
