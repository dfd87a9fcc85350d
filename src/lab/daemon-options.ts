// What the daemon is told when it is started.

import type { Scheduler } from '../linux/ipvs/ipvs.ts'
import type { LabConfig } from './config.ts'
import type { LabIpFamily } from './ip-family.ts'
import type { NetworkChoice } from './network-choice.ts'
import type { LabPaths } from './paths.ts'
import type { PolicyChoice } from './policy-settings.ts'
import type { ServiceProxyChoice } from './service-proxy.ts'

export interface DaemonOptions {
	readonly paths: LabPaths
	readonly nodes: number
	readonly dataplane: 'kernel' | 'paper'
	/** Why paper was chosen. */
	readonly whyPaper?: string
	/** The data plane was demanded: do not fall back from the kernel to paper. */
	readonly forced: boolean
	readonly rights: 'root' | 'user namespace' | 'none'
	readonly ipFamily: LabIpFamily
	readonly network: NetworkChoice
	/** Asked for; undefined: as the lab had it, else the default. */
	readonly serviceProxy?: ServiceProxyChoice
	/** Asked for; undefined: as the lab had it, else rr. */
	readonly scheduler?: Scheduler
	/** Asked for; what is absent stays as the lab has it. */
	readonly policies?: PolicyChoice
	readonly config: LabConfig
	readonly version: string
}
