// The suite of Service data planes for iptables, as kube-proxy's iptables mode.

import { createIptables, iptablesUsable } from '../../src/dataplane/iptables/iptables.ts'
import { runServicesSuite } from './services-suite.ts'
import { reasonToSkip } from './services-world.ts'

const unusable = reasonToSkip() || ((await iptablesUsable()) ?? false)

runServicesSuite('iptables', { make: async (options) => [createIptables(options)], unusable })
