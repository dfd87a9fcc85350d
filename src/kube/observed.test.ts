import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type ApiRequest, observed } from './observed.ts'

test('every request is told once, with how it ended', async () => {
	const heard: ApiRequest[] = []
	const transport = observed(
		async (request) => {
			if (request.url.endsWith('/gone')) throw new Error('nobody there')
			return new Response('{}', { status: request.method === 'POST' ? 201 : 200 })
		},
		(request) => heard.push(request),
	)
	assert.equal((await transport(new Request('http://api:6443/api/v1/pods'))).status, 200)
	await transport(new Request('http://api:6443/api/v1/pods', { method: 'POST', body: '{}' }))
	await assert.rejects(transport(new Request('http://api:6443/gone')), /nobody there/)
	assert.deepEqual(
		heard.map(({ method, code, host }) => `${method} ${code} ${host}`),
		['GET 200 api:6443', 'POST 201 api:6443', 'GET <error> api:6443'],
	)
	assert.ok(heard.every(({ seconds }) => seconds >= 0 && seconds < 10))
})
