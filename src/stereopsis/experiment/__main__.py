"""``python -m stereopsis.experiment``: a process of a comparison, started by `stereopsis.side_by_side`."""

from stereopsis.experiment.jobs import ArmJob, work
from stereopsis.side_by_side import work_for_parent

if __name__ == "__main__":
    work_for_parent(lambda text, console: work(ArmJob.parse(text), console))
