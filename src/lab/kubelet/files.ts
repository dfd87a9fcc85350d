// The files every container of a pod gets from the kubelet: /etc/resolv.conf and /etc/hosts, and the pod's hostname.

import { type Ip, tryParseIp } from '../../base/ip.ts'
import type { Pod } from '../../kube/objects/pod.ts'
import { type ClusterDns, podDns, resolvConf } from '../../model/names.ts'

/** spec.hostname, else the pod's name cut to 63 bytes; of a hostNetwork pod its node's name. */
export function hostnameOf(pod: Pod, clusterDomain: string): { readonly hostname: string; readonly fqdn?: string } {
	if (pod.spec?.hostNetwork === true) return { hostname: pod.spec.nodeName ?? pod.metadata.name }
	const hostname = pod.spec?.hostname ?? pod.metadata.name.slice(0, 63).replace(/[-.]+$/, '')
	const { subdomain } = pod.spec ?? {}
	if (subdomain === undefined || subdomain === '') return { hostname }
	return { hostname, fqdn: `${hostname}.${subdomain}.${pod.metadata.namespace}.svc.${clusterDomain}` }
}

export function resolvConfOf(pod: Pod, dns: ClusterDns): string {
	const { spec } = pod
	const config = spec?.dnsConfig
	return resolvConf(
		podDns(
			{
				namespace: pod.metadata.namespace ?? 'default',
				policy: spec?.dnsPolicy ?? 'ClusterFirst',
				hostNetwork: spec?.hostNetwork === true,
				...(config === undefined
					? {}
					: {
							config: {
								nameservers: (config.nameservers ?? []).flatMap((text): Ip[] => {
									const ip = tryParseIp(text)
									return ip === undefined ? [] : [ip]
								}),
								searches: config.searches ?? [],
								options: (config.options ?? []).flatMap((o) =>
									o.name === undefined ? [] : [{ name: o.name, ...(o.value === undefined ? {} : { value: o.value }) }],
								),
							},
						}),
			},
			dns,
		),
	)
}

/** As the kubelet writes it: the loopback names, the pod's own, then hostAliases. */
export function hostsOf(pod: Pod, ips: readonly Ip[], clusterDomain: string): string {
	const { hostname, fqdn } = hostnameOf(pod, clusterDomain)
	const lines = [
		'# Kubernetes-managed hosts file.',
		'127.0.0.1\tlocalhost',
		'::1\tlocalhost ip6-localhost ip6-loopback',
		'fe00::0\tip6-localnet',
		'fe00::0\tip6-mcastprefix',
		'fe00::1\tip6-allnodes',
		'fe00::2\tip6-allrouters',
		...ips.map((ip) => `${ip}\t${fqdn === undefined ? '' : `${fqdn}\t`}${hostname}`),
	]
	const aliases = pod.spec?.hostAliases ?? []
	if (aliases.length > 0) {
		lines.push('', '# Entries added by HostAliases.')
		for (const alias of aliases) lines.push(`${alias.ip}\t${(alias.hostnames ?? []).join('\t')}`)
	}
	return `${lines.join('\n')}\n`
}
