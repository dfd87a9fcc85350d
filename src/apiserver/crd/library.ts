// What works on schemas, in one piece: loaded with the first definition and not before.

export { checkDefinition, isProtected } from './check-definition.ts'
export { servedOf } from './kind.ts'
