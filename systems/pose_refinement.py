"""Cameras that learn: a small rotation and shift per training camera, fitted together with the scene.

Notation: V cameras at centres c. Camera v turns by the rotation vector w_v about its own centre, in world axes, and
moves by scale * u_v (an offset in SO3 x R3, as Wang et al. 2021, NeRF--, and Lin et al. 2021, BARF, have it); `scale`
is the root mean square distance of the centres from their middle, so that both numbers are about radians.

Gauge: turning, moving or scaling all cameras and the scene together changes no picture. These seven directions of the
6 V offsets are left out by projection, so what is learnt is how cameras stand among each other, and the scene as a
whole stays where held-out cameras look for it.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from datasets.views import Views
from utils.registry import ConfigError
from utils.types import Rays


@dataclass
class PoseRefinementConfig:
    """How the poses of training cameras follow the photographs."""

    lr: float = 1e-4
    """Learning rate, about radians per step; it follows `system.scheduler` as the others do. Poses that are off by
    degrees need ten times as much."""
    start_step: int = 0
    """Step from which poses are refined; until then the scene gets its rough shape."""

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ConfigError(f"lr is {self.lr:g}, but must be positive; remove the section to keep poses as they are")


class PoseRefinement(nn.Module):
    """Offsets of the training cameras.

    A checkpoint holds `offsets`; their number comes from the data or from the checkpoint, whichever is read first.
    """

    offsets: nn.Parameter
    gauge: Tensor
    scale: Tensor

    def __init__(self, config: PoseRefinementConfig):
        super().__init__()
        self.config = config
        self.offsets = nn.Parameter(torch.zeros(0, 6))
        self.register_buffer("gauge", torch.zeros(0, 7), persistent=False)
        self.register_buffer("scale", torch.ones(()), persistent=False)
        self.register_load_state_dict_pre_hook(_take_size)

    def attach(self, views: Views) -> None:
        """Gets to know the training cameras, as the data set has them.

        Raises:
            ConfigError: too few cameras to tell how they stand among each other, several scenes, or offsets of another
                number of cameras.
        """
        n, center = len(views), views.cameras.pose[:, :, 3]
        if n < 3 or views.scene is not None:
            found = f"{n} training views of {'one scene' if views.scene is None else 'several scenes'}"
            raise ConfigError(f"system.pose_refinement needs 3 or more of one scene, not {found}; set it to null")
        if len(self.offsets) == 0:
            self.offsets = nn.Parameter(torch.zeros(n, 6, device=center.device))
        if len(self.gauge) == 0:
            self.gauge, self.scale = _gauge(center)
        if len(self.offsets) != n:
            raise ConfigError(
                f"the checkpoint has refined poses of {len(self.offsets)} cameras, but the data set has {n}; "
                "train on the same photographs, or set system.pose_refinement to null"
            )

    def groups(self) -> list[dict[str, object]]:
        """Parameters for an optimiser."""
        return [{"params": [self.offsets], "name": "pose_refinement", "lr": self.config.lr}]

    def motion(self) -> tuple[Float[Tensor, "V 3 3"], Float[Tensor, "V 3"]]:
        """Rotation of each camera about its centre and shift of the centre, world axes and units."""
        flat = self.offsets.flatten()
        turn, shift = (flat - self.gauge @ (self.gauge.T @ flat)).view(-1, 6).split(3, dim=-1)
        return _rotation(turn), self.scale * shift

    def forward(self, rays: Rays, step: int) -> Rays:
        """Rays of the training cameras, moved with them; gradients flow to the offsets from `start_step` on."""
        rotation, shift = self.motion()
        if step < self.config.start_step:
            # Offsets stay in the graph, where processes that train together expect every parameter.
            rotation, shift = (part.detach() + 0 * self.offsets.sum() for part in (rotation, shift))
        turned = (rotation.index_select(0, rays.view) * rays.directions[:, None]).sum(-1)
        return replace(rays, origins=rays.origins + shift.index_select(0, rays.view), directions=turned)

    @torch.no_grad()
    def refined(self, views: Views) -> Views:
        """The training views with their cameras where they are now."""
        pose = views.cameras.pose
        rotation, shift = (part.to(pose) for part in self.motion())
        moved = torch.cat([rotation @ pose[:, :, :3], (pose[:, :, 3] + shift)[:, :, None]], dim=-1)
        return replace(views, cameras=replace(views.cameras, pose=moved))


def _take_size(module: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Makes room for the offsets of a checkpoint where the data has not been read."""
    saved = state.get(f"{prefix}offsets")
    if saved is not None and len(module.offsets) == 0:  # type: ignore[arg-type]
        module.offsets = nn.Parameter(torch.zeros_like(saved))


def _gauge(center: Float[Tensor, "V 3"]) -> tuple[Float[Tensor, "_ 7"], Float[Tensor, ""]]:
    """Orthonormal directions in the offsets [6 V, 7] of what cameras can do together, and `scale`."""
    place = center.double() - center.double().mean(0)
    scale = place.square().sum(-1).mean().sqrt().clamp_min(1e-6)
    place, none = place / scale, torch.zeros_like(place)
    axes = torch.eye(3, dtype=place.dtype, device=place.device)[:, None].expand(3, len(place), 3)
    turns = torch.cat([axes, torch.linalg.cross(axes, place.expand(3, -1, 3))], dim=-1)  # [3, V, 6]
    moves = torch.cat([none.expand(3, -1, 3), axes], dim=-1)
    growth = torch.cat([none, place], dim=-1)[None]
    basis, _ = torch.linalg.qr(torch.cat([turns, moves, growth]).flatten(1).T)
    return basis.to(center), scale.to(center)


def _rotation(vector: Float[Tensor, "V 3"]) -> Float[Tensor, "V 3 3"]:
    """Rotation matrices of rotation vectors, radians (Rodrigues' formula), smooth at zero."""
    angle = (vector.square().sum(-1) + 1e-20).sqrt()[:, None, None]
    x, y, z = vector.unbind(-1)
    zero = torch.zeros_like(x)
    cross = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], dim=-1).view(-1, 3, 3)
    # torch.sinc(x) is sin(pi x) / (pi x): the factors are sin(a) / a and (1 - cos(a)) / a^2.
    first, second = torch.sinc(angle / torch.pi), 0.5 * torch.sinc(angle / (2 * torch.pi)).square()
    return torch.eye(3, device=vector.device) + first * cross + second * cross @ cross
