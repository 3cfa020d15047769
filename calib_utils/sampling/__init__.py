"""Sampling: exact draws from a model, each distinct prefix computed once; probabilities of given continuations."""

from calib_utils.sampling.sampler import sample as sample
from calib_utils.sampling.score import option_logprobs as option_logprobs
