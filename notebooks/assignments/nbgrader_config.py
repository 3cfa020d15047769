# ruff: noqa
"""Settings of the course; `build_course.py` copies this file to the course folder, from which nbgrader is run."""

c = get_config()

c.CourseDirectory.course_id = "calibration"
c.Execute.timeout = 60  # seconds for a cell; then it is interrupted, fails, and the next cell runs
c.IgnorePattern.pattern = ".*Warning.*"  # what a library prints to stderr is no failure of a test
