// A packet as every layer sees it: the fields that routing, translation and policy decide on.

import type { Ip } from './ip.ts'

/** Transport protocols of the Kubernetes API, and ICMP for errors and echo. */
export type Protocol = 'TCP' | 'UDP' | 'SCTP' | 'ICMP'

/** conntrack's view of a packet (Documentation/networking/nf_conntrack). */
export type ConnectionState = 'new' | 'established' | 'related' | 'invalid' | 'untracked'

export interface Packet {
	readonly protocol: Protocol
	readonly source: Ip
	readonly destination: Ip
	/** 0 where the protocol has no ports. */
	readonly sourcePort: number
	readonly destinationPort: number
	readonly state: ConnectionState
	/** skb->mark, 0 unless set. */
	readonly mark: number
	/** Interface names as the namespace that handles the packet knows them. */
	readonly inInterface?: string
	readonly outInterface?: string
}

/**
 * Netfilter hooks of the IP families, in the order a forwarded packet meets them; before them `connect`, where programs of
 * a control group see the address a process asks for (connect, and sendmsg of datagrams) while there is no packet yet.
 */
export type Hook = 'connect' | 'prerouting' | 'input' | 'forward' | 'output' | 'postrouting'
