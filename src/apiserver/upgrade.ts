// Connections that are taken over: exec, attach and port-forward, over WebSocket or SPDY/3.1. Who may and what is meant
// is decided here; src/apiserver/stream has the protocols.

import type { Duplex } from 'node:stream'
import { failed } from './answer.ts'
import type { Api } from './api.ts'
import { attributesOf } from './auth/attributes.ts'
import { isAdmin } from './auth/rbac.ts'
import { readPath } from './route.ts'
import { badRequest, noSuchResource } from './status.ts'
import { runCommand } from './stream/command.ts'
import type { Upgrade } from './stream/handshake.ts'
import { forwardPorts } from './stream/port-forward.ts'

/** Takes the connection over, or throws what `refuseUpgrade` answers. Returns when the connection is taken over. */
export async function upgrade(api: Api, request: Upgrade): Promise<void> {
	const { incoming, user } = request
	const mark = request.path.indexOf('?')
	const query = new URLSearchParams(mark < 0 ? '' : request.path.slice(mark + 1))
	const path = mark < 0 ? request.path : request.path.slice(0, mark)
	const target = readPath(path)
	if (!isAdmin(user)) {
		const asked = attributesOf(incoming.method ?? 'GET', path, target, query)
		api.authorizer.require(user, asked)
		// A WebSocket begins with GET; what is done here is more than to read (Kubernetes 1.35, KEP-4006).
		if (!('path' in asked) && asked.verb !== 'create' && asked.subresource !== 'proxy')
			api.authorizer.require(user, { ...asked, verb: 'create' })
	}
	const served = target && api.registry.find(target.group, target.version, target.plural)
	if (target === undefined || served === undefined) throw noSuchResource()
	const { name = '', namespace = '', subresource } = target
	const call = { api, served, namespace, name }
	if (subresource === 'proxy' && (served.storage === 'pods' || served.storage === 'services')) {
		const { proxyUpgrade } = await import('./stream/proxy-upgrade.ts')
		return proxyUpgrade(call, request, `/${target.rest ?? ''}${mark < 0 ? '' : request.path.slice(mark)}`)
	}
	if (served.storage !== 'pods') throw noSuchResource()
	switch (subresource) {
		case 'exec':
		case 'attach':
			return runCommand(call, request, query, subresource)
		case 'portforward':
			return forwardPorts(call, request, query)
		default:
			throw incoming.headers.upgrade === undefined ? noSuchResource() : badRequest('this path cannot be upgraded')
	}
}

/** Answers an upgrade that is refused: a Status, as to any other request. */
export function refuseUpgrade(socket: Duplex, error: unknown): void {
	if (socket.destroyed || !socket.writable) return
	const response = failed(error)
	void response.text().then((body) => {
		const length = Buffer.byteLength(body)
		socket.end(
			`HTTP/1.1 ${response.status} Refused\r\ncontent-type: application/json\r\ncontent-length: ${length}\r\nconnection: close\r\n\r\n${body}`,
		)
	})
}
