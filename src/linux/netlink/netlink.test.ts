import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { attributesOf, eachAttribute, elementsOf, readMessages, readString } from './decode.ts'
import { NetlinkEncoder, NLA_F_NESTED, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST } from './encode.ts'

describe('netlink messages', () => {
	it('writes what the kernel documents, byte by byte', () => {
		const e = new NetlinkEncoder(1)
		e.begin(16, NLM_F_ACK)
			.raw(Uint8Array.of(1, 2, 3))
			.u16be(1, 0x1234)
			.string(3, 'lo')
		const mark = e.nest(18)
		e.u8(4, 7).close(mark).end()
		assert.equal(
			e.bytes().toString('hex').match(/.{8}/g)?.join(' '),
			[
				'30000000 10000500 01000000 00000000', // length 48, type 16, REQUEST|ACK, sequence 1
				'01020300',
				'06000100 12340000',
				'07000300 6c6f0000',
				'0c001280', // nested 18
				'05000400 07000000',
			].join(' '),
		)
		assert.equal(e.length, 48)
	})

	const cases: readonly (readonly [string, (e: NetlinkEncoder) => void, string])[] = [
		['u8', (e) => e.u8(1, 255), 'ff'],
		['u16', (e) => e.u16(1, 0x1234), '3412'],
		['u32', (e) => e.u32(1, 0x12345678), '78563412'],
		['u32 of a negative number', (e) => e.u32(1, -3), 'fdffffff'],
		['u32be', (e) => e.u32be(1, 0xfedcba98), 'fedcba98'],
		['u64', (e) => e.u64(1, 0x0102030405060708n), '0807060504030201'],
		['u64be', (e) => e.u64be(1, 0xffffffffffffffffn), 'ffffffffffffffff'],
		['flag', (e) => e.flag(1), ''],
		['string', (e) => e.string(1, 'é'), 'c3a900'],
		['attr', (e) => e.attr(1, Uint8Array.of(9, 8, 7)), '090807'],
	]
	for (const [name, write, value] of cases) {
		it(`writes and reads ${name}`, () => {
			const e = new NetlinkEncoder()
			e.begin(1, 0)
			write(e)
			e.end()
			const [message] = readMessages(e.bytes())
			assert.equal(attributesOf(message!.body).get(1)?.toString('hex'), value)
			assert.equal(e.length % 4, 0)
		})
	}

	it('counts messages, and the answers the kernel owes', () => {
		const e = new NetlinkEncoder()
		e.begin(1, NLM_F_ACK).end().begin(2, 0).end().begin(3, NLM_F_DUMP).end().begin(4, 0x200).end()
		assert.equal(e.messages, 4)
		assert.equal(e.acks, 2)
		assert.deepEqual(
			readMessages(e.bytes()).map((m) => [m.type, m.sequence]),
			[
				[1, 1],
				[2, 2],
				[3, 3],
				[4, 4],
			],
		)
		assert.ok(readMessages(e.bytes()).every((m) => (m.flags & NLM_F_REQUEST) !== 0))
		e.reset().begin(5, 0).end()
		assert.equal(e.sequence, 5)
		assert.equal(e.messages, 1)
	})

	it('refuses what the format cannot hold', () => {
		const e = new NetlinkEncoder()
		e.begin(1, 0)
		assert.throws(() => e.attr(1, new Uint8Array(65532)), /at most 65535 bytes/)
		const mark = e.nest(1)
		e.attr(2, new Uint8Array(60000)).attr(3, new Uint8Array(6000))
		assert.throws(() => e.close(mark), /at most 65535 bytes, this one has/)
	})

	it('refuses what is cut off', () => {
		assert.throws(() => readMessages(Buffer.from('ff000000100005000100000000000000', 'hex')), /does not fit/)
		assert.throws(() => attributesOf(Buffer.from('0900010061', 'hex')), /does not fit/)
		assert.throws(() => attributesOf(Buffer.from('0300010061', 'hex')), /does not fit/)
	})

	it('reads text to its end', () => {
		assert.equal(readString(Buffer.from('lo\0x')), 'lo')
		assert.equal(readString(Buffer.from('lo')), 'lo')
	})

	it('law: what was written is read, in order, whatever it is', () => {
		type Node = { type: number; value: Uint8Array } | { type: number; children: Node[] }
		const plain = { noNullPrototype: true }
		const { tree } = fc.letrec<{ tree: Node; leaf: Node }>((tie) => ({
			tree: fc.oneof(
				{ maxDepth: 3 },
				tie('leaf'),
				fc.record({ type: fc.integer({ min: 1, max: 200 }), children: fc.array(tie('tree'), { maxLength: 4 }) }, plain),
			),
			leaf: fc.record({ type: fc.integer({ min: 1, max: 200 }), value: fc.uint8Array({ maxLength: 40 }) }, plain),
		}))
		const write = (e: NetlinkEncoder, node: Node): void => {
			if ('value' in node) e.attr(node.type, node.value)
			else {
				const mark = e.nest(node.type)
				for (const child of node.children) write(e, child)
				e.close(mark)
			}
		}
		const read = (body: Buffer, like: readonly Node[]): Node[] => {
			const found: Node[] = []
			eachAttribute(body, 0, (type, value) => {
				const node = like[found.length]
				found.push(
					node !== undefined && 'children' in node
						? { type, children: read(value, node.children) }
						: { type, value: new Uint8Array(value) },
				)
			})
			return found
		}
		fc.assert(
			fc.property(fc.array(tree, { maxLength: 5 }), (nodes) => {
				const e = new NetlinkEncoder(16)
				e.begin(9, 0)
				for (const node of nodes) write(e, node)
				e.end()
				const [message] = readMessages(e.bytes())
				assert.deepEqual(read(message!.body, nodes), nodes)
				assert.equal(elementsOf(message!.body).length, nodes.length)
			}),
		)
	})

	it('marks nested attributes as such, unless told not to', () => {
		const e = new NetlinkEncoder()
		e.begin(1, 0)
		const one = e.nest(5)
		e.close(one)
		const two = e.nest(5, 0)
		e.close(two).end()
		assert.equal(e.bytes().readUInt16LE(16 + 2), 5 | NLA_F_NESTED)
		assert.equal(e.bytes().readUInt16LE(20 + 2), 5)
	})
})
