"""Everything that was scored on a run's cases, summed up whole and by class of the cases.

Cases of one patient resemble each other, so that intervals draw whole patients.
"""

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from segtool.scores import Scores
from segtool.summary import SHARES, SOFT, summarise

EVERYTHING = "all"
"""Name of the group that holds all cases."""
_SEED = 0


@dataclass(frozen=True)
class Row:
    """One picture, volume or slice of a stack.

    Args:
        item: Name of the case.
        slice: Index in a stack, None for a picture or volume.
        patient: Whose it is. Used to group, and never written.
        group: Class of the case, such as the kind of tumour; empty where the layout has none.
        scores: By structure.
    """

    item: str
    slice: int | None
    patient: str
    group: str
    scores: Mapping[str, Scores]

    @property
    def name(self) -> str:
        """``case``, or ``case[17]`` for a slice of a stack."""
        return self.item if self.slice is None else f"{self.item}[{self.slice}]"


def groups_of(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """All rows under :data:`EVERYTHING`, then those of each class where there are several."""
    by_group: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        if row.group:
            by_group[row.group].append(row)
    return {EVERYTHING: list(rows), **(dict(sorted(by_group.items())) if len(by_group) > 1 else {})}


def summarise_rows(rows: Sequence[Row], structure: str) -> dict[str, Any]:
    """What :func:`segtool.summary.summarise` says of one structure; for JSON, NaN has become None.

    Further ``patients``, and ``n_dice_0``: cases whose reference has the structure and no voxel of it is found,
    whether the network marked nothing or something else.
    """
    having = [row for row in rows if structure in row.scores]
    patients, scores = [row.patient for row in having], [row.scores[structure] for row in having]
    summary = {
        "patients": len(set(patients)),
        "n_dice_0": sum(bool(one.in_reference) and one.dice == 0 for one in scores),
        **summarise(scores, _SEED, patients),
    }
    return {key: _plain(value) for key, value in summary.items()}


def mean_and_interval(summary: Mapping[str, Any], measure: str) -> tuple[float | None, Sequence[float] | None]:
    """Of :func:`summarise_rows`, over the cases whose reference has the structure; None where undefined."""
    which = "_with_reference" if measure in SHARES or measure in SOFT else ""
    return summary.get(f"{measure}_mean{which}"), summary.get(f"{measure}_ci95{which}")


def _plain(value: Any) -> Any:  # noqa: ANN401 - a count, a number or both ends of an interval
    numbers = value if isinstance(value, list) else [value]
    return None if any(math.isnan(number) for number in numbers) else value
