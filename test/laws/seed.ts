// The laws meet the same clusters in every run, so that who changes something else is not told of an old fault by chance.
// PODWIRE_LAW_SEED=n takes others, `random` others each time: with a random one a failure names the seed it had.

import fc from 'fast-check'

const given = process.env.PODWIRE_LAW_SEED
if (given !== 'random') fc.configureGlobal({ ...fc.readConfigureGlobal(), seed: Number(given ?? 1) })
