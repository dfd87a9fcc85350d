// The workloads process: the lab's container runtime. Started by the daemon, outlives it, found again by its socket.
// Argument: the lab's paths as JSON. File descriptor 3 is written to once the socket answers.

import { writeSync } from 'node:fs'
import { createServer } from 'node:net'
import { systemClock } from '../../base/clock.ts'
import { Failure } from '../../base/failure.ts'
import type { OutsideNames } from '../../dataplane/dns/outside.ts'
import type { DnsChange } from '../../dataplane/dns/program.ts'
import type { LabPaths } from '../paths.ts'
import { createDnsServers } from './dns.ts'
import { createWorkloadPods } from './pods.ts'
import type { LogQuery, WorkloadCalls, WorkloadEvent, WorkloadPod, WorkloadStreams } from './protocol.ts'
import { type RpcConnection, serveRpc } from './rpc.ts'

const paths = JSON.parse(process.argv[2] ?? '') as LabPaths
const startedAt = Date.now()
const connections = new Set<RpcConnection>()
/** Milliseconds a pod waits for the nodes. A resolver asks again after five seconds; a lost SYN comes again after one. */
const mostWaiting = 2_000
const waiting = new Map<number, (heard: boolean) => void>()
let lastNumber = 0
const dns = createDnsServers((names) => {
	if (connections.size === 0) return undefined
	const number = ++lastNumber
	const event: WorkloadEvent = { event: 'names', number, names }
	const { promise, resolve } = Promise.withResolvers<boolean>()
	waiting.set(number, resolve)
	const cancel = systemClock.after(mostWaiting, () => resolve(false))
	for (const connection of connections) connection.send(event)
	return promise.finally(() => {
		cancel()
		waiting.delete(number)
	})
})
const pods = createWorkloadPods({
	clock: systemClock,
	lab: paths.runtime,
	startDns: dns.start,
	changed(status) {
		const event: WorkloadEvent = { event: 'status', status }
		for (const connection of connections) connection.send(event)
	},
})

// One pod's trouble is not the others': what nobody caught is written down and the process lives on.
process.on('uncaughtException', (e) => process.stderr.write(`${new Date().toISOString()} ${e.stack}\n`))

function call(name: string, argument: unknown): unknown {
	switch (name) {
		case 'hello':
			return { pid: process.pid, startedAt }
		case 'pods':
			return pods.all()
		case 'setPod':
			return pods.set(argument as WorkloadPod)
		case 'stopPod': {
			const { uid, grace, keepLogs } = argument as WorkloadCalls['stopPod']['argument']
			return pods.stop(uid, grace, keepLogs)
		}
		case 'restartContainer': {
			const { uid, container, grace, message } = argument as WorkloadCalls['restartContainer']['argument']
			return pods.restart(uid, container, grace, message).then(() => null)
		}
		case 'stopContainer': {
			const { uid, container, grace } = argument as WorkloadCalls['stopContainer']['argument']
			return pods.stopContainer(uid, container, grace).then(() => null)
		}
		case 'input':
			return pods.input(argument as WorkloadCalls['input']['argument']).then(() => null)
		case 'resize':
			pods.resize(argument as WorkloadCalls['resize']['argument'])
			return null
		case 'dns':
			dns.update(argument as readonly DnsChange[])
			return null
		case 'outsideNames':
			dns.setOutside(argument as OutsideNames)
			return null
		case 'watchNames':
			return dns.watch(argument as readonly string[])
		case 'answeredNames':
			return dns.answered()
		case 'namesKnown':
			waiting.get(argument as number)?.(true)
			return null
		case 'exit':
			setImmediate(() => process.exit(0))
			return null
		default:
			throw new Failure('BadRequest', `The workloads process knows no call ${JSON.stringify(name)}`)
	}
}

process.umask(0o077)
const server = createServer((socket) => {
	const connection = serveRpc(socket, {
		call,
		stream(name, argument, signal) {
			if (name === 'logs') return pods.logs(argument as LogQuery, signal)
			if (name === 'attach') return pods.attach(argument as WorkloadStreams['attach']['argument'], signal)
			return undefined
		},
	})
	connections.add(connection)
	socket.on('close', () => connections.delete(connection))
})
server.listen(paths.workloadsSocket, () => writeSync(3, 'ready\n'))
