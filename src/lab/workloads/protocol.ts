// What the daemon and the workloads process say to each other: calls with one answer or a stream of items, and
// events, one JSON value a line over a unix socket. The workloads process is the lab's container runtime: it
// outlives the daemon, so everything it needs is in the calls.

import type { Ip } from '../../base/ip.ts'
import type { AnsweredName } from '../../dataplane/dns/answered.ts'
import type { OutsideNames } from '../../dataplane/dns/outside.ts'
import type { DnsChange } from '../../dataplane/dns/program.ts'
import type { PodMount } from '../pod-mounts.ts'

/** One pod as the workloads process runs it. Sending it again changes what differs and leaves the rest running. */
export interface WorkloadPod {
	readonly uid: string
	readonly namespace: string
	readonly name: string
	readonly node: string
	readonly ips: readonly Ip[]
	/** Path of the network namespace the containers share. */
	readonly netns: string
	readonly containers: readonly WorkloadContainer[]
}

export type WorkloadContainer = StandInContainer | ProgramContainer | DnsContainer

interface ContainerBase {
	readonly name: string
	readonly image: string
	readonly restart: 'Always' | 'OnFailure' | 'Never'
}

/** Listens and answers with who it is. */
export interface StandInContainer extends ContainerBase {
	readonly kind: 'stand-in'
	readonly listeners: readonly Listener[]
}

export interface Listener {
	readonly protocol: 'TCP' | 'UDP'
	readonly port: number
}

/** A program of the host inside the pod's namespaces. */
export interface ProgramContainer extends ContainerBase {
	readonly kind: 'program'
	readonly run: ProgramRun
	/** It has a standard input; `once`: only until the first client that types there leaves. */
	readonly stdin?: { readonly once: boolean }
	/** Its standard streams are a terminal. */
	readonly tty?: true
}

/** How a host program is started inside a pod: also what exec uses. */
export interface ProgramRun {
	readonly command: readonly string[]
	readonly env: Readonly<Record<string, string>>
	readonly workingDir?: string
	readonly hostname: string
	/** Paths of the files mounted over /etc/resolv.conf and /etc/hosts. */
	readonly resolvConf: string
	readonly hosts: string
	/** Absent: none. `scratch`: an empty folder for the work of mounting. */
	readonly volumes?: { readonly mounts: readonly PodMount[]; readonly scratch: string }
}

/** The cluster's DNS server. */
export interface DnsContainer extends ContainerBase {
	readonly kind: 'dns'
}

export type ContainerState =
	| { readonly state: 'waiting'; readonly reason: string; readonly message?: string }
	/** Milliseconds since the epoch. */
	| { readonly state: 'running'; readonly startedAt: number; readonly pid?: number }
	| {
			readonly state: 'terminated'
			readonly startedAt: number
			readonly finishedAt: number
			readonly exitCode: number
			readonly signal?: string
			readonly reason: string
			readonly message?: string
	  }

export interface ContainerStatus {
	readonly name: string
	readonly state: ContainerState
	/** The run before, where there was one. */
	readonly last?: ContainerState
	readonly restarts: number
}

export interface WorkloadPodStatus {
	readonly uid: string
	readonly containers: readonly ContainerStatus[]
}

export interface LogLine {
	/** Milliseconds since the epoch. */
	readonly time: number
	readonly stream: 'stdout' | 'stderr'
	/** Without the line end. */
	readonly text: string
}

export interface LogQuery {
	readonly uid: string
	readonly container: string
	readonly follow: boolean
	readonly previous: boolean
	readonly tailLines?: number
	/** Milliseconds since the epoch. */
	readonly since?: number
}

/** Calls of the workloads process by name: argument and answer. */
export interface WorkloadCalls {
	readonly hello: { argument: null; answer: { readonly pid: number; readonly startedAt: number } }
	readonly pods: {
		argument: null
		answer: readonly { readonly pod: WorkloadPod; readonly status: WorkloadPodStatus }[]
	}
	readonly setPod: { argument: WorkloadPod; answer: WorkloadPodStatus }
	/**
	 * Stops accepting, lets requests under way finish, and after `grace` milliseconds cuts. Absent: nothing to do.
	 * With `keepLogs` the pod is known until it is stopped without.
	 */
	readonly stopPod: {
		argument: { readonly uid: string; readonly grace: number; readonly keepLogs: boolean }
		answer: null
	}
	/** Ends one container's run and starts the next, by its restart policy and back-off. `grace`: milliseconds. */
	readonly restartContainer: {
		argument: {
			readonly uid: string
			readonly container: string
			readonly grace: number
			readonly message: string
		}
		answer: null
	}
	/** Ends one container for good, the others run on. Again with less `grace` (milliseconds): sooner. */
	readonly stopContainer: {
		argument: { readonly uid: string; readonly container: string; readonly grace: number }
		answer: null
	}
	/** What a client types into a container that has a standard input (base64); `end`: it has left or has no more. */
	readonly input: {
		argument: { readonly uid: string; readonly container: string; readonly data?: string; readonly end?: true }
		answer: null
	}
	readonly resize: {
		argument: { readonly uid: string; readonly container: string; readonly width: number; readonly height: number }
		answer: null
	}
	/** Changes to what the DNS servers answer from. */
	readonly dns: { argument: readonly DnsChange[]; answer: null }
	/** What they answer of names outside of the cluster, from now on. */
	readonly outsideNames: { argument: OutsideNames; answer: null }
	/**
	 * Names, and `*.` with names, in place of those before: their addresses come as an event before a pod is answered. What
	 * was answered of them already, and still holds.
	 */
	readonly watchNames: { argument: readonly string[]; answer: readonly AnsweredName[] }
	/** Every answer with addresses that still holds, of whatever name. */
	readonly answeredNames: { argument: null; answer: readonly AnsweredName[] }
	/** The event of that number has been heard, and the nodes know: the pod may be answered. */
	readonly namesKnown: { argument: number; answer: null }
	/** Ends the process; its pods' listeners close, its programs are killed. */
	readonly exit: { argument: null; answer: null }
}

/** Calls that answer with a stream of items. */
export interface WorkloadStreams {
	readonly logs: { argument: LogQuery; item: LogLine }
	/** The output of a container's present run from now on, as it comes (base64); ends with the run. */
	readonly attach: {
		argument: { readonly uid: string; readonly container: string }
		item: { readonly stream: LogLine['stream']; readonly data: string }
	}
}

/** Sent to every connection. */
export type WorkloadEvent =
	/** A container's state changed by itself. */
	| { readonly event: 'status'; readonly status: WorkloadPodStatus }
	/** A pod is about to be answered with addresses of names that are watched; `namesKnown` with the number lets it. */
	| { readonly event: 'names'; readonly number: number; readonly names: readonly AnsweredName[] }
