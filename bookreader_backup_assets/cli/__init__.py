"""The command line. Nothing here imports Dagster unless the command launches a run."""
