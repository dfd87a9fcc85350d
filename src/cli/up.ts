// `podwire up`: a cluster network from the user's manifests. Returns when everything is ready.

import { existsSync } from 'node:fs'
import { isFailure, messageOf } from '../base/failure.ts'
import { createKubeClient, type KubeClient } from '../kube/client.ts'
import { emptyConfig, type LabConfig, readConfig } from '../lab/config.ts'
import type { LabIpFamily } from '../lab/ip-family.ts'
import {
	type NetworkChoice,
	readAdmissionPlugins,
	readCidrs,
	readClusterDomain,
	readFeatureGates,
	readNodePorts,
} from '../lab/network-choice.ts'
import type { PolicyChoice } from '../lab/policy-settings.ts'
import type { ServiceProxyChoice } from '../lab/service-proxy.ts'
import { type LabHandle, startLab } from '../lab/start.ts'
import type { LabStatus } from '../lab/status.ts'
import type { Scheduler } from '../linux/ipvs/ipvs.ts'
import { applyItems, claimItems, type Refusal, sourcesOf } from './apply.ts'
import { CommandError, exit } from './exit.ts'
import { defaultName, givenName } from './lab.ts'
import { ignoredText, type Loaded, loadManifests } from './manifests.ts'
import { type CommonOptions, readCount, readDuration, readIpFamily } from './options.ts'
import { outputFormat, type Progress, paint, printDocument, progressOn, styleFor } from './output.ts'
import { profileOf } from './policy-profile.ts'
import { readScheduler, readServiceProxyChoice } from './proxy.ts'
import { type Readiness, waitReady } from './ready.ts'
import { packageVersion } from './version.ts'

interface UpOptions extends CommonOptions {
	readonly filename: readonly string[]
	readonly nodes?: string
	readonly dataplane?: string
	readonly ipFamily?: string
	readonly serviceProxy?: string
	readonly ipvsScheduler?: string
	readonly podCidr?: string
	readonly serviceCidr?: string
	readonly nodePortRange?: string
	readonly clusterDomain?: string
	readonly featureGates?: string
	readonly enableAdmissionPlugins?: string
	readonly policyProfile?: string
	/** false by --no-cut-established; undefined: neither was said. */
	readonly cutEstablished?: boolean
	readonly namespace: string
	readonly config?: string
	/** false by --no-kubeconfig. */
	readonly kubeconfig: boolean
	/** false by --no-wait. */
	readonly wait: boolean
}

const maxNodes = 100

export async function up(options: UpOptions): Promise<number> {
	const begun = performance.now()
	const format = outputFormat(options.output)
	const name = givenName(options.name) ?? defaultName
	const nodes =
		options.nodes === undefined
			? undefined
			: readCount('--nodes', options.nodes, { min: 1, max: maxNodes, fallback: 3 })
	const dataplane = readDataplane(options.dataplane)
	const ipFamily = readIpFamily(options.ipFamily)
	const serviceProxy = options.serviceProxy === undefined ? undefined : readServiceProxyChoice(options.serviceProxy)
	const scheduler = readScheduler(options.ipvsScheduler)
	const policies = readPolicyChoice(options)
	const timeout = readDuration(options.timeout, 60_000)
	const progress = progressOn(process.stderr, { quiet: options.quiet === true, verbose: options.verbose === true })
	const warn = (text: string) => {
		progress.done()
		if (options.quiet !== true) process.stderr.write(`podwire: ${text}\n`)
	}

	// The daemon starts while the manifests are read; what is wrong with them is found before anything is applied.
	progress.say('reading manifests')
	const reading = options.filename.length === 0 ? undefined : loadManifests(options.filename, options.namespace)
	const loaded = await reading
	const config = await loadConfig(options.config)

	const network = { ...config.network, ...readNetwork(options) }
	const chosen = { nodes, dataplane, ipFamily, network, serviceProxy, scheduler, policies }
	const lab = await start({ name, ...chosen, config, progress, warn })
	if (!lab.created && nodes !== undefined && lab.status.nodes.length !== nodes) {
		warn(
			`lab ${JSON.stringify(name)} runs with ${lab.status.nodes.length} nodes already; --nodes ${nodes} has no effect`,
		)
	}
	if (
		!lab.created &&
		serviceProxy !== undefined &&
		serviceProxy !== 'auto' &&
		lab.status.serviceProxy !== serviceProxy
	) {
		warn(
			`lab ${JSON.stringify(name)} runs with service proxy ${lab.status.serviceProxy ?? 'none'}; podwire proxy switch ${serviceProxy} changes it`,
		)
	}
	if (!lab.created && scheduler !== undefined && lab.status.scheduler !== scheduler) {
		warn(
			`lab ${JSON.stringify(name)} runs with ${lab.status.scheduler === undefined ? 'another service proxy' : `scheduler ${lab.status.scheduler}`}; podwire proxy switch ipvs --ipvs-scheduler ${scheduler} changes it`,
		)
	}
	const context = options.kubeconfig ? await mergeKubeconfig(lab, warn) : undefined
	const client = createKubeClient(lab.client.transport)
	if (loaded !== undefined) {
		const manifests = await claimItems(client, loaded, options.namespace)
		const ignored = ignoredText(manifests.ignored)
		if (ignored !== undefined) warn(ignored)
		await apply(lab, manifests, progress)
	}
	const readiness = options.wait ? await ready(client, timeout, progress) : undefined
	progress.done()
	const status = await lab.client.status()
	const seconds = (performance.now() - begun) / 1000
	report({
		format,
		status,
		readiness,
		context,
		seconds,
		created: lab.created,
		color: options.color,
		quiet: options.quiet === true,
	})
	return readiness !== undefined && readiness.waiting.length > 0 ? exit.no : exit.ok
}

/** Waits for at most `timeout` ms. However it ends, nothing of it keeps the command alive. */
async function ready(client: KubeClient, timeout: number, progress: Progress): Promise<Readiness> {
	const stop = new AbortController()
	const timer = setTimeout(() => stop.abort(), timeout)
	try {
		return await waitReady(client, {
			signal: stop.signal,
			onProgress: (r) =>
				progress.say(
					`${r.ready} of ${r.wanted} pods ready${r.waiting[0] === undefined ? '' : `; waiting for ${r.waiting[0]}`}`,
				),
		})
	} finally {
		clearTimeout(timer)
		stop.abort()
	}
}

/** What is said of the lab's network. Throws CommandError usage. */
function readNetwork(options: UpOptions): NetworkChoice {
	const { podCidr, serviceCidr, nodePortRange, clusterDomain, featureGates, enableAdmissionPlugins } = options
	try {
		return {
			...(podCidr === undefined ? {} : { podCidrs: readCidrs("the pods' network", podCidr) }),
			...(serviceCidr === undefined ? {} : { serviceCidrs: readCidrs("the Services' network", serviceCidr) }),
			...(nodePortRange === undefined ? {} : { nodePorts: readNodePorts(nodePortRange) }),
			...(clusterDomain === undefined ? {} : { clusterDomain: readClusterDomain(clusterDomain) }),
			...(featureGates === undefined ? {} : { featureGates: readFeatureGates(featureGates) }),
			...(enableAdmissionPlugins === undefined
				? {}
				: { admissionPlugins: readAdmissionPlugins(enableAdmissionPlugins) }),
		}
	} catch (e) {
		if (isFailure(e)) throw new CommandError(exit.usage, e.message)
		throw e
	}
}

function readDataplane(text: string | undefined): 'kernel' | 'paper' | undefined {
	if (text === undefined || text === 'kernel' || text === 'paper') return text
	throw new CommandError(exit.usage, `Unknown data plane ${JSON.stringify(text)}`, 'use kernel or paper')
}

/** undefined: nothing is asked for. */
function readPolicyChoice({ policyProfile, cutEstablished }: UpOptions): PolicyChoice | undefined {
	if (policyProfile === undefined && cutEstablished === undefined) return undefined
	return {
		...(policyProfile === undefined ? {} : { profile: profileOf(policyProfile).name }),
		...(cutEstablished === undefined ? {} : { cutEstablished }),
	}
}

async function loadConfig(path: string | undefined): Promise<LabConfig> {
	const file = path ?? (existsSync('podwire.yaml') ? 'podwire.yaml' : undefined)
	if (file === undefined) return emptyConfig
	try {
		return await readConfig(file)
	} catch (e) {
		if (isFailure(e)) throw new CommandError(exit.usage, e.message)
		throw e
	}
}

async function start(input: {
	name: string
	nodes: number | undefined
	dataplane: 'kernel' | 'paper' | undefined
	ipFamily: LabIpFamily | undefined
	network: NetworkChoice
	serviceProxy: ServiceProxyChoice | undefined
	scheduler: Scheduler | undefined
	policies: PolicyChoice | undefined
	config: LabConfig
	progress: Progress
	warn: (text: string) => void
}): Promise<LabHandle> {
	const { name, nodes, dataplane, ipFamily, network, serviceProxy, scheduler, policies, config, progress, warn } = input
	try {
		return await startLab({
			name,
			config,
			version: packageVersion(),
			...(nodes === undefined ? {} : { nodes }),
			...(dataplane === undefined ? {} : { dataplane }),
			...(ipFamily === undefined ? {} : { ipFamily }),
			network,
			...(serviceProxy === undefined ? {} : { serviceProxy }),
			...(scheduler === undefined ? {} : { scheduler }),
			...(policies === undefined ? {} : { policies }),
			onEvent(event) {
				if (event.event === 'progress') progress.say(event.text)
				else if (event.event === 'warning') warn(event.text)
			},
		})
	} catch (e) {
		progress.done()
		if (!isFailure(e)) throw e
		if (e.code === 'NotAllowed') throw new CommandError(exit.unknown, e.message, 'podwire doctor says what is missing')
		if (e.code === 'Immutable')
			throw new CommandError(exit.usage, e.message, `podwire down --name ${name}, then up, makes it anew`)
		// The name and where its sockets would lie are the user's; all else is the machine's.
		const usage = e.code === 'InvalidName' || e.code === 'PathTooLong' || e.code === 'InvalidNetwork'
		throw new CommandError(usage ? exit.usage : exit.unknown, e.message)
	}
}

async function mergeKubeconfig(lab: LabHandle, warn: (text: string) => void): Promise<string | undefined> {
	const { mergeContext } = await import('../kube/kubeconfig.ts')
	try {
		const context = await lab.client.context()
		await mergeContext(context)
		return context.name
	} catch (e) {
		warn(`the kubeconfig was left as it is: ${messageOf(e)}`)
		return undefined
	}
}

async function apply(lab: LabHandle, manifests: Loaded, progress: Progress): Promise<void> {
	const client = createKubeClient(lab.client.transport)
	progress.say(`applying ${manifests.items.length} objects`)
	const [refusals] = await Promise.all([
		applyItems(client, manifests.items, (done, total) => progress.say(`applying objects: ${done} of ${total}`)),
		lab.client.getSources().then((known) => lab.client.putSources({ ...known, ...sourcesOf(manifests.items) })),
	])
	if (refusals.length === 0) return
	progress.done()
	const left = lab.created ? `lab ${JSON.stringify(lab.name)} runs without them; podwire down removes it` : undefined
	throw new CommandError(exit.usage, refusalText(refusals, manifests.items.length), left)
}

function refusalText(refusals: readonly Refusal[], total: number): string {
	const lines = refusals.flatMap((r) => r.lines)
	const shown = lines.slice(0, 20)
	if (lines.length > shown.length) shown.push(`and ${lines.length - shown.length} more`)
	return `${refusals.length} of ${total} objects were refused:\n  ${shown.join('\n  ')}`
}

function report(input: {
	format: ReturnType<typeof outputFormat>
	status: LabStatus
	readiness: Readiness | undefined
	context: string | undefined
	seconds: number
	created: boolean
	color: string | undefined
	quiet: boolean
}): void {
	const { format, status, readiness, context, seconds, created } = input
	if (format === 'json' || format === 'yaml') {
		printDocument(format, {
			apiVersion: 'podwire.dev/v1alpha1',
			kind: 'Up',
			lab: status,
			...(context === undefined ? {} : { context }),
			...(readiness === undefined ? {} : { readiness }),
			seconds,
		})
		return
	}
	if (input.quiet) return
	const style = styleFor(process.stderr, input.color)
	const say = (text: string) => process.stderr.write(`${text}\n`)
	const pods = readiness === undefined ? '' : `, ${readiness.ready} pods ready`
	const incomplete = readiness !== undefined && readiness.waiting.length > 0
	const verb = incomplete
		? 'is up, but not everything is ready'
		: created
			? 'is up'
			: 'was up and has taken the changes'
	say(
		paint(
			style,
			incomplete ? 'yellow' : 'green',
			`lab ${status.name} ${verb}: ${nodesOf(status.nodes.length)}${pods}, ${seconds.toFixed(2)} s`,
		),
	)
	if (status.dataplane === 'paper')
		say(`paper data plane: ${status.whyPaper ?? 'asked for'}; model, API and trace work, no packet moves`)
	for (const line of readiness?.waiting.slice(0, 10) ?? []) say(`  not ready: ${line}`)
	if (context !== undefined) say(`kubectl uses it now: context ${context}`)
}

function nodesOf(count: number): string {
	return count === 1 ? '1 node' : `${count} nodes`
}
