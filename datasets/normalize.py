"""From the coordinates of a data set to those of a scene: object around the origin, z up, of a known size.

Dataset coordinates are those of the files: COLMAP's world, metres of a survey, millimetres of a scanner. Scene
coordinates are what models see. One similarity, scene -> dataset, joins the two; it is kept in float64, because
surveys have coordinates in the millions.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from datasets.region import lookat_point, region_in_sight
from utils.notice import notice
from utils.registry import ConfigError

SEED = 0
N_PLANES = 2000
"""Candidates for the ground, each through three sparse points."""
N_VOTERS = 2000
"""Sparse points that choose among them."""
THICKNESS = 0.01
"""Distance of ground points from the plane, in diameters of the cloud of sparse points."""
GROUND_SHARE = 0.15
"""Share of the sparse points that make a ground; a cloud without one has a few percent in its best plane."""
CAMERAS_ABOVE = 0.9
"""Share of the cameras that are above a ground, rather than on both sides of it."""
AGREEMENT = 0.3
"""Length of the mean of the cameras' up axes from which on it says that ground is no wall: see `_ground`."""
STEEPEST = 0.5
"""Least cosine between the ground's normal and that mean, which leans by as much as the cameras look down."""


@dataclass
class NormalizeConfig:
    """Keys of readers whose files leave orientation, place and size of the object open."""

    up_est_method: Literal["ground", "camera", "none"] = "ground"
    """Where z points: off the plane below the cameras that most sparse points lie in (ground; where there is none,
    as camera, with a notice), along the mean of the cameras' up axes (camera), as in the files (none)."""
    center_est_method: Literal["region", "lookat", "camera", "point", "none"] = "region"
    """Where the origin is: the middle of the region of interest (region), the point nearest to all optical axes
    (lookat), the mean of the camera positions (camera), a robust mean of the sparse points between the cameras (point),
    as in the files (none). The region of interest gets radius 1, with none nothing is scaled, else the nearest camera
    comes to distance 1."""


def normalize(
    poses: Float64[Tensor, "V 3 4"],
    points: Float64[Tensor, "M 3"] | None,
    config: NormalizeConfig,
    region: tuple[Float64[Tensor, "3"], float] | None = None,
) -> Float64[Tensor, "4 4"]:
    """The similarity that takes scene coordinates to dataset coordinates; the same input gives the same numbers.

    Args:
        poses: [V, 3, 4] camera to dataset, OpenGL, rigid; of ALL photographs, whatever split they belong to.
        points: [M, 3] sparse points, dataset coordinates, or None without any.
        config: what to estimate how.
        region: centre and radius of the region of interest, dataset coordinates, for `center_est_method: region`.
            Readers give `region_in_sight(poses, points, tangent)`; None takes it with the view of an ordinary lens.
            Where masks are known, the region can be tightened afterwards: read views with this similarity and use
            `to_dataset @ ball(*region_of_interest(views))` instead.

    Raises:
        ConfigError: the configuration asks for what poses and points do not determine.
    """
    rotation = upright(_up(poses, points, config.up_est_method))
    if config.center_est_method == "none":
        center, scale = poses.new_zeros(3), 1.0
    elif config.center_est_method == "region":
        center, scale = region_in_sight(poses, points) if region is None else region
    else:
        center = _center(poses, points, rotation, config.center_est_method)
        scale = float((poses[:, :, 3] - center).norm(dim=1).min())
    if not scale > 0:
        raise ConfigError(
            f"dataset.center_est_method = {config.center_est_method} puts the origin into a camera, "
            "so there is no scale; set it to none"
        )
    to_dataset = ball(center, scale)
    to_dataset[:3, :3] = to_dataset[:3, :3] @ rotation.T
    return to_dataset


def ball(center: Float[Tensor, "3"], radius: float) -> Float64[Tensor, "4 4"]:
    """The similarity that takes the unit ball to this one without turning it."""
    similarity = torch.eye(4, dtype=torch.float64)
    similarity[:3, :3] *= radius
    similarity[:3, 3] = center
    return similarity


def to_scene(poses: Float64[Tensor, "V 3 4"], to_dataset: Float64[Tensor, "4 4"]) -> Float[Tensor, "V 3 4"]:
    """Camera to scene, float32 and rigid, from camera to dataset.

    Args:
        poses: [V, 3, 4] camera to dataset, rigid.
        to_dataset: scene to dataset, as `normalize` gives it.
    """
    turned = _rotation(to_dataset).T @ poses[:, :, :3]
    return torch.cat((turned.float(), points_to_scene(poses[:, :, 3], to_dataset)[:, :, None]), dim=2)


def points_to_scene(points: Float64[Tensor, "M 3"], to_dataset: Float64[Tensor, "4 4"]) -> Float[Tensor, "M 3"]:
    """Points in scene coordinates, float32, from points in dataset coordinates."""
    from_dataset = torch.linalg.inv(to_dataset)
    return ((points - to_dataset[:3, 3]) @ from_dataset[:3, :3].T).float()


def upright(up: Float64[Tensor, "3"]) -> Float64[Tensor, "3 3"]:
    """The smallest rotation that turns the unit vector `up` to z; well defined for every one of them."""
    z = up.new_tensor([0, 0, 1])
    half_way = z + up
    # Straight down, every half way will do.
    half_way = half_way / half_way.norm() if half_way.norm() > 1e-9 else up.new_tensor([1, 0, 0])
    # Half a turn around what is half way between up and z, then half a turn around z.
    half_turn = 2 * half_way[:, None] * half_way - torch.eye(3).to(up)
    return half_turn * up.new_tensor([[-1], [-1], [1]])


def _rotation(to_dataset: Float64[Tensor, "4 4"]) -> Float64[Tensor, "3 3"]:
    """The rotation in a similarity."""
    return to_dataset[:3, :3] / torch.linalg.det(to_dataset[:3, :3]).pow(1 / 3)


def _up(poses: Float64[Tensor, "V 3 4"], points: Float64[Tensor, "M 3"] | None, method: str) -> Float64[Tensor, "3"]:
    """Unit vector that points up, dataset coordinates."""
    if method == "none":
        return poses.new_tensor([0, 0, 1])
    if method == "ground":
        normal = None if points is None else _ground(poses, points)
        if normal is not None:
            return normal
        reason = "there are no sparse points" if points is None else "no plane holds enough of the sparse points"
        notice(f"dataset.up_est_method = ground: {reason}; z is the mean of the cameras' up axes instead")
    up = poses[:, :, 1].mean(0)
    if up.norm() < 0.05:
        raise ConfigError(
            f"dataset.up_est_method = {method}: the cameras' up axes cancel out, so they do not tell which way is up; "
            "set it to none"
        )
    return up / up.norm()


def _ground(poses: Float64[Tensor, "V 3 4"], points: Float64[Tensor, "M 3"]) -> Float64[Tensor, "3"] | None:
    """Unit normal of the plane that most sparse points lie in, towards the cameras; None where there is no ground.

    RANSAC (Fischler and Bolles 1981) among points no farther behind the object than the cameras are in front of it,
    then least squares. A wall can hold more points than the ground: where the cameras' up axes agree roughly, as they
    do unless the camera was turned about, planes that stand across them are left out.
    """
    origins, mean_up = poses[:, :, 3], poses[:, :, 1].mean(0)
    center = lookat_point(poses)
    points = points[(points - center).norm(dim=1) <= 2 * (origins - center).norm(dim=1).median()]
    if len(points) < 3:
        return None
    thickness = THICKNESS * 2 * (points - points.mean(0)).square().sum(1).mean().sqrt()

    generator = torch.Generator().manual_seed(SEED)
    corners = points[torch.randint(len(points), (N_PLANES, 3), generator=generator)]  # [N, 3, 3]
    normals = torch.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0], dim=1)
    normals = torch.nn.functional.normalize(normals, dim=1)
    offsets = (corners[:, 0] * normals).sum(1)
    share_above = (origins @ normals.T > offsets).double().mean(0)  # [N]
    side = torch.where(share_above < 0.5, -1.0, 1.0)
    normals, offsets = side[:, None] * normals, side * offsets
    is_ground = torch.maximum(share_above, 1 - share_above) >= CAMERAS_ABOVE
    if mean_up.norm() >= AGREEMENT:
        is_ground &= normals @ mean_up >= STEEPEST * mean_up.norm()

    voters = points[torch.randint(len(points), (N_VOTERS,), generator=generator)]
    votes = ((voters @ normals.T - offsets).abs() <= thickness).double().mean(0) * is_ground
    best = votes.argmax()
    if votes[best] < GROUND_SHARE:
        return None
    return _fit_plane(points, corners[best, 0], normals[best], thickness)


def _fit_plane(
    points: Float64[Tensor, "M 3"], place: Float64[Tensor, "3"], normal: Float64[Tensor, "3"], thickness: Tensor
) -> Float64[Tensor, "3"]:
    """Unit normal of the plane of least squares through the points near a plane, on the same side."""
    for _ in range(5):
        near = points[((points - place) @ normal).abs() <= thickness]
        place = near.mean(0)
        fitted = torch.linalg.eigh((near - place).T @ (near - place)).eigenvectors[:, 0]
        normal = fitted if fitted @ normal >= 0 else -fitted
    return normal


def _center(
    poses: Float64[Tensor, "V 3 4"],
    points: Float64[Tensor, "M 3"] | None,
    rotation: Float64[Tensor, "3 3"],
    method: str,
) -> Float64[Tensor, "3"]:
    """The origin of the scene, dataset coordinates, by the family's methods."""
    origins = poses[:, :, 3]
    if method == "lookat":
        return lookat_point(poses)
    if method == "camera":
        return origins.mean(0)
    if points is None:
        raise ConfigError("dataset.center_est_method = point, but there are no sparse points; set it to region")
    ground, places = origins @ rotation[:2].T, points @ rotation[:2].T  # seen from above
    between = points[((places >= ground.amin(0)) & (places <= ground.amax(0))).all(1)]
    if len(between) == 0:
        raise ConfigError(
            "dataset.center_est_method = point, but no sparse points lie between the cameras; set it to region"
        )
    return _robust_mean(between)


def _robust_mean(points: Float64[Tensor, "M 3"]) -> Float64[Tensor, "3"]:
    """Mean of the points whose distance from the mean of all is usual."""
    away = (points - points.mean(0)).norm(dim=1)
    quartiles = away.quantile(away.new_tensor([0.25, 0.75]))
    unusual = 1.5 * torch.minimum(away.std(unbiased=False), quartiles[1] - quartiles[0])
    usual = points[(away - away.mean()).abs() <= unusual]
    return usual.mean(0) if len(usual) else points.mean(0)
