"""How far each random change goes."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(ge=0)]


class AugmentationRecipe(BaseModel):
    """How far each change goes; 0, the default, leaves it out. A ``*_probability`` is a share of the images.

    Args:
        rotation_deg: Largest rotation, in the plane of a slice; for volumes in a random plane.
        scale: Largest natural logarithm of the zoom.
        anisotropy: Largest natural logarithm of the stretch of columns against rows (slices only).
        shift: Largest shift, as a share of half the extent.
        affine_probability: How many images are rotated, scaled, stretched and shifted.
        elastic: Largest move of a control point of the deformation, as a share of the distance between two of
            them. Up to 0.4 nothing folds (Choi and Lee, Graphical Models 62(6), 2000).
        elastic_cells: Distances between control points along each axis.
        elastic_probability: How many images are deformed.
        flip_horizontal: Probability to swap left and right (volumes: along the last axis).
        flip_vertical: Probability to swap up and down (volumes: along the middle axis).
        flip_depth: Probability to swap along the first axis of a volume.
        transpose: Probability to swap rows and columns (slices only).
        transplant: Probability that an image gets the lesion of another image of its batch.
        bias_field: Largest natural logarithm of the factor of a smooth field over the image's own range.
        bias_field_probability: How many images get such a field.
        gamma: Largest natural logarithm of the exponent on the image's own range.
        gamma_probability: How many images get an exponent.
        contrast: Largest natural logarithm of the factor on the normalised intensity.
        contrast_probability: How many images get a factor.
        brightness: Largest offset of the normalised intensity.
        brightness_probability: How many images get an offset.
        ghosting: Largest share by which periodic motion weakens every second to fifth line of k-space.
        ghosting_probability: How many images get ghosts.
        blur: Largest standard deviation of a Gaussian blur, in pixels.
        blur_probability: How many images are blurred.
        noise: Largest standard deviation of Gaussian noise.
        noise_probability: How many images get noise.
        low_resolution: Probability that a batch is halved in resolution and enlarged again.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rotation_deg: Annotated[float, Field(ge=0, le=180)] = 0.0
    scale: Amount = 0.0
    anisotropy: Amount = 0.0
    shift: Amount = 0.0
    affine_probability: Share = 1.0
    elastic: Annotated[float, Field(ge=0, le=0.4)] = 0.0
    elastic_cells: Annotated[int, Field(ge=1)] = 4
    elastic_probability: Share = 0.5
    flip_horizontal: Share = 0.0
    flip_vertical: Share = 0.0
    flip_depth: Share = 0.0
    transpose: Share = 0.0
    transplant: Share = 0.0
    bias_field: Amount = 0.0
    bias_field_probability: Share = 0.5
    gamma: Amount = 0.0
    gamma_probability: Share = 1.0
    contrast: Amount = 0.0
    contrast_probability: Share = 1.0
    brightness: Amount = 0.0
    brightness_probability: Share = 1.0
    ghosting: Share = 0.0
    ghosting_probability: Share = 0.5
    blur: Amount = 0.0
    blur_probability: Share = 0.5
    noise: Amount = 0.0
    noise_probability: Share = 0.5
    low_resolution: Share = 0.0

    @property
    def resamples(self) -> bool:
        """True where images are resampled, not only mirrored."""
        return any((self.rotation_deg, self.scale, self.anisotropy, self.shift, self.transpose, self.elastic))
