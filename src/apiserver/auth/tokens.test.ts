import assert from 'node:assert/strict'
import { createHmac, createPublicKey, generateKeyPairSync } from 'node:crypto'
import { describe, test } from 'node:test'
import fc from 'fast-check'
import { createManualClock } from '../../base/manual-clock.ts'
import { createStore } from '../store.ts'
import { createAuthenticator } from './authenticate.ts'
import { createTokens, issuer } from './tokens.ts'

const { privateKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
const now = Date.parse('2026-01-02T03:04:05Z')

async function start() {
	const store = createStore()
	const clock = createManualClock(now)
	const tokens = createTokens(privateKey)
	const authenticator = createAuthenticator({ store, clock, tokens })
	const put = (storage: string, key: string, uid: string, more: object = {}) => {
		const object = { apiVersion: 'v1', kind: 'X', metadata: { name: key, uid, ...more } }
		return store.put(storage, key, object, store.get(storage, key)).kept
	}
	await put('serviceaccounts', 'shop/web', 's1')
	const seconds = now / 1000
	const claims = {
		namespace: 'shop',
		account: { name: 'web', uid: 's1' },
		audiences: [issuer],
		issuedAt: seconds,
		expires: seconds + 3600,
	}
	return { store, clock, tokens, authenticator, put, claims }
}

describe('tokens', () => {
	test('are read as they were written, and in the form all readers know', async () => {
		const { tokens, claims } = await start()
		const bound = { kind: 'Pod', name: 'p', uid: 'p1' } as const
		const token = tokens.issue({ ...claims, bound, node: { name: 'n', uid: 'n1' }, warnAfter: 7 })
		const read = createTokens(privateKey).read(token)
		assert.ok(typeof read === 'object')
		const { id, ...rest } = read
		assert.match(id, /^[0-9a-f-]{36}$/)
		assert.deepEqual(rest, { ...claims, bound, node: { name: 'n', uid: 'n1' }, warnAfter: 7 })
		const payload = JSON.parse(Buffer.from(token.split('.')[1]!, 'base64url').toString())
		assert.deepEqual(payload['kubernetes.io'], {
			namespace: 'shop',
			node: { name: 'n', uid: 'n1' },
			pod: { name: 'p', uid: 'p1' },
			serviceaccount: { name: 'web', uid: 's1' },
			warnafter: 7,
		})
		assert.deepEqual([payload.iss, payload.sub], [issuer, 'system:serviceaccount:shop:web'])
	})

	test('of other keys, other algorithms and other makers are none', async () => {
		const { tokens, claims } = await start()
		const good = tokens.issue(claims)
		const [head, body, end] = good.split('.') as [string, string, string]
		const header = (more: object) =>
			Buffer.from(JSON.stringify({ ...JSON.parse(Buffer.from(head, 'base64url').toString()), ...more })).toString(
				'base64url',
			)
		const spki = createPublicKey(privateKey).export({ type: 'spki', format: 'pem' })
		const hmac = (h: string) => createHmac('sha256', spki).update(`${h}.${body}`).digest('base64url')
		const bad: Record<string, string> = {
			'another key': createTokens().issue(claims),
			none: `${header({ alg: 'none' })}.${body}.`,
			'none with a signature': `${header({ alg: 'none' })}.${body}.${end}`,
			'HMAC with the public key': `${header({ alg: 'HS256' })}.${body}.${hmac(header({ alg: 'HS256' }))}`,
			'ES256 over HMAC': `${head}.${body}.${hmac(head)}`,
			'another key id': `${header({ kid: 'x' })}.${body}.${end}`,
			'critical extension': `${header({ crit: ['x'] })}.${body}.${end}`,
			'no signature': `${head}.${body}.`,
			'signature of zeros': `${head}.${body}.${Buffer.alloc(64).toString('base64url')}`,
			'another body': `${head}.${Buffer.from('{}').toString('base64url')}.${end}`,
			'one part more': `${good}.${end}`,
			'a space': `${good} `,
			'too long': 'a'.repeat(20_000),
			empty: '',
		}
		for (const [name, token] of Object.entries(bad)) assert.equal(typeof tokens.read(token), 'string', name)
		assert.equal(typeof tokens.read(good), 'object')
	})

	test('no text but ours is a token, and none does harm', async () => {
		const { tokens, claims, authenticator } = await start()
		const good = tokens.issue(claims)
		fc.assert(
			fc.property(fc.nat(good.length - 1), fc.string({ unit: 'binary', minLength: 1, maxLength: 3 }), (at, text) => {
				const changed = good.slice(0, at) + text + good.slice(at + text.length)
				// The last character of base64url has bits that say nothing.
				if (changed.slice(0, -1) === good.slice(0, -1)) return
				assert.equal(typeof tokens.read(changed), 'string')
			}),
			{ numRuns: 300 },
		)
		fc.assert(
			fc.property(
				fc.array(fc.oneof(fc.string({ unit: 'binary' }), fc.base64String(), fc.json()), { maxLength: 5 }),
				(parts) => {
					assert.equal(typeof authenticator.identifyToken(parts.join('.')), 'string')
					const encoded = parts.map((part) => Buffer.from(part).toString('base64url')).join('.')
					assert.equal(typeof authenticator.identifyToken(encoded), 'string')
				},
			),
			{ numRuns: 500 },
		)
	})

	test('what we signed but cannot mean is refused', async () => {
		const { tokens, claims } = await start()
		const odd = (more: object) => tokens.read(tokens.issue({ ...claims, ...more } as typeof claims))
		assert.equal(typeof odd({ expires: 'never' }), 'string')
		assert.equal(typeof odd({ audiences: 'all' }), 'string')
		assert.equal(typeof odd({ namespace: 7 }), 'string')
		assert.equal(typeof odd({ account: { name: 'web' } }), 'string')
	})
})

describe('whose token it is', () => {
	test('the account, with its groups', async () => {
		const { tokens, authenticator, claims } = await start()
		const found = authenticator.identifyToken(tokens.issue(claims))
		assert.ok(typeof found === 'object')
		assert.deepEqual([found.user.name, found.user.uid], ['system:serviceaccount:shop:web', 's1'])
		assert.deepEqual(found.user.groups, [
			'system:serviceaccounts',
			'system:serviceaccounts:shop',
			'system:authenticated',
		])
		assert.deepEqual(found.audiences, [issuer])
	})
	test('nobody’s before its time, after it, and for another audience', async () => {
		const { tokens, authenticator, claims, clock } = await start()
		const token = tokens.issue(claims)
		const early = tokens.issue({ ...claims, issuedAt: claims.issuedAt + 120 })
		assert.equal(authenticator.identifyToken(early), 'service account token is not valid yet')
		assert.match(String(authenticator.identifyToken(token, ['vault'])), /audiences/)
		clock.advance(3_599_999)
		assert.equal(typeof authenticator.identifyToken(token), 'object')
		clock.advance(1)
		assert.equal(authenticator.identifyToken(token), 'service account token has expired')
	})
	test('nobody’s once the account, or what it is bound to, is another or gone', async () => {
		const { tokens, authenticator, claims, put, store, clock } = await start()
		const token = tokens.issue(claims)
		await put('serviceaccounts', 'shop/web', 's2')
		assert.equal(authenticator.identifyToken(token), 'service account token has been invalidated')
		await put('serviceaccounts', 'shop/web', 's1')
		for (const [kind, storage, key] of [
			['Pod', 'pods', 'shop/p'],
			['Secret', 'secrets', 'shop/p'],
			['Node', 'nodes', 'p'],
		] as const) {
			const bound = tokens.issue({ ...claims, bound: { kind, name: 'p', uid: 'b1' } })
			assert.equal(typeof authenticator.identifyToken(bound), 'string', kind)
			await put(storage, key, 'b1')
			assert.equal(typeof authenticator.identifyToken(bound), 'object', kind)
			await put(storage, key, 'b1', { deletionTimestamp: new Date(clock.now()).toISOString() })
			assert.equal(typeof authenticator.identifyToken(bound), 'object', `${kind}, ending`)
			clock.advance(60_000)
			assert.equal(typeof authenticator.identifyToken(bound), 'string', `${kind}, ended`)
			await store.remove(store.get(storage, key)!).kept
			assert.equal(typeof authenticator.identifyToken(bound), 'string', `${kind}, gone`)
		}
	})
})
