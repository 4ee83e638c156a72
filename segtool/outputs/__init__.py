"""Kinds of results beside the scan's own kind, by name. A class is imported on use."""

from functools import cache
from importlib import import_module

from segtool.outputs.base import Output, Result

__all__ = ["OUTPUTS", "Output", "Result", "get_output"]

OUTPUTS: dict[str, str] = {
    "nifti": "segtool.outputs.plain:NiftiOutput",
    "png": "segtool.outputs.plain:PngOutput",
    "hdf5": "segtool.outputs.plain:Hdf5Output",
    "dicom-seg": "segtool.outputs.dicom_seg:SegOutput",
    "dicom-labelmap": "segtool.outputs.dicom_seg:LabelMapOutput",
    "rtstruct": "segtool.outputs.rtstruct:RtStructOutput",
    "dicom-sr": "segtool.outputs.dicom_sr:SrOutput",
}


@cache
def get_output(name: str) -> Output:
    """What writes results of the kind ``name``, a key of :data:`OUTPUTS`."""
    module, _, attribute = OUTPUTS[name].partition(":")
    instance: Output = getattr(import_module(module), attribute)()
    return instance
