"""Audit: is a model of one's own calibrated? Asked here or behind a server, or read from logs; one page as answer."""

from calib_utils.studies.audit.asking import Audit as Audit
from calib_utils.studies.audit.asking import Settings as Settings
from calib_utils.studies.audit.asking import audit as audit
from calib_utils.studies.audit.asking import audit_logs as audit_logs
from calib_utils.studies.audit.endpoint import Endpoint as Endpoint
from calib_utils.studies.audit.harness import read_log as read_log
from calib_utils.studies.audit.report import headline as headline
from calib_utils.studies.audit.report import write as write
from calib_utils.studies.audit.result import Answered as Answered
from calib_utils.studies.audit.result import Result as Result
from calib_utils.studies.audit.result import measure as measure
