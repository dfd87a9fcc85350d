// Run by `podwire doctor` in a child with namespaces of its own: tries each kernel facility and prints the checks as JSON.

import { serviceProxies } from '../dataplane/proxies/service-proxies.ts'
import { probeKernel } from '../linux/kernel.ts'
import type { Check } from './doctor.ts'

const checks: Check[] = (await probeKernel()).map(({ capability, ok, needed, why, fix }) => ({
	name: capability,
	status: ok ? 'ok' : needed ? 'fail' : 'warn',
	text: why,
	...(fix === undefined ? {} : { fix }),
}))
for (const [mode, proxy] of Object.entries(serviceProxies)) {
	// nftables are among the facilities above.
	if (mode === 'nftables') continue
	const why = await proxy.usable()
	checks.push({
		name: `service proxy ${mode}`,
		status: why === undefined ? 'ok' : 'info',
		text: why ?? `podwire proxy switch ${mode} works here`,
	})
}
process.stdout.write(JSON.stringify(checks))
