"""Lenses: where a direction in the frame of a camera meets its image, and back.

Directions are in OpenCV's camera frame, x right, y down, z forward. The normalised image plane is the image in units
of focal lengths around the principal point. Two families of lenses are known, both as OpenCV defines them: the
rational model with tangential terms (`cv2.projectPoints`; Brown 1966), of which all simpler perspective models are
cases with zeros, and the fisheye model (`cv2.fisheye.projectPoints`; Kannala and Brandt 2006).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from utils.registry import ConfigError

N_STEPS = 6
"""Newton steps; each doubles the correct digits, and strong lenses take three to come near."""
LONGEST_STEP = 0.5
"""Units of the normalised plane; keeps a search finite that has nothing to find."""


@dataclass
class Lens:
    """The lens of one photograph, in pixels of that photograph at some size.

    Attributes:
        focal: [2] focal lengths, horizontal and vertical.
        center: [2] principal point from the upper left corner of the image.
        distortion: [8] k1 k2 p1 p2 k3 k4 k5 k6 in the order of OpenCV; of a fisheye k1 k2 k3 k4 and four zeros.
        is_fisheye: which of the two models the coefficients belong to.
    """

    focal: Float[Tensor, "2"]
    center: Float[Tensor, "2"]
    distortion: Float[Tensor, "8"] = field(default_factory=lambda: torch.zeros(8))
    is_fisheye: bool = False

    @property
    def distorts(self) -> bool:
        """Whether it differs from a pinhole."""
        return self.is_fisheye or bool(self.distortion.any())

    def scaled(self, x: float, y: float) -> "Lens":
        """The lens of the same photograph, its width and height multiplied by these factors."""
        factors = self.focal.new_tensor([x, y])
        return Lens(self.focal * factors, self.center * factors, self.distortion, self.is_fisheye)

    def cropped(self, left: int, top: int) -> "Lens":
        """The lens of the part of the photograph that begins at this column and row."""
        corner = self.center.new_tensor([left, top])
        return Lens(self.focal, self.center - corner, self.distortion, self.is_fisheye)


def at_sizes(lens: Lens, width: int, height: int, divisor: int, where: str) -> Callable[[int, int], Lens]:
    """Gives the lens for a photograph of any size with the aspect of the one that it belongs to.

    Args:
        lens: in pixels of a photograph of this width and height.
        divisor: how many times smaller the photographs should be; 1 allows every size.
        where: for errors.
    """

    def at_size(new_width: int, new_height: int) -> Lens:
        x, y = new_width / width, new_height / height
        # Sizes are rounded to whole pixels, either side may be the rounded one.
        is_alike = min(abs(height * x - new_height), abs(width * y - new_width)) <= 1
        if not is_alike or (divisor > 1 and abs(width / divisor - new_width) > 1):
            expected = f" shrunk by {divisor}" if divisor > 1 else ""
            raise ConfigError(
                f"{where}: the photograph is {new_width}x{new_height}, but its camera was estimated for "
                f"{width}x{height}{expected}; take the same photographs"
            )
        return lens.scaled(x, y)

    return at_size


def distort(
    direction: Float[Tensor, "R 3"], coefficients: Float[Tensor, "R 8"], is_fisheye: Bool[Tensor, "R"] | None
) -> Float[Tensor, "R 2"]:
    """Where directions meet the normalised image plane.

    Far outside of the image the polynomials fold over: the same place is met by a second direction.

    Args:
        direction: [R, 3] OpenCV camera frame, any length. A perspective lens sees only those with z > 0, a fisheye
            all but straight backwards.
        coefficients: [R, 8] as in `Lens.distortion`.
        is_fisheye: [R] which rows are fisheyes; None says that none is.
    """
    x, y, z = direction.unbind(-1)
    perspective = torch.stack(_distort_point(x / z, y / z, coefficients.unbind(-1))[0], dim=-1)  # [R, 2]
    if is_fisheye is None:
        return perspective
    radius = torch.hypot(x, y)
    reach, _ = _distort_angle(torch.atan2(radius, z), coefficients.unbind(-1))
    # Near the axis the angle is the tangent: any positive number will do where both are zero.
    fisheye = direction[:, :2] * (reach / radius.clamp_min(torch.finfo(radius.dtype).tiny))[:, None]
    return torch.where(is_fisheye[:, None], fisheye, perspective)


def undistort(
    point: Float[Tensor, "R 2"], coefficients: Float[Tensor, "R 8"], is_fisheye: Bool[Tensor, "R"] | None
) -> Float[Tensor, "R 3"]:
    """Unit directions, OpenCV camera frame, that meet the normalised image plane in these points.

    The inverse of `distort`, by a fixed number of Newton steps, hence without waiting for a device. Points that the
    lens model does not reach get some finite direction near its border.

    Args:
        point: [R, 2] normalised image plane.
        coefficients: [R, 8] as in `Lens.distortion`.
        is_fisheye: [R] which rows are fisheyes; None says that none is.
    """
    terms = coefficients.unbind(-1)
    plane = torch.stack(_undistort_point(point[:, 0], point[:, 1], terms), dim=-1)  # [R, 2]
    perspective = torch.nn.functional.normalize(torch.nn.functional.pad(plane, (0, 1), value=1.0), dim=-1)
    if is_fisheye is None:
        return perspective
    radius = torch.hypot(point[:, 0], point[:, 1])
    angle = _undistort_angle(radius, terms)
    sideways = point * (angle.sin() / radius.clamp_min(torch.finfo(radius.dtype).tiny))[:, None]
    fisheye = torch.cat((sideways, angle.cos()[:, None]), dim=-1)
    return torch.where(is_fisheye[:, None], fisheye, perspective)


_Terms = tuple[Tensor, ...]


def _distort_point(x: Tensor, y: Tensor, terms: _Terms) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """Distorted point of the rational model, and the entries xx, xy = yx, yy of its Jacobian matrix."""
    k1, k2, p1, p2, k3, k4, k5, k6 = terms
    xx, xy, yy = x * x, x * y, y * y
    r = xx + yy
    below = 1 + r * (k4 + r * (k5 + r * k6))
    scale = (1 + r * (k1 + r * (k2 + r * k3))) / below
    slope = 2 * (k1 + r * (2 * k2 + 3 * r * k3) - scale * (k4 + r * (2 * k5 + 3 * r * k6))) / below
    place = x * scale + 2 * p1 * xy + p2 * (r + 2 * xx), y * scale + p1 * (r + 2 * yy) + 2 * p2 * xy
    across = xy * slope + 2 * (p1 * x + p2 * y)
    return place, (
        scale + xx * slope + 2 * p1 * y + 6 * p2 * x,
        across,
        scale + yy * slope + 6 * p1 * y + 2 * p2 * x,
    )


def _undistort_point(target_x: Tensor, target_y: Tensor, terms: _Terms) -> tuple[Tensor, Tensor]:
    x, y = target_x, target_y
    for _ in range(N_STEPS):
        (at_x, at_y), (xx, xy, yy) = _distort_point(x, y, terms)
        off_x, off_y = at_x - target_x, at_y - target_y
        # The determinant is positive as far as the model can be inverted.
        scale = 1 / (xx * yy - xy * xy).clamp_min(1e-3)
        x = x - (scale * (yy * off_x - xy * off_y)).clamp(-LONGEST_STEP, LONGEST_STEP)
        y = y - (scale * (xx * off_y - xy * off_x)).clamp(-LONGEST_STEP, LONGEST_STEP)
    return x, y


def _distort_angle(angle: Tensor, terms: _Terms) -> tuple[Tensor, Tensor]:
    """Distance from the principal point of a fisheye at an angle from the axis, and its derivative."""
    k1, k2, k3, k4 = terms[:4]
    t = angle * angle
    reach = angle * (1 + t * (k1 + t * (k2 + t * (k3 + t * k4))))
    return reach, 1 + t * (3 * k1 + t * (5 * k2 + t * (7 * k3 + 9 * t * k4)))


def _undistort_angle(target: Tensor, terms: _Terms) -> Tensor:
    angle = target.clamp(max=torch.pi)
    for _ in range(N_STEPS):
        reach, slope = _distort_angle(angle, terms)
        step = ((reach - target) / slope.clamp_min(1e-3)).clamp(-LONGEST_STEP, LONGEST_STEP)
        angle = (angle - step).clamp(0, torch.pi)
    return angle
