"""`overfit`: one scene, one implicit function, and on request a coarse one that shows it where to look."""

from collections.abc import Sequence
from dataclasses import dataclass

from models import implicit_functions, models
from models.fields.implicit import ImplicitFunction, Sizes
from models.implicit import ImplicitConfig, ImplicitModel
from utils.config import slot
from utils.registry import ConfigError


@models.register("overfit")
class Overfit(ImplicitModel):
    """One scene in one or two passes, whose functions may be one: Implicitron's OverfitModel."""

    @dataclass
    class Config(ImplicitConfig):
        coarse_implicit_function: object | None = slot(implicit_functions, default=None)
        """What the first of two passes asks; its kind may differ. null for a single pass."""
        share_implicit_function_across_passes: bool = False
        """Whether implicit_function is asked in two passes."""

        def __post_init__(self) -> None:
            super().__post_init__()
            if self.share_implicit_function_across_passes and self.coarse_implicit_function is not None:
                raise ConfigError(
                    "coarse_implicit_function has no effect with share_implicit_function_across_passes; remove one"
                )

    def make_functions(self, sizes: Sizes) -> Sequence[ImplicitFunction]:
        config = self.config
        assert isinstance(config, Overfit.Config)
        function = implicit_functions.make(config.implicit_function, sizes)
        if config.share_implicit_function_across_passes:
            return [function, function]
        if config.coarse_implicit_function is not None:
            return [implicit_functions.make(config.coarse_implicit_function, sizes), function]
        return [function]
