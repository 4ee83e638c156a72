"""MONAI's transforms and sliding window around the trained network, for ``segtool bench --compare``."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from segtool.bench.rows import Row
from segtool.case import CaseSource
from segtool_export.peers_cases import CasePeer, nifti_files


class MonaiPeer(CasePeer):
    """``sliding_window_inference`` over what MONAI's transforms read, orient, resample, crop and normalise.

    Args:
        row: Its batch is MONAI's ``sw_batch_size``.
        mixed: Autocast.
        crop: To the box around what is not 0; None for what the spec says.
    """

    name = "monai"
    tool = "MONAI"
    package = "monai"
    install = "'segtool[train]'"

    def __init__(self, row: Row, mixed: bool, *, crop: bool | None = None) -> None:
        super().__init__(row, mixed)
        import nibabel
        from monai import transforms

        # Neither package types what is used here.
        self._t: Any = transforms
        self._nifti: Any = nibabel
        self._crop = self.volumes.crop_to_nonzero if crop is None else crop
        self._windows = row.batch
        t, spacing = self._t, self.volumes.spacing_mm
        self._read = t.Compose([
            t.LoadImage(reader="NibabelReader", ensure_channel_first=True),
            t.Orientation(self.volumes.orientation, labels=None),
        ])  # fmt: skip
        # Neither computes anything where the grid is already the wanted one.
        self._space = t.Identity() if spacing is None else t.Spacing(spacing, mode="bilinear")
        self._unspace = t.ResampleToMatch(mode="nearest", padding_mode="zeros")
        self._foreground = t.CropForeground(select_fn=lambda x: (x != 0).any(0, keepdim=True), return_coords=True)
        self._normalise = t.NormalizeIntensity(nonzero=True, channel_wise=True)

    def segment(self, case: CaseSource, target: Path) -> None:
        """As :meth:`segtool.bench.peers.SegmentsCases.segment`."""
        files = nifti_files(self.tool, case, self.spec)
        with self._inference():
            oriented = [self._read(file) for file in files]
            image = torch.cat([self._space(one) for one in oriented])
            start, end = [0, 0, 0], list(image.shape[1:])
            if self._crop:
                _, start, end = self._foreground(image)
            box = tuple(slice(int(a), int(b)) for a, b in zip(start, end, strict=True))
            whole = torch.zeros(image.shape[1:], dtype=torch.uint8)
            whole[box] = self._labels(self._normalise(image[(slice(None), *box)]))
            # A copy of a channel knows its grid.
            labels: Any = image[:1].clone()
            labels[0] = whole
            self._save(self._unspace(labels, oriented[0]), files[0], target)

    def _labels(self, image: Any) -> torch.Tensor:  # noqa: ANN401 - a MetaTensor
        """Label map ``(*S)`` uint8 of ``(C, *S)``."""
        from monai.inferers.utils import sliding_window_inference

        patch, overlap = self.volumes.patch, self.volumes.overlap
        tensor = image.as_tensor()[None].to(self.device)
        logits: Any = sliding_window_inference(
            tensor, patch, self._windows, self._network, overlap=overlap, mode="gaussian"
        )
        labels: torch.Tensor = logits[0].argmax(0).to(torch.uint8).cpu()
        return labels

    def _save(self, labels: Any, like: Path, target: Path) -> None:  # noqa: ANN401 - a MetaTensor
        """Write ``(1, *S)`` with the axes of the file ``like``."""
        affine = self._nifti.load(like).affine
        axes = "".join(self._nifti.aff2axcodes(affine))
        back = self._t.Orientation(axcodes=axes, labels=None)(labels)
        self._nifti.save(self._nifti.Nifti1Image(np.asarray(back[0], np.uint8), affine), target)


def monai_full(row: Row) -> MonaiPeer:
    """Entry point ``monai``."""
    return MonaiPeer(row, mixed=False)


def monai_mixed(row: Row) -> MonaiPeer:
    """Entry point ``monai-amp``."""
    return MonaiPeer(row, mixed=True)
