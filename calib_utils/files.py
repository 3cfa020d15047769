"""The names by which `claims` knows `storage`."""

from calib_utils.storage import publish as publish
