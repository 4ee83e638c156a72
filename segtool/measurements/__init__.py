"""What a reader would measure of a segmentation: sizes, places and diameters of lesions."""

from segtool.measurements.measure import MEASURED, Measurements, measure

__all__ = ["MEASURED", "Measurements", "measure"]
