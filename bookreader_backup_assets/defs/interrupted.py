"""What a crash or a reboot left in Dagster: runs that nobody works on any more.

Runs are processes of the code location. Those that an earlier life of it was working on have ended with it;
Dagster would show them as under way for a day, and their set would wait as long to be sealed. `deploy/` calls
this some seconds after the code location has begun to serve:

    python -m bookreader_backup_assets.defs.interrupted BEGAN

BEGAN is when it was started, in seconds since the epoch. Not earlier: Dagster's daemon asks the code location
for what it is to make once more, and asks once only.
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


def end_interrupted(instance: dg.DagsterInstance, began: float) -> list[str]:
    """Report runs that were launched before `began` (seconds since the epoch) as failed; return their ids.

    Each is made once more by Dagster's daemon, unless its job says otherwise, as those that restore do.
    Those that were being cancelled have been. What the command line runs has a process of its own, and is
    left alone.
    """
    ended = []
    for run in instance.get_runs(dg.RunsFilter(statuses=_UNFINISHED)):
        launched = instance.get_run_stats(run.run_id).launch_time
        if run.remote_job_origin is None or launched is None or launched >= began:
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


def main(began: str) -> None:
    """Do so in the instance of `DAGSTER_HOME`."""
    warnings.simplefilter("ignore")
    with dg.DagsterInstance.get() as instance:
        for run in end_interrupted(instance, float(began)):
            sys.stderr.write(f"run {run} was interrupted\n")


if __name__ == "__main__":
    main(sys.argv[1])
