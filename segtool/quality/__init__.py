"""Whether a scan is what the model was trained for, and whether a result can be one: a line for each doubt.

Nothing here changes a result. What needs no knowledge of the training is always looked at; the rest where the model's
spec carries statistics of it. A line names the thing, what was found and wanted, and what to do.
"""

from dataclasses import dataclass

from segtool.case import Case, LabelMap
from segtool.quality.grids import grid_warnings
from segtool.quality.intensities import Known, equal_warnings, exchange_warnings, fault_warning, unlike_warning
from segtool.quality.learning import plane_of
from segtool.quality.look import Look, looks
from segtool.quality.masks import mask_facts, mask_warnings
from segtool.spec import ModelSpec


@dataclass(frozen=True)
class Seen:
    """A scan that was looked at: a line for each doubt, and what its result is held against."""

    lines: list[str]
    looks: list[Look | None]


class Quality:
    """Looks at scans before the network has seen them, and at their label maps after. Safe to share among threads.

    Args:
        spec: Of the model.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self._spec, self._statistics, self._names = spec, spec.statistics, spec.channel_names
        self._known = Known.all_of(spec.statistics) if spec.statistics else []

    def of_scan(self, case: Case) -> Seen:
        """Look at a case as loaded for the model."""
        spec, statistics, names = self._spec, self._statistics, self._names
        plane = plane_of(case, spec) if case.geometry.kind == "volume" and spec.input.rank == 2 else None
        lines = list(grid_warnings(case.geometry, statistics.grid if statistics else None, plane))
        found = looks(case, spec)
        elsewhere = list(equal_warnings(case, names, found))
        faults = [fault_warning(name, look) for name, look in zip(names, found, strict=True)]
        # What is broken fits no place, its own least of all.
        if statistics is not None and not elsewhere and not any(faults):
            elsewhere += exchange_warnings(names, found, self._known, statistics)
        for index, (look, line) in enumerate(zip(found, faults, strict=True)):
            # What lies in another channel's place is unlike the training anyhow.
            if look is not None and line is None and self._known and not elsewhere:
                line = unlike_warning(names[index], look, self._known[index], case.data.dtype)
            lines += [line] if line else []
        return Seen(lines + elsewhere, found)

    def of_result(self, case: Case, seen: Seen, label_map: LabelMap) -> list[str]:
        """A line for each doubt about the label map."""
        first = seen.looks[0]
        if first is None:
            return []
        facts = mask_facts(case, label_map.labels, first.cut)
        return list(mask_warnings(facts, self._statistics.mask if self._statistics else None))
