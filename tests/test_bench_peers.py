"""Other tools that segment whole cases, by a small one that is really installed: a folder on the path of Python."""

import json
from pathlib import Path

import nibabel
import numpy as np
import pytest

from segtool.bench.peers import load_peer
from segtool.bench.rows import Row
from segtool.errors import MissingDependencyError
from tests.shell import segtool
from tests.tiny import volume_spec, write_model

QUICK = ("--duration", 0.02, "--calls", 3, "--rounds", 2)
TOOL = '''
import nibabel
import numpy as np
from segtool.errors import CaseError, UsageError


class Tool:
    """Labels what is brighter than half; cannot take a case whose name starts with b."""

    name, version, device, precision, why, note, xp = "half", "7", "cpu", "fp32", "", "", np
    network_s = 0.0

    def __init__(self, row):
        if row.batch > 1:
            raise UsageError("half takes one at a time", "Pass --batch 1.")

    def run(self, batch):
        return batch - 0.5

    def close(self):
        pass

    def segment(self, case, target):
        if case.name.startswith("b"):
            raise CaseError("half cannot take it", "Give another file.")
        image = nibabel.load(case.first.path)
        voxels = np.asarray(image.dataobj)
        nibabel.save(nibabel.Nifti1Image((voxels > voxels.max() / 2).astype(np.uint8), image.affine), target)
        self.network_s += 0.25
'''


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tool, and another whose module needs what is not there."""
    site = tmp_path / "site"
    facts = site / "half-7.dist-info"
    facts.mkdir(parents=True)
    (site / "half_tool.py").write_text(TOOL)
    (site / "half_lame.py").write_text("import a_package_that_nobody_has\n")
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: half\nVersion: 7\n")
    (facts / "entry_points.txt").write_text("[segtool.bench_peers]\nhalf = half_tool:Tool\nlame = half_lame:Tool\n")
    # For this process and for those of the rows.
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site))


def write_cases(folder: Path, names: str) -> Path:
    """Volumes with a bright box, and their references."""
    folder.mkdir()
    for name in names:
        voxels = np.zeros((16, 16, 16), np.uint8)
        voxels[4:9, 5:12, 3:10] = 200
        for what, array in (("t1ce", voxels), ("seg", (voxels > 0).astype(np.uint8))):
            nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), folder / f"{name}_{what}.nii.gz")  # type: ignore[no-untyped-call]
    return folder


def test_a_tool_that_segments_cases_is_compared_by_them(
    installed: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_model(tmp_path / "model.onnx", volume_spec())
    cases = write_cases(tmp_path / "cases", "abc")
    answer = segtool(
        capsys, "bench", "-m", model, "--device", "cpu", "--compare", "half", "--cases", cases, "--json", *QUICK
    )
    assert answer.code == 0, answer.err
    found = json.loads(answer.out)
    ours, half = found["rows"]
    assert half["engine"]["engine"] == "half"
    assert [one["cases"] for one in half["case_runs"]] == [2, 2]
    assert half["case_runs"][0]["stage_seconds"] == {"infer": 0.5}
    assert (ours["dice_to_reference"], half["dice_to_reference"], half["dice_to_fp32"]) == (1.0, 1.0, 1.0)
    assert half["case_s"] > 0
    assert half["peak_mb"] > 20
    assert [note for note in found["notes"] if "half cannot take it" in note] == [
        "model half fp32 batch 1: b: half cannot take it. Give another file."
    ]


def test_cases_that_a_tool_cannot_take_share_a_line_and_cost_no_seconds(
    installed: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_model(tmp_path / "model.onnx", volume_spec())
    cases = write_cases(tmp_path / "cases", "b")
    for name in ("b2", "b3"):
        (cases / f"{name}_t1ce.nii.gz").write_bytes((cases / "b_t1ce.nii.gz").read_bytes())
    answer = segtool(
        capsys, "bench", "-m", model, "--device", "cpu", "--compare", "half", "--batch", "1,2", "--cases", cases,
        "--json", "--duration", 0.02, "--calls", 3, "--rounds", 1,
    )  # fmt: skip
    assert answer.code == 1
    assert "half takes one at a time. Pass --batch 1." in answer.err
    found = json.loads(answer.out)
    half = next(row for row in found["rows"] if row["peer"] and row["batch"] == 1)
    assert half["case_s"] is None
    assert half["throughput_per_s"] > 0
    assert any("b and 2 more: half cannot take it" in note for note in found["notes"])


def test_a_tool_whose_module_lacks_a_package_says_how_to_get_it(installed: None, tmp_path: Path) -> None:
    with pytest.raises(MissingDependencyError, match=r"pip install 'segtool\[export\]'"):
        load_peer(Row(tmp_path / "model.onnx", "cpu", None, 1, 1, "lame"))
