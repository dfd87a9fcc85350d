import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Service } from '../../kube/objects/core.ts'
import type { Container, Pod } from '../../kube/objects/pod.ts'
import { emptyConfig } from '../config.ts'
import { planContainer, planText } from './containers.ts'

const pod = (containers: readonly Container[]): Pod => ({
	apiVersion: 'v1',
	kind: 'Pod',
	metadata: { name: 'web', namespace: 'default', labels: { app: 'web' } },
	spec: { containers },
})
const service = (
	selector: Record<string, string> | undefined,
	ports: NonNullable<Service['spec']>['ports'],
): Service => ({
	apiVersion: 'v1',
	kind: 'Service',
	metadata: { name: 's', namespace: 'default' },
	spec: { ...(selector === undefined ? {} : { selector }), ports },
})
const web = { app: 'web' }

test('a stand-in listens on the ports its container declares, never on what a Service aims at', () => {
	const a: Container = {
		name: 'a',
		image: 'x',
		ports: [{ containerPort: 8080 }, { containerPort: 53, protocol: 'UDP' }],
	}
	const b: Container = { name: 'b', image: 'y' }
	const services = [service(web, [{ port: 80, targetPort: 9999 }])]
	assert.deepEqual(planContainer(pod([a, b]), a, services, emptyConfig), {
		kind: 'stand-in',
		listeners: [
			{ protocol: 'UDP', port: 53 },
			{ protocol: 'TCP', port: 8080 },
		],
	})
	assert.deepEqual(planContainer(pod([a, b]), b, services, emptyConfig), { kind: 'stand-in', listeners: [] })
})

test('a pod that declares no port at all listens where the Services that select it aim', () => {
	const a: Container = { name: 'a', image: 'x' }
	const b: Container = { name: 'b', image: 'y' }
	const services = [
		service(web, [
			{ port: 80, targetPort: 9999 },
			{ port: 81, targetPort: 'named' },
			{ port: 53, protocol: 'UDP' },
		]),
		service({ app: 'other' }, [{ port: 1 }]),
		service({}, [{ port: 2 }]),
		service(undefined, [{ port: 3 }]),
	]
	assert.deepEqual(planContainer(pod([a, b]), a, services, emptyConfig), {
		kind: 'stand-in',
		listeners: [
			{ protocol: 'UDP', port: 53 },
			{ protocol: 'TCP', port: 9999 },
		],
	})
	assert.deepEqual(planContainer(pod([a, b]), b, services, emptyConfig), { kind: 'stand-in', listeners: [] })
})

test('the image map is asked first; its program gets the container arguments', () => {
	const config = { images: [{ match: 'nginx*', command: ['python3', '-m', 'http.server'], env: {} }] }
	const a: Container = { name: 'a', image: 'nginx:1', args: ['80'], ports: [{ containerPort: 80 }] }
	const plan = planContainer(pod([a]), a, [], config)
	assert.equal(plan.kind, 'program')
	assert.deepEqual(plan.kind === 'program' && plan.command, ['python3', '-m', 'http.server', '80'])
	assert.match(planText('nginx:1', plan), /runs "python3 -m http.server 80" of this host in place of image "nginx:1"/)
})

test('a stand-in says that it is one', () => {
	const text = planText('nginx', { kind: 'stand-in', listeners: [{ protocol: 'TCP', port: 80 }] })
	assert.match(text, /a stand-in takes the place of image "nginx" \(nothing was pulled\): it listens on TCP 80/)
	assert.match(planText('x', { kind: 'stand-in', listeners: [] }), /declares no port and listens on none/)
})

test("a container's own command runs only where the user allows it and the program is there", () => {
	const a: Container = { name: 'a', image: 'busybox', command: ['sh', '-c'], args: ['sleep 1'] }
	const allowed = { images: [], allowCommands: true }
	const plan = planContainer(pod([a]), a, [], allowed, () => true)
	assert.deepEqual(plan, { kind: 'program', command: ['sh', '-c', 'sleep 1'] })
	assert.match(planText('busybox', plan), /own command "sh -c sleep 1" runs as a program of this host/)
	assert.equal(planContainer(pod([a]), a, [], allowed, () => false).kind, 'stand-in')
	assert.equal(planContainer(pod([a]), a, [], emptyConfig, () => true).kind, 'stand-in')
})

test('a pod that declares no port listens where its own probes ask', () => {
	const a: Container = { name: 'a', image: 'x', readinessProbe: { httpGet: { port: 8080 } } }
	const plan = planContainer(pod([a]), a, [], emptyConfig)
	assert.deepEqual(plan, { kind: 'stand-in', listeners: [{ protocol: 'TCP', port: 8080 }] })
	const b: Container = { ...a, ports: [{ containerPort: 80 }] }
	const declared = planContainer(pod([b]), b, [], emptyConfig)
	assert.deepEqual(declared, { kind: 'stand-in', listeners: [{ protocol: 'TCP', port: 80 }] })
})
