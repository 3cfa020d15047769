"""Studies: what the notebooks can be given, and what they compute beyond sampling, scoring and training."""

from calib_utils.studies.parameters import STUDIES as STUDIES
from calib_utils.studies.parameters import CattoStudy as CattoStudy
from calib_utils.studies.parameters import ChainStudy as ChainStudy
from calib_utils.studies.parameters import ClaimsStudy as ClaimsStudy
from calib_utils.studies.parameters import LifecycleStudy as LifecycleStudy
from calib_utils.studies.parameters import LineageStudy as LineageStudy
from calib_utils.studies.parameters import QuickstartStudy as QuickstartStudy
from calib_utils.studies.parameters import RepairStudy as RepairStudy
from calib_utils.studies.parameters import SamplingStudy as SamplingStudy
from calib_utils.studies.parameters import WorldStudy as WorldStudy
