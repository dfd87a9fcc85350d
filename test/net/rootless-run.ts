// What lab-rootless.test.ts runs as an ordinary user; prints what it found as JSON. Argument: the lab's IP family; of a
// dual one IPv6 is used.

import { spawnSync } from 'node:child_process'
import { existsSync } from 'node:fs'
import { pods, services } from '../../src/kube/kinds.ts'
import type { LabIpFamily } from '../../src/lab/ip-family.ts'
import { labMark } from '../../src/lab/pod-process.ts'
import { findMarkedProcesses, signalProcess, waitForEnd } from '../../src/lab/process-identity.ts'
import { readRecord } from '../../src/lab/record.ts'
import { stopLab } from '../../src/lab/start.ts'
import { createTestLab, podObject } from './lab.ts'

const ipFamily = process.argv[2] as LabIpFamily
const lab = await createTestLab('rootless', undefined, { ipFamily })
try {
	const { rights, dataplane } = lab.handle.status
	await lab.create(podObject('web'))
	await lab.create(podObject('client'))
	await lab.create({
		apiVersion: 'v1',
		kind: 'Service',
		metadata: { name: 'web', namespace: 'default' },
		spec: { selector: { app: 'web' }, ipFamilyPolicy: 'PreferDualStack', ports: [{ port: 80 }] },
	})
	const addresses = async () =>
		JSON.stringify([(await lab.pod('web')).status?.podIPs, (await lab.pod('client')).status?.podIPs])
	const before = await addresses()
	const restarts = async () => (await lab.pod('client')).status?.containerStatuses?.[0]?.restartCount
	const ip = (await lab.client.get(services, 'default/web')).spec?.clusterIPs?.at(-1) ?? ''
	const url = `http://${ip.includes(':') ? `[${ip}]` : ip}/`
	/** Who answers the client pod; asked from outside, so the user namespace is entered first. */
	const ask = () =>
		lab.until(async () => {
			const { workloads } = readRecord(lab.paths)!
			const uid = (await lab.client.get(pods, 'default/client')).metadata.uid
			const inside = ['nsenter', `--net=${lab.paths.namespaces}/pod-${uid}`, 'curl', '-s', '-m', '3', '-g', url]
			const got = spawnSync(
				'nsenter',
				['--preserve-credentials', '-U', '-m', '-t', String(workloads!.pid), ...inside],
				{
					encoding: 'utf8',
				},
			)
			return got.status === 0 ? (JSON.parse(got.stdout) as { pod: string }).pod : undefined
		})
	const answered = await ask()
	const kill = async (...which: ('daemon' | 'workloads')[]) => {
		const record = readRecord(lab.paths)!
		for (const name of which) {
			signalProcess(record[name]!, 'SIGKILL')
			await waitForEnd([record[name]!], 5_000)
		}
	}
	const look = async (count: number) => {
		await lab.until(async () => ((await restarts()) === count ? true : undefined))
		return { sameAddresses: (await addresses()) === before, restarts: count, answered: await ask() }
	}
	await kill('daemon')
	await lab.up()
	const afterCrash = await look(0)
	await kill('daemon', 'workloads')
	await lab.up()
	const afterBoth = await look(1)
	await stopLab('rootless')
	const leftovers = [
		...[lab.paths.state, lab.paths.runtime].filter((p) => existsSync(p)),
		...findMarkedProcesses(labMark, lab.paths.runtime).map((p) => String(p.pid)),
	]
	process.stdout.write(JSON.stringify({ rights, dataplane, answered, afterCrash, afterBoth, leftovers }))
} finally {
	await lab.remove()
}
