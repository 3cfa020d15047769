"""Models: a causal language model from a name (bundled weights, local folder or hub id), read when it is needed."""

from calib_utils.crossing import on_demand
from calib_utils.models.bundled import BUNDLED as BUNDLED
from calib_utils.models.bundled import CACHE_VARIABLE as CACHE_VARIABLE
from calib_utils.models.bundled import DEFAULT_MODEL as DEFAULT_MODEL
from calib_utils.models.bundled import bundled_model_dir as bundled_model_dir
from calib_utils.models.bundled import cache_dir as cache_dir
from calib_utils.models.bundled import check_name as check_name

# Loaded when they are asked for, and torch with them.
__getattr__ = on_demand(
    __name__,
    {
        "best_cpu_dtype": "device",
        "resolve_device": "device",
        "resolve_dtype": "device",
        "describe": "identity",
        "find": "identity",
        "fingerprint": "identity",
        "loaded": "identity",
        "version": "identity",
        "LanguageModel": "language_model",
        "encode": "language_model",
        "needs_weights": "language_model",
        "load": "loading",
        "without_bars": "loading",
    },
)
