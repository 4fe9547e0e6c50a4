"""What a crash or a reboot left in Dagster: runs that nobody works on any more.

Runs are processes of the code location. When that begins, none of the runs that it was given before can be
under way; Dagster would show them as such for a day, and their set would wait to be sealed as long. Started
by hand before the code location (`deploy/`): `python -m bookreader_backup_assets.defs.interrupted`.
"""

from __future__ import annotations

import sys
import warnings

import dagster as dg
from dagster._core.events import JobFailureData, RunFailureReason
from dagster._core.storage.tags import MAX_RETRIES_TAG

_UNFINISHED = [
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def end_interrupted(instance: dg.DagsterInstance) -> list[str]:
    """Report the runs of an earlier life of the code location as failed, and return their ids.

    Each is made once more by Dagster's daemon, unless its job says otherwise, as those that restore do.
    Those that were being cancelled have been. What the command line runs has a process of its own, and is
    left alone.
    """
    ended = []
    for run in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED)):
        if run.remote_job_origin is None:  # the command line's
            continue
        said = "The process that worked on it has ended: a crash, or a restart of this host."
        if run.status == dg.DagsterRunStatus.CANCELING:
            instance.report_run_canceled(run, said)
        else:
            if MAX_RETRIES_TAG not in run.tags:
                instance.add_run_tags(run.run_id, {MAX_RETRIES_TAG: "1"})
            reason = JobFailureData(error=None, failure_reason=RunFailureReason.RUN_WORKER_RESTART)
            instance.report_run_failed(run, said, reason)
        ended.append(run.run_id)
    return ended


def main() -> None:
    """Do so in the instance of `DAGSTER_HOME`."""
    warnings.simplefilter("ignore")
    with dg.DagsterInstance.get() as instance:
        for run in end_interrupted(instance):
            sys.stderr.write(f"run {run} was interrupted\n")


if __name__ == "__main__":
    main()
