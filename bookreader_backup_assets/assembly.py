"""Settings and plan in, this installation out: its runners, codecs, vault and components.

The only place that chooses. No Dagster here, so that the command line works without it.
"""
