"""Intervals over patients: the table, and what the reports say of it."""

import json
from pathlib import Path

import pytest
from shell import segtool
from tiny import bright_spec, write_model, write_pictures

from segtool.errors import UsageError
from segtool.patients import check_patients, read_patients
from segtool.report import CaseResult, Report, Scores


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "patients.csv"
    path.write_text(text)
    return path


def test_further_columns_and_a_byte_order_mark_are_left_alone(tmp_path: Path) -> None:
    path = table(tmp_path, "\ufeffage,case,patient\n50,a/1,P1\n50,a/2,P1\n")
    assert read_patients(path) == {"a/1": "P1", "a/2": "P1"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,patient\na,P\n", "columns name, patient, wanted case and patient"),
        ("", "columns nothing"),
        ("case,patient\na,\n", "line 2: no patient"),
        ("case,patient\na,P\na,Q\n", "line 3: case 'a' has two patients"),
        ("case,patient\na\n", "line 2: no patient"),
    ],
)
def test_tables_that_say_too_little_are_refused(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_patients(table(tmp_path, text))


def test_a_missing_table_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.csv: cannot be read"):
        read_patients(tmp_path / "gone.csv")


def test_a_case_without_a_patient_is_refused_and_slices_count_for_their_stack() -> None:
    check_patients({}, ["a"])
    check_patients({"a[0]": "P", "b": "P"}, ["a", "b"])
    with pytest.raises(UsageError, match="no patient is given for 1 of the cases, such as 'c'"):
        check_patients({"a": "P"}, ["a", "c"])


def test_slices_of_a_stack_may_belong_to_many_patients() -> None:
    slices = {index: {"tumour": Scores(dice=value, in_reference=True)} for index, value in enumerate((0.2, 0.2, 0.8))}
    case = CaseResult("s", "done", slices=slices)
    report = Report("evaluate", "1", (case,), 1.0, patients={"s[0]": "P", "s[1]": "P", "s[2]": "Q"})
    assert report.intervals == {"draw": "patients", "from": 2}
    assert report.summary["tumour"]["dice_ci95_all"] == pytest.approx([0.2, 0.8])
    assert Report("evaluate", "1", (case,), 1.0).intervals == {"draw": "cases", "from": 3}


def test_predict_and_evaluate_draw_patients_and_name_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_pictures(tmp_path / "in", 4)
    model = write_model(tmp_path / "m.onnx", bright_spec())
    rows = "".join(f"slice_{i},Secret{i % 2}\n" for i in range(4))
    csv = table(tmp_path, f"case,patient\n{rows}")
    runs = {
        "out": ("predict", tmp_path / "in", "-m", model),
        "scores": ("evaluate", tmp_path / "out", tmp_path / "in"),
    }
    for folder, arguments in runs.items():
        answer = segtool(capsys, *arguments, "-o", tmp_path / folder, "--patients", csv)
        assert answer.code == 0, answer.err
        assert "confidence intervals draw whole patients, of 2" in answer.out
        text = (tmp_path / folder / "report.json").read_text()
        assert json.loads(text)["intervals"] == {"draw": "patients", "from": 2}
        assert "Secret" not in text
    (tmp_path / "patients.csv").write_text("case,patient\nslice_0,P\n")
    for arguments in runs.values():
        answer = segtool(capsys, *arguments, "-o", tmp_path / "other", "--patients", csv)
        assert answer.code == 2
        assert "Add them to the file given with --patients" in answer.err
