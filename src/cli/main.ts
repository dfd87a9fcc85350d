// The command line: one file per command beside this one, loaded only when it runs.

import { Command, CommanderError, Option } from 'commander'
import { isFailure, messageOf } from '../base/failure.ts'
import { CommandError, exit } from './exit.ts'
import type { CommonOptions } from './options.ts'

const program = new Command('podwire')
	.description('The whole Kubernetes network, and an explanation for every packet.')
	.enablePositionalOptions()
	.showHelpAfterError('(run with --help for the options)')
	.exitOverride()

const collect = (value: string, list: string[]): string[] => [...list, value]

function common(command: Command, formats = 'json, yaml or wide'): Command {
	return command
		.option('--name <lab>', 'the lab (default: the only one running, else "podwire"; env PODWIRE_NAME)')
		.option('-o, --output <format>', formats)
		.option('-q, --quiet', 'say nothing on stderr but errors')
		.option('-v, --verbose', 'say each step on stderr')
		.addOption(new Option('--color <when>', 'auto, always or never').default('auto'))
		.option('--timeout <duration>', 'how long to wait: 30s, 2m, 500ms')
}

function sourced(command: Command, formats?: string): Command {
	return common(command, formats)
		.option('-f, --filename <path>', 'manifests alone, nothing running: file, directory or - (repeatable)', collect, [])
		.option('--kubeconfig <file>', 'a live cluster of this kubeconfig')
		.option('--context <name>', 'a context of the kubeconfig')
}

function cluster(command: Command): Command {
	return sourced(command).option('-n, --namespace <name>', 'the namespace of names without one', 'default')
}

/** Questions about the whole cluster: a namespace narrows them. */
function asking(command: Command, formats: string): Command {
	return sourced(command, formats).option(
		'-n, --namespace <name>',
		'only this namespace (and that of names without one)',
	)
}

function run<T extends CommonOptions>(load: () => Promise<(options: T, args: readonly string[]) => Promise<number>>) {
	return async (...params: unknown[]) => {
		const command = params.at(-1) as Command
		const action = await load()
		process.exitCode = await action(command.opts() as T, command.args)
	}
}

common(program.command('up').description("bring a cluster network up from the user's manifests"))
	.option('-f, --filename <path>', 'manifests: file, directory or - (repeatable)', collect, [])
	.option('--nodes <n>', 'number of nodes (default 3)')
	.addOption(new Option('--dataplane <kind>', 'kernel or paper (default: what the machine and the rights allow)'))
	.option('--ip-family <family>', 'ipv4 (default), ipv6 or dual; a lab keeps what it was made with')
	.option('--service-proxy <mode>', 'nftables (default), ebpf, iptables, ipvs, or auto')
	.option('--ipvs-scheduler <name>', 'how ipvs chooses an endpoint: rr (default), wrr, lc, wlc, sh, mh, …')
	.option(
		'--pod-cidr <cidr>',
		"the pods' network (default 10.244.0.0/16); with two families one of each, a comma between",
	)
	.option('--service-cidr <cidr>', "the Services' network (default 10.96.0.0/16), likewise")
	.option('--node-port-range <ports>', 'node ports (default 30000-32767)')
	.option('--cluster-domain <name>', 'the domain of names (default cluster.local)')
	.option('--feature-gates <gates>', 'AllowServiceExternalIPs=false: externalIPs count for nothing')
	.option('--enable-admission-plugins <names>', 'DenyServiceExternalIPs: nobody adds externalIPs to a Service')
	.option('--policy-profile <name>', 'what the policy API leaves open: default, calico-like or cilium-like')
	.option('--cut-established', 'a connection that policies no longer allow ends (default: as the profile does)')
	.option('--no-cut-established', 'policies are for new connections alone')
	.option('-n, --namespace <name>', 'the namespace of objects without one', 'default')
	.option('--config <file>', 'podwire.yaml (default: ./podwire.yaml where there is one)')
	.option('--no-kubeconfig', "leave the user's kubeconfig alone")
	.option('--no-wait', 'return when the API server answers, without waiting for the pods')
	.addHelpText(
		'after',
		`
Examples:
  podwire up                                  an empty cluster of three nodes
  podwire up -f shop/ -f policies.yaml        the network of these manifests
  helm template ./chart | podwire up -f -     of what another tool prints

Exit codes: 0 ready, 1 not everything became ready, 2 bad input, 3 the machine does not allow it.`,
	)
	.action(run(async () => (await import('./up.ts')).up))

common(program.command('down').description('remove a lab and every trace of it, also after a crash'))
	.option('--all', 'every lab of this user')
	.addHelpText('after', '\nExamples:\n  podwire down\n  podwire down --name ci-42\n  podwire down --all')
	.action(run(async () => (await import('./down.ts')).down))

common(program.command('status').description('what runs: nodes, pods, the API server, the data plane'))
	.addHelpText('after', '\nExamples:\n  podwire status\n  podwire status -o json\n  podwire status --name ci-42')
	.action(run(async () => (await import('./status.ts')).status))

common(program.command('doctor').description('what this machine allows, each line with its fix'))
	.addHelpText('after', '\nExamples:\n  podwire doctor\n  podwire doctor -o json\n  sudo podwire doctor')
	.action(run(async () => (await import('./doctor.ts')).doctor))

cluster(
	program
		.command('trace')
		.description('explain one flow hop by hop: what should, what would and what did happen')
		.argument('<from>', 'pod/NAME, deploy/NAME, node/NAME, ns/X/pod/Y, NAME, an IP')
		.argument('<to>', 'the same, svc/NAME or a DNS name, with :PORT (number, name, udp/53)'),
)
	.option('--no-probe', 'send no packet: should and would only')
	.option(
		'--policy-profile <name>',
		'decide what the policy API leaves open as default, calico-like or cilium-like (-f)',
	)
	.option('--protocol <name>', 'tcp, udp or sctp (default tcp)')
	.addHelpText(
		'after',
		`
Examples:
  podwire trace deploy/frontend cartservice:7070
  podwire trace -f manifests/ deploy/web svc/api:http
  podwire trace pod/web-0 10.96.0.10:udp/53 -o json

Exit codes: 0 delivered, 1 not delivered, 2 usage or input, 3 could not tell.`,
	)
	.action(run(async () => (await import('./trace.ts')).trace))

asking(
	program.command('reach').description('who can talk to whom on which ports, as the policies say'),
	'txt, wide, md, csv, json, yaml, dot, mermaid or svg',
)
	.option('--from <workload>', 'only from this: shop/deploy/web, web, shop/*, outside, ingress-controller')
	.option('--to <workload>', 'only to this')
	.option('--exposure', 'what is open to the whole cluster, to addresses outside, and by which doors')
	.option('--query <flow>', "one question: 'web -> db:5432'; exit 0 yes, 1 no")
	.option('--explain', 'with the rules that decide, file and line')
	.option('--policy-profile <name>', 'what the API leaves open: default, calico-like or cilium-like')
	.option('--limit <rows>', 'at most so many rows (default 100000)')
	.addHelpText(
		'after',
		`
Examples:
  podwire reach -f manifests/                       from manifests alone
  podwire reach -f manifests/ --query 'web -> db:5432' --explain
  podwire reach -f manifests/ --exposure -o md
  podwire reach -n shop -o svg > shop.svg           of the lab that runs

Exit codes: 0 done (a query: yes), 1 a query: no, 2 usage or input, 3 could not tell.`,
	)
	.action(run(async () => (await import('./reach.ts')).reach))

common(
	program
		.command('diff')
		.description('what a change of manifests means for who can talk to whom')
		.argument('<old>', 'file or directory; several with commas between; - for standard input')
		.argument('<new>', 'the same'),
	'txt, md, csv, json or yaml',
)
	.option('-n, --namespace <name>', 'only this namespace (and that of names without one)')
	.option('--policy-profile <name>', 'what the API leaves open: default, calico-like or cilium-like')
	.option('--limit <rows>', 'at most so many differences (default 10000)')
	.addHelpText(
		'after',
		`
Examples:
  podwire diff main/ branch/
  podwire diff main/ branch/ -o md >> $GITHUB_STEP_SUMMARY
  git show main:policies.yaml | podwire diff - policies.yaml

Exit codes: 0 no difference, 1 differences, 2 usage or input.`,
	)
	.action(run(async () => (await import('./diff.ts')).diff))

const policy = program
	.command('policy')
	.description('NetworkPolicies: what is wrong with them, and those that are needed')
	.addHelpText(
		'after',
		`
Examples:
  podwire policy lint -f manifests/
  podwire policy lint -f manifests/ -o sarif > podwire.sarif
  podwire policy generate -f manifests/ > policies.yaml
  podwire policy generate -n shop --from-flows flows.jsonl`,
	)
asking(
	policy.command('lint').description('find policies that do not mean what was meant'),
	'txt, md, csv, json, yaml, sarif or junit',
)
	.option('--fail-on <severity>', 'exit 1 from error, warning (default) or info on, or never')
	.addHelpText('after', '\nExit codes: 0 clean, 1 findings, 2 usage or input, 3 could not tell.')
	.action(run(async () => (await import('./policy.ts')).lintPolicies))
asking(policy.command('generate').description('policies that allow what is needed and nothing else'), 'yaml or json')
	.option('--from-flows <file>', 'what was observed, one JSON object a line, instead of what the manifests say')
	.option(
		'--ingress-namespace <name>',
		'where the controller that serves Ingress objects runs (default: any namespace)',
	)
	.addHelpText(
		'after',
		`
What is needed is read from environment variables, arguments and ConfigMaps that name Services, from Ingress backends,
from Services that answer outside, and from the cluster's DNS. The result is proved against it before the command ends.

Exit codes: 0 exactly what is needed, 1 not (said on stderr), 2 usage or input, 3 could not tell.`,
	)
	.action(run(async () => (await import('./policy.ts')).generate))

common(
	program
		.command('observe')
		.description('the flows of a lab, live: what is allowed, what is denied, and by which policy'),
	'compact (default), wide, json, jsonl (or jsonpb) or yaml',
)
	.option('-n, --namespace <name>', 'only flows with an end in this namespace')
	.option(
		'--from <end>',
		'only from this: pod/NAME, deploy/NAME, NAME, node/NAME, ns/X, an IP, a network, a=b, outside',
	)
	.option('--to <end>', 'only to this: the same, svc/NAME')
	.option('--pod <name>', 'only flows with this pod at an end: NAME, NAMESPACE/NAME, NAME*')
	.option('--node <name>', 'only what this node saw')
	.option('--verdict <verdict>', 'dropped, forwarded, audit (several with commas)')
	.option('--port <number>', 'only to this port')
	.option('--protocol <name>', 'tcp, udp, sctp or icmp')
	.option('--since <duration>', 'what is remembered of the last 30s, 5m, 1h')
	.option('--last <n>', 'the last so many of what is remembered (default 20; with --follow 0)')
	.option('-f, --follow', 'what comes as well, until interrupted')
	.option('--ended', 'also the end of connections, with packets and bytes where the node counts them')
	.option('--kubeconfig <file>', 'a live cluster: has no agents to ask yet, exit 3')
	.option('--context <name>', 'a context of the kubeconfig: the same')
	.addHelpText(
		'after',
		`
Examples:
  podwire observe -f                                 every new connection
  podwire observe --verdict dropped --since 5m       what was denied, by which policy, file and line
  podwire observe -f -n shop --to svc/db -o jsonl    as Hubble's exporter writes it

Denied flows are always remembered, allowed ones only while somebody observes.
Exit codes: 0 done (also by an interrupt, or by podwire down), 2 usage, 3 no kernel to ask (a lab on paper, a live
cluster), or the lab was killed.`,
	)
	.action(run(async () => (await import('./observe.ts')).observe))

const node = program
	.command('node')
	.description('what befalls a node: stop, start, drain, cordon, uncordon')
	.addHelpText(
		'after',
		`
Examples:
  podwire node stop node-2                      no kubelet, no cable: is all well without it?
  podwire node start node-2
  podwire node drain node-2 --ignore-daemonsets

Exit codes: 0 done, 1 not (not drained, not ready in time), 2 no such node, 3 could not tell.`,
	)
common(node.command('stop').description('cut a node off: its kubelet falls silent, its cable is pulled'))
	.argument('<node...>')
	.option('--no-wait', 'return at once, before the cluster has noticed')
	.action(run(async () => (await import('./node.ts')).stopNodes))
common(node.command('start').description('bring a stopped node back'))
	.argument('<node...>')
	.option('--no-wait', 'return at once, before the cluster has noticed')
	.action(run(async () => (await import('./node.ts')).startNodes))
common(node.command('cordon').description('no new pods on a node'))
	.argument('<node...>')
	.action(run(async () => (await import('./node.ts')).cordonNodes))
common(node.command('uncordon').description('new pods again'))
	.argument('<node...>')
	.action(run(async () => (await import('./node.ts')).uncordonNodes))
common(node.command('drain').description('evict all pods of a node, as disruption budgets allow'))
	.argument('<node...>')
	.option('--ignore-daemonsets', 'leave the pods of DaemonSets where they are')
	.option('--force', 'also pods that nobody will make anew')
	.option('--delete-emptydir-data', 'also pods with emptyDir volumes')
	.option('--disable-eviction', 'delete, whatever disruption budgets say')
	.option('--grace-period <seconds>', "instead of each pod's own")
	.action(run(async () => (await import('./node.ts')).drainNodes))

const proxy = program
	.command('proxy')
	.description('the data plane that carries Services')
	.addHelpText(
		'after',
		`
Examples:
  podwire proxy switch ebpf          at the socket, no translation of packets
  podwire proxy switch iptables      the chains that kube-proxy writes in that mode
  podwire proxy switch ipvs --ipvs-scheduler lc

Established connections go on. Exit codes: 0 done, 2 no such mode, 3 this machine cannot.`,
	)
common(
	proxy.command('switch').description('let another data plane carry Services: nftables, ebpf, iptables, ipvs, auto'),
)
	.argument('<mode>')
	.option('--ipvs-scheduler <name>', 'how ipvs chooses an endpoint: rr (default), wrr, lc, wlc, sh, mh, …')
	.action(run(async () => (await import('./proxy.ts')).switchProxy))

common(program.command('version').description('the version of podwire and of what it stands on')).action(
	run(async () => (await import('./version.ts')).version),
)

try {
	await program.parseAsync(process.argv)
} catch (e) {
	if (e instanceof CommanderError) process.exitCode = e.exitCode === 0 ? exit.ok : exit.usage
	else if (e instanceof CommandError) {
		process.stderr.write(`podwire: ${e.message}\n${e.hint === undefined ? '' : `  ${e.hint}\n`}`)
		process.exitCode = e.exitCode
	} else if (isFailure(e, 'Unreachable')) {
		// The lab ended under the command: no fault of the command.
		process.stderr.write(`podwire: ${e.message}\n  podwire status says what has become of the lab\n`)
		process.exitCode = exit.unknown
	} else {
		process.stderr.write(`podwire: internal error: ${messageOf(e)}\n${e instanceof Error ? `${e.stack ?? ''}\n` : ''}`)
		process.exitCode = exit.internal
	}
}
