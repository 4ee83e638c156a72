"""nnU-Net's predictor around the trained network, for ``segtool bench --compare``."""

from pathlib import Path
from typing import Any

import torch

from segtool.bench.rows import Row
from segtool.case import CaseSource
from segtool.errors import UsageError
from segtool.spec import ModelSpec, VolumeSpec
from segtool_export.peers_cases import CasePeer, nifti_files

_SUFFIX, _FULL = ".nii.gz", "3d_fullres"


class NnunetPeer(CasePeer):
    """``nnUNetPredictor.predict_from_files_sequential`` without mirroring, with plans that say what the spec says.

    It computes in fp32 on a CPU and autocasts on a GPU; it calls the network with one window at a time.

    Args:
        row: Its batch is 1.
    """

    name = "nnunet"
    tool = "nnU-Net"
    package = "nnunetv2"
    install = "nnunetv2"

    def __init__(self, row: Row) -> None:
        super().__init__(row, mixed=row.device == "cuda")
        plans, dataset = plans_of(self.spec, self.volumes), dataset_of(self.spec)
        if row.batch != 1:
            raise UsageError(
                f"{self.tool} gives the network one window at a time, not {row.batch}",
                "Pass --batch 1, or leave the tool out of --compare.",
            )
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        known = PlansManager(plans)
        self._predictor = nnUNetPredictor(
            tile_step_size=1 - self.volumes.overlap,
            use_mirroring=False,
            device=torch.device(self.device),
            allow_tqdm=False,
        )
        self._predictor.manual_initialization(
            self._network, known, known.get_configuration(_FULL), [self._network.state_dict()], dataset, "none", None
        )

    def segment(self, case: CaseSource, target: Path) -> None:
        """As :meth:`segtool.bench.peers.SegmentsCases.segment`; nnU-Net writes its settings beside the label map."""
        names = [str(file) for file in nifti_files(self.tool, case, self.spec)]
        # It puts the suffix on itself.
        self._predictor.predict_from_files_sequential([names], [str(target).removesuffix(_SUFFIX)], overwrite=True)


def plans_of(spec: ModelSpec, volumes: VolumeSpec) -> dict[str, Any]:
    """What nnU-Net's planner would have to find for it to prepare cases as the spec says.

    Raises:
        UsageError: It cannot.
    """
    if volumes.spacing_mm is None or volumes.orientation != "RAS":
        wants = f"{volumes.orientation} and {'their own' if volumes.spacing_mm is None else 'one'} spacing"
        raise UsageError(
            f"nnU-Net brings all cases to one spacing and to RAS, and {spec.name} wants {wants}",
            "Compare another model, or leave the tool out of --compare.",
        )
    channels, spacing = len(spec.channels), list(volumes.spacing_mm)
    size = [155, 240, 240]  # of a BraTS scan; nothing that is used here depends on it
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "bench", "preprocessor_name": "DefaultPreprocessor", "batch_size": 1,
        "patch_size": list(volumes.patch), "spacing": spacing, "batch_dice": False,
        "median_image_size_in_voxels": size,
        "normalization_schemes": ["ZScoreNormalization"] * channels, "use_mask_for_norm": [True] * channels,
        "resampling_fn_data": "resample_data_or_seg_to_shape", "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_seg_kwargs": resampling | {"is_seg": True, "order": 1},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": resampling | {"order": 1},
        "architecture": {"network_class_name": "none", "arch_kwargs": {}, "_kw_requires_import": []},
    }  # fmt: skip
    return {
        "dataset_name": "bench", "plans_name": "bench", "image_reader_writer": "NibabelIOWithReorient",
        # It reads (z, y, x); the network was trained on (x, y, z).
        "transpose_forward": [2, 1, 0], "transpose_backward": [2, 1, 0], "label_manager": "LabelManager",
        "experiment_planner_used": "bench", "original_median_spacing_after_transp": spacing,
        "original_median_shape_after_transp": size,
        "foreground_intensity_properties_per_channel": {str(i): {} for i in range(channels)},
        "configurations": {_FULL: configuration},
    }  # fmt: skip


def dataset_of(spec: ModelSpec) -> dict[str, Any]:
    """The ``dataset.json`` of a data set with the spec's channels and labels."""
    return {
        "channel_names": {str(i): name for i, name in enumerate(spec.channel_names)},
        "labels": {"background": 0, **{label.name: label.value for label in spec.labels}},
        "file_ending": _SUFFIX,
    }


def nnunet(row: Row) -> NnunetPeer:
    """Entry point ``nnunet``."""
    return NnunetPeer(row)
