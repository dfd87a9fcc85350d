// What a stand-in says to gRPC: it is healthy; any other method is UNIMPLEMENTED, for nobody knows its messages.
// Frames and trailers by the gRPC protocol over HTTP/2, the service by grpc.health.v1.

import type { ServerHttp2Stream } from 'node:http2'
import type { WorkloadPod } from './protocol.ts'

/** One uncompressed message: HealthCheckResponse { status: SERVING }. */
const serving = Buffer.from([0, 0, 0, 0, 2, 0x08, 0x01])
const unimplemented = 12

export function answerGrpc(stream: ServerHttp2Stream, path: string, pod: WorkloadPod): void {
	stream.on('error', () => {})
	stream.resume()
	const headers = {
		':status': 200,
		'content-type': 'application/grpc',
		'x-podwire-stand-in': `${pod.namespace}/${pod.name}`,
	}
	switch (path) {
		case '/grpc.health.v1.Health/Check':
			stream.respond(headers, { waitForTrailers: true })
			stream.on('wantTrailers', () => stream.sendTrailers({ 'grpc-status': '0' }))
			stream.end(serving)
			return
		case '/grpc.health.v1.Health/Watch':
			// It stays healthy: one message, and the stream open until the client ends it.
			stream.respond(headers)
			stream.write(serving)
			return
		default:
			stream.respond(
				{
					...headers,
					'grpc-status': unimplemented,
					'grpc-message': `stand-in of pod ${pod.namespace}/${pod.name}: it answers health checks only`,
				},
				{ endStream: true },
			)
	}
}
