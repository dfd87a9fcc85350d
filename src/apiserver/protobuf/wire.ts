// Protobuf's wire format: tags, varints, lengths. Bounds are checked at every step; a fault says where it is.

import { Failure } from '../../base/failure.ts'

/** Reads one message. Positions in failures count from the start of the whole body. */
export class WireReader {
	readonly bytes: Uint8Array
	position: number
	readonly end: number
	private readonly view: DataView

	constructor(bytes: Uint8Array, position = 0, end = bytes.length, view?: DataView) {
		this.bytes = bytes
		this.position = position
		this.end = end
		this.view = view ?? new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
	}

	get done(): boolean {
		return this.position >= this.end
	}

	/** A varint as a number: exact to 2^53, negative where it stands for a negative int64. */
	varint(where: string): number {
		let low = 0
		let high = 0
		for (let i = 0; i < 10; i++) {
			if (this.position >= this.end) throw malformed(where, this.position, 'a number is cut off')
			const byte = this.bytes[this.position++]!
			const bits = byte & 0x7f
			if (i < 4) low |= bits << (7 * i)
			else if (i === 4) {
				low |= bits << 28
				high |= bits >> 4
			} else if (i < 9) high |= bits << (7 * i - 32)
			else high |= bits << 31
			if (byte < 0x80) return high * 4294967296 + (low >>> 0)
		}
		throw malformed(where, this.position, 'a number is longer than ten bytes')
	}

	double(where: string): number {
		if (this.position + 8 > this.end) throw malformed(where, this.position, 'a double is cut off')
		const value = this.view.getFloat64(this.position, true)
		this.position += 8
		return value
	}

	/** A reader of the next length-delimited field. */
	nested(where: string): WireReader {
		const length = this.varint(where)
		if (length < 0 || this.position + length > this.end)
			throw malformed(where, this.position, `it says ${length} bytes, ${this.end - this.position} are left`)
		const start = this.position
		this.position += length
		return new WireReader(this.bytes, start, this.position, this.view)
	}

	rest(): Uint8Array {
		const rest = this.bytes.subarray(this.position, this.end)
		this.position = this.end
		return rest
	}

	text(): string {
		const text = Buffer.from(
			this.bytes.buffer,
			this.bytes.byteOffset + this.position,
			this.end - this.position,
		).toString()
		this.position = this.end
		return text
	}

	/** Passes over a field that is not known. */
	skip(wireType: number, where: string, depth = 0): void {
		switch (wireType) {
			case 0:
				this.varint(where)
				return
			case 1:
				this.forward(8, where)
				return
			case 2:
				this.nested(where)
				return
			case 3: {
				if (depth > 50) throw malformed(where, this.position, 'groups are nested too deep')
				while (true) {
					const tag = this.varint(where)
					if ((tag & 7) === 4) return
					this.skip(tag & 7, where, depth + 1)
				}
			}
			case 5:
				this.forward(4, where)
				return
			default:
				throw malformed(where, this.position, `wire type ${wireType} does not exist`)
		}
	}

	private forward(count: number, where: string): void {
		if (this.position + count > this.end) throw malformed(where, this.position, 'a field is cut off')
		this.position += count
	}
}

export function malformed(where: string, position: number, why: string): Failure {
	return new Failure(
		'BadRequest',
		`cannot read the protobuf body at ${where || 'its start'} (byte ${position}): ${why}`,
		{
			field: where,
			position,
		},
	)
}

/**
 * Writes a message from its end to its start, so that the length of what is nested is known when it is needed.
 * Callers write fields in descending order, a field's content before its tag.
 */
export class WireWriter {
	private buffer: Buffer = Buffer.allocUnsafe(1024)
	private start = 1024

	/** Bytes written so far. */
	get size(): number {
		return this.buffer.length - this.start
	}

	private reserve(count: number): number {
		if (this.start < count) {
			const size = this.size
			const bigger = Buffer.allocUnsafe(Math.max(this.buffer.length * 2, size + count))
			this.buffer.copy(bigger, bigger.length - size, this.start)
			this.start = bigger.length - size
			this.buffer = bigger
		}
		this.start -= count
		return this.start
	}

	varint(value: number): void {
		if (value >= 0 && value < 0x80) {
			const at = this.reserve(1) // first: it may replace the buffer
			this.buffer[at] = value
			return
		}
		// Split by hand: bitwise operators see only 32 bits.
		let high = Math.floor(value / 4294967296) >>> 0
		let low = (value - Math.floor(value / 4294967296) * 4294967296) >>> 0
		const bytes: number[] = []
		while (high !== 0 || low > 0x7f) {
			bytes.push((low & 0x7f) | 0x80)
			low = ((low >>> 7) | (high << 25)) >>> 0
			high >>>= 7
		}
		bytes.push(low)
		const at = this.reserve(bytes.length)
		for (let i = 0; i < bytes.length; i++) this.buffer[at + i] = bytes[i]!
	}

	double(value: number): void {
		const at = this.reserve(8)
		this.buffer.writeDoubleLE(value, at)
	}

	bytes(value: Uint8Array): void {
		const at = this.reserve(value.length)
		this.buffer.set(value, at)
	}

	text(value: string): void {
		const length = Buffer.byteLength(value)
		const at = this.reserve(length)
		this.buffer.write(value, at, length, 'utf8')
	}

	tag(number: number, wireType: number): void {
		this.varint(number * 8 + wireType)
	}

	/** Length and tag of what was written since `size` was `before`. */
	close(number: number, before: number): void {
		this.varint(this.size - before)
		this.tag(number, 2)
	}

	finish(): Uint8Array {
		return new Uint8Array(this.buffer.subarray(this.start))
	}
}
