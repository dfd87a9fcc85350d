// The few figures of /metrics, in the text form of Prometheus, under the names of the real server where it has them.

import type { Api } from './api.ts'

export interface Metrics {
	count(method: string, status: number): void
	readonly requests: ReadonlyMap<string, number>
}

export function createMetrics(): Metrics {
	const requests = new Map<string, number>()
	return {
		requests,
		count(method, status) {
			const key = `${method} ${status}`
			requests.set(key, (requests.get(key) ?? 0) + 1)
		},
	}
}

export function metricsText(api: Api): string {
	const lines = ['# HELP apiserver_request_total Requests answered.', '# TYPE apiserver_request_total counter']
	for (const [key, count] of [...api.metrics.requests].sort()) {
		const [verb, code] = key.split(' ')
		lines.push(`apiserver_request_total{code="${code}",verb="${verb}"} ${count}`)
	}
	lines.push('# HELP apiserver_longrunning_requests Running watches.', '# TYPE apiserver_longrunning_requests gauge')
	lines.push(`apiserver_longrunning_requests{verb="WATCH"} ${api.watches.count}`)
	lines.push('# HELP apiserver_storage_objects Objects kept.', '# TYPE apiserver_storage_objects gauge')
	for (const storage of [...api.store.storages()].sort()) {
		lines.push(`apiserver_storage_objects{resource="${storage}"} ${api.store.count(storage)}`)
	}
	lines.push('# HELP apiserver_storage_revision The last revision kept.', '# TYPE apiserver_storage_revision counter')
	lines.push(`apiserver_storage_revision ${api.store.revision}`)
	return `${lines.join('\n')}\n`
}
