"""Mixins: what a notebook's parameters can do, so that cells are short; `studies.parameters` combines them."""
