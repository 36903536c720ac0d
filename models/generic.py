"""`generic`: any number of passes, each with an implicit function of its own."""

from collections.abc import Sequence
from dataclasses import dataclass

from models import implicit_functions, models
from models.fields.implicit import ImplicitFunction, Sizes
from models.implicit import ImplicitConfig, ImplicitModel
from utils.config import check_least


@models.register("generic")
class Generic(ImplicitModel):
    """Any number of passes, each with an implicit function of its own: Implicitron's GenericModel."""

    @dataclass
    class Config(ImplicitConfig):
        num_passes: int = 1
        """How often rays are sampled, each time where the pass before saw something."""

        def __post_init__(self) -> None:
            super().__post_init__()
            check_least(self, num_passes=1)

    def make_functions(self, sizes: Sizes) -> Sequence[ImplicitFunction]:
        assert isinstance(self.config, Generic.Config)
        return [implicit_functions.make(self.config.implicit_function, sizes) for _ in range(self.config.num_passes)]
