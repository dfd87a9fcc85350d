// What is run for each container of a pod: a host program by the image map, the DNS server, or a stand-in and the
// ports it listens on. Pure, but for asking whether a program exists.

import type { Service } from '../../kube/objects/core.ts'
import type { Container, Pod } from '../../kube/objects/pod.ts'
import { matchesLabels } from '../../kube/selector.ts'
import { bareImage, findImageRule, type ImageRule, type LabConfig } from '../config.ts'
import { findProgram } from '../pod-process.ts'
import type { Listener } from '../workloads/protocol.ts'

/** The image whose container is the lab's own DNS server. */
export const dnsImage = 'podwire/dns'

export type ContainerPlan =
	| { readonly kind: 'stand-in'; readonly listeners: readonly Listener[] }
	| { readonly kind: 'program'; readonly rule?: ImageRule; readonly command: readonly string[] }
	| { readonly kind: 'dns' }

/** `services`: those of the pod's namespace. */
export function planContainer(
	pod: Pod,
	container: Container,
	services: Iterable<Service>,
	config: LabConfig,
	exists: (program: string, workingDir: string) => boolean = isOnHost,
): ContainerPlan {
	const image = container.image ?? ''
	const rule = findImageRule(config, image)
	if (rule !== undefined) return { kind: 'program', rule, command: [...rule.command, ...(container.args ?? [])] }
	if (bareImage(image) === dnsImage) return { kind: 'dns' }
	const own = container.command ?? []
	if (config.allowCommands === true && own.length > 0 && exists(own[0] as string, container.workingDir ?? '/')) {
		return { kind: 'program', command: [...own, ...(container.args ?? [])] }
	}
	return { kind: 'stand-in', listeners: listenersOf(pod, container, services) }
}

function isOnHost(program: string, workingDir: string): boolean {
	return findProgram(program, process.env.PATH ?? '', workingDir) !== undefined
}

/** Whether the pod is one that listens where Services aim, because it declares no port at all. */
export function declaresNoPort(pod: Pod): boolean {
	return !(pod.spec?.containers ?? []).some((c) => (c.ports ?? []).length > 0)
}

/** Where the container's probes say that it listens, by number. */
function probedPorts(container: Container): readonly number[] {
	return [container.startupProbe, container.readinessProbe, container.livenessProbe].flatMap((probe) => {
		const port = (probe?.httpGet ?? probe?.tcpSocket ?? probe?.grpc)?.port
		return typeof port === 'number' ? [port] : []
	})
}

/**
 * The ports a stand-in listens on: those its container declares. Only where the whole pod declares none, the first
 * container takes the ports its probes name and the numeric target ports of the Services that select the pod: anything
 * more would hide a wrong targetPort or a probe of the wrong port.
 */
function listenersOf(pod: Pod, container: Container, services: Iterable<Service>): readonly Listener[] {
	const listeners = new Map<string, Listener>()
	const add = (protocol: string, port: number) => {
		if (protocol === 'TCP' || protocol === 'UDP') listeners.set(`${protocol}/${port}`, { protocol, port })
	}
	if (!declaresNoPort(pod)) {
		for (const port of container.ports ?? []) add(port.protocol ?? 'TCP', port.containerPort)
	} else if (container === pod.spec?.containers[0]) {
		for (const port of probedPorts(container)) add('TCP', port)
		for (const service of services) {
			const { selector, ports } = service.spec ?? {}
			if (selector === undefined || Object.keys(selector).length === 0) continue
			if (!matchesLabels(selector, pod.metadata.labels)) continue
			for (const port of ports ?? []) {
				const target = port.targetPort ?? port.port
				if (typeof target === 'number') add(port.protocol ?? 'TCP', target)
			}
		}
	}
	return [...listeners.values()].sort((a, b) => a.port - b.port || (a.protocol < b.protocol ? -1 : 1))
}

/** Said in events and logs, so that nobody takes a stand-in for the real thing. */
export function planText(image: string, plan: ContainerPlan): string {
	switch (plan.kind) {
		case 'dns':
			return 'the lab\'s own DNS server runs in place of the image "podwire/dns"'
		case 'program':
			if (plan.rule === undefined) {
				return `the container's own command ${JSON.stringify(plan.command.join(' '))} runs as a program of this host, as allowCommands says; nothing of image ${JSON.stringify(image)} was pulled`
			}
			return `the image map runs ${JSON.stringify(plan.command.join(' '))} of this host in place of image ${JSON.stringify(image)}`
		case 'stand-in': {
			const ports = plan.listeners.map((l) => `${l.protocol} ${l.port}`).join(', ')
			return `a stand-in takes the place of image ${JSON.stringify(image)} (nothing was pulled): it ${
				ports === '' ? 'declares no port and listens on none' : `listens on ${ports} and answers with who it is`
			}`
		}
		default: {
			const never: never = plan
			throw new Error(`No such plan: ${JSON.stringify(never)}`)
		}
	}
}

/** Init containers that keep running beside the others (restartPolicy Always). */
export function isSidecar(container: Container): boolean {
	return container.restartPolicy === 'Always'
}

/** What follows a run: the container's own policy where it has one, else the pod's; an init container must succeed once. */
export function restartOf(
	container: Container,
	policy: 'Always' | 'OnFailure' | 'Never',
	isInit: boolean,
): 'Always' | 'OnFailure' | 'Never' {
	if (container.restartPolicy !== undefined) return container.restartPolicy
	return isInit && policy === 'Always' ? 'OnFailure' : policy
}
