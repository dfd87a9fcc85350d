// The suite of Service data planes for eBPF at the socket, nftables beside it for packets.

import { createEbpf, ebpfUsable } from '../../src/dataplane/ebpf/ebpf.ts'
import { createNftables } from '../../src/dataplane/nftables/nftables.ts'
import { runServicesSuite } from './services-suite.ts'

runServicesSuite('ebpf', {
	make: async (options) => [createNftables(options), createEbpf(options)],
	unusable: ebpfUsable() ?? false,
})
