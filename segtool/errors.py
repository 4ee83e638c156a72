"""The one tree of errors.

::

    SegtoolError
    └── UserError             one line: the thing, what was found, what was wanted, the remedy
        ├── UsageError        wrong arguments, nothing to do            (exit code 2)
        ├── MissingDependency a package that an extra installs          (exit code 2)
        ├── DeviceError       the device asked for is not there         (exit code 2)
        ├── ModelError        a model file that cannot be used          (exit code 2)
        ├── OutputError       a result that cannot be written           (exit code 1)
        └── CaseError         one case cannot be done, the others can   (exit code 1)
            ├── UnreadableFileError   truncated, corrupt, of another kind
            │   └── LimitError        claims more than a limit allows
            ├── MissingChannelError   the model wants a channel that the case lacks
            ├── GridError             images of one case do not fit together
            ├── VoxelError            NaN, infinite or constant voxels
            └── FaultError            what nobody foresaw, inside one case; its traceback was shown

Every :class:`UserError` prints as one line; any other exception is a bug of ours and shows its traceback.
"""

from typing import ClassVar

_SPACES = dict.fromkeys(map(ord, "\t\n\r\v\f"), " ")


def printable(text: str) -> str:
    r"""``text`` as one line that a terminal shows and never obeys.

    Line breaks and tabs become spaces; control characters, marks that turn the direction of writing and bytes that
    are no text become escapes such as ``\x1b``. File names may hold any of them.
    """
    if text.isprintable():
        return text
    plain = text.translate(_SPACES)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in plain)


class SegtoolError(Exception):
    """Base of all errors raised on purpose."""


class UserError(SegtoolError):
    """Something the user can mend.

    Args:
        problem: The thing, what was found and what was wanted, without a final full stop.
        remedy: What to do about it, as a sentence.
    """

    exit_code: ClassVar[int] = 2

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem = problem
        self.remedy = remedy

    def __str__(self) -> str:
        # One line, whatever a library put into its own message.
        return printable(" ".join(f"{self.problem}. {self.remedy}".split()))


class UsageError(UserError):
    """The arguments contradict each other or lead to no work."""


class MissingDependencyError(UserError):
    """A package is missing that one of segtool's extras installs."""


class DeviceError(UserError):
    """The device or engine that was asked for cannot be used here."""


class ModelError(UserError):
    """A model file that is unreadable, has no spec or a spec of a newer schema."""


class OutputError(UserError):
    """A result cannot be written."""

    exit_code = 1


class CaseError(UserError):
    """One case fails; the rest of the batch goes on."""

    exit_code = 1


class UnreadableFileError(CaseError):
    """A file is truncated, corrupt or not of the kind its name says."""


class LimitError(UnreadableFileError):
    """A file claims more voxels, bytes or files than :class:`segtool.limits.Limits` allow."""


class MissingChannelError(CaseError):
    """A case lacks a channel that the model needs.

    Args:
        problem: As of every error.
        remedy: As of every error.
        channel: The model's name of what no file is called, where names decide; else empty.
    """

    def __init__(self, problem: str, remedy: str, channel: str = "") -> None:
        super().__init__(problem, remedy)
        self.channel = channel


class GridError(CaseError):
    """Images that belong together lie on different grids."""


class VoxelError(CaseError):
    """Voxels that no intensity normalisation can make sense of."""


class FaultError(CaseError):
    """A bug, or a library's exception that nobody foresaw, inside one case; its traceback was shown.

    Also a case that killed every process that did it.
    """
