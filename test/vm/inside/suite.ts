// Run inside the machine: the shared suite of Service data planes, by IPVS.

import { createIpvs, ipvsUsable } from '../../../src/dataplane/ipvs/ipvs.ts'
import { runServicesSuite } from '../../net/services-suite.ts'

runServicesSuite('ipvs', { make: async (options) => [createIpvs(options)], unusable: (await ipvsUsable()) ?? false })
