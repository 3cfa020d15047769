"""The exact world: models trained on the generated questions of `data.world`, held against the known truth.

==============  =================================================================================================
module          what is in it
==============  =================================================================================================
stack           models of all training seeds, computed side by side
training        cross-entropy on fresh text, rewards, preferences, CATTO, CFT and RCFT
exact           class masses by enumeration, no sampling; intermediate confidence
mechanism       tilts, loss gap and the error that it bounds, for tables of any model; needs no torch
probe           how easily a model learns its own distribution of answers
house           a model of the world in the hands of the sampler, records, semantics, metrics and plots
study           the tables of notebook 07
statements      what the tables say about each claim
pictures        their pictures
==============  =================================================================================================
"""
