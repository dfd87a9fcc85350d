// The kernel in memory behaves as the suite that the real one passes says.

import { describe } from 'node:test'
import { kernelSuite } from '../../../test/net/nft-suite.ts'
import { createFakeKernel } from './fake.ts'

describe('nftables, kernel in memory', () => {
	kernelSuite((test) => test(createFakeKernel()), 150)
})
