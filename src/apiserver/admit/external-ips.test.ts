import assert from 'node:assert/strict'
import { test } from 'node:test'
import { systemClock } from '../../base/clock.ts'
import { createKubeClient } from '../../kube/client.ts'
import { services } from '../../kube/kinds.ts'
import type { ServiceSpec } from '../../kube/objects/core.ts'
import { createApiServer } from '../server.ts'
import { createStore } from '../store.ts'
import { denyExternalIps } from './external-ips.ts'

const text = /services "web" is forbidden: Use of external IPs is denied by cluster policy$/
const spec: ServiceSpec = { ports: [{ port: 80 }] }
const service = (externalIPs?: readonly string[]) => ({
	apiVersion: 'v1' as const,
	kind: 'Service' as const,
	metadata: { name: 'web', namespace: 'default' },
	spec: { ...spec, ...(externalIPs === undefined ? {} : { externalIPs }) },
})

test('DenyServiceExternalIPs: none is added, those that are there may stay and go', async () => {
	const store = createStore()
	const open = await createApiServer({ store, clock: systemClock })
	const before = createKubeClient(open.transport)
	await before.create(services, service(['198.51.100.1', '198.51.100.2']))
	open.close()
	const api = await createApiServer({ store, clock: systemClock, admit: [denyExternalIps] })
	try {
		const client = createKubeClient(api.transport)
		const patch = (externalIPs: readonly string[] | null) =>
			client.patch(services, 'default/web', { spec: { externalIPs } } as never)
		await client.patch(services, 'default/web', { metadata: { labels: { a: 'b' } } })
		await assert.rejects(patch(['198.51.100.1', '198.51.100.2', '198.51.100.3']), text)
		await assert.rejects(patch(['198.51.100.1', '198.51.100.1']), text)
		await patch(['198.51.100.2'])
		await assert.rejects(patch(['198.51.100.1']), text)
		await patch(null)
		await client.delete(services, 'default/web')
		await assert.rejects(client.create(services, service(['198.51.100.1'])), text)
		await client.create(services, service())
	} finally {
		api.close()
		store.close()
	}
})
