// `podwire status`: what runs.

import { alignColumns } from '../base/text.ts'
import { listLabs } from '../lab/start.ts'
import type { LabStatus } from '../lab/status.ts'
import { exit } from './exit.ts'
import { givenName } from './lab.ts'
import type { CommonOptions } from './options.ts'
import { outputFormat, printDocument } from './output.ts'

export async function status(options: CommonOptions): Promise<number> {
	const format = outputFormat(options.output)
	const name = givenName(options.name)
	const labs = (await listLabs()).filter((l) => name === undefined || l.name === name)
	if (format === 'json' || format === 'yaml') {
		printDocument(format, { apiVersion: 'podwire.dev/v1alpha1', kind: 'LabList', items: labs })
	} else if (labs.length === 0) {
		process.stdout.write(
			name === undefined
				? 'no lab; podwire up starts one\n'
				: `no lab ${JSON.stringify(name)}; podwire up --name ${name} starts it\n`,
		)
	} else {
		for (const [i, lab] of labs.entries())
			process.stdout.write(`${i === 0 ? '' : '\n'}${labText(lab, format === 'wide')}`)
	}
	return labs.length > 0 && labs.every((l) => l.phase === 'running' && l.trouble.length === 0) ? exit.ok : exit.no
}

function labText(lab: LabStatus, wide: boolean): string {
	const lines = [`lab ${lab.name}: ${lab.phase}`]
	if (lab.phase === 'crashed') {
		lines.push(`  podwire up --name ${lab.name} goes on with it, podwire down --name ${lab.name} removes it`)
		return `${lines.join('\n')}\n`
	}
	const plane =
		lab.dataplane === 'paper'
			? `paper (${lab.whyPaper ?? 'asked for'})`
			: `kernel, by ${lab.rights}; Services by ${lab.serviceProxy ?? 'none yet'}`
	lines.push(`  data plane  ${plane}`)
	const { profile, cutEstablished } = lab.policies
	lines.push(
		`  policies    profile ${profile}, ${cutEstablished ? 'for established connections, too' : 'for new connections'}`,
	)
	lines.push(`  API server  ${lab.api ?? 'not answering yet'}`)
	lines.push(`  IP family   ${lab.ipFamily}`)
	lines.push(
		`  pods        ${lab.pods.ready} of ${lab.pods.total} ready, networks ${lab.podCidrs.join(', ')}, Services ${lab.serviceCidrs.join(', ')}`,
	)
	if (wide)
		lines.push(
			`  process     ${lab.pid ?? '-'}, since ${lab.startedAt}, state in ${lab.stateFolder}, sockets in ${lab.runtimeFolder}`,
		)
	for (const trouble of lab.trouble) lines.push(`  trouble     ${trouble}`)
	const rows = [
		['NODE', 'ADDRESS', 'PODS FROM', 'READY'],
		...lab.nodes.map((n) => [n.name, n.ips.join(','), n.podCidrs.join(','), n.ready ? 'yes' : 'no']),
	]
	lines.push('', ...alignColumns(rows).map((l) => `  ${l}`))
	return `${lines.join('\n')}\n`
}
