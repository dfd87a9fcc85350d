import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { isFailure } from '../base/failure.ts'
import { clusterConfigOf, type LabIpFamily, networksOf } from './ip-family.ts'
import {
	checkNetworks,
	type NetworkChoice,
	readAdmissionPlugins,
	readCidrs,
	readClusterDomain,
	readFeatureGates,
	readNetworkChoice,
	readNodePorts,
	settleNetworkChoice,
} from './network-choice.ts'
import { labPathsIn, makeLabFolders } from './paths.ts'

const cidrs = (text: string) => readCidrs('a network', text)

test('texts of the command', () => {
	assert.deepEqual(cidrs('10.0.0.0/12'), ['10.0.0.0/12'])
	assert.deepEqual(cidrs('fd00:1::/56, 10.0.0.0/12'), ['fd00:1::/56', '10.0.0.0/12'])
	assert.deepEqual(readNodePorts('20000-20100'), { from: 20000, to: 20100 })
	assert.equal(readClusterDomain('k8s.corp.example'), 'k8s.corp.example')
	assert.deepEqual(readFeatureGates('AllowServiceExternalIPs=false'), { AllowServiceExternalIPs: false })
	assert.deepEqual(readAdmissionPlugins('DenyServiceExternalIPs'), ['DenyServiceExternalIPs'])
})

test('texts that mean nothing', () => {
	const cases: readonly [() => unknown, RegExp][] = [
		[() => cidrs('10.0.0.0'), /"10\.0\.0\.0" is no network/],
		[() => cidrs('10.0.0.0/12,10.64.0.0/12'), /at most one network of each IP family/],
		[() => readNodePorts('30000'), /the first and the last/],
		[() => readNodePorts('300-200'), /the first and the last/],
		[() => readNodePorts('0-70000'), /the first and the last/],
		[() => readClusterDomain('Corp.example'), /lower-case labels/],
		[() => readClusterDomain('corp.example.'), /lower-case labels/],
		[() => readFeatureGates('AllowServiceExternalIPs'), /NAME=true or NAME=false/],
		[() => readFeatureGates('Sidecars=true'), /known are AllowServiceExternalIPs/],
		[() => readAdmissionPlugins('PodSecurity'), /known are DenyServiceExternalIPs/],
	]
	for (const [read, why] of cases)
		assert.throws(read, (e) => isFailure(e, 'InvalidNetwork') && why.test(e.message), String(read))
})

const check = (family: LabIpFamily, asked: NetworkChoice, nodes = 3) =>
	checkNetworks(asked, networksOf(family, asked), nodes)

test('networks that a lab can have', () => {
	check('ipv4', {})
	check('dual', {})
	check('ipv6', {})
	check('ipv4', { podCidrs: cidrs('10.0.0.0/8'), serviceCidrs: cidrs('192.168.0.0/28') })
	check('dual', { podCidrs: cidrs('fd12::/48'), serviceCidrs: cidrs('10.112.0.0/12') })
	check('ipv4', { podCidrs: cidrs('10.9.0.0/22') }, 4)
})

test('networks that it cannot have', () => {
	const cases: readonly [LabIpFamily, NetworkChoice, number, RegExp][] = [
		['ipv4', { podCidrs: cidrs('fd12::/48') }, 3, /the lab has no IPv6 \(--ip-family\)/],
		['ipv4', { podCidrs: cidrs('10.9.0.0/23') }, 3, /each of 3 nodes gets a \/24 of it: write one from \/8 to \/22/],
		['ipv4', { podCidrs: cidrs('10.9.0.0/25') }, 1, /from \/8 to \/24/],
		['ipv6', { podCidrs: cidrs('fd12::/40') }, 3, /from \/48 to \/62/],
		['ipv4', { serviceCidrs: cidrs('10.0.0.0/11') }, 3, /from \/12 to \/28/],
		['ipv6', { serviceCidrs: cidrs('fd12::/64') }, 3, /from \/108 to \/124/],
		['ipv4', { podCidrs: cidrs('10.96.0.0/14') }, 3, /it overlaps|overlaps 10\.96\.0\.0\/14/],
		['ipv4', { podCidrs: cidrs('172.16.0.0/12') }, 3, /overlaps 172\.18\.0\.0\/16, the network between nodes/],
		['ipv4', { serviceCidrs: cidrs('203.0.113.0/24') }, 3, /the network outside/],
		['ipv4', { serviceCidrs: cidrs('169.254.0.0/20') }, 3, /link-local/],
	]
	for (const [family, asked, nodes, why] of cases) {
		const fails = (e: unknown) => isFailure(e, 'InvalidNetwork') && why.test(e.message)
		assert.throws(() => check(family, asked, nodes), fails, JSON.stringify(asked))
	}
})

test('what is chosen is what the lab has', () => {
	const own: NetworkChoice = {
		podCidrs: cidrs('10.32.0.0/14'),
		serviceCidrs: cidrs('10.200.0.0/20'),
		clusterDomain: 'corp.example',
		featureGates: { AllowServiceExternalIPs: false },
	}
	const config = clusterConfigOf('dual', own)
	assert.deepEqual(config.podCidrs, ['10.32.0.0/14', 'fd00:10:244::/56'])
	assert.deepEqual(config.serviceCidrs, ['10.200.0.0/20', 'fd00:10:96::/112'])
	assert.equal(config.dnsServiceIp, '10.200.0.10')
	assert.equal(config.clusterDomain, 'corp.example')
	assert.equal(config.ignoreExternalIps, true)
	assert.equal(clusterConfigOf('ipv4').ignoreExternalIps, undefined)
	assert.equal(
		clusterConfigOf('ipv4', { featureGates: { AllowServiceExternalIPs: true } }).ignoreExternalIps,
		undefined,
	)
})

test('a lab keeps what it was made with', () => {
	const root = mkdtempSync(join(tmpdir(), 'pw-'))
	try {
		const paths = labPathsIn('one', join(root, 's'), join(root, 'r'))
		makeLabFolders(paths)
		const asked = { clusterDomain: 'corp.example' }
		assert.deepEqual(settleNetworkChoice(paths, true, asked), asked)
		assert.deepEqual(readNetworkChoice(paths), asked)
		assert.deepEqual(settleNetworkChoice(paths, false, {}), asked)
		assert.deepEqual(settleNetworkChoice(paths, false, asked), asked)
		assert.throws(
			() => settleNetworkChoice(paths, false, { clusterDomain: 'cluster.local' }),
			(e) =>
				isFailure(e, 'Immutable') && /the cluster domain of lab "one": it was made with corp\.example/.test(e.message),
		)
		assert.throws(() => settleNetworkChoice(paths, false, { nodePorts: { from: 1, to: 2 } }), /made with the default/)
	} finally {
		rmSync(root, { recursive: true, force: true })
	}
})
