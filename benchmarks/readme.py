"""Fills the README: transcripts from commands that are run now, tables from ``benchmarks/results/``.

A block starts with ``<!-- run: COMMAND -->`` or ``<!-- results: NAME -->`` and ends with ``<!-- end -->``; what lies
between is replaced. Commands run one after the other in one empty folder, with the installed segtool.

Run: ``python -m benchmarks.readme``
"""

import json
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.common import RESULTS

README = Path(__file__).resolve().parent.parent / "README.md"
BLOCK = re.compile(r"(<!-- (run|results): (.+?) -->\n).*?(<!-- end -->)", re.DOTALL)
WIDTH = 110
BARE = {"cpu": "ONNX Runtime session", "openvino": "OpenVINO model"}


def transcript(command: str, folder: Path) -> str:
    """A fenced block with what ``command`` prints, stdout and stderr together."""
    words = shlex.split(command)
    assert words[0] == "segtool"
    done = subprocess.run(
        [sys.executable, "-m", "segtool", *words[1:]],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    # Where this checkout and this Python lie is nobody's business, nor is the kernel.
    text = done.stdout.replace(sys.prefix, ".venv").replace(str(README.parent), ".")
    text = re.sub(r"(platform +Linux) \S+", r"\1", text)
    lines = [line.rstrip() for line in text.rstrip().splitlines()]
    code = [f"(exit code {done.returncode})"] if done.returncode else []
    return "\n".join(["```", f"$ {command}", *lines, *code, "```", ""])


def bundled_model(result: dict[str, Any]) -> str:
    """Dice by kind of tumour on the test patients."""
    lines = [
        "| test patients | slices | patients | Dice (95 % CI over patients) | IoU | precision | recall |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in result["test"].items():
        low, high = one["dice_ci95_over_patients"]
        lines.append(
            f"| {name} | {one['slices']} | {one['patients']} | {one['dice']:.3f} ({low:.3f} to {high:.3f}) "
            f"| {one['iou']:.3f} | {one['precision']:.3f} | {one['recall']:.3f} |"
        )
    return "\n".join(lines) + "\n"


def first_mask(startup: dict[str, Any]) -> list[str]:
    """The first mask from a cold start, beside other tools' start."""
    median = {name: one["median"] for name, one in startup["seconds"].items()}
    ours = "segtool predict slice.png"
    others = [name for name in median if name.startswith(("python -c 'import", "nnUNet"))]
    return [
        f"| first mask of one small PNG, whole process | {median[ours]:.2f} s | `{name}` {median[name]:.2f} s "
        f"| {median[ours] / median[name]:.2f} of its time |"
        for name in others
    ]


def speed(_: dict[str, Any]) -> str:
    """Start-up and the folder of slices, with the machine they ran on."""
    folder, startup = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("folder", "startup"))
    machine = folder["machine"]
    rows = ["| measured | segtool | beside it | ratio |", "|---|---|---|---|"]
    rows += [
        f"| {row['what']}, batch {row['batch']} | {row['segtool_predict_s']['median']:.2f} s "
        f"| bare {BARE[row['device']]} on ready tensors {row['bare_session_s']['median']:.2f} s "
        f"| {row['rate_of_predict_to_bare_session']:.2f} of its rate |"
        for row in folder["rows"]
    ]
    rows += [
        f"| start-up, `--help` | {startup['seconds']['segtool --help']['median'] * 1000:.0f} ms "
        f"| bare Typer application {startup['seconds']['bare Typer --help']['median'] * 1000:.0f} ms "
        f"| {startup['ratio_to_bare_typer']:.2f} of its time |",
        *first_mask(startup),
        "",
        f"{machine['cores']} cores of {machine['processor']}, medians, both sides in turn in one run; from "
        "`python -m benchmarks.folder` and `python -m benchmarks.startup`.",
    ]
    return "\n".join(rows) + "\n"


def whole_case(result: dict[str, Any]) -> str:
    """One BraTS-like case by every tool, a table a network."""
    return "\n".join(one_network(name, one) for name, one in result["networks"].items())


def one_network(name: str, result: dict[str, Any]) -> str:
    """The contenders with one network, and the machine they ran on."""
    network, found = result["network"], result["versions"]
    weights = ", random weights" if network.get("weights") == "random" else ""
    lines = [
        f"**{name}** (`{network['spec']}`{weights}, windows of {'x'.join(map(str, network['patch']))}):",
        "",
        "| tool, the same network and windows | s a case | of them in the network | peak memory "
        "| times as fast as the first | Dice of the masks to the first |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["rows"].values():
        inside, dice = row.get("network_s"), row["dice_to_first"]
        lines.append(
            f"| {row['what']} | {row['seconds']['median']:.1f} "
            f"| {'' if inside is None else f'{inside:.1f}'} "
            f"| {row['peak_mb']:.0f} MB | {row['times_the_first']:.2f} | {'' if dice is None else f'{dice:.4f}'} |"
        )
    tools = [tool for tool in ("nnunetv2", "monai", "torch", "openvino", "onnxruntime") if tool in found]
    names = ", ".join(f"{tool} {found[tool]}" for tool in tools)
    machine = result["machine"]
    return "\n".join([*lines, "", f"{machine['cores']} cores of {machine['processor']}, medians; {names}."]) + "\n"


def sizes(result: dict[str, Any]) -> str:
    """Volumes of growing size, next to no network."""
    lines = ["| volume, 16 bit | classes | seconds | peak memory | its voxels alone |", "|---|---|---|---|---|"]
    lines += [
        f"| {'x'.join(map(str, row['shape']))} | {row['classes']} | {row['elapsed_s']:.1f} | {row['peak_mb']:.0f} MB "
        f"| {row['mb_of_its_voxels']:.0f} MB |"
        for row in result["rows"]
    ]
    return "\n".join(lines) + "\n"


def engines(result: dict[str, Any]) -> str:
    """Every engine and precision, a table a network."""
    return "\n".join(one_subject(name, one) for name, one in result["networks"].items())


def one_subject(name: str, result: dict[str, Any]) -> str:
    """The engines with one network, beside torch in fp32 at the same batch."""
    rows = [row for row in result["rows"] if row["latency"] is not None]
    lines = [
        f"**{name}**:",
        "",
        "| engine | precision | batch | ms a call (p50) | a second | times torch fp32 | of fp32 matmul | peak memory |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        base = next(one for one in rows if one["peer"] == "torch" and one["batch"] == row["batch"])
        speed, share = row["throughput_per_s"], row["gflops"]
        lines.append(
            f"| {row['engine']['engine']} | {row['engine']['precision']} | {row['batch']} "
            f"| {row['latency']['p50_ms']:.1f} | {speed:.3g} | {speed / base['throughput_per_s']:.2f} "
            f"| {'' if share is None else format(share / result['fp32_limit_gflops'], '.0%')} "
            f"| {row['engine_peak_mb']:.0f} MB |"
        )
    return "\n".join(lines) + "\n"


def memory(result: dict[str, Any]) -> str:
    """Time and peak memory against the number of cases."""
    lines = ["| folder | seconds of the process | a case | peak memory |", "|---|---|---|---|"]
    lines += [
        f"| {row['cases']} {row['what']} | {row['seconds']:.1f} | {row['seconds'] / row['cases']:.3f} "
        f"| {row['peak_mb']:.0f} MB |"
        for row in result["rows"]
    ]
    return "\n".join(lines) + "\n"


def systems(result: dict[str, Any]) -> str:
    """Runs of the published systems beside their papers' figures."""
    lines = [
        "| system | recipe, and what differs | epochs | split | test Dice (95 % CI over patients) "
        "| validation Dice | paper |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:
        changes = ", ".join(
            f"{key.removeprefix('training.').removeprefix('data.').removeprefix('network.')} {value}"
            for key, value in row["differs_from_recipe"].items()
        )
        interval = row["dice_ci95_over_patients"]
        spread = f" ± {row['dice_sd_over_folds']:.3f} over folds" if "dice_sd_over_folds" in row else ""
        dice = f"{row['dice']:.3f}{spread}" + (f" ({interval[0]:.3f} to {interval[1]:.3f})" if interval else "")
        lines.append(
            f"| {row['system']} | `{row['recipe']}`{f': {changes}' if changes else ''} | {row['epochs']} "
            f"| {row['split']} | {dice} | {row['validation_dice']:.3f} | {row['paper']} |"
        )
    return "\n".join(lines) + "\n"


def export_matrix(result: dict[str, Any]) -> str:
    """Every recipe's network in every precision."""
    precisions = ("fp32", "fp16", "int8")
    lines = [
        "| recipe | extent | "
        + " | ".join(f"{precision}: error, same labels, TensorRT-RTX" for precision in precisions)
        + " |",
        "|" + "---|" * (2 + len(precisions)),
    ]
    for row in result["rows"]:
        cells = []
        for precision in precisions:
            one = row["precisions"][precision]
            engine = one["tensorrt"]
            built = "" if engine is None else ", builds" if "build_s" in engine else ", **fails**"
            cells.append(f"{one['error']:.0e}, {one['agreement']:.4f}{built}")
        lines.append(f"| `{row['recipe']}` | {'x'.join(map(str, row['extent']))} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def sweep(result: dict[str, Any]) -> str:
    """Trials of a sweep."""
    heading = list(result["rows"][0])
    lines = ["| " + " | ".join(heading) + " |", "|" + "---|" * len(heading)]
    lines += ["| " + " | ".join(row.values()) + " |" for row in result["rows"]]
    return "\n".join(lines) + "\n"


def coco_overlap(result: dict[str, Any]) -> str:
    """Where the COCO set's slices come from."""
    lines = ["| part | images | found in the Cheng set | of a patient who is in `train` |", "|---|---|---|---|"]
    for part, one in result["parts"].items():
        shared = one.get("of_a_patient_in_train")
        lines.append(
            f"| {part} | {one['images']} | {one['found_in_cheng']} | {'' if shared is None else f'{shared:.1%}'} |"
        )
    boxes = result["dice_of_the_boxes_with_the_outlines"]
    lines += [
        "",
        f"Its outlines are boxes: on the {boxes['slices']} slices found in both sets they have a mean Dice of "
        f"{boxes['mean']:.2f} with the tumours' own outlines. A network that outlined every tumour perfectly would "
        "score no more.",
    ]
    return "\n".join(lines) + "\n"


def codecs(result: dict[str, Any]) -> str:
    """Reading and writing beside other libraries."""
    lines = ["| read or written | segtool | beside it, and how many times as long |", "|---|---|---|"]
    for row in result["rows"]:
        seconds = {side: values["median"] for side, values in row["seconds"].items()}
        own = seconds.pop("segtool")
        others = ", ".join(f"{side} {other * 1000:.0f} ms ({other / own:.2f})" for side, other in seconds.items())
        lines.append(f"| {row['what']} | {own * 1000:.0f} ms | {others} |")
    machine, found = result["machine"], result["versions"]
    names = ", ".join(f"{name} {version}" for name, version in found.items() if name not in ("segtool", "numpy"))
    lines += ["", f"{machine['cores']} cores of {machine['processor']}, medians, all sides in turn; {names}."]
    return "\n".join(lines) + "\n"


def dicom_find(result: dict[str, Any]) -> str:
    """Files a second of every side."""
    lines = [
        "| 50,000 DICOM files, warm | seconds | files a second | series or cases | times as long |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {side} | {row['seconds']['median']:.1f} | {row['files_per_s']:,.0f} | {row['found']} "
        f"| {row['times_of_segtool']:.2f} |"
        for side, row in result["rows"].items()
    ]
    machine, found = result["machine"], result["versions"]
    peers = f"pydicom {found['pydicom']}, dcm2niix {found['dcm2niix']}"
    lines += [
        "",
        f"{machine['cores']} cores of {machine['processor']}, medians of {result['runs']} runs in turn; {peers}.",
    ]
    return "\n".join(lines) + "\n"


def dicom_peers(result: dict[str, Any]) -> str:
    """Who reads what, and how many files alike."""
    lines = ["| peer | kind | equal of tried | note |", "|---|---|---|---|"]
    for row in result["rows"]:
        first = next(iter(row["different"].items()), None)
        said = [row["note"], f"{first[0]}: {first[1]}" if first else ""]
        lines.append(
            f"| {row['peer']} {row['version']} | {row['kind']} | {row['equal']} of {row['tried']} "
            f"| {'; '.join(one for one in said if one)} |"
        )
    return "\n".join(lines) + "\n"


def reliability(result: dict[str, Any]) -> str:
    """What was tried, what survived, what was lost."""
    lines = ["| tried | how often | survived | lost | |", "|---|---|---|---|---|"]
    lines += [
        f"| {row['what']} | {row['tried']:,} | {row['survived']:,} | {row['lost']} | {row['more']} |"
        for row in result["rows"]
    ]
    return "\n".join(lines) + "\n"


def checks(result: dict[str, Any]) -> str:
    """How often a line is written about sound cases, and about planted and real faults."""
    scans, masks, elsewhere = result["test"]["scans"], result["test"]["masks"], result["elsewhere"]
    pictures = result["channels"]["one_picture"]
    rows = [
        *((f"sound slices of {result['test_patients']} patients never trained on", scans[name]) for name in ("sound",)),
        *((name, one) for name, one in elsewhere.items() if one["cases"] > 1),
        *((name, one) for name, one in scans.items() if name != "sound"),
        *((f"mask: {name}", one) for name, one in masks.items()),
        ("two channels exchanged, one picture", pictures["exchanged"]),
        ("two channels exchanged, mean of eight pictures", result["channels"]["eight_pictures"]["exchanged"]),
    ]
    lines = ["| given | cases | with a line | share |", "|---|---|---|---|"]
    lines += [f"| {name} | {one['cases']} | {one['with_a_line']} | {one['share']:.1%} |" for name, one in rows]
    return "\n".join(lines) + "\n"


def confidence(result: dict[str, Any]) -> str:
    """What ranks the cases, and how well, on test patients."""
    lines = [
        "| test slices, bundled model | ranked by | worst tenth found in the first fifth (95 % CI over patients) "
        "| Spearman's rho with Dice | AUROC of Dice below 0.5 |",
        "|---|---|---|---|---|",
    ]
    for name in ("as_shipped", "with_flips"):
        one = result["test"][name]
        for measure, found in one["rankings"].items():
            if measure == "review_worst":  # expected Dice behind the few with warnings
                continue
            low, high = found["worst_tenth_in_first_fifth_ci95_over_patients"]
            lines.append(
                f"| {name.replace('_', ' ')}, {one['slices']} of {one['patients']} patients "
                f"| {measure.replace('_', ' ')} | {found['worst_tenth_in_first_fifth']:.0%} ({low:.0%} to {high:.0%}) "
                f"| {found['spearman']:.2f} | {found['auroc_of_dice_below_half']:.2f} |"
            )
    return "\n".join(lines) + "\n"


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "bundled_model": bundled_model,
    "reliability": reliability,
    "reliability_checks": checks,
    "reliability_confidence": confidence,
    "codecs": codecs,
    "coco_overlap": coco_overlap,
    "dicom_find": dicom_find,
    "dicom_peers": dicom_peers,
    "systems": systems,
    "sweep": sweep,
    "engines": engines,
    "export_matrix": export_matrix,
    "folder": speed,
    "memory": memory,
    "sizes": sizes,
    "whole_case": whole_case,
}


def main() -> None:
    """Rewrite every block of the README."""
    with tempfile.TemporaryDirectory() as name:

        def fill(match: re.Match[str]) -> str:
            head, kind, what, end = match.groups()
            if kind == "run":
                return f"{head}{transcript(what, Path(name))}{end}"
            return f"{head}{TABLES[what](json.loads((RESULTS / f'{what}.json').read_text()))}{end}"

        README.write_text(BLOCK.sub(fill, README.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
