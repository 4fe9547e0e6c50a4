"""Everything Dagster, and nothing else.

No `from __future__ import annotations` in this folder: Dagster reads the annotations of assets and checks
as they are, and takes a string for no config.
"""
