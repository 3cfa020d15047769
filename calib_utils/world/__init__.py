"""The exact world: generated questions whose true distribution of answers is known, and models trained on it.

==============  =================================================================================================
`vocabulary`    words and their tokenizer
`answers`       names with an exact posterior over answers, several surface forms an answer, multiple choice
`lookups`       chains of k table look-ups, answered at once or step by step
`stack`         models of all training seeds, computed side by side
`training`      cross-entropy on fresh text, rewards, preferences, CATTO, RCFT
`exact`         class masses by enumeration, no sampling
`mechanism`     loss gap, tilts, learnability probe, intermediate confidence
`study`         the tables of notebook 07
==============  =================================================================================================
"""
