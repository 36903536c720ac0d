"""What every renderer of the Implicitron family offers."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from models.fields.implicit import ImplicitFunction
from utils.types import Context, RayPoints, Rays, Rendered


class Renderer(nn.Module, ABC):
    """Turns answers of implicit functions into pixels. Built as `renderer(config, sizes, radius)`.

    Whether it trains or evaluates is `self.training`.

    Attributes:
        asks: kind of function it can ask.
        max_passes: largest number of functions it takes, or None for any.
        needs_mask: whether rays must carry the object's mask in training.
        quantities: what `Rendered` carries in training besides colour, opacity and depth; losses ask for them.
    """

    asks: type[ImplicitFunction]
    max_passes: int | None = 1
    needs_mask: bool = False
    quantities: frozenset[str] = frozenset()

    @abstractmethod
    def forward(
        self, rays: Rays, points: RayPoints, functions: Sequence[ImplicitFunction], context: Context
    ) -> Rendered:
        """What is seen along rays.

        Args:
            rays: R of them.
            points: where the ray sampler would have the first function asked.
            functions: one per pass, coarse to fine.
            context: of the same rays.

        Returns:
            What the last pass saw; passes before it hang on `coarse`. `is_dense` is true, `n_samples` counts the
            points that functions were asked at.
        """

    @abstractmethod
    def surface_color(
        self,
        points: Float[Tensor, "N 3"],
        normals: Float[Tensor, "N 3"],
        function: ImplicitFunction,
        context: Context,
    ) -> Float[Tensor, "N C"]:
        """Colour of surface points seen along their normals; asked only of functions that have an isosurface."""
