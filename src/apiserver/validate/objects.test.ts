import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import { canonical } from '../../kube/schema/canonical.ts'
import type { JsonObject } from '../../kube/schema/json.ts'
import { typeOf } from '../../kube/schema/schema.ts'
import { applyDefaults } from '../defaults/defaults.ts'
import { validateObject } from './objects.ts'
import { scheduleFault } from './workloads.ts'

const versions: Readonly<Record<string, string>> = {
	Deployment: 'apps/v1',
	ReplicaSet: 'apps/v1',
	StatefulSet: 'apps/v1',
	DaemonSet: 'apps/v1',
	Job: 'batch/v1',
	CronJob: 'batch/v1',
	NetworkPolicy: 'networking.k8s.io/v1',
	Ingress: 'networking.k8s.io/v1',
	IngressClass: 'networking.k8s.io/v1',
	IPAddress: 'networking.k8s.io/v1',
	EndpointSlice: 'discovery.k8s.io/v1',
	ClusterRole: 'rbac.authorization.k8s.io/v1',
	RoleBinding: 'rbac.authorization.k8s.io/v1',
	HorizontalPodAutoscaler: 'autoscaling/v2',
}

function make(kind: string, rest: object): JsonObject {
	const apiVersion = versions[kind] ?? 'v1'
	const object = { apiVersion, kind, metadata: { name: 'a' }, ...rest } as JsonObject
	return applyDefaults(canonical(object, typeOf(apiVersion, kind)!))
}

/** `field: message`, as the Status message joins them. */
function faults(object: JsonObject, before?: JsonObject): string[] {
	return validateObject(object, before).map((cause) => `${cause.field}: ${cause.message}`)
}

const container = { name: 'a', image: 'a' }
const template = (more: object = {}, labels: object = { app: 'a' }): object => ({
	metadata: { labels },
	spec: { containers: [container], ...more },
})
const pod = (more: object = {}): JsonObject => make('Pod', { spec: { containers: [container], ...more } })
const selector = { matchLabels: { app: 'a' } }

const range = 'must be between 1 and 65535, inclusive'
const cases: [name: string, object: JsonObject, faults: (string | RegExp)[]][] = [
	['a Service', make('Service', { spec: { ports: [{ port: 80 }] } }), []],
	['a headless Service needs no ports', make('Service', { spec: { clusterIP: 'None', selector: { a: 'b' } } }), []],
	[
		'a port out of range',
		make('Service', { spec: { ports: [{ port: 70000 }] } }),
		[`spec.ports[0].port: Invalid value: 70000: ${range}`, `spec.ports[0].targetPort: Invalid value: 70000: ${range}`],
	],
	['no ports', make('Service', { spec: {} }), ['spec.ports: Required value']],
	[
		'names of ports: needed if there are two, unique, DNS labels',
		make('Service', {
			spec: { ports: [{ port: 1 }, { port: 2, name: 'X' }, { port: 3, name: 'y' }, { port: 4, name: 'y' }] },
		}),
		[
			'spec.ports[0].name: Required value',
			/^spec\.ports\[1\]\.name: Invalid value: "X": must be a lowercase/,
			'spec.ports[3].name: Duplicate value: "y"',
		],
	],
	[
		'the same port and protocol twice',
		make('Service', {
			spec: {
				ports: [
					{ port: 1, name: 'a' },
					{ port: 1, name: 'b' },
					{ port: 1, name: 'c', protocol: 'UDP' },
				],
			},
		}),
		['spec.ports[1]: Duplicate value: {"protocol":"TCP","port":1}'],
	],
	[
		'a protocol that is none',
		make('Service', { spec: { ports: [{ port: 1, protocol: 'ICMP' }] } }),
		['spec.ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"'],
	],
	[
		'a node port of a ClusterIP Service',
		make('Service', { spec: { ports: [{ port: 1, nodePort: 30000 }] } }),
		["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
	],
	[
		'ExternalName without a name',
		make('Service', { spec: { type: 'ExternalName' } }),
		['spec.externalName: Required value'],
	],
	[
		'a headless NodePort',
		make('Service', { spec: { type: 'NodePort', clusterIP: 'None', ports: [{ port: 1 }] } }),
		[/may not be set to 'None' for NodePort services/],
	],
	[
		'a Service name is a label, and may begin with a digit',
		make('Service', { metadata: { name: '1a' }, spec: { ports: [{ port: 1 }] } }),
		[],
	],
	[
		'a Service name has no dots',
		make('Service', { metadata: { name: 'a.b' }, spec: { ports: [{ port: 1 }] } }),
		[/^metadata\.name: Invalid value: "a\.b": must be a lowercase RFC 1123 label/],
	],
	[
		'a policy for outside traffic of an inside Service',
		make('Service', { spec: { ports: [{ port: 1 }], externalTrafficPolicy: 'Local' } }),
		[/^spec\.externalTrafficPolicy: Invalid value: "Local"/],
	],
	['a Pod', pod(), []],
	['a Pod without containers', make('Pod', { spec: {} }), ['spec.containers: Required value']],
	[
		'names and ports of containers',
		make('Pod', {
			spec: {
				containers: [
					{
						name: 'a',
						image: 'a',
						ports: [
							{ containerPort: 0, name: 'web' },
							{ containerPort: 80, name: 'web', hostPort: 99999 },
						],
					},
					{ name: 'a', ports: [{ containerPort: 80, name: 'waytoolongportname' }] },
					{ name: 'B', image: 'b' },
				],
			},
		}),
		[
			'spec.containers[0].ports[0].containerPort: Required value',
			'spec.containers[0].ports[1].name: Duplicate value: "web"',
			`spec.containers[0].ports[1].hostPort: Invalid value: 99999: ${range}`,
			'spec.containers[1].name: Duplicate value: "a"',
			'spec.containers[1].image: Required value',
			'spec.containers[1].ports[0].name: Invalid value: "waytoolongportname": must be no more than 15 characters',
			/^spec\.containers\[2\]\.name: Invalid value: "B"/,
		],
	],
	[
		'the same host port twice',
		make('Pod', {
			spec: {
				containers: [
					{ ...container, ports: [{ containerPort: 80, hostPort: 80 }] },
					{ name: 'b', image: 'b', ports: [{ containerPort: 81, hostPort: 80 }] },
				],
			},
		}),
		['spec.containers[1].ports[0].hostPort: Duplicate value: "TCP//80"'],
	],
	[
		'a mount of no volume, a request above its limit, a closed set',
		make('Pod', {
			spec: {
				restartPolicy: 'Sometimes',
				containers: [
					{
						...container,
						volumeMounts: [{ name: 'v', mountPath: '/v' }],
						resources: { requests: { cpu: '1' }, limits: { cpu: '500m' } },
					},
				],
			},
		}),
		[
			'spec.containers[0].volumeMounts[0].name: Not found: "v"',
			'spec.containers[0].resources.requests: Invalid value: "1": must be less than or equal to cpu limit of 500m',
			'spec.restartPolicy: Unsupported value: "Sometimes": supported values: "Always", "OnFailure", "Never"',
		],
	],
	['a Deployment', make('Deployment', { spec: { selector, template: template() } }), []],
	[
		'a selector that does not select',
		make('Deployment', { spec: { selector, replicas: -1, template: template({}, { app: 'b' }) } }),
		[
			'spec.template.metadata.labels: Invalid value: {"app":"b"}: `selector` does not match template `labels`',
			'spec.replicas: Invalid value: -1: must be greater than or equal to 0',
		],
	],
	['no selector', make('Deployment', { spec: { template: template() } }), ['spec.selector: Required value']],
	[
		'a restart policy a Deployment may not have; a strategy that cannot move',
		make('Deployment', {
			spec: {
				selector,
				template: template({ restartPolicy: 'Never' }),
				strategy: { rollingUpdate: { maxSurge: 0, maxUnavailable: '0%' } },
			},
		}),
		[
			'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"',
			'spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` is 0',
		],
	],
	['a StatefulSet', make('StatefulSet', { spec: { selector, serviceName: 's', template: template() } }), []],
	['a DaemonSet', make('DaemonSet', { spec: { selector, template: template() } }), []],
	['a Job', make('Job', { spec: { template: template({ restartPolicy: 'Never' }) } }), []],
	[
		'a Job that restarts always',
		make('Job', { spec: { template: template() } }),
		['spec.template.spec.restartPolicy: Unsupported value: "Always": supported values: "OnFailure", "Never"'],
	],
	[
		'a CronJob',
		make('CronJob', {
			spec: { schedule: '99 * * * *', jobTemplate: { spec: { template: template({ restartPolicy: 'Never' }) } } },
		}),
		['spec.schedule: Invalid value: "99 * * * *": the minute 99 is not between 0 and 59'],
	],
	[
		'an EndpointSlice',
		make('EndpointSlice', {
			addressType: 'IPv4',
			endpoints: [{ addresses: ['10.0.0.1'] }, { addresses: [] }, { addresses: ['fe80::1', '127.0.0.1', 'x'] }],
			ports: [
				{ name: 'a', port: 1 },
				{ name: 'a', port: 0 },
			],
		}),
		[
			'endpoints[1].addresses: Required value: must contain at least 1 address',
			'endpoints[2].addresses[0]: Invalid value: "fe80::1": must be an IPv4 address',
			/endpoints\[2\]\.addresses\[0\]: .*link-local/,
			/endpoints\[2\]\.addresses\[1\]: .*loopback/,
			/endpoints\[2\]\.addresses\[2\]: .*valid IP/,
			'ports[1].name: Duplicate value: "a"',
			`ports[1].port: Invalid value: 0: ${range}`,
		],
	],
	[
		'an EndpointSlice of too many endpoints',
		make('EndpointSlice', { addressType: 'IPv4', endpoints: Array(1001).fill({ addresses: ['10.0.0.1'] }) }),
		['endpoints: Too many: 1001: must have at most 1000 items'],
	],
	[
		'a NetworkPolicy',
		make('NetworkPolicy', {
			spec: {
				podSelector: { matchExpressions: [{ key: 'a', operator: 'Is', values: ['b'] }] },
				policyTypes: ['Ingress', 'Sideways'],
				ingress: [
					{
						from: [
							{},
							{ podSelector: {}, ipBlock: { cidr: '10.0.0.0/8' } },
							{ ipBlock: { cidr: '10.0.0.0/8', except: ['10.0.0.0/8', '10.1.0.0/16', '11.0.0.0/16'] } },
						],
						ports: [{ port: 80, endPort: 79 }, { port: 'web', endPort: 80 }, { endPort: 1 }, { port: 0 }],
					},
				],
			},
		}),
		[
			'spec.podSelector.matchExpressions[0].operator: Invalid value: "Is": not a valid selector operator',
			'spec.ingress[0].ports[0].endPort: Invalid value: 79: must be greater than or equal to `port`',
			/ports\[1\]\.endPort: .*non-numeric/,
			/ports\[2\]\.endPort: .*not specified/,
			`spec.ingress[0].ports[3].port: Invalid value: 0: ${range}`,
			'spec.ingress[0].from[0]: Required value: must specify a peer',
			'spec.ingress[0].from[1]: Forbidden: may not specify both ipBlock and another peer',
			'spec.ingress[0].from[2].ipBlock.except[0]: Invalid value: "10.0.0.0/8": must be a strict subset of `cidr`',
			'spec.ingress[0].from[2].ipBlock.except[2]: Invalid value: "11.0.0.0/16": must be a strict subset of `cidr`',
			'spec.policyTypes[1]: Unsupported value: "Sideways": supported values: "Egress", "Ingress"',
		],
	],
	[
		'an Ingress',
		make('Ingress', {
			spec: {
				rules: [
					{
						host: '1.2.3.4',
						http: {
							paths: [
								{ path: 'x', pathType: 'Prefix', backend: { service: { name: 's', port: { number: 80, name: 'a' } } } },
								{ path: '/a//b', pathType: 'Exact', backend: {} },
								{ path: '/', backend: { service: { name: 's', port: {} } } },
							],
						},
					},
					{ host: '*.example.com' },
				],
			},
		}),
		[
			'spec.rules[0].host: Invalid value: "1.2.3.4": must be a DNS name, not an IP address',
			'spec.rules[0].http.paths[0].path: Invalid value: "x": must be an absolute path',
			/paths\[0\]\.backend: .*both port name & port number/,
			'spec.rules[0].http.paths[1].path: Invalid value: "/a//b": must not contain \'//\'',
			'spec.rules[0].http.paths[1].backend: Required value: must specify a service or a resource',
			'spec.rules[0].http.paths[2].pathType: Required value: pathType must be specified',
			'spec.rules[0].http.paths[2].backend: Required value: port name or number is required',
		],
	],
	[
		'metadata',
		make('ConfigMap', {
			metadata: {
				name: 'A_b',
				namespace: 'x.y',
				labels: { '-': 'ok', ok: '!' },
				annotations: { 'Ex.com/A': 'x'.repeat(262145) },
				finalizers: ['/'],
			},
			data: { 'a/b': 'x' },
		}),
		[
			/^metadata\.name: Invalid value: "A_b"/,
			/^metadata\.namespace: Invalid value: "x\.y"/,
			/^metadata\.labels: Invalid value: "-"/,
			/^metadata\.labels: Invalid value: "!"/,
			'metadata.annotations: Too long: may not be more than 262144 bytes',
			/^metadata\.finalizers: .*prefix part must be non-empty/,
			/^metadata\.finalizers: .*name part must be non-empty/,
			/^data\[a\/b\]: Invalid value/,
		],
	],
	['no name', make('ConfigMap', { metadata: {} }), ['metadata.name: Required value: name or generateName is required']],
	['a generated name may end with a dash', make('ConfigMap', { metadata: { generateName: 'a-' } }), []],
	[
		'a ConfigMap of over a mebibyte',
		make('ConfigMap', { data: { a: 'x'.repeat(1048577) } }),
		[': Too long: may not be more than 1048576 bytes'],
	],
	[
		'a TLS secret',
		make('Secret', { type: 'kubernetes.io/tls', data: { 'tls.crt': '' } }),
		['data[tls.key]: Required value'],
	],
	['names of roles hold colons', make('ClusterRole', { metadata: { name: 'system:x' }, rules: [] }), []],
	[
		'a Node',
		make('Node', { spec: { taints: [{ key: 'a', effect: 'No' }] } }),
		['spec.taints[0].effect: Unsupported value: "No": supported values: "NoExecute", "NoSchedule", "PreferNoSchedule"'],
	],
	[
		'an enumeration no rule speaks about',
		pod({ preemptionPolicy: 'Sometimes' }),
		['spec.preemptionPolicy: Unsupported value: "Sometimes": supported values: "Never", "PreemptLowerPriority"'],
	],
]

test('values that the API refuses, with its words', () => {
	for (const [name, object, want] of cases) {
		const have = faults(object)
		assert.equal(have.length, want.length, `${name}:\n${have.join('\n')}`)
		want.forEach((w, i) => {
			if (typeof w === 'string') assert.equal(have[i], w, name)
			else assert.match(have[i]!, w, name)
		})
	}
})

test('what may not change', () => {
	const service = (spec: object): JsonObject => make('Service', { spec: { ports: [{ port: 1 }], ...spec } })
	const deployment = make('Deployment', { spec: { selector, template: template() } })
	const updates: [name: string, before: JsonObject, after: JsonObject, faults: (string | RegExp)[]][] = [
		[
			'the address of a Service',
			service({ clusterIP: '10.96.0.1', clusterIPs: ['10.96.0.1'] }),
			service({ clusterIP: '10.96.0.2', clusterIPs: ['10.96.0.2'] }),
			['spec.clusterIPs[0]: Invalid value: ["10.96.0.2"]: may not change once set'],
		],
		[
			'a Service may become an ExternalName',
			service({ clusterIP: '10.96.0.1', clusterIPs: ['10.96.0.1'] }),
			make('Service', { spec: { type: 'ExternalName', externalName: 'a.b' } }),
			[],
		],
		[
			'the selector of a Deployment',
			deployment,
			make('Deployment', { spec: { selector: { matchLabels: { b: 'c' } }, template: template({}, { b: 'c' }) } }),
			['spec.selector: Invalid value: {"matchLabels":{"b":"c"}}: field is immutable'],
		],
		[
			'the image of a Pod may change',
			pod(),
			make('Pod', { spec: { containers: [{ name: 'a', image: 'b', imagePullPolicy: 'Always' }] } }),
			[],
		],
		[
			'a command of a Pod may not',
			pod(),
			make('Pod', { spec: { containers: [{ ...container, command: ['x'] }] } }),
			[/^spec: Forbidden: pod updates may not change fields other than/],
		],
		[
			'an immutable ConfigMap',
			make('ConfigMap', { immutable: true, data: { a: '1' } }),
			make('ConfigMap', { immutable: true, data: { a: '2' } }),
			['data: Forbidden: field is immutable when `immutable` is set'],
		],
		[
			'the type of addresses',
			make('EndpointSlice', { addressType: 'IPv4', endpoints: [] }),
			make('EndpointSlice', { addressType: 'IPv6', endpoints: [] }),
			['addressType: Invalid value: "IPv6": field is immutable'],
		],
		[
			'the service of a StatefulSet',
			make('StatefulSet', { spec: { selector, serviceName: 's', template: template() } }),
			make('StatefulSet', { spec: { selector, serviceName: 't', template: template() } }),
			[
				/^spec: Forbidden: updates to statefulset spec for fields other than 'replicas', .* and 'minReadySeconds' are forbidden$/,
			],
		],
		[
			'a Job',
			make('Job', { spec: { template: template({ restartPolicy: 'Never' }) } }),
			make('Job', { spec: { completions: 2, parallelism: 1, template: template({ restartPolicy: 'OnFailure' }) } }),
			[/^spec\.completions: .*immutable/, /^spec\.template: .*immutable/],
		],
	]
	for (const [name, before, after, want] of updates) {
		const have = faults(after, before)
		assert.equal(have.length, want.length, `${name}:\n${have.join('\n')}`)
		want.forEach((w, i) => {
			if (typeof w === 'string') assert.equal(have[i], w, name)
			else assert.match(have[i]!, w, name)
		})
	}
})

test('cron schedules', () => {
	for (const schedule of ['* * * * *', '*/5 0-6,12 1 jan-mar MON', '@hourly', '@every 1h30m', '0 0 ? * *'])
		assert.equal(scheduleFault(schedule), undefined, schedule)
	for (const schedule of [
		'* * * *',
		'60 * * * *',
		'5-1 * * * *',
		'*/0 * * * *',
		'@never',
		'x * * * *',
		'* * 0 * *',
		'TZ=UTC * * * * *',
	])
		assert.notEqual(scheduleFault(schedule), undefined, schedule)
})

test('any JSON of the right types is judged, not crashed on', () => {
	const values = fc.letrec((tie) => ({
		any: fc.oneof(
			{ depthSize: 'small' },
			fc.constantFrom(null, true, -1, 80, 70000, '', 'a', 'A', '10%', 'TCP', '10.0.0.1'),
			fc.array(tie('any'), { maxLength: 3 }),
			fc.dictionary(
				fc.constantFrom(
					...'ports port name selector matchLabels template spec containers rules ingress from type'.split(' '),
				),
				tie('any'),
				{ maxKeys: 4 },
			),
		),
	})).any
	const kinds = ['Service', 'Pod', 'ConfigMap', 'Secret', 'Node', ...Object.keys(versions)]
	fc.assert(
		fc.property(fc.constantFrom(...kinds), values, values, (kind, spec, metadata) => {
			const object = { apiVersion: versions[kind] ?? 'v1', kind, spec, metadata } as JsonObject
			validateObject(object, object)
		}),
		{ numRuns: 2000 },
	)
})

const manifests = new URL('../../../../shared/data/manifests/online-boutique/', import.meta.url)
test('a real application is valid', {
	skip: existsSync(manifests) ? false : 'no manifests (../shared/data/manifests)',
}, async () => {
	const { parseAllDocuments } = await import('yaml')
	let count = 0
	for (const name of readdirSync(manifests).filter((file) => file.endsWith('.yaml'))) {
		for (const document of parseAllDocuments(readFileSync(new URL(name, manifests), 'utf8'))) {
			const object = document.toJS() as JsonObject | null
			if (!object || !typeOf(String(object.apiVersion), String(object.kind))) continue
			const type = typeOf(String(object.apiVersion), String(object.kind))!
			count++
			assert.deepEqual(faults(applyDefaults(canonical(object, type))), [], `${name} ${object.kind}`)
		}
	}
	assert.ok(count > 30)
})
