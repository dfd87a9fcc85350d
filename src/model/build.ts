// From API objects to the network they mean. An ordered list of builders; each follows the difference between the
// last state and this one, so a change costs what it touches and everything else stays the same object.

import { tryParseIp } from '../base/ip.ts'
import { buildAddresses } from './builders/addresses.ts'
import { buildFrontends } from './builders/frontends.ts'
import type { BuildInput, LastBuild } from './builders/input.ts'
import { buildNamespaces, buildNodes } from './builders/nodes.ts'
import { buildPods } from './builders/pods.ts'
import { buildPolicies } from './builders/policies.ts'
import { buildServices } from './builders/services.ts'
import { buildTieredPolicies } from './builders/tiered-policies.ts'
import type { Finding } from './finding.ts'
import { check } from './findings/check.ts'
import type { NetworkConfig, NetworkModel } from './network.ts'
import { share } from './share.ts'
import type { ClusterState } from './state.ts'

/** What a model was made from. Only a memory: a model that is not in it is built from scratch. */
const builds = new WeakMap<NetworkModel, LastBuild>()

/**
 * The network that `state` means. `previous` is the result for an earlier state: the same model comes out with or
 * without it, but with it only what changed is rebuilt, and parts that mean the same stay the same object (the model
 * itself where nothing changed). Findings are computed when first read.
 */
export function build(
	state: ClusterState,
	previous?: { readonly state: ClusterState; readonly model: NetworkModel },
): NetworkModel {
	const last = previous === undefined ? undefined : builds.get(previous.model)
	if (last !== undefined && last.state === state) return previous!.model
	const config = share(last?.parts.config, readConfig(state))
	const input: BuildInput = {
		state,
		config,
		...(last === undefined ? {} : { last }),
		all: last?.parts.config !== config,
	}

	const namespaces = buildNamespaces(input)
	const nodes = buildNodes(input)
	const { services, slicesByService } = buildServices(input)
	const { pods, podsByOwner } = buildPods(input)
	const policies = buildPolicies(input)
	const tieredPolicies = buildTieredPolicies(input)
	const { addresses, claims } = buildAddresses(input, { nodes, services, pods })

	const { frontends, frontendClaims } = buildFrontends(input, { services, addresses })

	const { resolvedNames } = state
	const policed = { policies, tieredPolicies, resolvedNames }
	const parts = { config, nodes, pods, services, addresses, frontends, namespaces, ...policed }
	const index = { slicesByService, podsByOwner, claims, frontendClaims }
	let findings: readonly Finding[] | undefined
	const model: NetworkModel = {
		...parts,
		get findings() {
			findings ??= check({ state, model: parts, claims, frontendClaims, slicesByService })
			return findings
		},
	}
	builds.set(model, { state, parts, index })
	return model
}

function readConfig(state: ClusterState): NetworkConfig {
	const { clusterDomain, podCidrs, serviceCidrs, mtu, dnsService, nodeDns, nodePortAddresses, routerIps } = state.config
	const { ignoreExternalIps } = state.config
	const spec = state.services.get(dnsService)?.spec
	const dnsServiceIp = state.config.dnsServiceIp ?? tryParseIp(spec?.clusterIP ?? spec?.clusterIPs?.[0] ?? '')
	return {
		clusterDomain,
		podCidrs,
		serviceCidrs,
		mtu,
		...(dnsServiceIp === undefined ? {} : { dnsServiceIp }),
		...(nodeDns === undefined ? {} : { nodeDns }),
		...(nodePortAddresses === undefined ? {} : { nodePortAddresses }),
		...(routerIps === undefined ? {} : { routerIps }),
		...(ignoreExternalIps === undefined ? {} : { ignoreExternalIps }),
	}
}
