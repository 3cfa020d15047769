"""Models: a causal language model from a name (bundled weights, local folder or hub id), read when it is needed."""

from calib_utils.models.bundled import BUNDLED as BUNDLED
from calib_utils.models.bundled import CACHE_VARIABLE as CACHE_VARIABLE
from calib_utils.models.bundled import DEFAULT_MODEL as DEFAULT_MODEL
from calib_utils.models.bundled import bundled_model_dir as bundled_model_dir
from calib_utils.models.bundled import cache_dir as cache_dir
from calib_utils.models.device import best_cpu_dtype as best_cpu_dtype
from calib_utils.models.device import resolve_device as resolve_device
from calib_utils.models.device import resolve_dtype as resolve_dtype
from calib_utils.models.identity import describe as describe
from calib_utils.models.identity import find as find
from calib_utils.models.identity import fingerprint as fingerprint
from calib_utils.models.identity import loaded as loaded
from calib_utils.models.identity import version as version
from calib_utils.models.language_model import LanguageModel as LanguageModel
from calib_utils.models.language_model import encode as encode
from calib_utils.models.language_model import needs_weights as needs_weights
from calib_utils.models.loading import load as load
from calib_utils.models.loading import without_bars as without_bars
