// Who may import whom. A boundary that nothing checks is a wish.
import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { test } from 'node:test'

const dataplanes = ['links', 'nftables', 'ebpf', 'iptables', 'ipvs', 'hostports', 'policy', 'loadbalancer', 'dns'].map(
	(name) => `dataplane/${name}`,
)

/** A folder under src/ → the folders it may import, and why no others. The longest name that fits a file is its layer. */
const layers: Record<string, { may: string[]; because: string }> = {
	base: { may: [], because: 'everything stands on it, so it stands on nothing' },
	kube: { may: ['base'], because: 'the vocabulary of the API serves the server, the controllers and the model alike' },
	model: { may: ['base', 'kube'], because: 'the model is pure: it knows neither data planes nor who asks' },
	walk: { may: ['base', 'model'], because: 'what should happen follows from the model alone, or it proves nothing' },
	linux: { may: ['base'], because: 'the kernel as data, of use without Kubernetes' },
	apiserver: { may: ['base', 'kube'], because: 'a real API server does not know our network' },
	controllers: { may: ['base', 'kube'], because: 'controllers work through the API, so that they work on any cluster' },
	dataplane: {
		may: ['base', 'model', 'linux'],
		because: 'a data plane compiles the model and never another data plane',
	},
	agent: {
		may: ['base', 'kube', 'model', 'linux', 'dataplane', ...dataplanes, 'dataplane/proxies'],
		because: 'the agent runs on real nodes too, where there is no lab and no API server of ours',
	},
	trace: {
		may: ['base', 'kube', 'model', 'walk', 'linux/nft', 'agent', 'dataplane', ...dataplanes, 'dataplane/proxies'],
		because: 'witnesses are asked through the agent, wherever it runs',
	},
	reach: { may: ['base', 'kube', 'model', 'walk'], because: 'who can talk to whom follows from the model alone' },
	lab: { may: ['*'], because: 'only lab and cli see everything' },
	cli: { may: ['*'], because: 'only lab and cli see everything' },
}
for (const name of dataplanes) {
	layers[name] = { may: ['base', 'model', 'linux', 'dataplane'], because: 'data planes do not know one another' }
}
layers['dataplane/proxies'] = {
	may: ['base', 'model', 'linux', 'dataplane', ...dataplanes],
	because: 'the list of those that carry Services, and how one is chosen',
}
layers['linux/nft'] = { may: ['base', 'linux'], because: 'nftables are part of the kernel as data' }
layers.linux!.may.push('linux/nft')
for (const layer of Object.values(layers)) if (layer.may.includes('linux')) layer.may.push('linux/nft')

/** Files (by how their path begins) that must not import these modules, nor write these words. */
const forbidden: { where: RegExp; unless?: RegExp; what: RegExp; because: string }[] = [
	{
		where: /^src\/(model|walk|base)\//,
		what: /from 'node:(?!test|assert)|\b(Date\.now|new Date\(\)|Math\.random|setTimeout|setInterval|process\.env)\b/,
		unless: /^src\/base\/clock\.ts$/,
		because: 'pure: no files, no network, no clock, no chance (the clock is an argument)',
	},
	{
		where: /^src\//,
		unless: /^src\/linux\/syscalls\.ts$/,
		what: /['"]koffi['"]/,
		because: 'native calls are made in one file',
	},
	{
		where: /^src\/(model|walk|trace|dataplane)\//,
		unless: /^src\/model\/(state\.ts|builders\/|findings\/)/,
		what: /from '[^']*kube\/objects\//,
		because: 'API objects end at the model: builders turn them into what they mean',
	},
	{
		where: /^src\/model\//,
		what: /from '[^']*kube\/(?!objects\/|selector\.ts|schema\/)/,
		because: 'the model reads API types and selectors, not clients',
	},
	{
		where: /^src\/controllers\//,
		what: /from '[^']*kube\/(https|kubeconfig)\.ts'/,
		because: 'controllers are given a client; where it leads is not theirs to know',
	},
]

function layerOf(path: string): string | undefined {
	const fits = Object.keys(layers).filter((layer) => path.startsWith(`src/${layer}/`))
	return fits.sort((a, b) => b.length - a.length)[0]
}

/** Modules a file names: static, re-exported and dynamic imports, and types by import('…'). */
function importsOf(text: string): string[] {
	const code = text.replaceAll(/^\s*\/\/.*$|\/\*[\s\S]*?\*\//gm, '')
	return [...code.matchAll(/(?:^|[\s}])from\s*'([^'\n]+)'|\bimport\s*\(?\s*'([^'\n]+)'/g)].map(
		(m) => m[1] ?? m[2] ?? '',
	)
}

const files = globSync('src/**/*.ts').map((path) => ({ path: normalize(path), text: readFileSync(path, 'utf8') }))

test('imports go downward', () => {
	const wrong: string[] = []
	for (const { path, text } of files) {
		const own = layerOf(path)
		if (own === undefined) {
			wrong.push(`${path} belongs to no layer: give its folder a row in test/layers.test.ts`)
			continue
		}
		// Tests may look at anything below and beside what they test, but not make layers know each other.
		const { may, because } = layers[own]!
		for (const name of importsOf(text)) {
			if (!name.startsWith('.')) continue
			const to = join(dirname(path), name)
			// A suite that several realisations share lies under test/.
			if (path.endsWith('.test.ts') && to.startsWith('test/')) continue
			const target = layerOf(to)
			if (target === undefined) wrong.push(`${path} imports ${name}, which lies outside of src`)
			else if (target !== own && !may.includes(target) && !may.includes('*')) {
				wrong.push(`${path} imports ${name}: ${own} must not know ${target}: ${because}`)
			}
		}
	}
	assert.deepEqual(wrong, [])
})

test('what is forbidden is not there', () => {
	const wrong: string[] = []
	for (const { where, unless, what, because } of forbidden) {
		for (const { path, text } of files) {
			if (!where.test(path) || unless?.test(path) || path.endsWith('.test.ts')) continue
			const found = what.exec(text.replaceAll(/^\s*\/\/.*$|\/\*[\s\S]*?\*\//gm, ''))
			if (found !== null) wrong.push(`${path} has "${found[0]}": ${because}`)
		}
	}
	assert.deepEqual(wrong, [])
})
