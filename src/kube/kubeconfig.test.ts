import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import {
	chmodSync,
	existsSync,
	lstatSync,
	mkdirSync,
	mkdtempSync,
	readdirSync,
	readFileSync,
	rmSync,
	statSync,
	symlinkSync,
	writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type TestContext, test } from 'node:test'
import { isFailure } from '../base/failure.ts'
import { createManualClock } from '../base/manual-clock.ts'
import {
	inClusterAccess,
	kubeconfigPaths,
	loadAccess,
	mergeContext,
	type OwnContext,
	removeContext,
} from './kubeconfig.ts'

const long = Buffer.alloc(2000, 7).toString('base64')
const mine = `# my clusters
apiVersion: v1
kind: Config
clusters:
# production, take care
- cluster:
    server: https://prod.example:6443 # the real one
    certificate-authority-data: ${long}
  name: prod
contexts:
- context: {cluster: prod, user: me, namespace: shop}
  name: prod
current-context: prod
preferences: {}
users:
- name: me
  user:
    token: "0123"
`
const own: OwnContext = {
	name: 'podwire-lab',
	server: 'https://127.0.0.1:7443',
	certificateAuthority: 'CA PEM',
	clientCertificate: 'CERT PEM',
	clientKey: 'KEY PEM',
}

function directory(t: TestContext): string {
	const root = mkdtempSync(join(tmpdir(), 'kubeconfig-'))
	t.after(() => rmSync(root, { recursive: true }))
	return root
}

test('which files count', () => {
	const table: [Parameters<typeof kubeconfigPaths>[0], string[]][] = [
		[{ environment: { HOME: '/h' } }, ['/h/.kube/config']],
		[{ environment: { HOME: '/h', KUBECONFIG: '' } }, ['/h/.kube/config']],
		[{ environment: { HOME: '/h', KUBECONFIG: '/a::/b:/a' } }, ['/a', '/b']],
		[{ path: '/x', environment: { HOME: '/h', KUBECONFIG: '/a' } }, ['/x']],
	]
	for (const [place, want] of table) assert.deepEqual(kubeconfigPaths(place), want)
})

test('merge, then remove: everything else stays as it was', async (t) => {
	const path = join(directory(t), 'config')
	writeFileSync(path, mine, { mode: 0o644 })
	assert.equal(await mergeContext(own, { path }), path)
	const merged = readFileSync(path, 'utf8')
	assert.equal(statSync(path).mode & 0o777, 0o600)
	for (const line of mine.split('\n')) {
		if (!line.startsWith('current-context')) assert.ok(merged.includes(`${line}\n`), `kept: ${line}`)
	}
	assert.match(merged, /^current-context: podwire-lab$/m)
	assert.deepEqual(await loadAccess({ path }), {
		context: 'podwire-lab',
		server: 'https://127.0.0.1:7443',
		namespace: 'default',
		insecure: false,
		certificateAuthority: 'CA PEM',
		clientCertificate: 'CERT PEM',
		clientKey: 'KEY PEM',
	})
	// again, with other values: replaced, not added
	await mergeContext({ ...own, server: 'https://127.0.0.1:9' }, { path })
	assert.equal(readFileSync(path, 'utf8').split('name: podwire-lab').length, 4)
	assert.deepEqual(await removeContext('podwire-lab', { path }), [path])
	assert.equal(readFileSync(path, 'utf8'), mine.replace('current-context: prod', 'current-context: ""'))
	assert.deepEqual(await removeContext('podwire-lab', { path }), [])
	assert.deepEqual(readdirSync(join(path, '..')), ['config'])
})

test('removal leaves the current context alone where it is another', async (t) => {
	const path = join(directory(t), 'config')
	writeFileSync(path, mine)
	await mergeContext(own, { path })
	writeFileSync(path, readFileSync(path, 'utf8').replace('current-context: podwire-lab', 'current-context: prod'))
	await removeContext('podwire-lab', { path })
	assert.equal(readFileSync(path, 'utf8'), mine)
})

test('a new file, in a new directory; kubectl reads it', async (t) => {
	const path = join(directory(t), 'a/b/config')
	await mergeContext(own, { path })
	assert.equal(statSync(path).mode & 0o777, 0o600)
	assert.match(readFileSync(path, 'utf8'), /^apiVersion: v1\nkind: Config\nclusters:\n- cluster:\n/)
	try {
		const said = execFileSync('kubectl', ['--kubeconfig', path, 'config', 'current-context'], { encoding: 'utf8' })
		assert.equal(said, 'podwire-lab\n')
	} catch (e) {
		if ((e as NodeJS.ErrnoException).code !== 'ENOENT') throw e
		t.diagnostic('kubectl is not installed')
	}
})

test('empty lists, other shapes and JSON', async (t) => {
	const path = join(directory(t), 'config')
	for (const text of [
		'',
		'# nothing\n',
		'clusters: []\ncontexts: []\nusers: null\n',
		'{"apiVersion":"v1","clusters":[],"x":[1]}',
	]) {
		writeFileSync(path, text)
		await mergeContext(own, { path })
		assert.equal((await loadAccess({ path })).server, own.server)
		await removeContext(own.name, { path })
		await assert.rejects(loadAccess({ path }), (e) => isFailure(e, 'NoContext'))
	}
})

test('a list of files: the first that exists is written, all are cleaned', async (t) => {
	const root = directory(t)
	const [a, b, c] = ['a', 'b', 'c'].map((n) => join(root, n)) as [string, string, string]
	const environment = { KUBECONFIG: [a, b, c].join(':') }
	assert.equal(await mergeContext(own, { environment }), c)
	writeFileSync(b, mine)
	assert.equal(await mergeContext(own, { environment }), b)
	assert.deepEqual(await removeContext(own.name, { environment }), [b, c])
	assert.equal(existsSync(a), false)
})

test('symbolic links stay links', async (t) => {
	const root = directory(t)
	writeFileSync(join(root, 'real'), mine)
	symlinkSync('real', join(root, 'config'))
	await mergeContext(own, { path: join(root, 'config') })
	assert.ok(lstatSync(join(root, 'config')).isSymbolicLink())
	assert.match(readFileSync(join(root, 'real'), 'utf8'), /podwire-lab/)
})

test('broken files are named and left alone', async (t) => {
	const path = join(directory(t), 'config')
	for (const text of ['clusters: [\n  podwire-lab', '- podwire-lab\n', 'a: b: podwire-lab\n']) {
		writeFileSync(path, text)
		await assert.rejects(
			mergeContext(own, { path }),
			(e) => isFailure(e, 'InvalidKubeconfig') && e.message.includes(path),
		)
		await assert.rejects(removeContext(own.name, { path }), (e) => isFailure(e, 'InvalidKubeconfig'))
		await assert.rejects(loadAccess({ path }), (e) => isFailure(e, 'InvalidKubeconfig'))
		assert.equal(readFileSync(path, 'utf8'), text)
		assert.equal(existsSync(`${path}.lock`), false)
	}
	writeFileSync(path, 'a: b: other\n')
	assert.deepEqual(await removeContext(own.name, { path }), [])
})

test('the lock is waited for, then named', async (t) => {
	const path = join(directory(t), 'config')
	writeFileSync(`${path}.lock`, '')
	const clock = createManualClock()
	const ticking = setInterval(() => clock.advance(50), 1)
	await assert.rejects(mergeContext(own, { path, clock, patience: 500 }), (e) => {
		assert.ok(isFailure(e, 'KubeconfigLocked'))
		assert.match(e.message, /config.lock" exists, so another program is writing it/)
		return true
	})
	const waiting = mergeContext(own, { path, clock, patience: 1e9 })
	rmSync(`${path}.lock`)
	await waiting
	clearInterval(ticking)
})

test('a directory that may not be written is one clear message', async (t) => {
	const root = directory(t)
	if (process.getuid?.() === 0) return t.skip('root may write everywhere')
	chmodSync(root, 0o500)
	await assert.rejects(mergeContext(own, { path: join(root, 'config') }), (e) => isFailure(e, 'KubeconfigUnwritable'))
	chmodSync(root, 0o700)
})

test('what a context says', async (t) => {
	const root = directory(t)
	const path = join(root, 'config')
	mkdirSync(join(root, 'pki'))
	writeFileSync(join(root, 'pki/ca.pem'), 'CA')
	writeFileSync(
		path,
		`
clusters:
- {name: c, cluster: {server: "https://a.example/", certificate-authority: pki/ca.pem, tls-server-name: other}}
- {name: bad, cluster: {server: "a.example:6443"}}
- {name: none, cluster: {}}
- {name: proxied, cluster: {server: "https://a.example", proxy-url: "socks5://x"}}
- {name: lost, cluster: {server: "https://a.example", certificate-authority: pki/gone.pem}}
users:
- {name: u, user: {token: secret, as: jane, as-groups: [dev]}}
- {name: p, user: {exec: {command: aws-iam-authenticator}}}
- {name: half, user: {client-certificate-data: QQ==}}
contexts:
- {name: ok, context: {cluster: c, user: u, namespace: shop}}
- {name: anonymous, context: {cluster: c}}
- {name: plugin, context: {cluster: c, user: p}}
- {name: half, context: {cluster: c, user: half}}
- {name: bad, context: {cluster: bad, user: u}}
- {name: none, context: {cluster: none, user: u}}
- {name: proxied, context: {cluster: proxied, user: u}}
- {name: lost, context: {cluster: lost, user: u}}
- {name: nocluster, context: {cluster: x, user: u}}
- {name: nouser, context: {cluster: c, user: x}}
`,
	)
	assert.deepEqual(await loadAccess({ path }, 'ok'), {
		context: 'ok',
		server: 'https://a.example',
		namespace: 'shop',
		insecure: false,
		certificateAuthority: 'CA',
		serverName: 'other',
		token: 'secret',
		impersonate: { user: 'jane', groups: ['dev'] },
	})
	assert.equal((await loadAccess({ path }, 'anonymous')).token, undefined)
	const table: [string | undefined, string, RegExp][] = [
		[undefined, 'NoContext', /has no current-context/],
		['absent', 'NoContext', /it has "anonymous", "bad"/],
		['plugin', 'Unsupported', /exec plugin "aws-iam-authenticator" is not supported yet/],
		['proxied', 'Unsupported', /proxy-url "socks5:\/\/x"/],
		['half', 'InvalidKubeconfig', /user "half" has no client-key/],
		['bad', 'InvalidKubeconfig', /is no http or https URL/],
		['none', 'InvalidKubeconfig', /cluster "none" has no server/],
		['lost', 'InvalidKubeconfig', /certificate-authority ".*pki\/gone.pem" cannot be read/],
		['nocluster', 'InvalidKubeconfig', /there is no cluster "x"/],
		['nouser', 'InvalidKubeconfig', /there is no user "x"/],
	]
	for (const [name, code, why] of table) {
		await assert.rejects(loadAccess({ path }, name), (e) => {
			assert.ok(isFailure(e, code), `${name}: ${e}`)
			assert.match(e.message, why)
			return true
		})
	}
	await assert.rejects(loadAccess({ path: join(root, 'gone') }), (e) => isFailure(e, 'NoKubeconfig'))
})

test('of several files the first decides', async (t) => {
	const root = directory(t)
	const write = (name: string, server: string, current: string) => {
		const text = `clusters:\n- {name: c, cluster: {server: "${server}"}}\ncontexts:\n- {name: c, context: {cluster: c}}\n- {name: ${name}, context: {cluster: c}}\ncurrent-context: "${current}"\n`
		writeFileSync(join(root, name), text)
		return join(root, name)
	}
	const environment = {
		KUBECONFIG: [write('a', 'http://a', ''), join(root, 'gone'), write('b', 'http://b', 'b')].join(':'),
	}
	assert.equal((await loadAccess({ environment })).server, 'http://a')
	assert.equal((await loadAccess({ environment })).context, 'b')
})

test('inside a pod', async (t) => {
	const root = directory(t)
	const environment = { KUBERNETES_SERVICE_HOST: 'fd00::1', KUBERNETES_SERVICE_PORT: '443' }
	assert.equal(await inClusterAccess(environment, root), undefined)
	writeFileSync(join(root, 'ca.crt'), 'CA')
	writeFileSync(join(root, 'namespace'), 'shop\n')
	const access = await inClusterAccess(environment, root)
	assert.equal(access?.server, 'https://[fd00::1]:443')
	assert.equal(access?.namespace, 'shop')
	assert.equal(access?.tokenFile, join(root, 'token'))
})
