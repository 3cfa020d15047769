# ruff: noqa
"""Settings of the course; `build_course.py` copies this file to the course folder, from which nbgrader is run."""

c = get_config()

c.CourseDirectory.course_id = "calibration"
c.Execute.timeout = 60  # seconds for a cell; then it is interrupted, fails, and the next cell runs
# Cells that train models (assignment 7) take about 10 seconds of one core; a machine that grades much at once is slower.
c.Execute.timeout_func = lambda cell: c.Execute.timeout * (4 if "trains" in cell.metadata.get("tags", ()) else 1)
c.IgnorePattern.pattern = ".*Warning.*"  # what a library prints to stderr is no failure of a test
