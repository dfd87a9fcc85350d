// Who may do what, with real kubectl over TLS: certificates, tokens, impersonation, roles, and the words of refusals.

import assert from 'node:assert/strict'
import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { createClientSigner } from '../../src/apiserver/auth/client-signer.ts'
import { type Certificates, ensureCertificates } from '../../src/apiserver/certificates.ts'
import { type Listener, listen } from '../../src/apiserver/listen.ts'
import { type ApiServer, createApiServer } from '../../src/apiserver/server.ts'
import { createStore } from '../../src/apiserver/store.ts'
import { systemClock } from '../../src/base/clock.ts'
import { createKubeClient, type KubeClient } from '../../src/kube/client.ts'
import { transportOf } from '../../src/kube/https.ts'
import { pods, serviceAccounts } from '../../src/kube/kinds.ts'
import type { Status } from '../../src/kube/objects/meta.ts'
import type { Pod } from '../../src/kube/objects/pod.ts'
import { createFakeKubelet } from '../fixtures/kubelet.ts'
import { findTool } from '../tools.ts'

describe('kubectl, RBAC', () => {
	const home = mkdtempSync(join(tmpdir(), 'podwire-rbac-'))
	const faults: unknown[] = []
	let kubectl = ''
	let server: ApiServer
	let listener: Listener
	let certificates: Certificates
	let client: KubeClient

	/** A kubeconfig with these credentials; its path. */
	function kubeconfig(name: string, user: object): string {
		const path = join(home, name)
		const cluster = {
			server: `https://127.0.0.1:${listener.port}`,
			'certificate-authority-data': Buffer.from(certificates.authority.certificate).toString('base64'),
		}
		const config = {
			apiVersion: 'v1',
			kind: 'Config',
			clusters: [{ name: 'c', cluster }],
			users: [{ name: 'u', user }],
			contexts: [{ name: 'x', context: { cluster: 'c', user: 'u' } }],
			'current-context': 'x',
		}
		writeFileSync(path, JSON.stringify(config), { mode: 0o600 })
		return path
	}

	interface Ran {
		readonly code: number | null
		readonly out: string
		readonly err: string
	}
	function run(args: string, options: { readonly input?: string; readonly config?: string } = {}): Promise<Ran> {
		const child = spawn(kubectl, args.split(' '), {
			env: { PATH: process.env.PATH ?? '', HOME: home, KUBECONFIG: options.config ?? join(home, 'admin') },
		})
		const out: Buffer[] = []
		const err: Buffer[] = []
		child.stdout.on('data', (chunk: Buffer) => out.push(chunk))
		child.stderr.on('data', (chunk: Buffer) => err.push(chunk))
		child.stdin.on('error', () => {})
		child.stdin.end(options.input)
		return new Promise((resolve, reject) => {
			child.on('error', reject)
			child.on('close', (code) =>
				resolve({ code, out: Buffer.concat(out).toString(), err: Buffer.concat(err).toString() }),
			)
		})
	}
	async function ok(args: string, input?: string, config?: string): Promise<string> {
		const ran = await run(args, {
			...(input === undefined ? {} : { input }),
			...(config === undefined ? {} : { config }),
		})
		assert.equal(ran.code, 0, `kubectl ${args}: ${ran.err}${ran.out}`)
		return ran.out
	}
	/** Standard error of a command that is refused. */
	async function refused(args: string, input?: string, config?: string): Promise<string> {
		const ran = await run(args, {
			...(input === undefined ? {} : { input }),
			...(config === undefined ? {} : { config }),
		})
		assert.notEqual(ran.code, 0, `kubectl ${args}: ${ran.out}`)
		return ran.err.trim()
	}

	before(async () => {
		kubectl = process.env.PODWIRE_KUBECTL ?? (await findTool('kubectl'))
		server = await createApiServer({
			store: createStore(),
			clock: systemClock,
			kubelet: createFakeKubelet(),
			signer: createClientSigner(async () => certificates.authority, Date.now),
			onFault: (e) => faults.push(e),
		})
		certificates = await ensureCertificates(join(home, 'pki'), { now: Date.now() })
		listener = await listen(server, { certificates })
		client = createKubeClient(server.transport)
		const data = (text: string) => Buffer.from(text).toString('base64')
		const { admin } = certificates
		kubeconfig('admin', { 'client-certificate-data': data(admin.certificate), 'client-key-data': data(admin.key) })
		for (const namespace of ['shop', 'bank']) {
			await ok(`create namespace ${namespace}`)
			for (const name of ['default', 'web']) await client.create(serviceAccounts, { metadata: { name, namespace } })
		}
		const pod = {
			metadata: { name: 'web', namespace: 'shop' },
			spec: { serviceAccountName: 'web', nodeName: 'node-1', containers: [{ name: 'main', image: 'web' }] },
		} as unknown as Pod
		await client.create(pods, pod)
	})
	after(async () => {
		server?.close()
		await listener?.close()
		rmSync(home, { recursive: true, force: true })
		assert.deepEqual(faults, [])
	})

	test('nobody may see health and version, and nothing else', async () => {
		// kubectl asks for a password where it has no credentials.
		const transport = transportOf({
			context: 'nobody',
			server: `https://127.0.0.1:${listener.port}`,
			namespace: 'default',
			insecure: false,
			certificateAuthority: certificates.authority.certificate,
		})
		const get = async (path: string): Promise<readonly [number, string]> => {
			const response = await transport(new Request(`http://kubernetes${path}`))
			return [response.status, response.status === 200 ? '' : ((await response.json()) as Status).message!]
		}
		for (const path of ['/healthz', '/livez', '/readyz', '/version']) assert.deepEqual(await get(path), [200, ''], path)
		const who = 'User "system:anonymous" cannot'
		assert.deepEqual(await get('/api'), [403, `forbidden: ${who} get path "/api"`])
		assert.deepEqual(await get('/api/v1/namespaces/shop/pods'), [
			403,
			`pods is forbidden: ${who} list resource "pods" in API group "" in the namespace "shop"`,
		])
		transport.close()
		const broken = kubeconfig('broken', { token: 'abc.def.ghi' })
		assert.match(await refused('get pods', undefined, broken), /You must be logged in to the server/)
	})

	test('a token is who it says: whoami, and what its roles allow', async () => {
		const token = (await ok('create token web -n shop --duration=1h')).trim()
		const config = kubeconfig('web', { token })
		const who = await ok('auth whoami -o json', undefined, config)
		const { userInfo } = (JSON.parse(who) as { status: { userInfo: Record<string, unknown> } }).status
		assert.equal(userInfo.username, 'system:serviceaccount:shop:web')
		assert.deepEqual(userInfo.groups, ['system:serviceaccounts', 'system:serviceaccounts:shop', 'system:authenticated'])
		assert.match(await ok('auth whoami', undefined, config), /^Username +system:serviceaccount:shop:web$/m)

		assert.equal(
			await refused('get pods -n shop', undefined, config),
			'Error from server (Forbidden): pods is forbidden: User "system:serviceaccount:shop:web" cannot list resource "pods" in API group "" in the namespace "shop"',
		)
		assert.equal(
			await refused('get deployments -A', undefined, config),
			'Error from server (Forbidden): deployments.apps is forbidden: User "system:serviceaccount:shop:web" cannot list resource "deployments" in API group "apps" at the cluster scope',
		)
		await ok('create role reader -n shop --verb=get,list,watch --resource=pods')
		await ok('create rolebinding reader -n shop --role=reader --serviceaccount=shop:web')
		assert.match(await ok('get pods -n shop', undefined, config), /^web /m)
		assert.match(
			await refused('get pods -n bank', undefined, config),
			/cannot list resource "pods" .* in the namespace "bank"$/,
		)
		assert.match(
			await refused('delete pod web -n shop', undefined, config),
			/^Error from server \(Forbidden\): pods "web" is forbidden: User "system:serviceaccount:shop:web" cannot delete resource "pods" in API group "" in the namespace "shop"$/,
		)
		assert.match(
			await refused('logs web -n shop', undefined, config),
			/cannot get resource "pods\/log" in API group ""/,
		)
		assert.match(
			await refused('exec web -n shop -- true', undefined, config),
			/cannot (get|create) resource "pods\/exec" in API group ""/,
		)
		await ok('delete rolebinding reader -n shop')
		assert.match(await refused('get pods -n shop', undefined, config), /cannot list resource "pods"/)
	})

	test('a token for a pod dies with it; one for others is not for us', async () => {
		const { uid } = (await client.get(pods, 'shop/web')).metadata
		const token = (
			await ok(`create token web -n shop --bound-object-kind=Pod --bound-object-name=web --bound-object-uid=${uid}`)
		).trim()
		const config = kubeconfig('pod', { token })
		const who = await ok('auth whoami -o json', undefined, config)
		assert.match(who, /"authentication.kubernetes.io\/pod-name": \[\s*"web"/)
		const other = (await ok('create token web -n shop --audience=vault')).trim()
		assert.match(
			await refused('auth whoami', undefined, kubeconfig('vault', { token: other })),
			/You must be logged in/,
		)
		const review = {
			apiVersion: 'authentication.k8s.io/v1',
			kind: 'TokenReview',
			spec: { token: other, audiences: ['vault'] },
		}
		const reviewed = JSON.parse(await ok('create -o json -f -', JSON.stringify(review))) as {
			status: Record<string, unknown>
		}
		assert.equal(reviewed.status.authenticated, true)
		assert.deepEqual(reviewed.status.audiences, ['vault'])
		assert.match(
			await refused('create token web -n shop --bound-object-kind=Pod --bound-object-name=nothing'),
			/pods "nothing" not found/,
		)
		assert.match(
			await refused('create token web -n shop --duration=1m'),
			/may not specify a duration less than 10 minutes/,
		)
		await ok('delete pod web -n shop --force --grace-period=0')
		assert.match(await refused('auth whoami', undefined, config), /You must be logged in/)
		const plain = kubeconfig('plain', { token: (await ok('create token web -n bank')).trim() })
		await ok('auth whoami', undefined, plain)
		await ok('delete serviceaccount web -n bank')
		assert.match(await refused('auth whoami', undefined, plain), /You must be logged in/)
	})

	test('a Secret of the kind for it holds a token that lasts', async () => {
		const secret = {
			apiVersion: 'v1',
			kind: 'Secret',
			type: 'kubernetes.io/service-account-token',
			metadata: { name: 'lasting', namespace: 'shop', annotations: { 'kubernetes.io/service-account.name': 'web' } },
		}
		await ok('apply -f -', JSON.stringify(secret))
		assert.match(await ok('describe secret lasting -n shop'), /^token: +eyJ/m)
		const data = await ok('get secret lasting -n shop -o jsonpath={.data.token}')
		const config = kubeconfig('lasting', { token: Buffer.from(data, 'base64').toString() })
		assert.match(await ok('auth whoami', undefined, config), /^Username +system:serviceaccount:shop:web$/m)
		await ok('delete secret lasting -n shop')
		assert.match(await refused('auth whoami', undefined, config), /You must be logged in/)
	})

	test('exec needs more than to read', async () => {
		const spec = { nodeName: 'node-1', containers: [{ name: 'main', image: 'web' }] }
		const status = { phase: 'Running', containerStatuses: [{ name: 'main', ready: true, state: { running: {} } }] }
		const made = await client.create(pods, { metadata: { name: 'box', namespace: 'shop' }, spec } as unknown as Pod)
		await client.update(pods, { ...made, status } as unknown as Pod, { subresource: 'status' })
		await ok('create role exec -n shop --verb=get --resource=pods,pods/exec,pods/log')
		await ok('create rolebinding exec -n shop --role=exec --user=emma')
		await ok('logs box -n shop --as=emma')
		assert.match(
			await refused('exec box -n shop --as=emma -- echo hello'),
			/User "emma" cannot create resource "pods\/exec" in API group "" in the namespace "shop"/,
		)
		await ok('create role exec-more -n shop --verb=create --resource=pods/exec')
		await ok('create rolebinding exec-more -n shop --role=exec-more --user=emma')
		assert.equal(await ok('exec box -n shop --as=emma -- echo hello'), 'hello\n')
	})

	test('can-i: for oneself, for others, as a list', async () => {
		assert.equal(await ok('auth can-i delete nodes'), 'yes\n')
		await ok('create clusterrolebinding viewer --clusterrole=view --user=jane')
		assert.equal(await ok('auth can-i list pods -n shop --as=jane'), 'yes\n')
		assert.equal(
			await ok('auth can-i get pods/log -n shop --as=jane'.replace('pods/log', 'pods --subresource=log')),
			'yes\n',
		)
		assert.deepEqual((await run('auth can-i get secrets -n shop --as=jane')).out, 'no\n')
		assert.deepEqual((await run('auth can-i create pods -n shop --as=jane')).out, 'no\n')
		assert.equal(await ok('auth can-i get /version --as=jane'), 'yes\n')
		assert.deepEqual((await run('auth can-i get /metrics --as=jane')).out, 'no\n')
		assert.equal(await ok('auth can-i create deployments --as=anyone --as-group=system:masters'), 'yes\n')
		const list = await ok('auth can-i --list -n shop --as=jane')
		assert.match(list, /^endpointslices\.discovery\.k8s\.io +\[\] +\[\] +\[get list watch\]$/m)
		assert.match(list, /^ +\[\/version\] +\[\] +\[get\]$/m)
		assert.match(await ok('auth can-i --list'), /^\*\.\* +\[\] +\[\] +\[\*\]$/m)
		assert.equal(await ok('auth can-i list pods -n shop --as=system:serviceaccount:shop:web').catch(() => 'no'), 'no')
		await ok('create rolebinding gone -n shop --clusterrole=gone --user=jim')
		assert.match(
			await refused('get pods -n shop --as=jim'),
			/in the namespace "shop": RBAC: clusterrole\.rbac\.authorization\.k8s\.io "gone" not found$/,
		)
	})

	test('acting as another needs the right to', async () => {
		assert.equal(
			await refused(
				'get pods -n shop --as=jane --as-group=ops',
				undefined,
				kubeconfig('web2', { token: (await ok('create token web -n shop')).trim() }),
			),
			'Error from server (Forbidden): users "jane" is forbidden: User "system:serviceaccount:shop:web" cannot impersonate resource "users" in API group "" at the cluster scope',
		)
		await ok('create clusterrole actor --verb=impersonate --resource=users --resource-name=jane')
		await ok('create clusterrolebinding actor --clusterrole=actor --serviceaccount=shop:web')
		const config = kubeconfig('web3', { token: (await ok('create token web -n shop')).trim() })
		assert.match(await ok('auth whoami --as=jane', undefined, config), /^Username +jane$/m)
		assert.match(await refused('get pods --as=jim', undefined, config), /users "jim" is forbidden/)
		assert.match(
			await refused('get pods --as=jane --as-group=system:masters', undefined, config),
			/groups "system:masters" is forbidden: .* cannot impersonate resource "groups"/,
		)
		const extra = 'auth whoami -o json --as=jane --as-uid=7 --as-group=a --as-group=b'
		const { userInfo } = (JSON.parse(await ok(extra)) as { status: { userInfo: object } }).status
		assert.deepEqual(userInfo, { username: 'jane', uid: '7', groups: ['a', 'b', 'system:authenticated'] })
	})

	test('names: one object may be read, and listed by its name', async () => {
		await ok('create configmap a -n shop')
		await ok('create configmap b -n shop')
		await ok('create role one -n shop --verb=get,list,watch --resource=configmaps --resource-name=a')
		await ok('create rolebinding one -n shop --role=one --user=ann')
		assert.match(await ok('get configmap a -n shop --as=ann'), /^a /m)
		assert.match(await refused('get configmap b -n shop --as=ann'), /configmaps "b" is forbidden/)
		assert.match(await refused('get configmaps -n shop --as=ann'), /configmaps is forbidden/)
		assert.match(await ok('get configmaps -n shop --as=ann --field-selector=metadata.name=a'), /^a /m)
		assert.match(
			await refused('get configmaps -n shop --as=ann --field-selector=metadata.name=b'),
			/configmaps "b" is forbidden/,
		)
	})

	test('nobody gives away what he does not have', async () => {
		await ok('create rolebinding owner -n shop --clusterrole=admin --user=olga')
		await ok('create role small -n shop --verb=get --resource=pods --as=olga')
		const big = await refused('create role big -n shop --verb=get,list --resource=endpoints,nodes --as=olga')
		assert.match(big, /^error: failed to create role: |^Error from server \(Forbidden\): /)
		assert.match(
			big,
			/roles\.rbac\.authorization\.k8s\.io "big" is forbidden: user "olga" \(groups=\["system:authenticated"\]\) is attempting to grant RBAC permissions not currently held:\n\{APIGroups:\[""\], Resources:\["nodes"\], Verbs:\["get" "list"\]\}$/,
		)
		assert.match(
			await refused('create rolebinding root -n shop --clusterrole=cluster-admin --user=olga --as=olga'),
			/"root" is forbidden: user "olga" .* attempting to grant RBAC permissions not currently held:\n\{APIGroups:\["\*"\], Resources:\["\*"\], Verbs:\["\*"\]\}\n\{NonResourceURLs:\["\*"\], Verbs:\["\*"\]\}$/s,
		)
		await ok('create rolebinding friend -n shop --clusterrole=view --user=fred --as=olga')
		assert.match(
			await refused('create rolebinding none -n shop --clusterrole=nothing --user=fred --as=olga'),
			/clusterroles\.rbac\.authorization\.k8s\.io "nothing" not found/,
		)
		await ok(
			'create role binder -n shop --verb=bind --resource=clusterroles.rbac.authorization.k8s.io --resource-name=cluster-admin',
		)
		await ok('create rolebinding binder -n shop --role=binder --user=olga')
		await ok('create rolebinding root -n shop --clusterrole=cluster-admin --user=pam --as=olga')
		const patch = { rules: [{ apiGroups: ['*'], resources: ['*'], verbs: ['*'] }] }
		assert.match(
			await refused(`patch role small -n shop --type=merge -p ${JSON.stringify(patch)} --as=olga`),
			/not currently held/,
		)
		assert.match(await ok('label role small -n shop team=x --as=olga'), /labeled/)
		await ok('create role free -n shop --verb=escalate --resource=roles.rbac.authorization.k8s.io')
		await ok('create rolebinding free -n shop --role=free --user=olga')
		await ok(`patch role small -n shop --type=merge -p ${JSON.stringify(patch)} --as=olga`)
	})

	test('roles gather others by their labels', async () => {
		assert.equal((await run('auth can-i list ingressclasses -n shop --as=jane')).out.trim(), 'no')
		const role = {
			apiVersion: 'rbac.authorization.k8s.io/v1',
			kind: 'ClusterRole',
			metadata: { name: 'gadgets', labels: { 'rbac.authorization.k8s.io/aggregate-to-view': 'true' } },
			rules: [{ apiGroups: ['networking.k8s.io'], resources: ['ingressclasses'], verbs: ['get', 'list'] }],
		}
		await ok('apply -f -', JSON.stringify(role))
		await until(async () => /ingressclasses/.test(await ok('describe clusterrole admin')))
		assert.equal((await run('auth can-i list ingressclasses -n shop --as=jane')).out.trim(), 'yes')
		await ok('delete clusterrole gadgets')
		await until(async () => !/ingressclasses/.test(await ok('describe clusterrole admin')))
		assert.match(await ok('get clusterroles'), /^system:discovery +\d{4}-/m)
	})

	test('auth reconcile brings roles and bindings in order', async () => {
		const rbac = 'rbac.authorization.k8s.io/v1'
		const objects = (verbs: string[], users: string[]) => ({
			apiVersion: 'v1',
			kind: 'List',
			items: [
				{
					apiVersion: rbac,
					kind: 'Role',
					metadata: { name: 'r', namespace: 'shop' },
					rules: [{ apiGroups: [''], resources: ['services'], verbs }],
				},
				{
					apiVersion: rbac,
					kind: 'RoleBinding',
					metadata: { name: 'r', namespace: 'shop' },
					roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'r' },
					subjects: users.map((name) => ({ apiGroup: 'rbac.authorization.k8s.io', kind: 'User', name })),
				},
			],
		})
		await ok('auth reconcile -f -', JSON.stringify(objects(['get'], ['una'])))
		const said = await ok('auth reconcile -f -', JSON.stringify(objects(['list'], ['ulf'])))
		assert.match(said, /role\.rbac\.authorization\.k8s\.io\/r reconciled/)
		for (const verb of ['get', 'list']) {
			for (const user of ['una', 'ulf'])
				assert.equal(await ok(`auth can-i ${verb} services -n shop --as=${user}`), 'yes\n')
		}
		await ok(
			'auth reconcile --remove-extra-permissions --remove-extra-subjects -f -',
			JSON.stringify(objects(['list'], ['ulf'])),
		)
		assert.equal((await run('auth can-i get services -n shop --as=ulf')).out, 'no\n')
		assert.equal((await run('auth can-i list services -n shop --as=una')).out, 'no\n')
	})

	test('a certificate is asked for, approved, signed, and good', async () => {
		const csr = (name: string, subject: string, more: object = {}) => {
			const key = join(home, `${name}.key`)
			execFileSync(
				'openssl',
				[
					'req',
					'-new',
					'-newkey',
					'rsa:2048',
					'-nodes',
					'-keyout',
					key,
					'-out',
					join(home, `${name}.csr`),
					'-subj',
					subject,
				],
				{ stdio: 'ignore' },
			)
			const spec = {
				request: readFileSync(join(home, `${name}.csr`)).toString('base64'),
				signerName: 'kubernetes.io/kube-apiserver-client',
				usages: ['client auth'],
				expirationSeconds: 3600,
				username: 'system:admin',
				...more,
			}
			return JSON.stringify({
				apiVersion: 'certificates.k8s.io/v1',
				kind: 'CertificateSigningRequest',
				metadata: { name },
				spec,
			})
		}
		await ok('create clusterrole asker --verb=create,get --resource=certificatesigningrequests.certificates.k8s.io')
		await ok(
			'create clusterrole approver --verb=update,get --resource=certificatesigningrequests.certificates.k8s.io/approval',
		)
		await ok('create clusterrolebinding asker --clusterrole=asker --user=nick --user=nora')
		await ok('create clusterrolebinding approver --clusterrole=approver --user=nora')
		const asked = csr('nick', '/CN=nick/O=devs')
		await ok('create --as=nick -f -', asked)
		assert.match(await ok('get csr'), /^nick +\S+ +kubernetes\.io\/kube-apiserver-client +nick +60m +Pending$/m)
		assert.match(
			await refused('certificate approve nick --as=nick'),
			/cannot update resource "certificatesigningrequests\/approval"/,
		)
		assert.match(
			await refused('certificate approve nick --as=nora'),
			/user not permitted to approve requests with signerName/,
		)
		await ok(
			'create clusterrolebinding signer --clusterrole=system:certificates.k8s.io:kube-apiserver-client-approver --user=nora',
		)
		assert.match(await ok('certificate approve nick --as=nora'), /nick approved/)
		await until(async () => / Approved,Issued$/m.test(await ok('get csr')))
		const issued = (await ok('get csr nick -o jsonpath={.status.certificate}')).trim()
		const key = readFileSync(join(home, 'nick.key')).toString('base64')
		const config = kubeconfig('nick', { 'client-certificate-data': issued, 'client-key-data': key })
		const who = JSON.parse(await ok('auth whoami -o json', undefined, config)) as {
			status: { userInfo: { username: string; groups: string[] } }
		}
		assert.deepEqual(
			[who.status.userInfo.username, who.status.userInfo.groups],
			['nick', ['devs', 'system:authenticated']],
		)
		assert.match(await refused('get pods', undefined, config), /User "nick" cannot list resource "pods"/)
		assert.match(
			await refused('create -f -', csr('root', '/CN=root/O=system:masters')),
			/system:masters group is not allowed/,
		)
		await ok('create -f -', csr('web', '/CN=web', { usages: ['server auth', 'client auth'] }))
		await ok('certificate approve web')
		await until(async () => /^web .* Approved,Failed$/m.test(await ok('get csr')))
		await ok('create -f -', csr('no', '/CN=no'))
		assert.match(await ok('certificate deny no'), /denied/)
		assert.match(await ok('get csr no'), / Denied$/m)
		const selfSigned = kubeconfig('forged', {
			'client-certificate-data': Buffer.from(forged(home)).toString('base64'),
			'client-key-data': readFileSync(join(home, 'forged.key')).toString('base64'),
		})
		assert.match(await refused('get pods', undefined, selfSigned), /You must be logged in/)
	})

	test('new pods get the way to the API', async () => {
		await ok('run there -n shop --image=web')
		const pod = await client.get(pods, 'shop/there')
		const volume = pod.spec?.volumes?.[0]
		assert.match(volume?.name ?? '', /^kube-api-access-[a-z0-9]{5}$/)
		assert.deepEqual((pod.spec?.containers[0] as unknown as { volumeMounts: unknown } | undefined)?.volumeMounts, [
			{ name: volume?.name, readOnly: true, mountPath: '/var/run/secrets/kubernetes.io/serviceaccount' },
		])
		assert.match(await ok('describe pod there -n shop'), /kube-api-access-\w+:\n +Type: +Projected/)
		const off = { spec: { automountServiceAccountToken: false } }
		await ok(`run off -n shop --image=web --overrides=${JSON.stringify(off)}`)
		assert.equal((await client.get(pods, 'shop/off')).spec?.volumes, undefined)
		const other = { spec: { serviceAccountName: 'nothing' } }
		assert.equal(
			await refused(`run other -n shop --image=web --overrides=${JSON.stringify(other)}`),
			'Error from server (Forbidden): pods "other" is forbidden: error looking up service account shop/nothing: serviceaccount "nothing" not found',
		)
	})
})

/** A certificate for an administrator that no authority of the cluster has signed. */
function forged(home: string): Buffer {
	const [key, out] = [join(home, 'forged.key'), join(home, 'forged.crt')]
	const args = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-keyout', key, '-out', out, '-days', '1']
	execFileSync('openssl', [...args, '-subj', '/CN=root/O=system:masters'], { stdio: 'ignore' })
	return readFileSync(out)
}

/** Waits for what a controller does; a second is long for it. */
async function until(done: () => Promise<boolean>): Promise<void> {
	for (let i = 0; i < 50; i++) if (await done()) return
	assert.fail('it did not come about')
}
