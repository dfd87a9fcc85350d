// Which cluster a question is about: manifests alone, a lab, or a live cluster; the first that is given.

import type { NodeAgentApi } from '../agent/protocol.ts'
import { isFailure } from '../base/failure.ts'
import type { Ip } from '../base/ip.ts'
import { tableOf } from '../base/table.ts'
import { createKubeClient, type KubeClient } from '../kube/client.ts'
import { namespaces } from '../kube/kinds.ts'
import type { KubeObject } from '../kube/objects/meta.ts'
import { resourceOf } from '../kube/resources.ts'
import { type PolicyProfile, policyProfiles } from '../model/policy-profile.ts'
import type { ResolvedNames } from '../model/resolved-names.ts'
import { type ClusterConfig, isStateKind, type ObjectSource, stateKinds } from '../model/state.ts'
import { applyItems, type Ignored, type Item, sourcesOf } from './apply.ts'
import { CommandError, exit } from './exit.ts'
import { ignoredText, loadManifests } from './manifests.ts'
import { type ClusterOptions, readIpFamily } from './options.ts'
import type { Progress } from './output.ts'

export interface Cluster {
	readonly client: KubeClient
	/** What no API object says; undefined: the defaults. */
	readonly config?: Partial<ClusterConfig>
	readonly sources?: Readonly<Record<string, ObjectSource>>
	/** Objects of the manifests that the model reads and this API does not have: nobody brought their definition. */
	readonly objects?: readonly KubeObject[]
	/** How it reads what the API of policies leaves open; undefined: nobody knows. */
	readonly policyProfile?: PolicyProfile
	/** What its DNS servers answered of names outside, and still holds; undefined: nobody can tell. */
	readonly resolvedNames?: ResolvedNames
	/** The nodes' agents, or why there are none. */
	readonly agent: NodeAgentApi | { readonly absent: string }
	close(): Promise<void>
}

export async function openCluster(options: ClusterOptions, progress: Progress): Promise<Cluster> {
	const { filename, name, kubeconfig, context } = options
	if (filename.length > 0) return openManifests(options, progress)
	if (name !== undefined || (kubeconfig === undefined && context === undefined)) return openLab(options)
	return openKubeconfig(options)
}

/** The manifests run on paper in this process: the same API server, controllers and addresses as in a lab. */
async function openManifests(options: ClusterOptions, progress: Progress): Promise<Cluster> {
	const loaded = await loadManifests(options.filename, options.namespace)
	// Policies of a custom kind mean the same to the model whether or not their definition is among the manifests.
	const isKnown = ({ apiVersion, kind }: Ignored) => isStateKind(kind) && stateKinds[kind].apiVersion === apiVersion
	const known = loaded.ignored.filter(isKnown)
	const ignored = ignoredText(loaded.ignored.filter((i) => !isKnown(i)))
	if (ignored !== undefined && options.quiet !== true) process.stderr.write(`podwire: ${ignored}\n`)
	const { createPaperCluster } = await import('../lab/paper.ts')
	progress.say('working the manifests out on paper')
	const { clusterConfigOf, defaultIpFamily } = await import('../lab/ip-family.ts')
	const ipFamily = readIpFamily(undefined) ?? defaultIpFamily
	const paper = await createPaperCluster({ nodes: 3, ipFamily })
	const client = createKubeClient(paper.transport)
	const assumed = await missingNamespaces(client, loaded.items)
	if (assumed.length > 0 && options.quiet !== true) {
		const text = assumed.map(
			({ object, source }) => `${object.metadata.name} (${source.file}:${source.lines[''] ?? 1})`,
		)
		process.stderr.write(`podwire: namespaces not among the manifests, taken as there: ${text.join(', ')}\n`)
	}
	const refusals = await applyItems(client, [...assumed, ...loaded.items], () => {})
	if (refusals.length > 0) {
		await paper.close()
		throw new CommandError(exit.usage, `Cannot use the manifests:\n  ${refusals.flatMap((r) => r.lines).join('\n  ')}`)
	}
	await paper.settle()
	return {
		client,
		config: clusterConfigOf(ipFamily),
		sources: sourcesOf([...loaded.items, ...known]),
		objects: known.map(({ object }) => object),
		agent: { absent: 'manifests alone: no node to ask; podwire up brings the same network up' },
		close: () => paper.close(),
	}
}

/**
 * The namespaces that the items are in and nothing brings, each at the place of its first object. Manifests are often
 * those of one team, and whoever made the namespace is elsewhere: on paper it is there, with the one label every
 * namespace has (`kubernetes.io/metadata.name`, which the API server gives it).
 */
async function missingNamespaces(client: KubeClient, items: readonly Item[]): Promise<readonly Item[]> {
	const there = new Set((await client.list(namespaces)).items.map(({ metadata }) => metadata.name))
	for (const { object } of items) if (object.kind === 'Namespace') there.add(object.metadata.name)
	const firsts = new Map<string, ObjectSource>()
	for (const { object, source, resource } of items) {
		const name = object.metadata.namespace ?? ''
		if (!resource.namespaced || name === '' || there.has(name)) continue
		const first = firsts.get(name)
		if (first === undefined || isBefore(source, first)) firsts.set(name, source)
	}
	return [...firsts]
		.sort(([a], [b]) => (a < b ? -1 : 1))
		.map(([name, { file, lines }]) => ({
			object: { apiVersion: 'v1', kind: 'Namespace', metadata: { name } },
			source: { file, lines: { '': lines[''] ?? 1 } },
			resource: resourceOf('v1', 'Namespace'),
		}))
}

/** In one file only: of several files the one that was read first counts. */
function isBefore(a: ObjectSource, b: ObjectSource): boolean {
	return a.file === b.file && (a.lines[''] ?? 0) < (b.lines[''] ?? 0)
}

async function openLab(options: ClusterOptions): Promise<Cluster> {
	const { findLab } = await import('./lab.ts')
	const { labClient } = await import('../lab/client.ts')
	const { clusterConfigOf } = await import('../lab/ip-family.ts')
	const lab = await findLab(options.name)
	const client = labClient(lab.name)
	return {
		client: createKubeClient(client.transport),
		config: clusterConfigOf(lab.ipFamily, lab.network),
		policyProfile: policyProfiles[lab.policies.profile],
		sources: await client.getSources(),
		resolvedNames: tableOf((await client.answeredNames()).map(({ name, addresses }) => [name, ipsOf(addresses)])),
		agent:
			lab.dataplane === 'kernel'
				? client.agent
				: {
						absent: `paper data plane: there are no rules and no packets${lab.whyPaper === undefined ? '' : ` (${lab.whyPaper})`}`,
					},
		async close() {},
	}
}

function ipsOf(addresses: readonly { readonly ip: Ip }[]): readonly Ip[] {
	return addresses.map(({ ip }) => ip).sort()
}

async function openKubeconfig(options: ClusterOptions): Promise<Cluster> {
	const { loadAccess } = await import('../kube/kubeconfig.ts')
	const { transportOf } = await import('../kube/https.ts')
	try {
		const access = await loadAccess({ path: options.kubeconfig }, options.context)
		return {
			client: createKubeClient(transportOf(access)),
			agent: { absent: `context ${access.context} has no podwire agent on its nodes: only the API was asked` },
			async close() {},
		}
	} catch (e) {
		if (isFailure(e)) throw new CommandError(exit.usage, e.message)
		throw e
	}
}
