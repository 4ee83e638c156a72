"""Targets: zip and tar archives, and the rules that tell DICOM series apart."""

import gzip
import io
import shutil
import struct
import tarfile
import zipfile
import zlib
from functools import cache
from pathlib import Path
from typing import ClassVar

from benchmarks.fuzz.choices import Choices
from benchmarks.fuzz.dicom_seeds import packed, slice_of
from benchmarks.fuzz.dicom_targets import one_of
from benchmarks.fuzz.mutations import havoc, odd_number, shuffle
from benchmarks.fuzz.target import Target
from segtool.errors import SegtoolError
from segtool.formats.dicom.facts import SeriesFacts
from segtool.scan import ScanOptions
from segtool.scan.archives import unpacked
from segtool.scan.dicom_rules import load_rules
from segtool.scan.plainly import scan_unpacked

_MEMBERS = {"P1/t1/0": packed(slice_of(0)), "P1/t1/1": packed(slice_of(1)), "notes.txt": b"notes", "empty/": b""}
_NAMES = (
    "../out",
    "/etc/out",
    "C:/out",
    "..\\out",
    "n" * 300,
    "a/" * 70 + "a",
    "P1",
    "P1/t1/0",
    "P1/T1/0",
    "",
    ".",
    "\0",
    "con.png",
)
_BLOCK, _SCANS = 512, 20


class Archive(Target):
    """What is unpacked lies in its folder; all of the folder goes away."""

    instrument: ClassVar[tuple[str, ...]] = ("segtool.scan", "zipfile", "tarfile")

    def read(self, path: Path) -> object:
        """As an input, and as an archive below a folder; nothing may lie outside afterwards."""
        try:
            with unpacked([path], self.limits) as folders:
                (folder,) = folders.inputs
                for one in folder.rglob("*"):
                    assert one.resolve().is_relative_to(folder.resolve()), "outside its folder"
                    assert not one.is_symlink(), "a link"
                size = sum(one.stat().st_size for one in folder.rglob("*") if one.is_file())
                assert size <= self.limits.unpacked_bytes, "more than the limit"
                if one_of(_SCANS, path):
                    scan_unpacked(folders, None, ScanOptions(limits=self.limits))
            return None
        finally:
            if one_of(_SCANS, path):
                with unpacked([path.parent], self.limits):
                    pass
            assert not (path.parent.parent / "out").exists(), "written outside"

    def place(self, folder: Path, data: bytes) -> Path:
        """Alone in a folder."""
        lone = folder / "archives"
        shutil.rmtree(lone, ignore_errors=True)
        lone.mkdir()
        path = lone / f"a{self.suffix}"
        path.write_bytes(data)
        return path


class Zip(Archive):
    """Stored and deflated members; local headers, directory and end change."""

    suffix = ".zip"

    def seeds(self) -> list[bytes]:
        """By the standard library, one with a comment, one with a link."""
        made = []
        for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            out = io.BytesIO()
            with zipfile.ZipFile(out, "w", method) as archive:
                for name, content in _MEMBERS.items():
                    archive.writestr(name, content)
                archive.comment = b"a comment" * (method == zipfile.ZIP_STORED)
            made.append(out.getvalue())
        return made

    def mutate(self, data: bytes, choices: Choices) -> bytes | None:
        """A number or a name in one of the headers, or headers moved about."""
        places = [place for sign in (b"PK\1\2", b"PK\3\4", b"PK\5\6") for place in _all(data, sign)]
        if not places:
            return None
        start = choices.one(places)
        match choices.whole(0, 5):
            case 0:
                ends = [*sorted(places)[1:], len(data)]
                parts = [data[one:end] for one, end in zip(sorted(places), ends, strict=True)]
                return data[: min(places)] + b"".join(shuffle(parts, choices))
            case 1:
                name = choices.one(_NAMES).encode()
                for old in (b"P1/t1/0", b"notes.txt"):
                    if len(name) <= len(old):
                        data = data.replace(old, name.ljust(len(old), b"x"))
                return data
            case 2:
                return _renamed(data, choices)
            case _:
                return _number(data, start + choices.whole(4, 45), choices)


def _renamed(data: bytes, choices: Choices) -> bytes:
    """The archive packed again, with one name changed and perhaps a link."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(one, archive.read(one)) for one in archive.infolist() if one.file_size < 10**6]
    except (
        zipfile.BadZipFile,
        zlib.error,
        ValueError,
        NotImplementedError,
        EOFError,
        OSError,
        RuntimeError,
        struct.error,
    ):
        return havoc(data, choices)
    out = io.BytesIO()
    changed = choices.whole(0, max(0, len(members) - 1))
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for number, (one, content) in enumerate(members):
            info = zipfile.ZipInfo(choices.one(_NAMES) if number == changed else one.filename)
            info.external_attr = choices.one((0, 0o120777 << 16, 0o100644 << 16, 0o060644 << 16))
            archive.writestr(info, content)
    return out.getvalue()


class Tar(Archive):
    """Members of every kind, long names and attributes; packed with gzip."""

    suffix = ".tar.gz"

    def seeds(self) -> list[bytes]:
        """Of each format of the standard library."""
        return [gzip.compress(one, 1, mtime=0) for one in _tars()]

    def mutate(self, data: bytes, choices: Choices) -> bytes | None:
        """A field of one header, whose sum is put right, or blocks moved about."""
        try:
            inside = zlib.decompressobj(31).decompress(data, 2**20)
        except zlib.error:
            return None
        if choices.whole(0, 9) == 0:
            return data[: choices.whole(0, len(data))]
        places = [one for one in range(0, len(inside) - _BLOCK, _BLOCK) if inside[one + 257 : one + 262] == b"ustar"]
        if not places or choices.whole(0, 4) == 0:
            blocks = [inside[one : one + _BLOCK] for one in range(0, len(inside), _BLOCK)]
            return gzip.compress(b"".join(shuffle(blocks, choices))[: 2**20], 1, mtime=0)
        start = choices.one(places)
        block = bytearray(inside[start : start + _BLOCK])
        match choices.whole(0, 3):
            case 0:
                block[156] = choices.one(b"01234567LKxgSDNMV\0z")
            case 1:
                size = choices.one((0, 1, 511, 513, 2**20, 2**33, 2**40, 2**62, -1, -512, -(2**40)))
                block[124:136] = tarfile.itn(size, 12, tarfile.GNU_FORMAT)
            case 2:
                block[:100] = choices.one(_NAMES).encode()[:100].ljust(100, b"\0")
            case _:
                block[:] = havoc(bytes(block), choices)[:_BLOCK].ljust(_BLOCK, b"\0")
        block[148:156] = b"        "
        block[148:156] = b"%06o\0 " % sum(block)
        return gzip.compress(inside[:start] + bytes(block) + inside[start + _BLOCK :], 1, mtime=0)


@cache
def _tars() -> tuple[bytes, ...]:
    made = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=form) as archive:
            for name, content in _MEMBERS.items():
                info = tarfile.TarInfo(name.rstrip("/"))
                info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
                info.size = len(content)
                if form == tarfile.PAX_FORMAT:
                    info.pax_headers = {"comment": "ä" * 20}
                archive.addfile(info, io.BytesIO(content))
            if form == tarfile.GNU_FORMAT:
                archive.addfile(tarfile.TarInfo("n" * 200))
        made.append(out.getvalue())
    return tuple(made)


def _all(data: bytes, sign: bytes) -> list[int]:
    found, place = [], data.find(sign)
    while place >= 0 and len(found) < 100:
        found.append(place)
        place = data.find(sign, place + 1)
    return found


def _number(data: bytes, start: int, choices: Choices) -> bytes:
    code = choices.one(("<H", "<I"))
    if start + struct.calcsize(code) > len(data):
        return havoc(data, choices)
    new = struct.pack(code, int(odd_number(choices, code, struct.unpack_from(code, data, start)[0])))
    return data[:start] + new + data[start + len(new) :]


_RULES = b"""extends = false
threshold = 4
channels = ["t1", "t2"]
ignore = ["pre op*"]
[words]
t1 = ["t1", "mprage*"]
more = ["@t1", "x*"]
[[selections]]
name = "t1"
score = 10
[selections.conditions]
Text = [["@more"], ["3d"]]
EchoTime = [1, 20.5]
[[selections]]
name = ["t2", "t2star"]
says = "T2"
[selections.conditions]
SeriesDescription = "t2.*tse"
ImageType = ["ORIGINAL"]
ContrastBolusAgent = false
[selections.unless]
Modality = "CT|US"
"""
_JSON = (
    b'{"threshold": 3, "selections": [{"name": "t1", "score": 5, "conditions": {"Text": [["t1"]], "Modality": "MR", '
    b'"FlipAngle": [1, 90], "ProtocolName": "(?i)t1", "DiffusionBValue": true}}], '
    b'"words": {"a": ["b", "@c"], "c": ["d"]}}'
)
_PIECES = (
    b"nan",
    b"inf",
    b"-1e999",
    b"1" * 5000,
    b'"("',
    b'"(a{99999999999})"',
    b'"' + b"(" * 500 + b'"',
    b'"@more"',
    b'"@t1"',
    b'"*"',
    b'""',
    b"[]",
    b"[[]]",
    b"[" * 2000,
    b"true",
    b"false",
    b"{}",
    b'"\\u0000"',
    b"1979-05-27",
    b'["@a", "@a", "@b"]',
    b'"[["',
    b'"a{1,65536}"',
    b"0x" + b"f" * 3000,
    b"\xff\xfe",
    b'"(?P<a>x)(?P<a>y)"',
    b'"\\\\"',
    b'"(?i)t1*?+"',
    b"null",
    b"-0.0",
    b'["", "t"]',
)
_FACTS = SeriesFacts(
    modality="MR",
    image_type=("ORIGINAL", "PRIMARY"),
    series_description="t1 mprage 3d +KM" * 8,
    protocol_name="t2 tse",
    contrast_agent=" " * 60 + "x",
    echo_time_ms=3.5,
    flip_angle_degrees=9.0,
    size=(8, 8),
)


class Rules(Target):
    """TOML or JSON by the user, and a verdict of it on a series."""

    suffix = ".toml"
    instrument: ClassVar[tuple[str, ...]] = ("segtool.scan", "tomllib")

    def seeds(self) -> list[bytes]:
        """Small ones, and the beginning of our own."""
        return [_RULES, _JSON]

    def mutate(self, data: bytes, choices: Choices) -> bytes | None:
        """A piece in place of another, lines moved about."""
        if choices.whole(0, 2) == 0:
            return b"\n".join(shuffle(data.split(b"\n"), choices))[:20_000]
        edges = [place for place, byte in enumerate(data) if byte in b'="[],:{}\n ']
        if not edges:
            return None
        start = choices.one(edges)
        stop = min((one for one in edges if one > start), default=len(data))
        return (data[: start + 1] + choices.one(_PIECES) + data[stop:])[:20_000]

    def read(self, path: Path) -> object:
        """As either kind."""
        errors = []
        for one in (path, path.with_suffix(".json")):
            one.write_bytes(path.read_bytes())
            try:
                load_rules(one).judge(_FACTS, "t1 folder")
            except SegtoolError as error:
                errors.append(error)
        if len(errors) > 1:
            raise errors[0]
        return None
