"""A key of an engine, for tests of the cache."""

from segtool.backends.engine_cache import EngineKey, ShapeProfile

PROFILE = ShapeProfile((1, 1, 32, 32), (8, 1, 32, 32), (8, 1, 32, 32))
KEY = EngineKey("glioma", "ab" * 32, "tensorrt 10.16.1", "NVIDIA H200", "9.0", "fp16", PROFILE)
