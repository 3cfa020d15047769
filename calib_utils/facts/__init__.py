"""Embedded facts: the frozen questions and the script that builds them."""
