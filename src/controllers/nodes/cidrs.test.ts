import assert from 'node:assert/strict'
import { test } from 'node:test'
import { parseCidr } from '../../base/ip.ts'
import type { Node } from '../../kube/objects/core.ts'
import { planNodeCidrs } from './cidrs.ts'

const node = (name: string, ...podCIDRs: string[]): Node => ({
	apiVersion: 'v1',
	kind: 'Node',
	metadata: { name },
	spec: podCIDRs.length === 0 ? {} : { podCIDR: podCIDRs[0]!, podCIDRs },
})
const networks = (...texts: [string, number][]) =>
	texts.map(([cidr, nodeMask]) => ({ cidr: parseCidr(cidr), nodeMask }))
const plan = (nodes: Node[], ...texts: [string, number][]) => {
	const { assign, full } = planNodeCidrs(nodes, networks(...texts))
	return [Object.fromEntries(assign), full]
}

test('shares in order of the names, the gaps first', () => {
	assert.deepEqual(plan([node('node-10'), node('node-2'), node('node-1')], ['10.244.0.0/16', 24]), [
		{ 'node-1': ['10.244.0.0/24'], 'node-2': ['10.244.1.0/24'], 'node-10': ['10.244.2.0/24'] },
		[],
	])
	const having = [node('a', '10.244.0.0/24'), node('b', '10.244.2.0/24'), node('c'), node('d')]
	assert.deepEqual(plan(having, ['10.244.0.0/16', 24]), [{ c: ['10.244.1.0/24'], d: ['10.244.3.0/24'] }, []])
})

test('two families, one share of each', () => {
	assert.deepEqual(
		plan([node('a'), node('b', '10.244.0.0/24', 'fd00:10::/64')], ['10.244.0.0/16', 24], ['fd00:10::/56', 64]),
		[{ a: ['10.244.1.0/24', 'fd00:10:0:1::/64'] }, []],
	)
})

test('a share of another size takes all it touches; one outside takes none', () => {
	const having = [node('a', '10.244.0.0/23'), node('b', '10.244.2.128/25'), node('c', '192.168.0.0/24'), node('d')]
	assert.deepEqual(plan(having, ['10.244.0.0/16', 24]), [{ d: ['10.244.3.0/24'] }, []])
})

test('a full network leaves nodes without', () => {
	assert.deepEqual(plan([node('a'), node('b'), node('c')], ['10.0.0.0/24', 25]), [
		{ a: ['10.0.0.0/25'], b: ['10.0.0.128/25'] },
		['c'],
	])
	assert.deepEqual(plan([node('a', '10.0.0.0/8'), node('b')], ['10.0.0.0/24', 25]), [{}, ['b']])
})
