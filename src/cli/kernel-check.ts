// Run by `podwire doctor` in a child with namespaces of its own: tries each kernel facility and prints the checks as JSON.

import { probeKernel } from '../linux/kernel.ts'
import type { Check } from './doctor.ts'

const checks: Check[] = (await probeKernel()).map(({ capability, ok, needed, why, fix }) => ({
	name: capability,
	status: ok ? 'ok' : needed ? 'fail' : 'warn',
	text: why,
	...(fix === undefined ? {} : { fix }),
}))
process.stdout.write(JSON.stringify(checks))
