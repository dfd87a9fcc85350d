// `podwire.yaml`: which host program is run for which image. Read and checked with the line of each fault.

import { readFileSync } from 'node:fs'
import type { Node as YamlNode } from 'yaml'
import { Failure } from '../base/failure.ts'
import { type Cidr, cidrAddress, cidrContains, cidrLength, familyOf, tryParseCidr } from '../base/ip.ts'
import type { OutsideNames } from '../dataplane/dns/outside.ts'
import { balancerRanges } from './addresses.ts'
import { readOutsideNames } from './config-dns.ts'
import {
	type NetworkChoice,
	readAdmissionPlugins,
	readCidrs,
	readClusterDomain,
	readFeatureGates,
	readNodePorts,
} from './network-choice.ts'

export const configApiVersion = 'podwire.dev/v1alpha1'
export const configKind = 'Config'

export interface LabConfig {
	readonly images: readonly ImageRule[]
	/** A container's own `command` is run where no rule matches and the program is on this machine. Default false. */
	readonly allowCommands?: boolean
	/** Where load balancers get their addresses, in the order they are tried. Absent: one of its own (ip-family.ts). */
	readonly addressPools?: readonly AddressPoolRule[]
	/** Names outside of the cluster. Absent: nobody knows any. */
	readonly dns?: OutsideNames
	/** Of the lab's network; only a lab that is made heeds it. */
	readonly network?: NetworkChoice
}

export interface AddressPoolRule {
	readonly name: string
	readonly cidrs: readonly Cidr[]
	/** false: only for Services that name the pool or one of its addresses. */
	readonly autoAssign: boolean
}

/** The first rule whose pattern matches decides. */
export interface ImageRule {
	/** `*` stands for any characters. Compared with the image as written, and without registry, `library/`, tag and digest. */
	readonly match: string
	/** Program and arguments, in place of the image's own entry point. A container's `args` are added. */
	readonly command: readonly string[]
	readonly env: Readonly<Record<string, string>>
	readonly workingDir?: string
}

const networkingFields = ['podSubnet', 'serviceSubnet', 'dnsDomain', 'nodePortRange'] as const
const networkFields = ['networking', 'featureGates', 'enableAdmissionPlugins'] as const

export const emptyConfig: LabConfig = { images: [] }

/** Reads the file. Throws Failure InvalidConfig, one message with every fault as `file:line:column: what`. */
export async function readConfig(file: string): Promise<LabConfig> {
	let text: string
	try {
		text = readFileSync(file, 'utf8')
	} catch (e) {
		throw new Failure('InvalidConfig', `Cannot read ${JSON.stringify(file)}: ${(e as Error).message}`, { file })
	}
	return parseConfig(text, file)
}

/** As readConfig for a text. */
export async function parseConfig(text: string, file: string): Promise<LabConfig> {
	const { LineCounter, parseDocument, isMap, isSeq, isScalar } = await import('yaml')
	const lines = new LineCounter()
	const document = parseDocument(text, { lineCounter: lines, prettyErrors: false })
	const faults: string[] = []
	const at = (offset: number) => {
		const { line, col } = lines.linePos(offset)
		return `${file}:${line}:${col}`
	}
	const fault = (node: unknown, what: string) => {
		faults.push(`${at((node as YamlNode | null)?.range?.[0] ?? 0)}: ${what}`)
	}
	for (const error of document.errors) faults.push(`${at(error.pos[0])}: ${error.message}`)

	/** The fields of a mapping, unknown ones reported. */
	function fields(node: unknown, path: string, known: readonly string[]): Map<string, unknown> {
		const found = new Map<string, unknown>()
		if (!isMap(node)) {
			fault(node, `${path === '' ? 'the document' : path} must be a mapping`)
			return found
		}
		for (const pair of node.items) {
			const name = isScalar(pair.key) ? String(pair.key.value) : ''
			if (!known.includes(name)) {
				fault(
					pair.key,
					`unknown field ${JSON.stringify(path === '' ? name : `${path}.${name}`)}; known are ${known.join(', ')}`,
				)
			} else found.set(name, pair.value)
		}
		return found
	}
	function string(node: unknown, path: string): string {
		if (isScalar(node) && typeof node.value === 'string' && node.value !== '') return node.value
		fault(node, `${path} must be a text that is not empty`)
		return ''
	}

	/** kind's and kubeadm's names. */
	function readNetwork(top: ReadonlyMap<string, unknown>): NetworkChoice {
		/** What a reader of the command's texts makes of it; a fault where it refuses. */
		const read = <T>(node: unknown, text: string, reader: (text: string) => T): T | undefined => {
			try {
				return reader(text)
			} catch (e) {
				if (!(e instanceof Failure)) throw e
				fault(node, e.message)
				return undefined
			}
		}
		const choice: { -readonly [K in keyof NetworkChoice]: NetworkChoice[K] | undefined } = {}
		const networking = top.get('networking')
		const said = networking === undefined ? undefined : fields(networking, 'networking', [...networkingFields])
		for (const [name, node] of said ?? []) {
			const text = string(node, `networking.${name}`)
			if (text === '') continue
			if (name === 'podSubnet') choice.podCidrs = read(node, text, (t) => readCidrs("the pods' network", t))
			else if (name === 'serviceSubnet')
				choice.serviceCidrs = read(node, text, (t) => readCidrs("the Services' network", t))
			else if (name === 'dnsDomain') choice.clusterDomain = read(node, text, readClusterDomain)
			else choice.nodePorts = read(node, text, readNodePorts)
		}
		const gates = top.get('featureGates')
		if (gates !== undefined && !isMap(gates)) fault(gates, 'featureGates must be a mapping')
		for (const pair of isMap(gates) ? gates.items : []) {
			const text = `${isScalar(pair.key) ? pair.key.value : ''}=${isScalar(pair.value) ? pair.value.value : ''}`
			choice.featureGates = { ...choice.featureGates, ...read(pair.key, text, readFeatureGates) }
		}
		const plugins = top.get('enableAdmissionPlugins')
		if (plugins !== undefined && !isSeq(plugins)) fault(plugins, 'enableAdmissionPlugins must be a list')
		for (const [i, item] of (isSeq(plugins) ? plugins.items : []).entries()) {
			const text = string(item, `enableAdmissionPlugins[${i}]`)
			const known = text === '' ? undefined : read(item, text, readAdmissionPlugins)
			choice.admissionPlugins = [...(choice.admissionPlugins ?? []), ...(known ?? [])]
		}
		return Object.fromEntries(Object.entries(choice).filter(([, value]) => value !== undefined)) as NetworkChoice
	}

	const images: ImageRule[] = []
	let addressPools: AddressPoolRule[] | undefined
	let allowCommands = false
	let dns: OutsideNames | undefined
	let network: NetworkChoice = {}
	if (faults.length === 0 && document.contents !== null) {
		const top = fields(document.contents, '', [
			'apiVersion',
			'kind',
			'images',
			'allowCommands',
			'addressPools',
			'dns',
			...networkFields,
		])
		for (const [name, want] of [
			['apiVersion', configApiVersion],
			['kind', configKind],
		] as const) {
			const node = top.get(name)
			if (node === undefined) fault(document.contents, `${name} is missing; it must be ${want}`)
			else if (string(node, name) !== want) fault(node, `${name} must be ${want}`)
		}
		const allow = top.get('allowCommands')
		if (isScalar(allow) && typeof allow.value === 'boolean') allowCommands = allow.value
		else if (allow !== undefined) fault(allow, 'allowCommands must be true or false')
		const pools = top.get('addressPools')
		if (pools !== undefined && !isSeq(pools)) fault(pools, 'addressPools must be a list')
		for (const [i, item] of (isSeq(pools) ? pools.items : []).entries()) {
			const path = `addressPools[${i}]`
			const pool = fields(item, path, ['name', 'cidrs', 'autoAssign'])
			for (const name of ['name', 'cidrs']) if (!pool.has(name)) fault(item, `${path}.${name} is missing`)
			const name = pool.has('name') ? string(pool.get('name'), `${path}.name`) : ''
			if (addressPools?.some((other) => other.name === name)) fault(item, `${path}.name is another pool's, too`)
			const cidrs = pool.get('cidrs')
			if (cidrs !== undefined && (!isSeq(cidrs) || cidrs.items.length === 0)) {
				fault(cidrs, `${path}.cidrs must be a list of networks that is not empty`)
			}
			const autoAssign = pool.get('autoAssign')
			const given = isScalar(autoAssign) && typeof autoAssign.value === 'boolean' ? autoAssign.value : undefined
			if (autoAssign !== undefined && given === undefined) fault(autoAssign, `${path}.autoAssign must be true or false`)
			addressPools ??= []
			addressPools.push({
				name,
				cidrs: (isSeq(cidrs) ? cidrs.items : []).flatMap((c, j) => {
					const text = string(c, `${path}.cidrs[${j}]`)
					const cidr = tryParseCidr(text)
					if (text !== '' && cidr === undefined) {
						fault(c, `${path}.cidrs[${j}] is ${JSON.stringify(text)}, which is no network such as 172.18.254.0/24`)
					} else if (cidr !== undefined && !balancerRanges.some((range) => lies(cidr, range))) {
						fault(c, `${path}.cidrs[${j}] is ${cidr}, which must lie inside of ${balancerRanges.join(' or ')}`)
					}
					return cidr ?? []
				}),
				autoAssign: given ?? true,
			})
		}
		network = readNetwork(top)
		const section = top.get('dns')
		if (section !== undefined) {
			const items = (node: unknown) => (isSeq(node) ? node.items : undefined)
			const value = (node: unknown) => (isScalar(node) ? node.value : undefined)
			dns = readOutsideNames(section, { fields, items, value, fault })
		}
		const list = top.get('images')
		if (list !== undefined && !isSeq(list)) fault(list, 'images must be a list')
		for (const [i, item] of (isSeq(list) ? list.items : []).entries()) {
			const path = `images[${i}]`
			const rule = fields(item, path, ['match', 'command', 'env', 'workingDir'])
			for (const name of ['match', 'command']) if (!rule.has(name)) fault(item, `${path}.${name} is missing`)
			const command = rule.get('command')
			if (command !== undefined && (!isSeq(command) || command.items.length === 0)) {
				fault(command, `${path}.command must be a list of texts that is not empty: a program and its arguments`)
			}
			const env: Record<string, string> = {}
			const envNode = rule.get('env')
			if (envNode !== undefined && !isMap(envNode)) fault(envNode, `${path}.env must be a mapping`)
			for (const pair of isMap(envNode) ? envNode.items : []) {
				if (isScalar(pair.key) && isScalar(pair.value) && pair.value.value !== null) {
					env[String(pair.key.value)] = String(pair.value.value)
				} else fault(pair.key, `${path}.env must map names to texts`)
			}
			const workingDir = rule.get('workingDir')
			images.push({
				match: rule.has('match') ? string(rule.get('match'), `${path}.match`) : '',
				command: (isSeq(command) ? command.items : []).map((c, j) => string(c, `${path}.command[${j}]`)),
				env,
				...(workingDir === undefined ? {} : { workingDir: string(workingDir, `${path}.workingDir`) }),
			})
		}
	}
	if (faults.length > 0) throw new Failure('InvalidConfig', faults.join('\n'), { file, faults })
	return {
		images,
		...(allowCommands ? { allowCommands } : {}),
		...(addressPools === undefined ? {} : { addressPools }),
		...(dns === undefined ? {} : { dns }),
		...(Object.keys(network).length === 0 ? {} : { network }),
	}
}

function lies(inner: Cidr, outer: Cidr): boolean {
	if (familyOf(inner) !== familyOf(outer)) return false
	return cidrLength(inner) >= cidrLength(outer) && cidrContains(outer, cidrAddress(inner))
}

/** The rule for an image, or undefined: then a stand-in takes its place. */
export function findImageRule(config: LabConfig, image: string): ImageRule | undefined {
	const names = new Set([image, bareImage(image)])
	return config.images.find((rule) => {
		const pattern = new RegExp(`^${rule.match.split('*').map(escapeRegExp).join('.*')}$`)
		return [...names].some((name) => pattern.test(name))
	})
}

/** `docker.io/library/nginx:1.27@sha256:…` is `nginx`; `registry:5000/team/app:v1` is `team/app`. */
export function bareImage(image: string): string {
	const slash = image.indexOf('/')
	const first = image.slice(0, slash)
	// The first part is a registry only where it looks like a host (the reference grammar's rule).
	const isHost = slash > 0 && (first.includes('.') || first.includes(':') || first === 'localhost')
	const path = isHost ? image.slice(slash + 1) : image
	return path
		.replace(/^library\//, '')
		.replace(/@.*$/, '')
		.replace(/:[^/]*$/, '')
}

function escapeRegExp(text: string): string {
	return text.replace(/[.*+?^${}()|[\]\\]/g, '\\$&')
}
