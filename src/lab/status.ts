// What a lab says of itself. Plain data: it crosses the control socket as JSON and is printed by `podwire status`.

import type { ServiceProxyMode } from '../dataplane/dataplane.ts'
import type { Scheduler } from '../linux/ipvs/ipvs.ts'
import type { ProfileName } from '../model/policy-profile.ts'
import type { LabIpFamily } from './ip-family.ts'
import type { NetworkChoice } from './network-choice.ts'

export type LabPhase = 'starting' | 'running' | 'stopping' | 'crashed'

export interface LabStatus {
	readonly name: string
	readonly phase: LabPhase
	/** Of the daemon; absent when it has crashed. */
	readonly pid?: number
	readonly dataplane: 'kernel' | 'paper'
	/** Why the data plane is paper, one sentence. */
	readonly whyPaper?: string
	/** Which data plane carries Services; absent on paper. */
	readonly serviceProxy?: ServiceProxyMode
	/** How IPVS chooses, where it carries them. */
	readonly scheduler?: Scheduler
	/** The families of every address of the lab. */
	readonly ipFamily: LabIpFamily
	/** What was chosen of its networks besides; empty: the defaults. */
	readonly network: NetworkChoice
	/** How policies are enforced where their API leaves a choice. */
	readonly policies: PolicyStatus
	/** With what rights the kernel is used. */
	readonly rights: 'root' | 'user namespace' | 'none'
	readonly nodes: readonly LabNodeStatus[]
	readonly podCidrs: readonly string[]
	readonly serviceCidrs: readonly string[]
	/** `https://127.0.0.1:40123`, once it answers. */
	readonly api?: string
	readonly pods: { readonly ready: number; readonly total: number }
	/** RFC 3339. */
	readonly startedAt: string
	readonly version: string
	/** Trouble of a node or of the lab that has not gone away, one sentence each. */
	readonly trouble: readonly string[]
	readonly stateFolder: string
	readonly runtimeFolder: string
}

export interface PolicyStatus {
	readonly profile: ProfileName
	/** Connections that a policy no longer allows are cut; otherwise policies are for new ones. */
	readonly cutEstablished: boolean
}

export interface LabNodeStatus {
	readonly name: string
	/** Of the primary family. */
	readonly ip: string
	/** One of each family. */
	readonly ips: readonly string[]
	readonly podCidrs: readonly string[]
	readonly ready: boolean
}

/** A line of `GET /events`. */
export type LabEvent =
	| { readonly event: 'phase'; readonly phase: LabPhase; readonly at: string }
	/** A step of starting or stopping, as a person is shown it. */
	| { readonly event: 'progress'; readonly text: string; readonly at: string }
	| { readonly event: 'warning'; readonly text: string; readonly at: string }
