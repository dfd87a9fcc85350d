// `podwire node stop|start|cordon|uncordon|drain NAME…`: what befalls a node. Stopping and starting are a matter of the
// lab; the rest goes through the Kubernetes API, as kubectl does it.

import { isFailure } from '../base/failure.ts'
import { createKubeClient, type KubeClient } from '../kube/client.ts'
import { nodes } from '../kube/kinds.ts'
import type { Node } from '../kube/objects/core.ts'
import { labClient } from '../lab/client.ts'
import { drainNode } from './drain.ts'
import { CommandError, exit } from './exit.ts'
import { findLab } from './lab.ts'
import { type CommonOptions, readDuration } from './options.ts'

export interface NodeOptions extends CommonOptions {
	/** False with --no-wait. */
	readonly wait?: boolean
}

export interface DrainOptions extends CommonOptions {
	readonly ignoreDaemonsets?: boolean
	readonly force?: boolean
	readonly deleteEmptydirData?: boolean
	readonly disableEviction?: boolean
	readonly gracePeriod?: string
}

/** Longer than a lab takes to notice that a node is silent, or back. */
const patience = 30_000

export async function stopNodes(options: NodeOptions, names: readonly string[]): Promise<number> {
	return power(options, names, false)
}

export async function startNodes(options: NodeOptions, names: readonly string[]): Promise<number> {
	return power(options, names, true)
}

async function power(options: NodeOptions, names: readonly string[], running: boolean): Promise<number> {
	const { lab, client } = await open(options)
	await checkNodes(client, names)
	for (const name of names) {
		try {
			if (running) await lab.startNode(name)
			else await lab.stopNode(name)
		} catch (e) {
			if (isFailure(e, 'NotFound')) throw new CommandError(exit.usage, e.message)
			if (isFailure(e, 'Unavailable')) throw new CommandError(exit.unknown, e.message)
			throw e
		}
	}
	const wanted = running ? 'Ready' : 'NotReady'
	if (options.wait !== false) {
		const end = Date.now() + readDuration(options.timeout, patience)
		for (const name of names) {
			while (isReady(await client.get(nodes, name)) !== running) {
				if (Date.now() > end) {
					throw new CommandError(
						exit.no,
						`node/${name} is ${running ? 'started' : 'stopped'}, but the cluster does not take it for ${wanted} yet`,
						`kubectl get node ${name} says how it is; --timeout waits longer`,
					)
				}
				await new Promise((resolve) => setTimeout(resolve, 100))
			}
		}
	}
	for (const name of names) {
		say(options, `node/${name} ${running ? 'started' : 'stopped'}${options.wait === false ? '' : `, ${wanted}`}`)
	}
	return exit.ok
}

export async function cordonNodes(options: CommonOptions, names: readonly string[]): Promise<number> {
	return cordon(options, names, true)
}

export async function uncordonNodes(options: CommonOptions, names: readonly string[]): Promise<number> {
	return cordon(options, names, false)
}

async function cordon(options: CommonOptions, names: readonly string[], unschedulable: boolean): Promise<number> {
	const { client } = await open(options)
	await checkNodes(client, names)
	for (const name of names) await setUnschedulable(options, client, name, unschedulable)
	return exit.ok
}

async function setUnschedulable(
	options: CommonOptions,
	client: KubeClient,
	name: string,
	unschedulable: boolean,
): Promise<void> {
	const before = await client.get(nodes, name)
	const word = unschedulable ? 'cordoned' : 'uncordoned'
	if ((before.spec?.unschedulable === true) === unschedulable) say(options, `node/${name} already ${word}`)
	else {
		await client.patch(nodes, name, { spec: { unschedulable: unschedulable ? true : null } })
		say(options, `node/${name} ${word}`)
	}
}

export async function drainNodes(options: DrainOptions, names: readonly string[]): Promise<number> {
	const grace = options.gracePeriod === undefined ? -1 : Number(options.gracePeriod)
	if (!Number.isInteger(grace)) {
		throw new CommandError(exit.usage, `--grace-period must be a whole number of seconds, not ${options.gracePeriod}`)
	}
	const { client } = await open(options)
	await checkNodes(client, names)
	const timeout = options.timeout === undefined ? undefined : readDuration(options.timeout, 0)
	for (const name of names) await setUnschedulable(options, client, name, true)
	const left: string[] = []
	for (const name of names) {
		const fault = await drainNode(client, name, {
			ignoreDaemonSets: options.ignoreDaemonsets === true,
			force: options.force === true,
			deleteEmptyDir: options.deleteEmptydirData === true,
			evict: options.disableEviction !== true,
			...(grace < 0 ? {} : { grace }),
			...(timeout === undefined || timeout === 0 ? {} : { timeout }),
			say: (line) => say(options, line),
			warn: (line) => void process.stderr.write(`${line}\n`),
		})
		if (fault === undefined) {
			say(options, `node/${name} drained`)
			continue
		}
		left.push(name)
		process.stderr.write(`podwire: unable to drain node "${name}": ${fault}\n`)
	}
	if (left.length > 0) process.stderr.write(`nodes still to be drained: ${left.join(', ')}\n`)
	return left.length === 0 ? exit.ok : exit.no
}

async function open(options: CommonOptions) {
	const status = await findLab(options.name)
	const lab = labClient(status.name)
	return { lab, client: createKubeClient(lab.transport, { fieldManager: 'podwire', userAgent: 'podwire' }) }
}

/** Before anything is done to any of them. */
async function checkNodes(client: KubeClient, names: readonly string[]): Promise<void> {
	const known = (await client.list(nodes)).items.map((node) => node.metadata.name)
	const unknown = names.filter((name) => !known.includes(name))
	if (unknown.length > 0) {
		throw new CommandError(
			exit.usage,
			`There is no node ${unknown.map((name) => JSON.stringify(name)).join(', ')}`,
			`the nodes are ${known.sort().join(', ')}`,
		)
	}
}

function isReady(node: Node): boolean {
	return node.status?.conditions?.some((c) => c.type === 'Ready' && c.status === 'True') === true
}

function say(options: CommonOptions, line: string): void {
	if (options.quiet !== true) process.stdout.write(`${line}\n`)
}
