"""Who made a model: signatures beside it, checksums of the bundled ones, and copies that are what was checked."""

import base64
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from shell import segtool
from tiny import bright_spec, write_model, write_pictures

import segtool as package
from segtool.bundled import MODELS_FOLDER, bundled_models, recorded_sums
from segtool.errors import MissingDependencyError, ModelError, UsageError
from segtool.model_file import read_spec, sha256, write_spec
from segtool.signatures import Statement, sign, signature_file, verified_copies, verify

cryptography = pytest.importorskip("cryptography", reason="signatures need it; pip install 'segtool[sign]'")
from cryptography.hazmat.primitives import serialization  # noqa: E402
from cryptography.hazmat.primitives.asymmetric import ec, ed25519  # noqa: E402

PEM, PKCS8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
SPKI, PLAIN = serialization.PublicFormat.SubjectPublicKeyInfo, serialization.NoEncryption()


def write_keys(folder: Path, name: str, key: object | None = None, encryption: object = PLAIN) -> tuple[Path, Path]:
    """Private and public key as `openssl` writes them; made anew in every test."""
    key = key or ed25519.Ed25519PrivateKey.generate()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.write_bytes(key.private_bytes(PEM, PKCS8, encryption))
    public.write_bytes(key.public_key().public_bytes(PEM, SPKI))
    return private, public


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    return write_keys(tmp_path, "mine")


@pytest.fixture
def signed(tmp_path: Path, keys: tuple[Path, Path]) -> Path:
    model = write_model(tmp_path / "model.onnx", bright_spec(version="3"))
    sign(model, keys[0])
    return model


def test_a_signed_model_is_verified(signed: Path, keys: tuple[Path, Path]) -> None:
    statement = verify(signed, keys[1])
    assert (statement.model, statement.version) == ("bright", "3")
    assert (statement.sha256, statement.size_bytes) == (sha256(signed), signed.stat().st_size)


def test_what_is_signed_is_spelt_in_one_way() -> None:
    statement = Statement(model="m", version="1", sha256="0" * 64, size_bytes=3)
    assert statement.canonical() == (
        b'segtool model signature 1\n{"format":1,"model":"m","sha256":"'
        + b"0" * 64
        + b'","size_bytes":3,"version":"1","weights":{}}'
    )  # fmt: skip


def change(path: Path, **changes: object) -> None:
    content = json.loads(path.read_text())
    for key, value in changes.items():
        (content["statement"] if key in content["statement"] else content)[key] = value
    path.write_text(json.dumps(content))


def signed_by(name: str) -> Callable[[Path], None]:
    return lambda model: (sign(model, write_keys(model.parent, name)[0]), None)[1]


FAULTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "changed model": (lambda m: write_spec(m, bright_spec(version="4"), m), "changed since it was signed"),
    "one bit": (lambda m: m.write_bytes(m.read_bytes()[:-1] + b"\x7e"), "changed since it was signed"),
    "a byte more": (lambda m: m.write_bytes(m.read_bytes() + b"\0"), "changed since it was signed"),
    "another key": (signed_by("theirs"), "signed with another key"),
    "no signature": (lambda m: signature_file(m).unlink(), "not signed"),
    "changed checksum": (lambda m: change(signature_file(m), sha256="0" * 64), "changed after it was signed"),
    "changed version": (lambda m: change(signature_file(m), version="9"), "changed after it was signed"),
    "no such field": (lambda m: change(signature_file(m), more=1), "not a signature"),
    "not base64": (lambda m: change(signature_file(m), signature="***"), "not a signature"),
    "of other bytes": (
        lambda m: change(signature_file(m), signature=base64.b64encode(bytes(64)).decode()),
        "changed after it was signed",
    ),
    "a short one": (lambda m: change(signature_file(m), signature=""), "changed after it was signed"),
    "not JSON": (lambda m: signature_file(m).write_bytes(b"\xff{"), "not a signature"),
    "of gigabytes": (lambda m: os.truncate(signature_file(m), 2**32), "not a signature"),
    "nested deep": (lambda m: signature_file(m).write_text("[" * 100_000), "not a signature"),
    "a folder": (lambda m: (signature_file(m).unlink(), signature_file(m).mkdir()), "cannot be read"),
    "no model": (Path.unlink, "cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("what", FAULTS)
def test_whatever_is_wrong_with_a_signature_is_one_line(
    signed: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str], what: str
) -> None:
    spoil, said = FAULTS[what]
    spoil(signed)
    with pytest.raises(ModelError, match=said) as caught, verified_copies([signed], keys[1]):
        pass
    assert len(str(caught.value).splitlines()) == 1
    if signed.exists():
        answer = segtool(capsys, "models", "verify", signed, "--key", keys[1])
        assert (answer.code, len(answer.out.splitlines())) == (1, 1)
        assert said in answer.out
    write_pictures(signed.parent / "scans", 1)
    out = signed.parent / "out"
    answer = segtool(
        capsys, "predict", signed.parent / "scans", "-m", signed, "-o", out, "--require-signature", keys[1]
    )
    assert answer.code == 2
    assert len(answer.err.splitlines()) == 1
    assert not out.exists()


def test_a_model_is_not_parsed_before_its_signature_is_checked(
    tmp_path: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(b"no model at all")
    with pytest.raises(ModelError, match="not signed"):
        package.load_model(model, require_signature=keys[1])


def test_what_is_loaded_is_what_was_checked(signed: Path, keys: tuple[Path, Path]) -> None:
    wanted = signed.read_bytes()
    with verified_copies([signed], keys[1]) as (copy,):
        signed.write_bytes(b"swapped behind our back")
        assert copy.read_bytes() == wanted
        assert copy.parent.parent.stat().st_mode & 0o077 == 0
    assert not copy.exists()


def test_the_python_interface_and_the_command_run_signed_models(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = np.zeros((32, 32), np.float32)
    picture[8:16] = 1
    labels = package.load_model(signed, require_signature=keys[1]).segment(picture)
    assert (labels.labels == 1).sum() == 8 * 32
    write_pictures(tmp_path / "scans", 2)
    answer = segtool(
        capsys, "predict", tmp_path / "scans", "-m", signed, "-o", tmp_path / "out", "--require-signature", keys[1]
    )
    assert answer.code == 0, answer.err
    assert json.loads((tmp_path / "out" / "report.json").read_text())["model_sha256"] == sha256(signed)


def test_weights_beside_a_model_are_signed_with_it(signed: Path, keys: tuple[Path, Path], tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    model = tmp_path / "big.onnx"
    onnx.save(onnx.load(signed), model, save_as_external_data=True, location="big.data", size_threshold=0)
    sign(model, keys[0])
    assert set(verify(model, keys[1]).weights) == {"big.data"}
    with verified_copies([model], keys[1]) as (copy,):
        assert copy.with_name("big.data").is_file()
        assert read_spec(copy).version == "3"
    weights = model.with_name("big.data")
    weights.write_bytes(bytes(weights.stat().st_size))
    with pytest.raises(ModelError, match=r"big\.data: changed since it was signed"):
        verify(model, keys[1])


def test_a_statement_that_leads_out_of_the_folder_is_none(signed: Path, keys: tuple[Path, Path]) -> None:
    for name in ("../x", "/etc/hostname", "a\\b"):
        with pytest.raises(ValueError, match="pattern"):
            Statement(
                model="m", version="1", sha256="0" * 64, bytes=1, weights={name: {"sha256": "0" * 64, "size_bytes": 1}}
            )


KEYS: dict[str, tuple[Callable[[Path, Path], object], str]] = {
    "of another kind": (
        lambda f, _: write_keys(f, "bad", ec.generate_private_key(ec.SECP256R1())), "another kind than",
    ),
    "no key": (lambda f, _: [(f / name).write_bytes(b"text") for name in ("bad.pem", "bad.pub.pem")], "not a .* key"),
    "no file": (lambda _f, _p: None, "Check the path"),
    "the other half": (
        lambda f, private: ((f / "bad.pub.pem").write_bytes(private.read_bytes()), write_keys(f, "b2"),
                            (f / "bad.pem").write_bytes((f / "b2.pub.pem").read_bytes())),
        "not a .* key",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", KEYS)
def test_a_key_that_is_none_is_said(signed: Path, keys: tuple[Path, Path], tmp_path: Path, what: str) -> None:
    spoil, said = KEYS[what]
    spoil(tmp_path, keys[0])
    with pytest.raises(UsageError, match=said):
        verify(signed, tmp_path / "bad.pub.pem")
    with pytest.raises(UsageError, match=said):
        sign(signed, tmp_path / "bad.pem")


def test_an_encrypted_key_is_said(signed: Path, tmp_path: Path) -> None:
    private, _ = write_keys(tmp_path, "bad", encryption=serialization.BestAvailableEncryption(b"secret"))
    with pytest.raises(UsageError, match="is encrypted"):
        sign(signed, private)


def test_signing_on_the_command_line(signed: Path, keys: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    signature_file(signed).unlink()
    assert segtool(capsys, "models", "sign", signed, "--key", keys[0]).lines("signed") == [str(signature_file(signed))]
    answer = segtool(capsys, "models", "verify", signed, "--key", keys[1])
    assert (answer.code, answer.lines("ok")) == (0, [f"model.onnx  bright 3, signed; sha256 {sha256(signed)}"])
    assert segtool(capsys, "models", "sign", signed).code == 2
    assert segtool(capsys, "models", "t1ce-tumour-2d", "--key", keys[1]).code == 2


def test_without_the_package_the_line_names_the_extra(
    signed: Path, keys: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric", None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'segtool\[sign\]'"):
        verify(signed, keys[1])


# The bundled models


def test_the_list_of_checksums_is_that_of_the_bundled_models() -> None:
    assert recorded_sums() == {path.name: sha256(path) for path in bundled_models().values()}
    from benchmarks.model_sums import sums

    assert (MODELS_FOLDER / "SHA256SUMS").read_text() == sums()


def test_the_standard_tool_reads_the_list() -> None:
    done = subprocess.run(["sha256sum", "--check", "SHA256SUMS"], cwd=MODELS_FOLDER, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout


def test_an_installation_verifies_itself(capsys: pytest.CaptureFixture[str]) -> None:
    answer = segtool(capsys, "models", "verify")
    assert answer.code == 0
    assert [line.split()[0] for line in answer.lines("ok")] == list(recorded_sums())
    assert segtool(capsys, "models", "verify", "t1ce-tumour-2d").code == 0


def test_a_bundled_model_that_differs_or_is_gone_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("commands.model_trust", "bundled"):
        __import__(f"segtool.{name}")
    monkeypatch.setattr("segtool.bundled.MODELS_FOLDER", tmp_path)
    model = write_model(tmp_path / "tiny.onnx", bright_spec())
    (tmp_path / "SHA256SUMS").write_text(f"{'0' * 64}  tiny.onnx\n{'1' * 64}  gone.onnx\n")
    answer = segtool(capsys, "models", "verify")
    assert answer.code == 1
    assert answer.lines("differs")[0].startswith(f"tiny.onnx  sha256 {sha256(model)}, wanted {'0' * 64}")
    assert answer.lines("missing")[0].startswith("gone.onnx")
    (tmp_path / "SHA256SUMS").write_text("not a list")
    assert segtool(capsys, "models", "verify").code == 2


def test_a_file_of_nobody_known_is_unknown(signed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answer = segtool(capsys, "models", "verify", signed)
    assert (answer.code, len(answer.lines("unknown"))) == (1, 1)
    assert "--key" in answer.out
