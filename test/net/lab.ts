// A lab for tests: in folders of its own, removed afterwards whatever happened.

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createKubeClient, type KubeClient, type New } from '../../src/kube/client.ts'
import { pods } from '../../src/kube/kinds.ts'
import type { KubeObject } from '../../src/kube/objects/meta.ts'
import type { Pod, PodSpec } from '../../src/kube/objects/pod.ts'
import { resourceOf } from '../../src/kube/resources.ts'
import type { LabConfig } from '../../src/lab/config.ts'
import { emptyConfig } from '../../src/lab/config.ts'
import { type LabPaths, labPaths } from '../../src/lab/paths.ts'
import { findRights } from '../../src/lab/rights.ts'
import { type LabHandle, type StartOptions, startLab, stopLab } from '../../src/lab/start.ts'
import { printProgram } from '../../src/linux/nft/print.ts'

const { rights, why } = findRights()
/** Reason to skip where this machine allows no kernel data plane. */
export const skip: string | false = rights === 'none' ? (why ?? 'no rights') : false

export interface TestLab {
	readonly paths: LabPaths
	readonly client: KubeClient
	handle: LabHandle
	/** `up` again: after a crash, or of the running one. */
	up(options?: Partial<StartOptions>): Promise<LabHandle>
	/** Resolves with the first value of `look` that is not undefined; rejects after `seconds`. */
	until<T>(look: () => Promise<T | undefined>, seconds?: number): Promise<T>
	create(
		object: New<KubeObject> & { readonly apiVersion: string; readonly kind: string; readonly spec?: unknown },
	): Promise<KubeObject>
	/** Resolves when the pod is Ready. */
	pod(name: string, namespace?: string): Promise<Pod>
	/** File of the network namespace of a node, of `underlay`, of `outside`. */
	netns(place: string): string
	/** The same of a pod of namespace default, once it is Ready. */
	podNetns(name: string): Promise<string>
	/** Its first address, likewise. */
	podIp(name: string): Promise<string>
	/** What the node's kernel has of nftables, printed as nft does. */
	rules(node: string): Promise<string>
	remove(): Promise<void>
}

export async function createTestLab(
	name: string,
	config: LabConfig = emptyConfig,
	more: Partial<StartOptions> = {},
): Promise<TestLab> {
	const root = mkdtempSync(join(tmpdir(), 'pw-'))
	// Again before each use: another lab of the same test may have folders of its own.
	const enter = () => {
		process.env.XDG_STATE_HOME = join(root, 's')
		process.env.XDG_RUNTIME_DIR = join(root, 'r')
	}
	enter()
	const paths = labPaths(name)
	const up = (options: Partial<StartOptions> = {}) => {
		enter()
		// On paper only where a test asks for it: a kernel that refuses is to be heard of.
		return startLab({ name, nodes: 2, config, version: 'test', dataplane: 'kernel', ...more, ...options })
	}
	let handle: LabHandle
	try {
		handle = await up()
	} catch (e) {
		await stopLab(name)
		rmSync(root, { recursive: true, force: true })
		throw e
	}
	const client = createKubeClient(handle.client.transport)
	const lab: TestLab = {
		paths,
		client,
		handle,
		async up(options) {
			lab.handle = await up(options)
			return lab.handle
		},
		async until(look, seconds = 20) {
			const end = Date.now() + seconds * 1000
			for (;;) {
				const found = await look()
				if (found !== undefined) return found
				if (Date.now() > end) throw new Error(`nothing after ${seconds} s: ${look}`)
				await new Promise((resolve) => setTimeout(resolve, 10))
			}
		},
		create: (object) => client.create(resourceOf(object.apiVersion, object.kind), object as KubeObject),
		pod: (podName, namespace = 'default') =>
			lab.until(async () => {
				const pod = await client.find(pods, `${namespace}/${podName}`)
				return pod?.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True') ? pod : undefined
			}),
		netns: (place) => join(paths.namespaces, place),
		podNetns: async (podName) => join(paths.namespaces, `pod-${(await lab.pod(podName)).metadata.uid}`),
		podIp: async (podName) => (await lab.pod(podName)).status?.podIP ?? '',
		rules: async (node) => printProgram((await lab.handle.client.agent.read(node)).nftables),
		async remove() {
			enter()
			await stopLab(name)
			rmSync(root, { recursive: true, force: true })
		},
	}
	return lab
}

export function podObject(name: string, spec: Partial<PodSpec> = {}, labels: Record<string, string> = { app: name }) {
	return {
		apiVersion: 'v1',
		kind: 'Pod',
		metadata: { name, namespace: 'default', labels },
		spec: { containers: [{ name: 'c', image: 'nginx', ports: [{ containerPort: 80 }] }], ...spec },
	}
}
