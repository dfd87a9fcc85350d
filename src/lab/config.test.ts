import assert from 'node:assert/strict'
import { test } from 'node:test'
import { isFailure } from '../base/failure.ts'
import { bareImage, findImageRule, parseConfig } from './config.ts'

const good = `apiVersion: podwire.dev/v1alpha1
kind: Config
images:
  - match: 'nginx*'
    command: [python3, -m, http.server, "80"]
    env: { PORT: 80 }
  - match: ghcr.io/acme/*
    command: [sleep, inf]
    workingDir: /tmp
`

test('reads the image map', async () => {
	const config = await parseConfig(good, 'podwire.yaml')
	assert.deepEqual(config.images, [
		{ match: 'nginx*', command: ['python3', '-m', 'http.server', '80'], env: { PORT: '80' } },
		{ match: 'ghcr.io/acme/*', command: ['sleep', 'inf'], env: {}, workingDir: '/tmp' },
	])
	for (const [image, rule] of [
		['nginx', 0],
		['nginx:1.27', 0],
		['docker.io/library/nginx:1.27@sha256:00', 0],
		['registry.local:5000/nginx-unprivileged', 0],
		['ghcr.io/acme/web:v1', 1],
		['ghcr.io/other/web:v1', undefined],
		['my-nginx', undefined],
	] as const) {
		assert.equal(findImageRule(config, image), rule === undefined ? undefined : config.images[rule], image)
	}
})

test('reads what is chosen of the network', async () => {
	const text = `apiVersion: podwire.dev/v1alpha1
kind: Config
networking:
  podSubnet: 10.32.0.0/14
  serviceSubnet: 10.200.0.0/20,fd00:20::/112
  dnsDomain: corp.example
  nodePortRange: 20000-20100
featureGates:
  AllowServiceExternalIPs: false
enableAdmissionPlugins: [DenyServiceExternalIPs]
`
	assert.deepEqual((await parseConfig(text, 'f')).network, {
		podCidrs: ['10.32.0.0/14'],
		serviceCidrs: ['10.200.0.0/20', 'fd00:20::/112'],
		clusterDomain: 'corp.example',
		nodePorts: { from: 20000, to: 20100 },
		featureGates: { AllowServiceExternalIPs: false },
		admissionPlugins: ['DenyServiceExternalIPs'],
	})
})

test('an image without its registry, tag and digest', () => {
	for (const [image, bare] of [
		['nginx', 'nginx'],
		['docker.io/library/redis:alpine', 'redis'],
		['localhost/app', 'app'],
		['registry:5000/team/app:v1', 'team/app'],
		['team/app@sha256:12', 'team/app'],
		['us-central1-docker.pkg.dev/a/b/frontend:v0.10.6', 'a/b/frontend'],
	]) {
		assert.equal(bareImage(image as string), bare)
	}
})

test('every fault is named with its line', async () => {
	const cases: [string, string[]][] = [
		['apiVersion: podwire.dev/v1\nkind: Config\n', ['f:1:13: apiVersion must be podwire.dev/v1alpha1']],
		['kind: Config\n', ['f:1:1: apiVersion is missing; it must be podwire.dev/v1alpha1']],
		[
			'apiVersion: podwire.dev/v1alpha1\nkind: Config\nimage: []\n',
			[
				'f:3:1: unknown field "image"; known are apiVersion, kind, images, allowCommands, addressPools, dns, networking, featureGates, enableAdmissionPlugins',
			],
		],
		[
			'apiVersion: podwire.dev/v1alpha1\nkind: Config\nnetworking:\n  podSubnet: 10.0.0.0\n  mtu: 9\nfeatureGates: { A: true }\n',
			[
				'f:5:3: unknown field "networking.mtu"; known are podSubnet, serviceSubnet, dnsDomain, nodePortRange',
				'f:4:14: Cannot use "10.0.0.0" as the pods\' network: "10.0.0.0" is no network such as 10.0.0.0/16',
				'f:6:17: Cannot use "A" as feature gate: known are AllowServiceExternalIPs',
			],
		],
		[
			'apiVersion: podwire.dev/v1alpha1\nkind: Config\nimages:\n  - match: ""\n    comand: [x]\n',
			[
				'f:5:5: unknown field "images[0].comand"; known are match, command, env, workingDir',
				'f:4:5: images[0].command is missing',
				'f:4:12: images[0].match must be a text that is not empty',
			],
		],
		[
			'apiVersion: podwire.dev/v1alpha1\nkind: Config\nimages:\n  - match: a\n    command: sleep 1\n',
			['f:5:14: images[0].command must be a list of texts that is not empty: a program and its arguments'],
		],
		[
			'apiVersion: podwire.dev/v1alpha1\nkind: Config\naddressPools:\n  - cidrs: [10.0.0.0/8, x]\n    autoAssign: 1\n',
			[
				'f:4:5: addressPools[0].name is missing',
				'f:5:17: addressPools[0].autoAssign must be true or false',
				'f:4:13: addressPools[0].cidrs[0] is 10.0.0.0/8, which must lie inside of 172.18.128.0/17 or fd00:172:18:0:255::/80',
				'f:4:25: addressPools[0].cidrs[1] is "x", which is no network such as 172.18.254.0/24',
			],
		],
	]
	for (const [text, faults] of cases) {
		await assert.rejects(parseConfig(text, 'f'), (e) => {
			assert.ok(isFailure(e, 'InvalidConfig'))
			assert.deepEqual(e.message.split('\n'), faults)
			return true
		})
	}
	await assert.rejects(parseConfig('a: [', 'f'), /f:1:\d+: /)
})

test('address pools, in the order they are tried', async () => {
	const text =
		'apiVersion: podwire.dev/v1alpha1\nkind: Config\naddressPools:\n' +
		'  - {name: a, cidrs: [172.18.255.0/24]}\n  - {name: b, cidrs: [172.18.254.0/28], autoAssign: false}\n'
	assert.deepEqual((await parseConfig(text, 'f')).addressPools, [
		{ name: 'a', cidrs: ['172.18.255.0/24'], autoAssign: true },
		{ name: 'b', cidrs: ['172.18.254.0/28'], autoAssign: false },
	])
})

test('an empty file is an empty map', async () => {
	assert.deepEqual(await parseConfig('', 'f'), { images: [] })
})
