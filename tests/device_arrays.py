"""Arrays that behave like those of a GPU: mixed with numpy's they raise, and only `asnumpy` brings them back.

They are numpy's own inside, so they prove which array meets which, and nothing about a GPU.
"""

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar, Self

import numpy as np


def _check(*values: Any) -> None:
    for value in values:
        if isinstance(value, (list, tuple)):
            _check(*value)
        elif type(value) is np.ndarray and value.ndim:
            raise TypeError("an array in main memory among those of a GPU")


def _inside(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_inside(one) for one in value)
    return value.view(np.ndarray) if isinstance(value, DeviceArray) else value


def _outside(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_outside(one) for one in value)
    return value.view(DeviceArray) if isinstance(value, np.ndarray) else value


class DeviceArray(np.ndarray):
    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        _check(inputs, out)
        if out is not None:
            options["out"] = _inside(out)
        return _outside(getattr(ufunc, method)(*_inside(inputs), **options))

    def __array_function__(self, function: Any, _types: Any, arguments: Any, options: Any) -> Any:
        _check(arguments)
        return _outside(function(*_inside(arguments), **options))

    def __setitem__(self, key: Any, value: Any) -> None:
        _check(key, value)
        super().__setitem__(_inside(key), _inside(value))

    def __getitem__(self, key: Any) -> Any:
        _check(key)
        return super().__getitem__(_inside(key))

    @property
    def data(self) -> Any:
        """Where it lies, as engines are told."""
        return SimpleNamespace(ptr=self.ctypes.data)

    def get(self) -> np.ndarray:
        return asnumpy(self)


def at(pointer: int, shape: tuple[int, ...]) -> np.ndarray:
    """What an engine sees at an address: float32 numbers of that shape."""
    count = int(np.prod(shape))
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(pointer)).reshape(shape)


class Stream:
    """Whatever is launched happens at once, unless it is being recorded; who waited for whom is kept."""

    by_pointer: ClassVar[dict[int, "Stream"]] = {}

    def __init__(self, non_blocking: bool = False) -> None:
        self.ptr, self.non_blocking = id(self), non_blocking
        self.by_pointer[self.ptr] = self
        self.recording: list[Callable[[], None]] | None = None
        self.waited = self.busy = False

    def __enter__(self) -> Self:
        _CURRENT.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        assert _CURRENT.pop() is self

    def launch(self, work: Callable[[], None]) -> None:
        """A kernel or a graph."""
        if self.recording is not None:
            self.recording.append(work)
            return
        assert self.waited, "nobody waited for what made the input"
        self.busy = True
        work()

    def record(self) -> "Stream":
        return self

    def wait_event(self, event: "Stream") -> None:
        assert event is not self
        self.waited = True

    def synchronize(self) -> None:
        self.waited = self.busy = False

    def begin_capture(self) -> None:
        self.recording = []

    def end_capture(self) -> Any:
        recorded, self.recording = self.recording or [], None

        def launch(stream: Stream) -> None:
            stream.launch(lambda: [work() for work in recorded] and None)

        return SimpleNamespace(launch=launch)


_CURRENT = [Stream()]
cuda = SimpleNamespace(Stream=Stream, get_current_stream=lambda: _CURRENT[-1])


def asarray(values: Any, dtype: Any = None) -> DeviceArray:
    return np.asarray(_inside(values), dtype).view(DeviceArray)


def asnumpy(array: DeviceArray) -> np.ndarray:
    assert isinstance(array, DeviceArray)
    return array.view(np.ndarray)


def __getattr__(name: str) -> Any:
    found = getattr(np, name)
    if isinstance(found, type) or not callable(found):
        return found

    def call(*arguments: Any, **options: Any) -> Any:
        _check(arguments)
        return _outside(found(*_inside(arguments), **options))

    return call
