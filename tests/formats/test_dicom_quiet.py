"""Warnings of libraries are dropped while any thread is inside, and not after."""

import threading
import warnings

import pytest

from segtool.formats.dicom.quiet import quiet


def test_warnings_are_dropped_inside_and_raised_after() -> None:
    with quiet():
        with quiet():
            warnings.warn("inner", UserWarning, stacklevel=1)
        warnings.warn("outer", UserWarning, stacklevel=1)
    with pytest.warns(UserWarning, match="after"):
        warnings.warn("after", UserWarning, stacklevel=1)


def test_a_thread_that_leaves_first_leaves_the_others_silent() -> None:
    entered, left = threading.Event(), threading.Event()

    def short() -> None:
        with quiet():
            entered.set()
            left.wait(10)

    thread = threading.Thread(target=short)
    thread.start()
    assert entered.wait(10)
    with quiet():
        left.set()
        thread.join()
        warnings.warn("still inside", UserWarning, stacklevel=1)
    with pytest.warns(UserWarning, match="after"):
        warnings.warn("after", UserWarning, stacklevel=1)


def test_an_error_ends_the_silence_too() -> None:
    with pytest.raises(ValueError, match="broken"), quiet():
        raise ValueError("broken")
    with pytest.warns(UserWarning, match="after"):
        warnings.warn("after", UserWarning, stacklevel=1)
