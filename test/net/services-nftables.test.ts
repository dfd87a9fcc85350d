// The suite of Service data planes for nftables.

import { createNftables } from '../../src/dataplane/nftables/nftables.ts'
import { runServicesSuite } from './services-suite.ts'

runServicesSuite('nftables', { make: async (options) => [createNftables(options)] })
