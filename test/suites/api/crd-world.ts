// What the suites of CustomResourceDefinitions share: requests, definitions of groups of their own, waiting for a state.

import assert from 'node:assert/strict'
import type { KubeObject, Status } from '../../../src/kube/objects/meta.ts'
import type { SuiteTarget } from './suite.ts'

export const definitionsPath = '/apis/apiextensions.k8s.io/v1/customresourcedefinitions'

export interface Kind {
	readonly group: string
	readonly plural: string
}
export type Loose = KubeObject & {
	spec?: Record<string, unknown>
	status?: Record<string, unknown> & {
		conditions?: { type: string; status: string; reason?: string; message?: string }[]
	}
}

const anything = { type: 'object', 'x-kubernetes-preserve-unknown-fields': true }

export type World = ReturnType<typeof createWorld>

/** To be closed after the last test: it deletes the definitions that were made. */
export function createWorld(target: SuiteTarget) {
	const mark = Math.random().toString(36).slice(2, 8)
	/** Names of definitions to be deleted at the end. */
	const made: string[] = []
	let count = 0

	const send = async (method: string, path: string, body?: unknown, headers: Record<string, string> = {}) => {
		const response = await target.transport(
			new Request(`http://kubernetes${path}`, {
				method,
				headers: { 'content-type': 'application/json', ...headers },
				...(body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) }),
			}),
		)
		const text = await response.text()
		return {
			code: response.status,
			warning: response.headers.get('warning'),
			body: (text === '' ? undefined : JSON.parse(text)) as Loose & Status,
		}
	}
	const patch = (path: string, body: unknown, type: string) => send('PATCH', path, body, { 'content-type': type })
	const merge = (path: string, body: unknown) => patch(path, body, 'application/merge-patch+json')

	const definition = (spec: object = {}, version: object = {}, schema: object = anything) => {
		const group = `g${++count}-${mark}.podwire.dev`
		return {
			apiVersion: 'apiextensions.k8s.io/v1',
			kind: 'CustomResourceDefinition',
			metadata: { name: `widgets.${group}` },
			spec: {
				group,
				scope: 'Namespaced',
				names: { plural: 'widgets', kind: 'Widget' },
				versions: [{ name: 'v1', served: true, storage: true, schema: { openAPIV3Schema: schema }, ...version }],
				...spec,
			},
		}
	}
	/** Creates a definition and waits until it is served. */
	const install = async (given: ReturnType<typeof definition>): Promise<Kind> => {
		const answer = await send('POST', definitionsPath, given)
		assert.equal(answer.code, 201, answer.body.message)
		made.push(given.metadata.name)
		await established(given.metadata.name)
		return { group: given.spec.group, plural: given.spec.names.plural }
	}
	/** Follows a definition until it is as wanted; DELETED comes with its last state. */
	const until = async (definitionName: string, isWanted: (object: Loose, type: string) => boolean): Promise<Loose> => {
		const path = `${definitionsPath}?watch=true&fieldSelector=metadata.name%3D${definitionName}&timeoutSeconds=10`
		const response = await target.transport(new Request(`http://kubernetes${path}`))
		let text = ''
		for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
			text += chunk
			for (const line of text.split('\n').slice(0, -1)) {
				const { type, object } = JSON.parse(line) as { type: string; object: Loose }
				if (isWanted(object, type)) return object
			}
		}
		throw new Error(`${definitionName} does not become what it should: ${text}`)
	}
	const has = (object: Loose, type: string, status: string): boolean =>
		object.status?.conditions?.some((c) => c.type === type && c.status === status) ?? false
	const established = (definitionName: string) => until(definitionName, (object) => has(object, 'Established', 'True'))
	const at = ({ group, plural }: Kind, object = '', version = 'v1') =>
		`/apis/${group}/${version}/namespaces/default/${plural}${object === '' ? '' : `/${object}`}`
	const widget = ({ group }: Kind, objectName: string, rest: object, version = 'v1') => ({
		apiVersion: `${group}/${version}`,
		kind: 'Widget',
		metadata: { name: objectName },
		...rest,
	})
	const causes = (status: Status) =>
		(status.details?.causes ?? []).map((cause) => `${cause.field}: ${cause.message}`).sort()
	const close = async (): Promise<void> => {
		for (const definitionName of made) await send('DELETE', `${definitionsPath}/${definitionName}`)
		await target.close()
	}
	return { target, made, send, patch, merge, definition, install, until, has, established, at, widget, causes, close }
}
