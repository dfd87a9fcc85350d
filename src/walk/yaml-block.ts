// Small plain data as YAML in block style, as one would write it into a manifest by hand.

export type Data = string | number | boolean | readonly Data[] | { readonly [key: string]: Data }

/** Without a newline at the end. */
export function blockText(data: Data): string {
	return lines(data).join('\n')
}

function lines(data: Data): string[] {
	if (typeof data !== 'object') return [scalar(data)]
	if (isList(data)) {
		if (data.length === 0) return ['[]']
		return data.flatMap((item) => lines(item).map((line, i) => `${i === 0 ? '- ' : '  '}${line}`))
	}
	const entries = Object.entries(data)
	if (entries.length === 0) return ['{}']
	return entries.flatMap(([key, value]) => {
		const inner = lines(value)
		const flat = typeof value !== 'object' || inner[0] === '{}' || inner[0] === '[]'
		return flat ? [`${scalar(key)}: ${inner[0]}`] : [`${scalar(key)}:`, ...inner.map((line) => `  ${line}`)]
	})
}

function isList(data: readonly Data[] | { readonly [key: string]: Data }): data is readonly Data[] {
	return Array.isArray(data)
}

/** Quoted unless every reader of YAML takes it for this text. */
function scalar(value: string | number | boolean): string {
	if (typeof value !== 'string') return String(value)
	const plain = /^[A-Za-z][\w./-]*$/.test(value) && !/^(true|false|yes|no|on|off|null|y|n)$/i.test(value)
	return plain || /^\d+(\.\d+){3}\/\d+$/.test(value) ? value : JSON.stringify(value)
}
