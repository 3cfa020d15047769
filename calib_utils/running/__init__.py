"""Running: the command line, notebooks through papermill, several at once, and what is known of a run."""
