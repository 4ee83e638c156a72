"""What the training cases were like, learnt through inference's own reading: the reference of segtool's checks.

For a run it lies in RUN/statistics.json, so that every later export of the run carries it.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from segtool.atomic import write_text
from segtool.case import CaseSource
from segtool.errors import CaseError, ModelError, UsageError
from segtool.loading import load_case
from segtool.model_file import read_spec, write_spec
from segtool.quality.learning import FEWEST, StatisticsLearner
from segtool.scan import scan
from segtool.spec import ModelSpec
from segtool.spec_statistics import StatisticsSpec
from segtool_train.data.base import Item, spread
from segtool_train.run_folder import RunFolder

STATISTICS = "statistics.json"

MOST_CASES = {2: 4000, 3: 400}
"""By rank; spread over all. More would say the same, and take longer to read than the network to export."""

Log = Callable[[str], None]


def learn_statistics(run: RunFolder, model: Path, items: Sequence[Item], log: Log) -> None:
    """Learn from a run's training cases; write into ``model`` and into the run.

    Fewer than :data:`segtool.quality.learning.FEWEST` cases say nothing, and nothing is written.
    """
    forget(run)
    if len(items) < FEWEST:
        log(f"learn   no statistics: training cases {len(items)}, needed {FEWEST}")
        return
    spec = read_spec(model)
    by_patient = sorted(items, key=lambda item: item.patient)
    try:
        statistics = statistics_of([item.source for item in by_patient], spec, log)
    except UsageError as error:
        log(f"learn   no statistics: {error.problem}")
        return
    write_text(run.path / STATISTICS, statistics.model_dump_json() + "\n")
    write_spec(model, spec.model_copy(update={"statistics": statistics}), model)
    log(f"learn   statistics of {statistics.cases} training cases")


def forget(run: RunFolder) -> None:
    """Remove what was learnt earlier."""
    (run.path / STATISTICS).unlink(missing_ok=True)


def with_statistics(run: RunFolder, spec: ModelSpec) -> ModelSpec:
    """``spec`` with the statistics of the run's training cases; as it is where none were learnt.

    Raises:
        ModelError: RUN/statistics.json is damaged.
    """
    path = run.path / STATISTICS
    if not path.is_file():
        return spec
    try:
        statistics = StatisticsSpec.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ModelError(
            f"{path}: damaged ({str(error).splitlines()[0]})",
            "Remove it, or learn it again with `segtool export --card`.",
        ) from error
    return spec.model_copy(update={"statistics": statistics})


def add_statistics(model: Path, folder: Path, output: Path, log: Log) -> StatisticsSpec:
    """Copy any model that has a spec, with statistics of the scans below ``folder`` in it.

    Args:
        model: The ``.onnx`` file; its graph is copied byte by byte.
        folder: Of the scans that the model was trained on.
        output: The file to write; it may be ``model`` itself.
        log: Told of scans that were left out.

    Raises:
        UsageError: Too few scans that the model can take.
        ModelError: ``model`` has no spec.
        OutputError: ``output`` cannot be written.
    """
    spec = read_spec(model)
    sources = scan([folder], spec).cases
    statistics = statistics_of(sources, spec, log)
    write_spec(model, spec.model_copy(update={"statistics": statistics}), output)
    return statistics


def statistics_of(sources: Sequence[CaseSource], spec: ModelSpec, log: Log) -> StatisticsSpec:
    """Of at most :data:`MOST_CASES`, one case in memory at a time.

    Raises:
        UsageError: Too few of them can be read.
    """
    learner = StatisticsLearner(spec)
    for source in spread(sources, MOST_CASES[spec.input.rank]):
        try:
            learner.add(load_case(source, spec))
        except CaseError as error:
            log(f"note    left out of the statistics: {error}")
    return learner.finish()
