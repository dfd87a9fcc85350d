// The Node objects of the lab: registered at start, kept Ready.

import { readFileSync } from 'node:fs'
import { arch, cpus, release, totalmem } from 'node:os'
import type { Ip } from '../../base/ip.ts'
import { isAlreadyExists } from '../../kube/answer.ts'
import type { KubeClient } from '../../kube/client.ts'
import { nodes } from '../../kube/kinds.ts'
import type { NodeStatus } from '../../kube/objects/core.ts'
import { time } from './status.ts'

export interface LabNode {
	readonly name: string
	/** 1-based. */
	readonly number: number
	/** One of each family of the lab, the primary one first. */
	readonly ips: readonly Ip[]
}

/** Kubernetes' version the lab behaves like. */
export const kubeletVersion = 'v1.35.0+podwire'

/** As many pods as a /24 has addresses for (254 less the one kept for a gateway, less a few in transition). */
export const podsPerNode = 250

export function labNodes(count: number, ipsOf: (number: number) => readonly Ip[]): readonly LabNode[] {
	return Array.from({ length: count }, (_, i) => ({ name: `node-${i + 1}`, number: i + 1, ips: ipsOf(i + 1) }))
}

/** Registers the node, or brings an object left from before up to date. Labels and taints of a user stay. */
export async function registerNode(client: KubeClient, node: LabNode, now: number): Promise<void> {
	const labels = {
		'kubernetes.io/hostname': node.name,
		'kubernetes.io/os': 'linux',
		'kubernetes.io/arch': apiArch(),
	}
	const status = nodeStatus(node, now)
	try {
		const object = { apiVersion: 'v1', kind: 'Node', metadata: { name: node.name, labels }, spec: {} } as const
		await client.create(nodes, object)
	} catch (e) {
		if (!isAlreadyExists(e)) throw e
	}
	const current = await client.get(nodes, node.name)
	const conditions = status.conditions!.map((condition) => {
		const before = current.status?.conditions?.find((c) => c.type === condition.type)
		const same = before?.status === condition.status && before.lastTransitionTime !== undefined
		return same ? { ...condition, lastTransitionTime: before.lastTransitionTime } : condition
	})
	await client.patch(nodes, node.name, { status: { ...status, conditions } }, { subresource: 'status' })
}

/** What a node has, all of it for pods: the host's, as nodes are only namespaces of it. */
export function nodeResources(): Readonly<Record<string, string>> {
	return {
		cpu: String(cpus().length),
		memory: `${Math.floor(totalmem() / 1024)}Ki`,
		pods: String(podsPerNode),
		'ephemeral-storage': '0',
	}
}

function nodeStatus(node: LabNode, now: number): NodeStatus {
	const resources = nodeResources()
	const at = time(now)
	const good = (type: string, status: 'True' | 'False', reason: string, message: string) => ({
		type,
		status,
		lastHeartbeatTime: at,
		lastTransitionTime: at,
		reason,
		message,
	})
	return {
		addresses: [
			...node.ips.map((address) => ({ type: 'InternalIP' as const, address })),
			{ type: 'Hostname' as const, address: node.name },
		],
		capacity: resources,
		allocatable: resources,
		conditions: [
			good('MemoryPressure', 'False', 'KubeletHasSufficientMemory', 'kubelet has sufficient memory available'),
			good('DiskPressure', 'False', 'KubeletHasNoDiskPressure', 'kubelet has no disk pressure'),
			good('PIDPressure', 'False', 'KubeletHasSufficientPID', 'kubelet has sufficient PID available'),
			good('Ready', 'True', 'KubeletReady', 'the kubelet stand-in is posting ready status'),
		],
		nodeInfo: {
			machineID: read('/etc/machine-id'),
			systemUUID: '',
			bootID: read('/proc/sys/kernel/random/boot_id'),
			kernelVersion: release(),
			osImage: osImage(),
			containerRuntimeVersion: 'podwire://stand-in',
			kubeletVersion,
			kubeProxyVersion: '',
			operatingSystem: 'linux',
			architecture: apiArch(),
		},
		daemonEndpoints: { kubeletEndpoint: { Port: 0 } },
	}
}

/** GOARCH names, as the label's users expect. */
function apiArch(): string {
	return arch() === 'x64' ? 'amd64' : arch()
}

function read(path: string): string {
	try {
		return readFileSync(path, 'utf8').trim()
	} catch {
		return ''
	}
}

function osImage(): string {
	return /^PRETTY_NAME="?([^"\n]*)"?$/m.exec(read('/etc/os-release'))?.[1] ?? 'Linux'
}
