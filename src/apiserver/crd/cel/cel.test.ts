// Expressions and what they are: values, faults of types (refused before they run) and of values.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { compile } from './compile.ts'
import { kubernetesFunctions } from './kubernetes.ts'
import { CelCompileError } from './syntax.ts'
import { type Type, types } from './types.ts'
import { CelBudgetError, CelError, Entries, type Key, List, ListValue, MapValue, Uint, type Value } from './values.ts'

/** JSON with bigint as CEL values and back. */
type Plain = null | boolean | bigint | number | string | readonly Plain[] | { readonly [key: string]: Plain }
function valueFrom(plain: Plain): Value {
	if (Array.isArray(plain)) return new List((plain as readonly Plain[]).map(valueFrom))
	if (typeof plain !== 'object' || plain === null) return plain as Value
	return new Entries(new Map<Key, Value>(Object.entries(plain).map(([key, value]) => [key, valueFrom(value as Plain)])))
}
function plainFrom(value: Value): unknown {
	if (value instanceof ListValue) return [...value].map(plainFrom)
	if (value instanceof MapValue)
		return Object.fromEntries([...value.keys()].map((key) => [String(key), plainFrom(value.get(key)!)]))
	return value instanceof Uint ? `${value.value}u` : value
}

function run(source: string, self: Plain, type: Type = types.dyn, work = 1_000_000): unknown {
	const program = compile(source, new Map([['self', type]]), kubernetesFunctions())
	return plainFrom(program.evaluate({ self: valueFrom(self) }, { left: work }))
}

const values: readonly (readonly [source: string, self: Plain, wanted: unknown])[] = [
	// operators
	['1 + 2 * 3 - 4 / 2 % 3', null, 5n],
	['-9223372036854775808', null, -9223372036854775808n],
	['- -1', null, 1n],
	['!!true', null, true],
	['1u + 2u', null, '3u'],
	['0x1F + 1', null, 32n],
	['.5 + 1e3', null, 1000.5],
	["'a' + \"b\" + '''c''' + r'\\d'", null, 'abc\\d'],
	["'\\u00e9\\x41\\101'", null, 'éAA'],
	["b'\\xff' == b'\\377'", null, true],
	['1 < 2 && 2.0 <= 2.5 && "a" < "b" && 1 < 1.5', null, true],
	['dyn(1) == 1.0', null, true],
	['true ? 1 : 1 / 0', null, 1n],
	// one side that decides is enough
	['1 / 0 == 1 || true', null, true],
	['1 / 0 == 1 && false', null, false],
	['[1, 2].all(x, 1 / 0 == x || x > 0)', null, true],
	['[0, 1].exists(x, 1 / x == 1)', null, true],
	['[0, 1].all(x, 1 / x == 2)', null, false],
	// fields
	['has(self[0].a)', [{ a: 1n }], true],
	['has(self.a) || has(self.b)', { b: null }, true],
	['self.b == null', { b: null }, true],
	['"x" in self', { x: 1n }, true],
	['self.`a-b`', { 'a-b': 1n }, 1n],
	['self.?a.orValue(3)', {}, 3n],
	['self.?a.b.orValue("x")', { a: { b: 'y' } }, 'y'],
	['self[?0].orValue(9)', [], 9n],
	['[?self.?a, 2]', { a: 1n }, [1n, 2n]],
	['{?"a": optional.of(1), ?"b": optional.none()}', null, { a: 1n }],
	['optional.of(1).optMap(x, x + 1).value()', null, 2n],
	['optional.none().or(optional.of(2)).value()', null, 2n],
	// macros
	['[1, 2, 3].filter(x, x > 1).map(x, x * 2)', null, [4n, 6n]],
	['[1, 2, 3].map(x, x > 1, x * 2)', null, [4n, 6n]],
	['[1, 2].exists_one(x, x == 2) && [1, 2].existsOne(x, x == 2)', null, true],
	['["a", "b"].all(i, v, i < 2 && v != "c")', null, true],
	['{"a": 1, "b": 2}.transformMap(k, v, v > 1, v + 1)', null, { b: 3n }],
	['["a"].transformList(i, v, v + string(i))', null, ['a0']],
	['cel.bind(x, 3, x * x)', null, 9n],
	['{"a": 1}.exists(k, k == "a")', null, true],
	// texts are counted in code points
	['"é𝒳x".size() == 3 && "é𝒳x".substring(2) == "x" && "a𝒳b".indexOf("b") == 2', null, true],
	['"A, b".lowerAscii().split(", ").join("-").replace("a", "x")', null, 'x-b'],
	['"hello".charAt(1) + "hello".substring(1, 3)', null, 'eel'],
	['"hello".lastIndexOf("l")', null, 3n],
	['"\\ufeff a ".trim() == "\\ufeff a"', null, true],
	['"%s|%d|%.2f|%x|%b|%%|%s".format(["a", 3, 1.5, 255, true, [1, 2]])', null, 'a|3|1.50|ff|1|%|[1, 2]'],
	['strings.quote("a\\"b")', null, '"a\\"b"'],
	['"ABC".matches("(?i)^abc$") && "x1".find("[0-9]") == "1"', null, true],
	['"a1b22".findAll("[0-9]+")', null, ['1', '22']],
	// conversions
	['[int("5"), int(5.9), int(5u), uint(5) == 5u ? 1 : 0]', null, [5n, 5n, 5n, 1n]],
	['string(1.0) + string(true) + string(b"x") + string(1e100)', null, '1truex1e+100'],
	['type(1) == int && type([]) == list', null, true],
	// times
	['duration("1h30m") == duration("5400s") && duration("-1.5s") < duration("0s")', null, true],
	['string(duration("90s")) + string(duration("1.5s"))', null, '90s1.5s'],
	['timestamp("2026-01-01T00:00:00.000000001Z") > timestamp("2026-01-01T00:00:00Z")', null, true],
	['timestamp("2026-01-01T02:00:00Z").getHours("America/New_York")', null, 21n],
	['(timestamp("2026-01-02T00:00:00Z") - timestamp("2026-01-01T00:00:00Z")).getHours()', null, 24n],
	// libraries of Kubernetes
	['sets.contains([1, 2], [2]) && sets.equivalent([1, 1], [1]) && !sets.intersects([1], [2])', null, true],
	['[1, 2].sum() == 3 && ["b", "a"].min() == "a" && [1, 2].isSorted() && [1, 2, 1].lastIndexOf(1) == 2', null, true],
	['[isURL("https://a"), isURL("/a"), isURL("a"), isURL("../a"), isURL("")]', null, [true, true, false, false, false]],
	['url("https://u@ex.com:80/a?x=1&x=2").getHost() + url("http://[::1]:80/").getHostname()', null, 'ex.com:80::1'],
	['url("https://e/p?x=1&x=2").getQuery()["x"]', null, ['1', '2']],
	[
		'quantity("1Gi").isGreaterThan(quantity("1G")) && quantity("1500m").sub(1).compareTo(quantity("500m")) == 0',
		null,
		true,
	],
	['[isIP("10.0.0.1"), isIP("::1"), isIP("10.0.0"), isIP("::ffff:1.2.3.4")]', null, [true, true, false, false]],
	['ip("10.0.0.1").family() == 4 && ip("fe80::1").isLinkLocalUnicast() && !ip.isCanonical("::0")', null, true],
	['cidr("10.0.0.0/8").containsIP("10.2.3.4") && cidr("10.0.0.0/8").containsCIDR(cidr("10.1.0.0/16"))', null, true],
	['[isCIDR("10.0.0.1/8"), isCIDR("10.0.0.0/33"), isCIDR("10.0.0.1")]', null, [true, false, false]],
	['string(cidr("10.1.2.3/8").masked())', null, '10.0.0.0/8'],
	['format.dns1123Label().validate("A").hasValue() && !format.dns1123Label().validate("a").hasValue()', null, true],
	// An optional is never null: a rule that asks so is always false, here as on the real server.
	['format.dns1123Label().validate("a") == null', null, false],
	['semver("1.2.3").isLessThan(semver("v1.10", true)) && !isSemver("1.2")', null, true],
]

test('values', () => {
	for (const [source, self, wanted] of values) assert.deepEqual(run(source, self), wanted, source)
})

const failing: readonly (readonly [source: string, self: Plain, words: RegExp])[] = [
	['1 / 0', null, /^division by zero$/],
	['9223372036854775807 + 1', null, /^integer overflow$/],
	['self.a', {}, /^no such key: a$/],
	['self[3]', [1n], /^index out of bounds: 3$/],
	['[0].all(x, 1 / x == 1)', null, /^division by zero$/],
	['self + 1', 'a', /^no such overload$/],
	['"a".matches("(?=x)")', null, /./],
	['optional.none().value()', null, /^optional\.none\(\) dereference$/],
	['ip("x")', null, /parse error/],
	['{"a": 1, "a": 2}', null, /^Failed with repeated key: a$/],
]

test('faults of values', () => {
	for (const [source, self, words] of failing)
		assert.throws(
			() => run(source, self),
			(e) => e instanceof CelError && words.test(e.message),
			source,
		)
})

const object: Type = {
	kind: 'object',
	fields: new Map<string, Type>([
		['name', types.string],
		['ports', types.list(types.int)],
	]),
}
const refused: readonly (readonly [source: string, words: string])[] = [
	['self.nam', "ERROR: <input>:1:5: undefined field 'nam'\n | self.nam\n | ....^"],
	['has(self.nam)', "undefined field 'nam'"],
	['self.name == 1', "found no matching overload for '_==_' applied to '(string, int)'"],
	['self.ports.exists(p, p == "x")', "found no matching overload for '_==_' applied to '(int, string)'"],
	['self.name.foo()', "undeclared reference to 'foo'"],
	['self.name.startsWith(1)', "found no matching overload for 'startsWith' applied to 'string.(int)'"],
	['other', "undeclared reference to 'other'"],
	['true ? 1 : "a"', "found no matching overload for '_?_:_' applied to '(bool, int, string)'"],
	['[1, "a"]', "expected type 'int' but found 'string'"],
	['self.name && true', "found no matching overload for '_&&_'"],
	['1 +', "Syntax error: mismatched input '<EOF>'"],
	['self.name == "a', 'Syntax error: unterminated string'],
	['has(self)', 'invalid argument to has() macro'],
	['for', 'Syntax error: reserved identifier: for'],
	['self.name.all(x, true)', 'cannot be range of a comprehension'],
	['('.repeat(400), 'expression recursion limit exceeded'],
	['#', 'Syntax error: token recognition error'],
]

test('faults of types and of writing', () => {
	for (const [source, words] of refused)
		assert.throws(
			() => compile(source, new Map([['self', object]]), kubernetesFunctions()),
			(e) => e instanceof CelCompileError && e.message.includes(words),
			`${source.slice(0, 40)}: ${words}`,
		)
})

test('work is bounded', () => {
	const list = Array.from({ length: 2000 }, (_, i) => BigInt(i))
	assert.throws(() => run('self.all(a, self.all(b, a + b >= 0))', list), CelBudgetError)
	// What fails may be absorbed; what takes too long may not.
	assert.throws(() => run('self.all(a, self.all(b, a + b >= 0)) || true', list), CelBudgetError)
	assert.equal(run('self.all(a, a >= 0)', list), true)
})

test('sets and lists with keys are compared by what they hold', () => {
	const set = (...items: Value[]) => new List(items, { by: 'value' })
	const program = compile(
		'self == other',
		new Map([
			['self', types.dyn],
			['other', types.dyn],
		]),
		kubernetesFunctions(),
	)
	const same = (a: Value, b: Value) => program.evaluate({ self: a, other: b }, { left: 1000 })
	assert.equal(same(set('a', 'b'), set('b', 'a')), true)
	assert.equal(same(set('a', 'b'), set('b', 'c')), false)
	assert.equal(same(new List(['a', 'b']), new List(['b', 'a'])), false)
})
