"""Who made a model file: an Ed25519 signature in a file beside it, ``MODEL.onnx.sig``.

A signature is over a short statement of the model's bytes, not over the bytes themselves, so that it can be read and
checked before the model is parsed::

    {"statement": {"format": 1, "model": "glioma", "version": "2", "sha256": "...", "size_bytes": 15512120,
                   "weights": {"glioma.onnx.data": {"sha256": "...", "size_bytes": 48000000}}},
     "key": "sha256 of the public key", "signature": "base64"}

Keys are PEM files, as ``openssl genpkey -algorithm ed25519`` makes them.

Source: RFC 8032 (Ed25519); the key's checksum is of its SubjectPublicKeyInfo in DER, as in RFC 7469.
"""

import base64
import contextlib
import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from segtool.atomic import write_text
from segtool.backends.graph import read_graph
from segtool.errors import MissingDependencyError, ModelError, UsageError
from segtool.model_file import read_spec

SUFFIX = ".sig"
_LARGEST = 1 << 20
_CONTEXT = b"segtool model signature 1\n"
"""Before the statement, so that nothing signed for another purpose passes for one."""
_PIECE = 1 << 20
_NEW_SIGNATURE = "Sign it with: segtool models sign MODEL --key PRIVATE.pem, or get both files again from their source."

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class FileFacts(_Frozen):
    """Size and checksum of a file."""

    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=0)]


class Statement(FileFacts):
    """What is signed: the model's file, and the files beside it that hold its weights, by their names."""

    format: Literal[1] = 1
    model: str
    version: str
    weights: dict[Annotated[str, Field(pattern=r"^[^/\\]+$")], FileFacts] = {}

    def canonical(self) -> bytes:
        """The bytes that are signed."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return _CONTEXT + text.encode("ascii")


class Signed(_Frozen):
    """Content of a signature file."""

    statement: Statement
    key: Sha256
    signature: str


def _ed25519() -> tuple[Any, Any]:
    """The modules for keys and for their files.

    Raises:
        MissingDependencyError: They are not installed.
    """
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise MissingDependencyError(
            f"cryptography cannot be imported ({error}), which signatures need",
            "Install it with: pip install 'segtool[sign]'",
        ) from error
    return ed25519, serialization


def _key(path: Path, private: bool) -> Any:  # noqa: ANN401 - classes of a package that may be missing
    """A key from a PEM file.

    Raises:
        UsageError: Not such a key.
    """
    ed25519, serialization = _ed25519()
    kind = "private" if private else "public"
    make = (
        "openssl genpkey -algorithm ed25519 -out private.pem"
        if private
        else "openssl pkey -in private.pem -pubout -out public.pem"
    )
    try:
        content = path.read_bytes()
        if private:
            key = serialization.load_pem_private_key(content, password=None)
        else:
            key = serialization.load_pem_public_key(content)
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror or error})", "Check the path.") from error
    except TypeError as error:  # how the package says that a password is wanted
        raise UsageError(f"{path}: the key is encrypted", "Decrypt it with: openssl pkey -in KEY.pem.") from error
    except Exception as error:  # of its own, of OpenSSL and of its parsers, by content
        raise UsageError(f"{path}: not a {kind} key in PEM ({type(error).__name__})", f"Make one: {make}") from error
    wanted = ed25519.Ed25519PrivateKey if private else ed25519.Ed25519PublicKey
    if not isinstance(key, wanted):
        raise UsageError(f"{path}: a key of another kind than Ed25519", f"Make one: {make}")
    return key


def _fingerprint(public: Any) -> str:  # noqa: ANN401 - as above
    _, serialization = _ed25519()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return hashlib.sha256(public.public_bytes(serialization.Encoding.DER, form)).hexdigest()


def signature_file(model: Path) -> Path:
    """Where the signature of a model lies."""
    return model.with_name(model.name + SUFFIX)


def sign(model: Path, private_key: Path) -> Path:
    """Write a model's signature beside it.

    Args:
        model: A model of ours.
        private_key: PEM.

    Returns:
        The file of the signature.

    Raises:
        ModelError: Not a model of ours, or weights elsewhere than beside it.
        UsageError: Not a private key of Ed25519.
        OutputError: The signature cannot be written.
    """
    key = _key(private_key, private=True)
    spec = read_spec(model)
    weights = {name: _facts(model.parent / name) for name in sorted(read_graph(model).external)}
    below = [name for name in weights if "/" in name]
    if below:
        raise ModelError(
            f"{model}: its weights {below[0]!r} lie in a folder of their own", "Put them beside the model."
        )
    own = _facts(model)
    statement = Statement(
        model=spec.name, version=spec.version, sha256=own.sha256, size_bytes=own.size_bytes, weights=weights
    )
    signed = Signed(
        statement=statement,
        key=_fingerprint(key.public_key()),
        signature=base64.b64encode(key.sign(statement.canonical())).decode("ascii"),
    )
    target = signature_file(model)
    write_text(target, json.dumps(signed.model_dump(mode="json"), indent=1) + "\n")
    return target


def read_statement(model: Path, public_key: Path) -> Statement:
    """What the owner of a key says of a model; the model itself is not read.

    Raises:
        ModelError: No signature, or one of another key, or a statement that is not the one that was signed.
        UsageError: Not a public key of Ed25519.
    """
    public = _key(public_key, private=False)
    path = signature_file(model)
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST)
    except FileNotFoundError as error:
        raise ModelError(f"{model}: not signed (there is no {path.name})", _NEW_SIGNATURE) from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror or error})", "Check the path.") from error
    try:
        signed = Signed.model_validate_json(content)
        signature = base64.b64decode(signed.signature, validate=True)
        if base64.b64encode(signature).decode("ascii") != signed.signature:
            raise ValueError("another spelling of the same bytes")
    except (ValidationError, ValueError) as error:
        raise ModelError(f"{path}: not a signature of a model", _NEW_SIGNATURE) from error
    wanted = _fingerprint(public)
    if signed.key != wanted:
        raise ModelError(
            f"{model}: signed with another key ({signed.key[:16]}) than {public_key} ({wanted[:16]})",
            "Give the public key of whoever made the model, or do not use it.",
        )
    from cryptography.exceptions import InvalidSignature

    try:
        public.verify(signature, signed.statement.canonical())
    except InvalidSignature as error:
        raise ModelError(
            f"{path}: what it says was changed after it was signed, or the signature is not of this key", _NEW_SIGNATURE
        ) from error
    return signed.statement


def verify(model: Path, public_key: Path) -> Statement:
    """Hold a model's files against its signature.

    Returns:
        What was signed.

    Raises:
        ModelError: Not signed, not with this key, or changed since; the line says which.
        UsageError: Not a public key of Ed25519.
    """
    statement = read_statement(model, public_key)
    for path, wanted in _files(model, statement):
        _check(path, _facts(path), wanted)
    return statement


@contextlib.contextmanager
def verified_copies(models: Sequence[Path], public_key: Path | None) -> Iterator[list[Path]]:
    """Copies of models, made as they are checked, so that what is then loaded is what was checked.

    They lie in a folder that this user alone may enter, until the block ends. An engine needs them no longer once it
    is loaded.

    Args:
        models: Their files.
        public_key: PEM; None checks nothing and gives the files themselves.

    Raises:
        ModelError: As :func:`verify`, before anything of a model is parsed.
        UsageError: Not a public key of Ed25519.
    """
    if public_key is None:
        yield list(models)
        return
    with tempfile.TemporaryDirectory(prefix="segtool-verified-", ignore_cleanup_errors=True) as folder:
        copies = []
        for number, model in enumerate(models):
            statement = read_statement(model, public_key)
            place = Path(folder, str(number))
            place.mkdir()
            for path, wanted in _files(model, statement):
                with (place / path.name).open("xb") as copy:
                    _check(path, _facts(path, copy), wanted)
            copies.append(place / model.name)
        yield copies


def _files(model: Path, statement: Statement) -> list[tuple[Path, FileFacts]]:
    return [(model, statement), *((model.parent / name, facts) for name, facts in statement.weights.items())]


def _check(path: Path, found: FileFacts, wanted: FileFacts) -> None:
    if (found.sha256, found.size_bytes) != (wanted.sha256, wanted.size_bytes):
        raise ModelError(
            f"{path}: changed since it was signed (sha256 {found.sha256[:16]} of {found.size_bytes} bytes, wanted "
            f"{wanted.sha256[:16]} of {wanted.size_bytes})",
            "Get the file again from its source.",
        )


def _facts(path: Path, copy: IO[bytes] | None = None) -> FileFacts:
    """Of a file as it is read once, to ``copy`` too."""
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while piece := file.read(_PIECE):
                digest.update(piece)
                size += len(piece)
                if copy is not None:
                    copy.write(piece)
    except OSError as error:
        raise ModelError(f"{path}: cannot be read or copied ({error.strerror or error})", "Check the path.") from error
    return FileFacts(sha256=digest.hexdigest(), size_bytes=size)
