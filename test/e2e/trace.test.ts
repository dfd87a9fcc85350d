// `podwire trace` against a running lab: three witnesses of one flow, agreeing while nobody has meddled, and naming
// what is wrong when somebody has. The meddling is done by hand with nft and ip inside a node's namespace.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, suite, test } from 'node:test'
import { parse } from 'yaml'
import { type Home, makeHome, reasonToSkip } from './support/home.ts'
import { root, run } from './support/run.ts'
import { type PodLine, podsOf } from './support/shop.ts'

const shop = join(root, 'examples/shop/shop.yaml')
const policies = join(root, 'examples/shop/policies.yaml')

interface Origin {
	readonly kind?: string
	readonly key?: string
	readonly field?: string
	readonly source?: { readonly file: string; readonly line: number }
	readonly default?: string
}

interface Point {
	readonly result: string
	readonly text: string
	readonly because: readonly Origin[]
	readonly rules: readonly { readonly chain: string; readonly handle?: number; readonly comment?: string }[]
	readonly details: readonly string[]
	readonly enforced?: boolean
}

interface Report {
	readonly apiVersion: string
	readonly kind: string
	readonly question: { readonly from: string; readonly to: string }
	readonly verdict: string
	readonly disposition: string
	readonly headline: string
	readonly disagreement?: { readonly stage: string; readonly text: string }
	readonly stages: readonly {
		readonly stage: string
		readonly should?: Point
		readonly would?: Point
		readonly did?: Point
		readonly agree: boolean
	}[]
	readonly should: Testimony
	readonly would: Testimony
	readonly did: Testimony
	readonly findings: readonly { readonly code: string; readonly text: string; readonly because: readonly Origin[] }[]
}

type Testimony = { readonly silent?: string; readonly paths?: readonly unknown[]; readonly missing?: readonly string[] }

const skip = reasonToSkip('kubectl', 'nft', 'nsenter', 'ip')

suite('trace in a lab', { skip }, () => {
	let home: Home
	let pods: readonly PodLine[]
	/** A web pod, and one on another node. */
	let here: PodLine
	let there: PodLine
	let api: string
	before(async () => {
		home = makeHome()
		await home.up('-f', shop)
		pods = await podsOf(home, 'shop')
		;[here, there] = pods.filter((p) => p.app === 'web') as [PodLine, PodLine]
		api = await home.ask('get', 'svc', '-n', 'shop', 'api', '-o', 'jsonpath={.spec.clusterIP}')
	})
	after(() => home.remove())

	const trace = async (from: string, to: string, code: number, ...more: string[]): Promise<Report> => {
		const ran = await home.podwire(['trace', '-n', 'shop', from, to, '-o', 'json', ...more])
		assert.equal(ran.code, code, ran.text)
		const list = JSON.parse(ran.stdout) as { apiVersion: string; kind: string; items: Report[] }
		assert.equal(list.apiVersion, 'podwire.dev/v1alpha1')
		assert.equal(list.kind, 'TraceList')
		assert.equal(list.items.length, 1)
		const [report] = list.items as [Report]
		assert.equal(report.kind, 'Trace')
		assert.deepEqual(report.question, { from, to })
		return report
	}
	const stage = (report: Report, name: string) => {
		const found = report.stages.find((s) => s.stage === name)
		assert.ok(found, `no stage ${name} in ${JSON.stringify(report.stages.map((s) => s.stage))}`)
		return found
	}
	/** All three are heard, completely, and say the same. */
	const agreed = (report: Report) => {
		for (const name of ['should', 'would', 'did'] as const) {
			assert.equal(report[name].silent, undefined, name)
			assert.ok((report[name].paths?.length ?? 0) > 0, name)
			assert.deepEqual(report[name].missing, [], name)
		}
		assert.equal(report.disagreement, undefined)
		assert.deepEqual(
			report.stages.filter((s) => !s.agree),
			[],
		)
		assert.match(report.headline, /should, would and did agree/)
	}
	const inNode = async (node: string, ...words: string[]) => {
		const ran = await run('nsenter', [`--net=${join(home.runtime, 'netns', node)}`, ...words])
		assert.equal(ran.code, 0, ran.text)
		return ran.stdout
	}

	test('a flow through a Service: delivered, all three agree, each hop says why', async () => {
		const report = await trace('deploy/web', 'api:80', 0)
		agreed(report)
		assert.equal(report.verdict, 'delivered')
		assert.deepEqual(
			report.stages.map((s) => s.stage),
			['name', 'service', 'egress', 'route', 'ingress', 'deliver', 'reply'],
		)
		assert.equal(stage(report, 'name').did?.result, api)
		const service = stage(report, 'service')
		const endpoints = pods.filter((p) => p.app === 'api').map((p) => `${p.ip}:9000`)
		for (const point of [service.should, service.would, service.did]) assert.ok(endpoints.includes(point?.result ?? ''))
		assert.equal(report.should.paths?.length, 3)
		assert.equal(report.would.paths?.length, 3)
		assert.equal(report.did.paths?.length, 1)
		// The rule is named as the kernel has it.
		const [rule] = service.would?.rules ?? []
		const listed = await inNode(here.node, 'nft', '-a', 'list', 'chain', 'ip', 'podwire', rule?.chain ?? '')
		assert.match(listed, new RegExp(`comment "${rule?.comment}" # handle ${rule?.handle}$`, 'm'))
		assert.ok(service.did?.rules.some((r) => r.handle === rule?.handle))
		assert.ok(service.did?.details.some((d) => d.startsWith('conntrack on ')))
		// The answering pod is the one that was chosen, and it says so itself.
		const chosen = pods.find((p) => `${p.ip}:9000` === service.did?.result)
		assert.match(stage(report, 'deliver').did?.text ?? '', new RegExp(`pod ${chosen?.name}`))
	})

	// The meddling comes early: once a minute the daemon looks by itself, and repairs.
	test('somebody leads one endpoint elsewhere in one node: the headline says so, other nodes are fine', async () => {
		const [db] = pods.filter((p) => p.app === 'db') as [PodLine]
		const key = `${api} . tcp . 80 . 1`
		const map = await inNode(here.node, 'nft', 'list', 'map', 'ip', 'podwire', 'endpoints-3')
		const was = new RegExp(`${key.replaceAll('.', '\\.')}(?: comment "[^"]*")? : (\\S+ \\. \\d+)`).exec(map)?.[1]
		assert.ok(was, map)
		const change = (value: string) =>
			inNode(
				here.node,
				'nft',
				`delete element ip podwire endpoints-3 { ${key} }; add element ip podwire endpoints-3 { ${key} : ${value} }`,
			)
		await change(`${db.ip} . 5432`)
		const report = await trace(`pod/${here.name}`, 'api:80', 0)
		assert.equal(report.disagreement?.stage, 'service')
		assert.ok(report.headline.includes(was.replace(' . ', ':')), report.headline)
		assert.ok(report.headline.includes(`${db.ip}:5432`), report.headline)
		agreed(await trace(`pod/${there.name}`, 'api:80', 0))
		await change(was)
		agreed(await trace(`pod/${here.name}`, 'api:80', 0))
	})

	test('somebody deletes an element: the packet of its share would be refused, and the headline names the endpoint', async () => {
		const key = `${api} . tcp . 80 . 2`
		await inNode(here.node, 'nft', `delete element ip podwire endpoints-3 { ${key} }`)
		const ran = await home.podwire(['trace', '-n', 'shop', `pod/${here.name}`, 'api:80', '-o', 'json'])
		const [report] = (JSON.parse(ran.stdout) as { items: Report[] }).items
		assert.equal(report?.disagreement?.stage, 'service', ran.text)
		const lost = pods.filter((p) => p.app === 'api').filter((p) => report?.headline.includes(`${p.ip}:9000`))
		assert.equal(lost.length, 1, report?.headline)
	})

	test('somebody deletes the route to a pod: should and would disagree, the node and the address are named', async () => {
		const db = pods.find((p) => p.name === 'db-0') as PodLine
		await inNode(db.node, 'ip', 'route', 'del', `${db.ip}/32`)
		const from = [here, there].find((p) => p.node !== db.node) as PodLine
		const report = await trace(`pod/${from.name}`, 'db-0.db:5432', 1, '--timeout', '1s')
		assert.equal(report.disagreement?.stage, 'route', JSON.stringify(report, undefined, ' '))
		assert.match(report.headline, /^not delivered.*disagree at route/)
		assert.match(stage(report, 'route').would?.text ?? '', new RegExp(`${db.node} has no route to ${db.ip}`))
		assert.equal(report.verdict, 'not-delivered')
	})

	/** The agent looks once a minute and repairs: where it came in between, once more. */
	const meddled = async (meddle: () => Promise<unknown>, check: () => Promise<void>) => {
		for (let attempts = 3; ; attempts--) {
			await meddle()
			try {
				return await check()
			} catch (e) {
				if (attempts === 1) throw e
			}
		}
	}
	/** A pod of the database, and a web pod on another node. */
	const apart = () => {
		const db = pods.find((p) => p.name === 'db-1') as PodLine
		return { db, from: [here, there].find((p) => p.node !== db.node) as PodLine }
	}

	test('a node that forwards nothing: the rules say so, and a silent name server is no unknown name', async () => {
		const { db, from } = apart()
		const forward = (value: number) => inNode(from.node, 'sysctl', '-qw', `net.ipv4.ip_forward=${value}`)
		await meddled(
			() => forward(0),
			async () => {
				const report = await trace(`pod/${from.name}`, `${db.ip}:5432`, 1, '--timeout', '1s')
				assert.equal(report.disagreement?.stage, 'route', report.headline)
				assert.match(stage(report, 'route').would?.text ?? '', /forwards nothing: net\.ipv4\.ip_forward is 0/)
			},
		)
		await meddled(
			() => forward(0),
			async () => {
				const report = await trace(`pod/${from.name}`, 'db-1.db:5432', 1, '--timeout', '1s')
				assert.equal(report.disposition, 'timeout', report.headline)
				assert.equal(report.disagreement?.stage, 'name')
				const { did } = stage(report, 'name')
				assert.match(did?.text ?? '', /10\.96\.0\.10 does not answer: timeout after/)
				assert.match(did?.details.at(-1) ?? '', /podwire trace -n shop pod\/web-\S+ 10\.96\.0\.10:udp\/53/)
			},
		)
		await forward(1)
		agreed(await trace(`pod/${from.name}`, `${db.ip}:5432`, 0))
	})

	test('somebody deletes the way back: the question arrives, the rules name the node that has no route', async () => {
		const { db, from } = apart()
		const network = from.ip.replace(/\.\d+$/, '.0/24')
		await meddled(
			() => inNode(db.node, 'ip', 'route', 'replace', 'blackhole', network),
			async () => {
				const report = await trace(`pod/${from.name}`, `${db.ip}:5432`, 1, '--timeout', '1s')
				assert.equal(report.disagreement?.stage, 'reply', JSON.stringify(report, undefined, ' '))
				const { would, did } = stage(report, 'reply')
				assert.match(would?.text ?? '', new RegExp(`${db.node} has no route to ${from.ip}`))
				assert.equal(did?.result, 'drop')
			},
		)
	})

	test('a pod whose own interface is off, and one whose address is not routed back to it', async () => {
		const { db, from } = apart()
		const says = async (wanted: RegExp) => {
			const report = await trace(`pod/${from.name}`, `${db.ip}:5432`, 1, '--timeout', '1s')
			assert.equal(report.disagreement?.stage, 'route', report.headline)
			assert.match(stage(report, 'route').would?.text ?? '', wanted)
		}
		const device = /dev (\S+)/.exec(await inNode(from.node, 'ip', 'route', 'get', from.ip))?.[1] as string
		await meddled(
			() => inNode(from.node, 'ip', 'route', 'flush', `${from.ip}/32`),
			() => says(/drops what comes from \S+ by \S+, for the way back is another \(rp_filter\)/),
		)
		await meddled(
			() => inNode(from.node, 'ip', 'link', 'set', device, 'down'),
			() => says(new RegExp(`interface ${device} of pod shop/${from.name} is down`)),
		)
		await inNode(from.node, 'ip', 'link', 'set', device, 'up')
		await inNode(from.node, 'ip', 'route', 'replace', `${from.ip}/32`, 'dev', device)
	})

	test('a cable is pulled: the rules end before that node', async () => {
		const { db, from } = apart()
		// The bridge's end.
		const cable = (state: string) => inNode('underlay', 'ip', 'link', 'set', db.node.replace('-', ''), state)
		await meddled(
			() => cable('down'),
			async () => {
				const report = await trace(`pod/${from.name}`, `${db.ip}:5432`, 1, '--timeout', '1s')
				assert.match(stage(report, 'route').would?.text ?? '', new RegExp(`eth0 of ${db.node} carries nothing`))
			},
		)
		await cable('up')
	})

	test('a daemon that starts again repairs what was changed', async () => {
		process.kill(home.record().daemon.pid, 'SIGKILL')
		const crashed = await home.podwire(['trace', '-n', 'shop', 'deploy/web', 'api:80'])
		assert.equal(crashed.code, 3, crashed.text)
		assert.match(crashed.stderr, /podwire up/)
		await home.up()
		agreed(await trace(`pod/${here.name}`, 'db-0.db:5432', 0))
		agreed(await trace(`pod/${here.name}`, 'api:80', 0))
	})

	test('a flow that leaves the cluster is delivered by somebody else, and nobody disagrees', async () => {
		agreed(await trace(`pod/${here.name}`, 'kubernetes.default:443', 0))
	})

	test('a port of a node where nobody listens: it arrived', async () => {
		const report = await trace(`pod/${here.name}`, `node/${here.node}:9`, 1)
		assert.match(report.headline, /arrived at node node-\d, and nothing listens there/)
		assert.equal(report.disagreement, undefined)
	})

	test('each origin is the line of the field', async () => {
		const report = await trace('deploy/web', 'api:80', 0)
		const lines = readFileSync(shop, 'utf8').split('\n')
		const where = (kind: string, key: string, field: string | undefined): string => {
			const all = report.stages.flatMap((s) => [s.should, s.would, s.did].flatMap((p) => p?.because ?? []))
			const origin = all.find((o) => o.kind === kind && o.key?.startsWith(key) && o.field === field)
			assert.ok(origin, `no ${kind} ${key} ${field} in ${JSON.stringify(all)}`)
			assert.equal(origin.source?.file, shop)
			const at = (origin.source?.line ?? 0) - 1
			return lines.slice(at, at + 2).join('\n')
		}
		assert.equal(where('Service', 'shop/api', 'spec.ports[0]'), '    - name: http\n      port: 80')
		// The address is in no manifest: the nearest field that is.
		assert.equal(where('Service', 'shop/api', 'spec.clusterIP'), 'spec:\n  selector:')
		assert.equal(
			where('Pod', 'shop/api-', 'spec.containers[0].ports[0]'),
			'            - name: http\n              containerPort: 9000',
		)
	})

	test('every endpoint gets its turn, and each time the three agree', async () => {
		const seen = new Set<string>()
		for (let i = 0; i < 6; i++) {
			const report = await trace(`pod/${here.name}`, 'api:80', 0)
			agreed(report)
			seen.add(stage(report, 'service').did?.result ?? '')
		}
		assert.ok(seen.size > 1, 'six times the same endpoint of three')
	})

	test('a headless name, a pod address, UDP, an address of a Service', async () => {
		const [db] = pods.filter((p) => p.app === 'db') as [PodLine]
		for (const [to, address] of [
			['db-0.db:5432', `${db.ip}`],
			[`${db.ip}:5432`, undefined],
			['api:udp/9001', api],
			[`${api}:80`, undefined],
			['svc/web:http', undefined],
			['10.96.0.10:udp/53', undefined],
		] as const) {
			const report = await trace(`pod/${here.name}`, to, 0)
			agreed(report)
			if (address !== undefined) assert.equal(stage(report, 'name').did?.result, address, to)
		}
	})

	test('the text is for people: headline first, files and lines, wide has more', async () => {
		const narrow = await home.podwire(['trace', '-n', 'shop', 'deploy/web', 'api:80'])
		assert.equal(narrow.code, 0, narrow.text)
		const lines = narrow.stdout.split('\n')
		assert.equal(lines[0], 'TCP deploy/web → api:80')
		assert.equal(lines[1], 'delivered: should, would and did agree')
		assert.match(narrow.stdout, /Service shop\/api spec\.ports\[0\] \(\S*shop\.yaml:77\)/)
		const wide = await home.podwire(['trace', '-n', 'shop', 'deploy/web', 'api:80', '-o', 'wide'])
		assert.ok(wide.stdout.length > narrow.stdout.length)
		const yaml = await home.podwire(['trace', '-n', 'shop', 'deploy/web', 'api:80', '-o', 'yaml'])
		assert.equal((parse(yaml.stdout) as { kind: string }).kind, 'TraceList')
	})

	test('--no-probe sends nothing', async () => {
		const count = async () =>
			(await inNode(here.node, 'nft', 'list', 'chain', 'ip', 'podwire', 'prerouting')).match(/packets \d+/)?.[0]
		const report = await trace(`pod/${here.name}`, `${api}:80`, 0, '--no-probe')
		const before = await count()
		assert.match(report.did.silent ?? '', /no packet/)
		await trace(`pod/${here.name}`, `${api}:80`, 0, '--no-probe')
		assert.equal(await count(), before)
	})

	test('a Service that selects no pod: 1, refused at once, and the finding says which label', async () => {
		const report = await trace('deploy/web', 'legacy:80', 1)
		agreed(report)
		assert.equal(report.disposition, 'no-endpoints')
		assert.deepEqual(
			report.findings.map((f) => f.code),
			['PW0001'],
		)
		assert.match(report.findings[0]?.text ?? '', /shop\/legacy.*app=legacy-api/)
		const [origin] = report.findings[0]?.because ?? []
		assert.equal(readFileSync(shop, 'utf8').split('\n')[(origin?.source?.line ?? 0) - 1], '  selector:')
	})

	test('a port that the Service does not have: 1, and the text lists those it has', async () => {
		const report = await trace('deploy/web', 'api:81', 1)
		agreed(report)
		assert.equal(report.disposition, 'unknown-service-port')
		assert.ok(stage(report, 'service').should?.details.join('; ').includes('80/TCP, 9001/UDP'))
	})

	test('a port where nobody listens in the pod: 1, the pod itself refuses', async () => {
		const report = await trace(`pod/${here.name}`, `${there.ip}:9999`, 1)
		agreed(report)
		assert.equal(report.disposition, 'refused')
		assert.match(
			stage(report, 'deliver').did?.text ?? '',
			/arrived at pod .* and nothing listens there: refused \(ECONNREFUSED\)/,
		)
		assert.match(report.headline, /^not answered: .*refused/)
		assert.ok(stage(report, 'deliver').should?.details.join('; ').includes('declared: 8080/TCP'))
	})

	test('a name that does not exist: 1, with each query', async () => {
		const report = await trace('deploy/web', 'nobody.shop.svc.cluster.local:80', 1)
		assert.equal(report.disposition, 'no-such-name')
		assert.equal(report.disagreement, undefined)
		assert.match(JSON.stringify(report.should), /nobody\.shop\.svc\.cluster\.local/)
		assert.match(JSON.stringify(report.did), /10\.96\.0\.10 knows no such name/)
	})

	test('an address that nobody has: 1', async () => {
		const report = await trace('deploy/web', '10.96.200.200:80', 1, '--timeout', '500ms')
		assert.equal(report.disagreement, undefined, report.headline)
		assert.equal(report.verdict, 'not-delivered')
	})

	test('a policy denies: the three witnesses, each with its reason', async () => {
		await home.ask('apply', '-f', policies)
		try {
			const denied = await trace('deploy/web', 'db-0.db:5432', 1, '--timeout', '500ms')
			const ingress = stage(denied, 'ingress')
			for (const witness of ['should', 'would', 'did'] as const) {
				assert.equal(ingress[witness]?.result, 'deny', witness)
				assert.match(JSON.stringify(ingress[witness]?.because), /shop\/db-from-api-only/, witness)
			}
			assert.equal(denied.disagreement, undefined, denied.headline)
			assert.equal(denied.disposition, 'denied-ingress')
			assert.match(denied.headline, /^not delivered: denied-ingress: should, would and did agree/)
			const text = await home.podwire(['trace', '-n', 'shop', '--timeout', '500ms', 'deploy/web', 'db-0.db:5432'])
			assert.match(text.stdout, /denied into pod shop\/db-0/)
			assert.doesNotMatch(text.stdout, /not enforced/)
			assert.match(text.stdout, /podSelector wants app=api, has app=web/)
			const allowed = await trace('deploy/api', 'db-0.db:5432', 0)
			for (const witness of ['should', 'would', 'did'] as const) {
				assert.equal(stage(allowed, 'ingress')[witness]?.result, 'allow', witness)
				assert.match(JSON.stringify(stage(allowed, 'ingress')[witness]?.because), /shop\/db-from-api-only/, witness)
			}
			assert.equal(allowed.disagreement, undefined, allowed.headline)
		} finally {
			await home.ask('delete', '-f', policies)
		}
	})

	test('what is asked wrongly: 2, and what was meant', async () => {
		for (const [args, say] of [
			[['deploy/web'], /missing required argument 'to'/],
			[['deploy/web', 'nobody:80'], /no pod, workload or Service "shop\/nobody"/],
			[['pod/none', 'api:80'], /no pod "shop\/none"/],
			[['deploy/web', 'api:80', '-o', 'xml'], /Unknown output format "xml"/],
			[['deploy/web', 'api:99999'], /port/],
			[['deploy/web', 'api:80', '--protocol', 'icmpv9'], /Unknown protocol/],
			[['deploy/web', 'api:80', '--timeout', 'soon'], /duration "soon"/],
			[['deploy/web', 'api:80', '--name', 'no-such-lab'], /no lab "no-such-lab"/],
			[['deploy/web', 'api:80', '--frobnicate'], /unknown option '--frobnicate'/],
		] as const) {
			const ran = await home.podwire(['trace', '-n', 'shop', ...args])
			assert.equal(ran.code, 2, ran.text)
			assert.match(ran.stderr, say)
			assert.equal(ran.stdout, '', ran.text)
			assert.doesNotMatch(ran.stderr, /internal error/)
		}
	})
})

suite('trace of manifests alone', () => {
	test('should is heard, would and did say why they are not', async () => {
		const ran = await run(process.execPath, [
			join(root, 'bin/podwire.js'),
			...['trace', '-f', shop, '-n', 'shop', 'deploy/web', 'api:80', '-o', 'json'],
		])
		assert.equal(ran.code, 0, ran.text)
		const [report] = (JSON.parse(ran.stdout) as { items: Report[] }).items as [Report]
		assert.equal(report.should.paths?.length, 3)
		assert.match(report.would.silent ?? '', /manifests alone/)
		assert.match(report.did.silent ?? '', /manifests alone/)
		assert.ok(ran.seconds < 30, ran.text)
	})

	test('a denied flow: 1', async () => {
		const ran = await run(process.execPath, [
			join(root, 'bin/podwire.js'),
			...['trace', '-f', join(root, 'examples/shop'), '-n', 'shop', 'deploy/web', 'db-0.db:5432'],
		])
		assert.equal(ran.code, 1, ran.text)
		assert.match(ran.stdout, /denied-ingress/)
		assert.match(ran.stdout, /policies\.yaml:14/)
	})
})
