// Checks of pods and pod templates. Source: ValidatePodSpec and ValidatePodUpdate in Kubernetes' pkg/apis/core/validation.

import { type JsonObject, sameJson } from '../../kube/schema/json.ts'
import { compareQuantities } from '../../kube/schema/quantity.ts'
import { checkAnnotations, checkLabels, checkSelector } from './metadata.ts'
import { envNameFaults, ipFaults, labelFaults, portNameFaults, qualifiedNameFaults, subdomainFaults } from './names.ts'
import { isSet, objectAt, objectsAt, type Report, textAt, textsAt } from './report.ts'
import { checkPortOrName, protocols } from './service.ts'

export function checkPod(pod: JsonObject, report: Report): void {
	checkPodSpec(objectAt(pod, 'spec'), 'spec', report)
}

/** A template: `restartPolicies` it may have; the owner's rule. */
export function checkPodTemplate(
	template: JsonObject,
	at: string,
	restartPolicies: readonly string[],
	report: Report,
): void {
	const metadata = objectAt(template, 'metadata')
	checkLabels(objectAt(metadata, 'labels'), `${at}.metadata.labels`, report)
	checkAnnotations(objectAt(metadata, 'annotations'), `${at}.metadata.annotations`, report)
	const spec = objectAt(template, 'spec')
	checkPodSpec(spec, `${at}.spec`, report)
	const policy = textAt(spec, 'restartPolicy')
	if (!restartPolicies.includes(policy) && ['Always', 'OnFailure', 'Never'].includes(policy))
		report.notSupported(`${at}.spec.restartPolicy`, policy, restartPolicies)
	if (objectsAt(spec, 'ephemeralContainers').length > 0)
		report.forbidden(`${at}.spec.ephemeralContainers`, 'ephemeral containers not allowed in pod template')
}

function checkPodSpec(spec: JsonObject, at: string, report: Report): void {
	const containers = objectsAt(spec, 'containers')
	if (containers.length === 0) report.required(`${at}.containers`)
	const volumes = checkVolumes(spec, at, report)
	const names = new Set<string>()
	const hostPorts = new Set<string>()
	const isHostNetwork = spec.hostNetwork === true
	for (const list of ['initContainers', 'containers', 'ephemeralContainers'])
		objectsAt(spec, list).forEach((container, i) => {
			const where = `${at}.${list}[${i}]`
			const name = textAt(container, 'name')
			if (name === '') report.required(`${where}.name`)
			else {
				report.invalidFor(`${where}.name`, name, labelFaults(name))
				if (names.has(name)) report.duplicate(`${where}.name`, name)
			}
			names.add(name)
			checkContainer(container, where, { volumes, hostPorts, isHostNetwork, isInit: list === 'initContainers' }, report)
			if (list === 'initContainers') hostPorts.clear() // they do not run at the same time
		})
	const restartPolicy = textAt(spec, 'restartPolicy')
	if (restartPolicy === '') report.required(`${at}.restartPolicy`)
	else report.oneOf(`${at}.restartPolicy`, restartPolicy, ['Always', 'OnFailure', 'Never'])
	checkDns(spec, at, report)
	report.notNegative(`${at}.terminationGracePeriodSeconds`, spec.terminationGracePeriodSeconds)
	const deadline = spec.activeDeadlineSeconds
	if (isSet(deadline)) report.between(`${at}.activeDeadlineSeconds`, deadline, 1, 2147483647)
	for (const field of ['hostname', 'subdomain'])
		if (isSet(spec[field])) report.invalidFor(`${at}.${field}`, spec[field], labelFaults(textAt(spec, field)))
	for (const field of ['nodeName', 'serviceAccountName', 'runtimeClassName', 'priorityClassName'])
		if (isSet(spec[field])) report.invalidFor(`${at}.${field}`, spec[field], subdomainFaults(textAt(spec, field)))
	checkLabels(objectAt(spec, 'nodeSelector'), `${at}.nodeSelector`, report)
	objectsAt(spec, 'hostAliases').forEach((alias, i) => {
		const ip = textAt(alias, 'ip')
		report.invalidFor(`${at}.hostAliases[${i}].ip`, ip, ipFaults(ip))
		textsAt(alias, 'hostnames').forEach((host, j) => {
			report.invalidFor(`${at}.hostAliases[${i}].hostnames[${j}]`, host, subdomainFaults(host))
		})
	})
	checkTolerations(spec, at, report)
	checkSpread(spec, at, report)
	checkAffinity(objectAt(spec, 'affinity'), `${at}.affinity`, report)
	objectsAt(spec, 'readinessGates').forEach((gate, i) => {
		const type = textAt(gate, 'conditionType')
		report.invalidFor(`${at}.readinessGates[${i}].conditionType`, type, qualifiedNameFaults(type))
	})
}

interface Around {
	readonly volumes: ReadonlySet<string>
	readonly hostPorts: Set<string>
	readonly isHostNetwork: boolean
	readonly isInit: boolean
}

function checkContainer(container: JsonObject, at: string, around: Around, report: Report): void {
	const image = container.image
	if (!isSet(image)) report.required(`${at}.image`)
	else if (String(image) !== String(image).trim())
		report.invalid(`${at}.image`, image, 'must not have leading or trailing whitespace')
	report.oneOf(`${at}.imagePullPolicy`, container.imagePullPolicy, ['Always', 'IfNotPresent', 'Never'])
	report.oneOf(`${at}.terminationMessagePolicy`, container.terminationMessagePolicy, ['FallbackToLogsOnError', 'File'])
	checkContainerPorts(container, at, around, report)
	objectsAt(container, 'env').forEach((variable, i) => {
		const name = textAt(variable, 'name')
		if (name === '') report.required(`${at}.env[${i}].name`)
		else report.invalidFor(`${at}.env[${i}].name`, name, envNameFaults(name))
		if (isSet(variable.value) && isSet(variable.valueFrom))
			report.invalid(`${at}.env[${i}].valueFrom`, '', 'may not be specified when `value` is not empty')
	})
	const mounts = new Set<string>()
	objectsAt(container, 'volumeMounts').forEach((mount, i) => {
		const where = `${at}.volumeMounts[${i}]`
		const name = textAt(mount, 'name')
		const path = textAt(mount, 'mountPath')
		if (name === '') report.required(`${where}.name`)
		else if (!around.volumes.has(name)) report.notFound(`${where}.name`, name)
		if (path === '') report.required(`${where}.mountPath`)
		else if (mounts.has(path)) report.invalid(`${where}.mountPath`, path, 'must be unique')
		mounts.add(path)
	})
	for (const name of ['livenessProbe', 'readinessProbe', 'startupProbe'])
		if (isSet(container[name])) {
			if (around.isInit && container.restartPolicy !== 'Always')
				report.forbidden(`${at}.${name}`, 'may not be set for init containers without restartPolicy=Always')
			else checkProbe(objectAt(container, name), `${at}.${name}`, name, report)
		}
	const lifecycle = objectAt(container, 'lifecycle')
	for (const hook of ['postStart', 'preStop'])
		if (isSet(lifecycle[hook])) checkHandler(objectAt(lifecycle, hook), `${at}.lifecycle.${hook}`, report)
	checkResources(objectAt(container, 'resources'), `${at}.resources`, report)
}

function checkContainerPorts(container: JsonObject, at: string, around: Around, report: Report): void {
	const names = new Set<string>()
	objectsAt(container, 'ports').forEach((port, i) => {
		const where = `${at}.ports[${i}]`
		const name = textAt(port, 'name')
		if (name !== '') {
			const faults = portNameFaults(name)
			report.invalidFor(`${where}.name`, name, faults)
			if (names.has(name)) report.duplicate(`${where}.name`, name)
			names.add(name)
		}
		const number = port.containerPort
		if (!isSet(number) || number === 0) report.required(`${where}.containerPort`)
		else report.between(`${where}.containerPort`, number, 1, 65535)
		const hostPort = port.hostPort
		if (isSet(hostPort) && hostPort !== 0) {
			report.between(`${where}.hostPort`, hostPort, 1, 65535)
			const key = `${textAt(port, 'protocol')}/${textAt(port, 'hostIP')}/${hostPort}`
			if (around.hostPorts.has(key)) report.duplicate(`${where}.hostPort`, key)
			around.hostPorts.add(key)
			if (around.isHostNetwork && hostPort !== number)
				report.invalid(`${where}.hostPort`, hostPort, 'must match `containerPort` when `hostNetwork` is true')
		}
		const protocol = textAt(port, 'protocol')
		if (protocol === '') report.required(`${where}.protocol`)
		else report.oneOf(`${where}.protocol`, protocol, protocols)
		if (isSet(port.hostIP)) report.invalidFor(`${where}.hostIP`, port.hostIP, ipFaults(textAt(port, 'hostIP')))
	})
}

function checkProbe(probe: JsonObject, at: string, name: string, report: Report): void {
	checkHandler(probe, at, report)
	for (const field of [
		'initialDelaySeconds',
		'timeoutSeconds',
		'periodSeconds',
		'successThreshold',
		'failureThreshold',
	])
		report.notNegative(`${at}.${field}`, probe[field])
	const successes = probe.successThreshold
	if (name !== 'readinessProbe' && isSet(successes) && successes !== 1 && successes !== 0)
		report.invalid(`${at}.successThreshold`, successes, 'must be 1')
}

const handlers = ['exec', 'httpGet', 'tcpSocket', 'grpc', 'sleep']

function checkHandler(handler: JsonObject, at: string, report: Report): void {
	const given = handlers.filter((name) => handler[name] !== undefined)
	if (given.length === 0) report.required(at, 'must specify a handler type')
	for (const second of given.slice(1)) report.forbidden(`${at}.${second}`, 'may not specify more than 1 handler type')
	const exec = handler.exec
	if (exec !== undefined && textsAt(objectAt(handler, 'exec'), 'command').length === 0)
		report.required(`${at}.exec.command`)
	const get = objectAt(handler, 'httpGet')
	if (handler.httpGet !== undefined) {
		if (!isSet(get.path)) report.required(`${at}.httpGet.path`)
		checkPortOrName(get.port ?? 0, `${at}.httpGet.port`, report)
		report.oneOf(`${at}.httpGet.scheme`, get.scheme, ['HTTP', 'HTTPS'])
	}
	if (handler.tcpSocket !== undefined)
		checkPortOrName(objectAt(handler, 'tcpSocket').port ?? 0, `${at}.tcpSocket.port`, report)
	if (handler.grpc !== undefined) report.between(`${at}.grpc.port`, objectAt(handler, 'grpc').port ?? 0, 1, 65535)
}

function checkResources(resources: JsonObject, at: string, report: Report): void {
	const limits = objectAt(resources, 'limits')
	const requests = objectAt(resources, 'requests')
	for (const [list, amounts] of [
		['limits', limits],
		['requests', requests],
	] as const)
		for (const [name, amount] of Object.entries(amounts)) {
			report.invalidFor(`${at}.${list}`, name, qualifiedNameFaults(name))
			if ((compareQuantities(String(amount), '0') ?? 0) < 0)
				report.invalid(`${at}.${list}[${name}]`, amount, 'must be greater than or equal to 0')
		}
	for (const [name, request] of Object.entries(requests)) {
		const limit = limits[name]
		if (isSet(limit) && (compareQuantities(String(request), String(limit)) ?? 0) > 0)
			report.invalid(`${at}.requests`, request, `must be less than or equal to ${name} limit of ${String(limit)}`)
	}
}

function checkVolumes(spec: JsonObject, at: string, report: Report): ReadonlySet<string> {
	const names = new Set<string>()
	objectsAt(spec, 'volumes').forEach((volume, i) => {
		const where = `${at}.volumes[${i}]`
		const name = textAt(volume, 'name')
		if (name === '') report.required(`${where}.name`)
		else {
			report.invalidFor(`${where}.name`, name, labelFaults(name))
			if (names.has(name)) report.duplicate(`${where}.name`, name)
		}
		names.add(name)
		const sources = Object.keys(volume).filter((key) => key !== 'name' && isSet(volume[key]))
		if (sources.length === 0) report.required(where, 'must specify a volume type')
		for (const second of sources.slice(1))
			report.forbidden(`${where}.${second}`, 'may not specify more than 1 volume type')
		if (volume.hostPath !== undefined && !isSet(objectAt(volume, 'hostPath').path))
			report.required(`${where}.hostPath.path`)
		if (volume.secret !== undefined && !isSet(objectAt(volume, 'secret').secretName))
			report.required(`${where}.secret.secretName`)
		if (volume.configMap !== undefined && !isSet(objectAt(volume, 'configMap').name))
			report.required(`${where}.configMap.name`)
		if (volume.persistentVolumeClaim !== undefined && !isSet(objectAt(volume, 'persistentVolumeClaim').claimName))
			report.required(`${where}.persistentVolumeClaim.claimName`)
	})
	return names
}

function checkDns(spec: JsonObject, at: string, report: Report): void {
	const policy = textAt(spec, 'dnsPolicy')
	if (policy === '') report.required(`${at}.dnsPolicy`)
	else report.oneOf(`${at}.dnsPolicy`, policy, ['ClusterFirst', 'ClusterFirstWithHostNet', 'Default', 'None'])
	const config = objectAt(spec, 'dnsConfig')
	const servers = textsAt(config, 'nameservers')
	if (policy === 'None' && servers.length === 0)
		report.required(
			`${at}.dnsConfig.nameservers`,
			`must provide at least one DNS nameserver when \`dnsPolicy\` is None`,
		)
	if (servers.length > 3)
		report.invalid(`${at}.dnsConfig.nameservers`, servers, 'must not have more than 3 nameservers')
	servers.forEach((ip, i) => {
		report.invalidFor(`${at}.dnsConfig.nameservers[${i}]`, ip, ipFaults(ip))
	})
	const searches = textsAt(config, 'searches')
	if (searches.length > 32)
		report.invalid(`${at}.dnsConfig.searches`, searches, 'must not have more than 32 search paths')
	if (searches.join(' ').length > 2048)
		report.invalid(
			`${at}.dnsConfig.searches`,
			searches,
			'must not have more than 2048 characters (including spaces) in the search list',
		)
	searches.forEach((search, i) => {
		// One dot is the root; parts may hold underscores.
		if (search !== '.')
			report.invalidFor(
				`${at}.dnsConfig.searches[${i}]`,
				search,
				subdomainFaults(search.replace(/\.$/, '').replaceAll('_', '-')),
			)
	})
	objectsAt(config, 'options').forEach((option, i) => {
		if (!isSet(option.name)) report.required(`${at}.dnsConfig.options[${i}]`, 'must not be empty')
	})
}

function checkTolerations(spec: JsonObject, at: string, report: Report): void {
	objectsAt(spec, 'tolerations').forEach((toleration, i) => {
		const where = `${at}.tolerations[${i}]`
		const key = textAt(toleration, 'key')
		const operator = textAt(toleration, 'operator')
		if (key !== '') report.invalidFor(`${where}.key`, key, qualifiedNameFaults(key))
		else if (operator !== 'Exists')
			report.invalid(
				`${where}.operator`,
				operator,
				'operator must be Exists when `key` is empty, which means "match all values and all keys"',
			)
		report.oneOf(`${where}.operator`, operator, ['Equal', 'Exists', 'Gt', 'Lt'])
		if (operator === 'Exists' && isSet(toleration.value))
			report.invalid(`${where}.operator`, toleration.value, "value must be empty when `operator` is 'Exists'")
		report.oneOf(`${where}.effect`, toleration.effect, ['NoExecute', 'NoSchedule', 'PreferNoSchedule'])
		if (isSet(toleration.tolerationSeconds) && toleration.effect !== 'NoExecute')
			report.invalid(
				`${where}.effect`,
				toleration.effect ?? '',
				"effect must be 'NoExecute' when `tolerationSeconds` is set",
			)
	})
}

function checkSpread(spec: JsonObject, at: string, report: Report): void {
	objectsAt(spec, 'topologySpreadConstraints').forEach((constraint, i) => {
		const where = `${at}.topologySpreadConstraints[${i}]`
		report.positive(`${where}.maxSkew`, constraint.maxSkew ?? 0)
		const key = textAt(constraint, 'topologyKey')
		if (key === '') report.required(`${where}.topologyKey`, 'can not be empty')
		else report.invalidFor(`${where}.topologyKey`, key, qualifiedNameFaults(key))
		const unsatisfiable = textAt(constraint, 'whenUnsatisfiable')
		if (unsatisfiable === '') report.required(`${where}.whenUnsatisfiable`)
		else report.oneOf(`${where}.whenUnsatisfiable`, unsatisfiable, ['DoNotSchedule', 'ScheduleAnyway'])
		checkSelector(objectAt(constraint, 'labelSelector'), `${where}.labelSelector`, report)
	})
}

function checkAffinity(affinity: JsonObject, at: string, report: Report): void {
	for (const kind of ['podAffinity', 'podAntiAffinity']) {
		const rules = objectAt(affinity, kind)
		const term = (item: JsonObject, where: string): void => {
			const key = textAt(item, 'topologyKey')
			if (key === '') report.required(`${where}.topologyKey`, 'can not be empty')
			else report.invalidFor(`${where}.topologyKey`, key, qualifiedNameFaults(key))
			checkSelector(objectAt(item, 'labelSelector'), `${where}.labelSelector`, report)
		}
		objectsAt(rules, 'requiredDuringSchedulingIgnoredDuringExecution').forEach((item, i) => {
			term(item, `${at}.${kind}.requiredDuringSchedulingIgnoredDuringExecution[${i}]`)
		})
		objectsAt(rules, 'preferredDuringSchedulingIgnoredDuringExecution').forEach((item, i) => {
			const where = `${at}.${kind}.preferredDuringSchedulingIgnoredDuringExecution[${i}]`
			report.between(`${where}.weight`, item.weight ?? 0, 1, 100)
			term(objectAt(item, 'podAffinityTerm'), `${where}.podAffinityTerm`)
		})
	}
	const node = objectAt(affinity, 'nodeAffinity')
	const required = objectAt(node, 'requiredDuringSchedulingIgnoredDuringExecution')
	const terms = `${at}.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms`
	if (
		isSet(node.requiredDuringSchedulingIgnoredDuringExecution) &&
		objectsAt(required, 'nodeSelectorTerms').length === 0
	)
		report.required(terms, 'must have at least one node selector term')
	objectsAt(required, 'nodeSelectorTerms').forEach((item, i) => {
		checkNodeTerm(item, `${terms}[${i}]`, report)
	})
	objectsAt(node, 'preferredDuringSchedulingIgnoredDuringExecution').forEach((item, i) => {
		const where = `${at}.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[${i}]`
		report.between(`${where}.weight`, item.weight ?? 0, 1, 100)
		checkNodeTerm(objectAt(item, 'preference'), `${where}.preference`, report)
	})
}

function checkNodeTerm(term: JsonObject, at: string, report: Report): void {
	for (const list of ['matchExpressions', 'matchFields'])
		objectsAt(term, list).forEach((expression, i) => {
			const where = `${at}.${list}[${i}]`
			const operator = textAt(expression, 'operator')
			const values = textsAt(expression, 'values')
			switch (operator) {
				case 'In':
				case 'NotIn':
					if (values.length === 0)
						report.required(`${where}.values`, "must be specified when `operator` is 'In' or 'NotIn'")
					break
				case 'Exists':
				case 'DoesNotExist':
					if (values.length > 0)
						report.forbidden(`${where}.values`, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
					break
				case 'Gt':
				case 'Lt':
					if (values.length !== 1)
						report.required(`${where}.values`, "must be specified single value when `operator` is 'Lt' or 'Gt'")
					break
				default:
					report.invalid(`${where}.operator`, operator, 'not a valid selector operator')
			}
			if (list === 'matchExpressions')
				report.invalidFor(`${where}.key`, textAt(expression, 'key'), qualifiedNameFaults(textAt(expression, 'key')))
		})
}

const changeable =
	'`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)'

/** Of a pod's spec hardly anything may change. */
export function checkPodUpdate(before: JsonObject, after: JsonObject, report: Report): void {
	const had = objectAt(before, 'spec')
	const has = objectAt(after, 'spec')
	const deadline = [had.activeDeadlineSeconds, has.activeDeadlineSeconds]
	if (typeof deadline[0] === 'number') {
		if (typeof deadline[1] !== 'number')
			report.invalid(
				'spec.activeDeadlineSeconds',
				deadline[1] ?? null,
				'must not update from a positive integer to nil value',
			)
		else if (deadline[1] > deadline[0])
			report.invalid('spec.activeDeadlineSeconds', deadline[1], 'must be less than or equal to previous value')
	}
	const tolerations = objectsAt(has, 'tolerations')
	for (const toleration of objectsAt(had, 'tolerations')) {
		const { tolerationSeconds: _, ...rest } = toleration
		const isKept = tolerations.some(({ tolerationSeconds: __, ...other }) => sameJson(other, rest))
		if (!isKept)
			report.forbidden('spec.tolerations', 'existing toleration can not be modified except its tolerationSeconds')
	}
	const gates = objectsAt(had, 'schedulingGates').map((gate) => textAt(gate, 'name'))
	const isGated = gates.length > 0
	for (const gate of objectsAt(has, 'schedulingGates'))
		if (!gates.includes(textAt(gate, 'name')))
			report.forbidden('spec.schedulingGates', 'only deletion is allowed, but found new scheduling gates')
	const fixed = (spec: JsonObject): JsonObject => {
		const { activeDeadlineSeconds: _, tolerations: __, schedulingGates: ___, ...rest } = spec
		const gated = isGated ? { nodeSelector: undefined, affinity: undefined } : {}
		const images = (list: string): JsonObject[] => objectsAt(spec, list).map(({ image: _image, ...others }) => others)
		const grace = had.terminationGracePeriodSeconds
		const mayShorten = typeof grace === 'number' && grace < 0 && has.terminationGracePeriodSeconds === 1
		return {
			...rest,
			...gated,
			...(mayShorten ? { terminationGracePeriodSeconds: 1 } : {}),
			containers: images('containers'),
			initContainers: images('initContainers'),
		}
	}
	if (!sameJson(fixed(had), fixed(has)))
		report.forbidden('spec', `pod updates may not change fields other than ${changeable}`)
}
