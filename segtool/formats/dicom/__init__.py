"""DICOM: headers and pixels of series, whole trees of files, segmentations.

:mod:`~segtool.formats.dicom.series` is the format; :mod:`~segtool.formats.dicom.read` takes plain files by a short road
and all others through pydicom (:mod:`~segtool.formats.dicom.odd`); :mod:`~segtool.formats.dicom.stack` says how slices
stack and :mod:`~segtool.formats.dicom.repair` mends what can be mended; :mod:`~segtool.formats.dicom.index` reads the
headers of a tree and :mod:`~segtool.formats.dicom.volumes` puts its files together.
"""
