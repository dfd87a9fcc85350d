// The environment of a container as the kubelet makes it: Service variables, envFrom, env with $(NAME) and fieldRef.

import type { ConfigMap, Secret, Service } from '../../kube/objects/core.ts'
import type { Container, EnvVar, Pod } from '../../kube/objects/pod.ts'
import { parseQuantity } from '../../kube/schema/quantity.ts'

export interface EnvironmentInput {
	readonly pod: Pod
	readonly container: Container
	/** Services of the pod's namespace that exist when the container starts. */
	readonly services: Iterable<Service>
	/** The `default/kubernetes` Service, which every pod is told of. */
	readonly kubernetes?: Service
	/** What the pod's node has, which is the limit of a container that declares none. */
	readonly allocatable?: Readonly<Record<string, string>>
	readonly configMaps: ReadonlyMap<string, ConfigMap>
	readonly secrets: ReadonlyMap<string, Secret>
	readonly hostname: string
	/** Of the pod's node, the primary family first; likewise the pod's. */
	readonly nodeIps: readonly string[]
	readonly podIps: readonly string[]
}

/** What a reference asks for and is not there; the kubelet's reason is CreateContainerConfigError. */
export interface MissingReference {
	readonly text: string
}

export function environmentOf(input: EnvironmentInput): {
	readonly env: Readonly<Record<string, string>>
	readonly missing: readonly MissingReference[]
} {
	const { container } = input
	const missing: MissingReference[] = []
	// What $(NAME) may refer to: what came before it. The runtime's HOSTNAME is set outside of the kubelet.
	const env: Record<string, string> = { ...serviceEnvironment(input) }
	for (const from of container.envFrom ?? []) {
		const prefix = from.prefix ?? ''
		const name = from.configMapRef?.name ?? from.secretRef?.name ?? ''
		const data = from.configMapRef !== undefined ? input.configMaps.get(name)?.data : decoded(input.secrets.get(name))
		const kind = from.configMapRef !== undefined ? 'configmap' : 'secret'
		const known = from.configMapRef !== undefined ? input.configMaps.has(name) : input.secrets.has(name)
		if (!known && (from.configMapRef ?? from.secretRef)?.optional !== true) {
			missing.push({ text: `${kind} "${name}" not found` })
		}
		for (const [key, value] of Object.entries(data ?? {})) env[prefix + key] = value
	}
	for (const variable of container.env ?? []) {
		const value =
			variable.valueFrom === undefined ? expand(variable.value ?? '', env) : valueFrom(variable, input, missing)
		if (value !== undefined) env[variable.name] = value
	}
	return { env: { HOSTNAME: input.hostname, ...env }, missing }
}

/** A Service of the pod's own namespace goes before default/kubernetes where both have that name. */
function serviceEnvironment({ pod, services, kubernetes }: EnvironmentInput): Record<string, string> {
	const told = new Map<string, Service>()
	if (pod.spec?.enableServiceLinks !== false) {
		for (const service of services) if (hasAddress(service)) told.set(service.metadata.name, service)
	}
	if (kubernetes !== undefined && !told.has(kubernetes.metadata.name)) told.set(kubernetes.metadata.name, kubernetes)
	const env: Record<string, string> = {}
	for (const name of [...told.keys()].sort()) Object.assign(env, serviceVariables(told.get(name) as Service))
	return env
}

function hasAddress({ spec }: Service): boolean {
	return spec?.clusterIP !== undefined && spec.clusterIP !== '' && spec.clusterIP !== 'None'
}

/** `$(NAME)` is replaced where NAME is known, `$$` is a dollar; anything else stays (Kubernetes' own expansion). */
export function expand(text: string, env: Readonly<Record<string, string>>): string {
	return text.replace(/\$\$|\$\(([^)]*)\)/g, (match, name: string | undefined) => {
		if (match === '$$') return '$'
		return name !== undefined && Object.hasOwn(env, name) ? (env[name] as string) : match
	})
}

/** `WEB_SERVICE_HOST`, `WEB_SERVICE_PORT`, `WEB_PORT_80_TCP_ADDR`… of a Service that has a ClusterIP. */
export function serviceVariables(service: Service): Record<string, string> {
	const ports = service.spec?.ports ?? []
	if (!hasAddress(service) || ports.length === 0) return {}
	const ip = service.spec?.clusterIP as string
	const prefix = upper(service.metadata.name)
	const host = ip.includes(':') ? `[${ip}]` : ip
	const env: Record<string, string> = {
		[`${prefix}_SERVICE_HOST`]: ip,
		[`${prefix}_SERVICE_PORT`]: String(ports[0]!.port),
	}
	for (const port of ports) if (port.name) env[`${prefix}_SERVICE_PORT_${upper(port.name)}`] = String(port.port)
	for (const [i, port] of ports.entries()) {
		const protocol = port.protocol ?? 'TCP'
		const url = `${protocol.toLowerCase()}://${host}:${port.port}`
		const one = `${prefix}_PORT_${port.port}_${protocol}`
		if (i === 0) env[`${prefix}_PORT`] = url
		env[one] = url
		env[`${one}_PROTO`] = protocol.toLowerCase()
		env[`${one}_PORT`] = String(port.port)
		env[`${one}_ADDR`] = ip
	}
	return env
}

function upper(name: string): string {
	return name.toUpperCase().replaceAll('-', '_')
}

function decoded(secret: Secret | undefined): Record<string, string> | undefined {
	if (secret?.data === undefined) return undefined
	return Object.fromEntries(
		Object.entries(secret.data).map(([key, value]) => [key, Buffer.from(value, 'base64').toString('utf8')]),
	)
}

function valueFrom(variable: EnvVar, input: EnvironmentInput, missing: MissingReference[]): string | undefined {
	const { fieldRef, configMapKeyRef, secretKeyRef, resourceFieldRef } = variable.valueFrom ?? {}
	if (fieldRef !== undefined) return fieldOf(fieldRef.fieldPath, input)
	if (resourceFieldRef !== undefined)
		return resourceOf(resourceFieldRef, input.pod, input.allocatable, input.container.name)
	const reference = configMapKeyRef ?? secretKeyRef
	if (reference === undefined) return undefined
	const name = reference.name ?? ''
	const kind = configMapKeyRef !== undefined ? 'configmap' : 'secret'
	const data = configMapKeyRef !== undefined ? input.configMaps.get(name)?.data : decoded(input.secrets.get(name))
	const known = configMapKeyRef !== undefined ? input.configMaps.has(name) : input.secrets.has(name)
	const value = data?.[reference.key]
	if (value === undefined && reference.optional !== true) {
		missing.push({
			text: known
				? `couldn't find key ${reference.key} in ${kind} ${input.pod.metadata.namespace}/${name}`
				: `${kind} "${name}" not found`,
		})
	}
	return value
}

/**
 * A limit or request of a container of the pod, as a whole number of `divisor`, rounded up; a limit that is not set is
 * all the node has (downward API). `name`: the container where the reference names none.
 */
export function resourceOf(
	reference: { readonly containerName?: string; readonly resource: string; readonly divisor?: string | number },
	pod: Pod,
	allocatable: Readonly<Record<string, string>> = {},
	name = '',
): string {
	const all = [...(pod.spec?.containers ?? []), ...(pod.spec?.initContainers ?? [])]
	const container = all.find((c) => c.name === (reference.containerName ?? name))
	const dot = reference.resource.indexOf('.')
	const which = reference.resource.slice(0, dot) as 'limits' | 'requests'
	const resource = reference.resource.slice(dot + 1)
	const amount = container?.resources?.[which]?.[resource] ?? (which === 'limits' ? allocatable[resource] : undefined)
	const value = parseQuantity(String(amount ?? '0'))?.nano ?? 0n
	const divisor = parseQuantity(String(reference.divisor ?? '1'))?.nano ?? 0n
	const by = divisor > 0n ? divisor : 1_000_000_000n
	return String((value + by - 1n) / by)
}

/** The downward API's fields of a pod; undefined for one that does not exist. */
export function fieldOf(path: string, input: Pick<EnvironmentInput, 'pod' | 'nodeIps' | 'podIps'>): string | undefined {
	const { metadata, spec } = input.pod
	const entry = /^metadata\.(labels|annotations)\['([^']*)'\]$/.exec(path)
	if (entry !== null) return metadata[entry[1] as 'labels' | 'annotations']?.[entry[2] as string] ?? ''
	const all = (map: Readonly<Record<string, string>> | undefined) =>
		Object.entries(map ?? {})
			.sort(([a], [b]) => (a < b ? -1 : 1))
			.map(([key, value]) => `${key}=${JSON.stringify(value)}`)
			.join('\n')
	switch (path) {
		case 'metadata.name':
			return metadata.name
		case 'metadata.namespace':
			return metadata.namespace
		case 'metadata.uid':
			return metadata.uid
		case 'metadata.labels':
			return all(metadata.labels)
		case 'metadata.annotations':
			return all(metadata.annotations)
		case 'spec.nodeName':
			return spec?.nodeName
		case 'spec.serviceAccountName':
			return spec?.serviceAccountName
		case 'status.hostIP':
			return input.nodeIps[0] ?? ''
		case 'status.hostIPs':
			return input.nodeIps.join(',')
		case 'status.podIP':
			return input.podIps[0]
		case 'status.podIPs':
			return input.podIps.join(',')
		default:
			return undefined
	}
}
