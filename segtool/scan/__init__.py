"""From folders and files to cases. Names are read, and the headers of DICOM files; never pixels.

What belongs together is told from names alone, so that a folder of 100,000 files is understood in seconds:
:mod:`~segtool.scan.walk` lists files, :mod:`~segtool.scan.names` takes their names apart,
:mod:`~segtool.scan.layouts` knows the data sets that name files by convention,
:mod:`~segtool.scan.references` pairs references with images and :mod:`~segtool.scan.cases` puts cases
together. :mod:`~segtool.scan.sets` lists labelled sets as training needs them, with patients and folds.
"""

from segtool.scan.archives import Unpacked, unpacked
from segtool.scan.cases import scan
from segtool.scan.found import Problem, Scan, ScanOptions
from segtool.scan.names import natural_key
from segtool.scan.plainly import scan_unpacked

__all__ = ["Problem", "Scan", "ScanOptions", "Unpacked", "natural_key", "scan", "scan_unpacked", "unpacked"]
