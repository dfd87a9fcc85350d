// exec on a terminal: a pseudo-terminal made here, the program on its far end.

import type { ExecRequest, ExecResult } from '../../apiserver/kubelet.ts'
import { Failure } from '../../base/failure.ts'
import type { ProgramRun } from '../workloads/protocol.ts'

export async function runOnTerminal(
	_run: ProgramRun,
	_netns: string,
	_lab: string,
	_request: ExecRequest,
): Promise<ExecResult> {
	throw new Failure('BadRequest', 'a terminal is not supported yet: run the command without -t')
}
