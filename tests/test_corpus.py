"""The seeded corpus: what fuzzing found, and what must be refused before any work; see ``tests/corpus``."""

import importlib
import re
import time
import tracemalloc
from pathlib import Path

import pytest
from corpus import Row

ROOMS = sorted(path.stem for path in (Path(__file__).parent / "corpus").glob("*.py") if path.stem != "__init__")
ROWS: dict[str, Row] = {
    f"{room}: {name}": row
    for room in ROOMS
    for name, row in importlib.import_module(f"corpus.{room}").ROWS.items()
}  # fmt: skip


@pytest.mark.parametrize("name", ROWS)
def test_a_known_input_is_read_or_refused_in_one_line_without_much_work(name: str, tmp_path: Path) -> None:
    row = ROWS[name]
    given = row.write(tmp_path)
    start = time.process_time()
    tracemalloc.start()
    try:
        if row.words:
            with pytest.raises(row.error) as caught:
                row.read(given)
            said = str(caught.value)
            assert caught.type is row.error, said
            assert re.search(row.words, said), said
            assert "\n" not in said
        else:
            row.read(given)
        most_mb = tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()
    assert most_mb <= row.most_mb
    assert time.process_time() - start <= row.most_s
