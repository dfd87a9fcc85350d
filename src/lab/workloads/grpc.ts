// What a stand-in says to gRPC: it is healthy; any other method is UNIMPLEMENTED, for nobody knows its messages.
// Frames and trailers by the gRPC protocol over HTTP/2, the service by grpc.health.v1.

import type { Http2ServerRequest, Http2ServerResponse } from 'node:http2'
import type { WorkloadPod } from './protocol.ts'

/** One uncompressed message: HealthCheckResponse { status: SERVING }. */
const serving = Buffer.from([0, 0, 0, 0, 2, 0x08, 0x01])
const unimplemented = 12

export function answerGrpc(request: Http2ServerRequest, response: Http2ServerResponse, pod: WorkloadPod): void {
	request.on('error', () => {})
	response.on('error', () => {})
	request.resume()
	response.setHeader('content-type', 'application/grpc')
	response.setHeader('x-podwire-stand-in', `${pod.namespace}/${pod.name}`)
	switch (request.url) {
		case '/grpc.health.v1.Health/Check':
			response.addTrailers({ 'grpc-status': '0' })
			response.end(serving)
			return
		case '/grpc.health.v1.Health/Watch':
			// It stays healthy: one message, and the stream open until the client ends it.
			response.write(serving)
			return
		default:
			// Without a message the status may come with the headers.
			response.setHeader('grpc-status', String(unimplemented))
			response.setHeader('grpc-message', `stand-in of pod ${pod.namespace}/${pod.name}: it answers health checks only`)
			response.end()
	}
}
