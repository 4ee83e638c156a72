"""Arrays that behave like those of a GPU: mixed with numpy's they raise, and only `asnumpy` brings them back.

They are numpy's own inside, so they prove which array meets which, and nothing about a GPU.
"""

from typing import Any

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
