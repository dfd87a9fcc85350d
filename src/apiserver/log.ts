// pods/log: the output of a container as plain text, from the kubelet, followed where asked.

import type { Pod } from '../kube/objects/pod.ts'
import { type Call, keyIn } from './api.ts'
import type { KubeletApi, LogRequest } from './kubelet.ts'
import { badRequest, notFound, refuse } from './status.ts'

/** How long an answer waits for the first line of a followed log, so that a refusal can still be a Status. */
const patience = 100

export async function answerLog(call: Call): Promise<Response> {
	const { query } = call
	const { container } = podFor(call, 'log', query.get('container') ?? '')
	const number = (name: string) => {
		const value = query.get(name)
		if (value === null || value === '') return undefined
		if (!/^\d{1,15}$/.test(value))
			throw badRequest(`${name}: Invalid value: ${JSON.stringify(value)}: must be a non-negative number`)
		return Number(value)
	}
	const flag = (name: string) => query.get(name) === 'true' || query.get(name) === '1'
	const tailLines = number('tailLines')
	const sinceSeconds = number('sinceSeconds')
	const limitBytes = number('limitBytes')
	const sinceTime = query.get('sinceTime') ?? ''
	if (sinceTime !== '' && Number.isNaN(Date.parse(sinceTime))) {
		throw badRequest(`sinceTime: Invalid value: ${JSON.stringify(sinceTime)}: must be a time (RFC 3339)`)
	}
	if (sinceTime !== '' && sinceSeconds !== undefined)
		throw badRequest('at most one of sinceTime or sinceSeconds may be specified')
	const ending = new AbortController()
	const request: LogRequest = {
		namespace: call.namespace,
		pod: call.name ?? '',
		container,
		follow: flag('follow'),
		previous: flag('previous'),
		timestamps: flag('timestamps'),
		...(tailLines === undefined ? {} : { tailLines }),
		...(sinceSeconds === undefined ? {} : { sinceSeconds }),
		...(sinceTime === '' ? {} : { sinceTime }),
		...(limitBytes === undefined ? {} : { limitBytes }),
		signal: AbortSignal.any([call.request.signal, ending.signal]),
	}
	const lines = kubeletOf(call).logs(request)[Symbol.asyncIterator]()
	const first = lines.next()
	// A failure that comes later than we waited for ends the stream; here it must not count as unhandled.
	first.catch(() => {})
	if (!request.follow) await first
	else {
		const { promise, resolve } = Promise.withResolvers<void>()
		const cancel = call.api.clock.after(patience, resolve)
		await Promise.race([first, promise])
		cancel()
	}
	let next: Promise<IteratorResult<Uint8Array>> | undefined = first
	const stream = new ReadableStream<Uint8Array>(
		{
			async pull(controller) {
				for (;;) {
					let result: IteratorResult<Uint8Array>
					try {
						result = await (next ?? lines.next())
					} catch (e) {
						if (!ending.signal.aborted && !call.request.signal.aborted) controller.error(e)
						else controller.close()
						return
					}
					next = undefined
					if (result.done) {
						controller.close()
						return
					}
					// An empty chunk is no answer to a read.
					if (result.value.length === 0) continue
					controller.enqueue(result.value)
					return
				}
			},
			async cancel() {
				ending.abort()
				await lines.return?.()
			},
		},
		{ highWaterMark: 0 },
	)
	return new Response(stream, { headers: { 'content-type': 'text/plain' } })
}

/** The pod of a call that needs its kubelet, and which container is meant. Throws Refusal as the real server. */
export function podFor(
	call: Pick<Call, 'api' | 'namespace' | 'name' | 'served'>,
	what: string,
	wanted: string,
): { readonly pod: Pod; readonly container: string } {
	const { api, namespace, name = '' } = call
	const entry = api.store.get('pods', keyIn(namespace, name))
	if (entry === undefined) throw notFound({ group: '', plural: 'pods', kind: 'Pod' }, name)
	const pod = entry.object as unknown as Pod
	const names = (pod.spec?.containers ?? []).map((c) => c.name)
	const others = [
		...(pod.spec?.initContainers ?? []),
		...((pod.spec as { ephemeralContainers?: { name: string }[] })?.ephemeralContainers ?? []),
	]
	let container = wanted
	if (container === '') {
		const annotated = pod.metadata.annotations?.['kubectl.kubernetes.io/default-container']
		if (annotated !== undefined && names.includes(annotated)) container = annotated
		else if (names.length === 1) container = names[0]!
		else throw badRequest(`a container name must be specified for pod ${name}, choose one of: [${names.join(' ')}]`)
	} else if (!names.includes(container) && !others.some((c) => c.name === container)) {
		throw badRequest(`container ${container} is not valid for pod ${name}`)
	}
	if (!pod.spec?.nodeName) throw badRequest(`pod ${name} does not have a host assigned`)
	if (what !== 'log' && (pod.status?.phase === 'Succeeded' || pod.status?.phase === 'Failed')) {
		throw badRequest(`cannot ${what} in a container of a completed pod; current phase is ${pod.status.phase}`)
	}
	return { pod, container }
}

export function kubeletOf(call: Pick<Call, 'api'>): KubeletApi {
	const { kubelet } = call.api
	if (kubelet === undefined) throw refuse('ServiceUnavailable', 'this server has no kubelet to ask', {})
	return kubelet
}
