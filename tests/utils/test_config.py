"""Laws of configuration files and of what is made of them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from omegaconf import OmegaConf

from utils.config import convert, load, parse, read, resolve, slot
from utils.registry import ConfigError, Registry
from utils.resolvers import exponential_decay_rate, register_resolvers
from utils.schedule import Schedule

FILE = """
name: run-${dataset.scene}
dataset:
  scene: ???
model:
  radius: 1.5
  geometry:
    radius: ${model.radius}
    width: ${add:${model.geometry.depth},3}
    depth: 13
parts:
  - size: 1
  - size: 2
folder: ${basename:./a/b/}
steps: 20000
rate: ${calc_exp_lr_decay_rate:0.1,${sub:${steps},5000}}
"""

shapes = Registry("shape", "utils", key="otype")


@shapes.register("ball", "egg")
class Ball:
    @dataclass
    class Config:
        otype: Literal["ball", "egg"] = "ball"
        """Kind."""
        radius: float = 1.0
        """Radius, world units."""

        def __post_init__(self) -> None:
            if self.radius <= 0:
                raise ConfigError(f"radius is {self.radius}, expected a positive number")


@shapes.register("box")
class Box:
    @dataclass
    class Config:
        sides: list[float]
        """Lengths of the sides."""


@dataclass
class Paint:
    color: Literal["red", "green"] = "red"
    """Colour."""
    layers: int = 1
    """Number of layers."""


@dataclass
class Scene:
    name: str
    """Name."""
    shape: object = slot(shapes, default=Ball.Config)
    """Object."""
    ground: object | None = slot(shapes, default=None)
    """Ground."""
    paint: Paint = field(default_factory=Paint)
    """Paint."""
    varnish: Paint | None = None
    """Varnish."""
    weight: Schedule = Schedule.constant(1.0)
    """Weight."""
    width: float | Literal["auto"] = "auto"
    """Width."""
    extras: dict[str, Schedule] = field(default_factory=dict)
    """Extras."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file.yaml"
    path.write_text(FILE)
    return path


def test_interpolations_and_resolvers_are_resolved_at_once(file: Path) -> None:
    config = load(file, ["dataset.scene=lego"])
    assert config.name == "run-lego"
    assert config.model.geometry.radius == 1.5
    assert config.model.geometry.width == 16
    assert config.folder == "b"
    assert config.rate == pytest.approx(0.9998465061085, abs=1e-13)
    assert not any("${" in line for line in OmegaConf.to_yaml(config).splitlines())


def test_overrides_win_and_move_what_is_computed_from_them(file: Path) -> None:
    config = load(file, ["dataset.scene=x", "model.radius=1e-4", "parts[1].size=[3,4]", "steps=24500", "new.key=null"])
    assert config.model.geometry.radius == 1e-4
    assert config.parts[1].size == [3, 4]
    assert config.rate == pytest.approx(0.9998819256845, abs=1e-13)
    assert config.new.key is None


def test_resolvers_compute_however_often_they_are_registered() -> None:
    register_resolvers()
    register_resolvers()
    tree = {"a": "${add:1,2}", "s": "${sub:1,2}", "m": "${mul:3,2}", "d": "${div:3,2}", "i": "${idiv:7,2}"}
    assert OmegaConf.to_container(OmegaConf.create(tree), resolve=True) == {"a": 3, "s": -1, "m": 6, "d": 1.5, "i": 3}


def test_a_decay_over_no_steps_changes_nothing() -> None:
    assert exponential_decay_rate(0.1, 0) == exponential_decay_rate(0.1, -100) == 1.0


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "dataset.scene is required: add dataset.scene=VALUE to the command line"),
        (["dataset.scene=a", "model"], "override 'model' is not of the form key=value"),
        (["dataset.scene=a", "=3"], "override '=3' is not of the form key=value"),
        (["dataset.scene=a", "x=[1,"], "override 'x=[1,': did not find expected node content"),
        (["dataset.scene=a", "parts[9].size=3"], "override 'parts[9].size=3': list index out of range"),
        (["dataset.scene=a", "x=${model.radus}"], "x: Interpolation key 'model.radus' not found"),
        (["dataset.scene=a", "x=${div:1,0}"], "x: ZeroDivisionError raised while resolving interpolation"),
        (["dataset.scene=a", "x=${y}", "y=${x}"], "Recursive interpolation detected"),
        (["dataset.scene=a", "x=${square:2}"], "x: Unsupported interpolation type square"),
    ],
)
def test_bad_overrides_are_told_in_one_line(file: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(file, overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1,\nc: 2\n", "file.yaml, line 4, column 1: broken YAML, did not find expected"),
        ("a: 1\na: 2\n", "file.yaml, line 2, column 1: broken YAML, found duplicate key a"),
        ("- a\n", "file.yaml: expected a mapping of keys at the top, found a list"),
    ],
)
def test_broken_files_are_told_with_their_line(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_names_the_nearest_one(file: Path) -> None:
    with pytest.raises(ConfigError, match=r"fle.yaml: no such configuration file \(did you mean 'file.yaml'\?\)"):
        load(file.with_name("fle.yaml"))


def test_what_is_read_keeps_its_interpolations_until_they_are_resolved(file: Path) -> None:
    config = read(file, ["dataset.scene=a", "x=1", "y=${add:${x},1}"])
    config.x = 4
    resolve(config)
    assert config.y == 5
    assert config == load(file, ["dataset.scene=a", "x=4", "y=5"])


def test_inert_family_keys_are_dropped_with_a_notice(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = load(file, ["dataset.scene=a", "dataset.near_plane=2.0"])
    assert "near_plane" not in config.dataset
    assert "dataset.near_plane has no effect here" in caplog.text


def test_parts_are_chosen_by_name_and_keep_it_where_they_have_a_field_for_it() -> None:
    scene = parse(
        Scene, {"name": "a", "shape": {"otype": "egg", "radius": 2}, "ground": {"otype": "box", "sides": [1]}}
    )
    assert scene.shape == Ball.Config("egg", 2.0)
    assert scene.ground == Box.Config([1.0])


def test_what_is_not_given_has_its_default() -> None:
    scene = parse(Scene, {"name": "a", "ground": None})
    assert scene == Scene("a", Ball.Config(), None, Paint(), None, Schedule.constant(1.0), "auto", {})


def test_values_become_what_their_annotation_says() -> None:
    node = {
        "name": 24,
        "paint": {"layers": 2.0},
        "varnish": {"color": "green"},
        "weight": [0, 1, 10],
        "width": "1e-4",
        "extras": {"a": 1},
    }
    scene = parse(Scene, OmegaConf.create(node))
    assert (scene.name, scene.paint.layers, scene.width) == ("24", 2, 1e-4)
    assert scene.varnish == Paint("green")
    assert scene.weight.at(5) == 0.5
    assert scene.extras == {"a": Schedule.constant(1.0)}


@pytest.mark.parametrize(
    ("node", "message"),
    [
        ({}, "scene.name is required: add scene.name=VALUE to the command line"),
        ({"name": "???"}, "scene.name is required"),
        ({"name": "a", "shpe": 1}, "scene.shpe: unknown key (did you mean 'shape'?); known: name, shape, ground"),
        ({"name": None}, "scene.name is None, expected a text"),
        ({"name": True}, "scene.name is True, expected a text"),
        ({"name": "a", "shape": None}, "scene.shape is None, expected a section of keys"),
        ({"name": "a", "shape": {}}, "scene.shape.otype is required, the name of a shape; known: ball, box, egg"),
        ({"name": "a", "shape": {"otype": "bal"}}, "scene.shape.otype: unknown shape 'bal' (did you mean 'ball'?)"),
        (
            {"name": "a", "shape": {"otype": "ball", "radus": 1}},
            "scene.shape.radus: unknown key (did you mean 'radius'?)",
        ),
        (
            {"name": "a", "shape": {"otype": "ball", "radius": 0}},
            "scene.shape: radius is 0.0, expected a positive number",
        ),
        (
            {"name": "a", "ground": {"otype": "box", "sides": [1, "x"]}},
            "scene.ground.sides[1] is 'x', expected a number",
        ),
        (
            {"name": "a", "ground": {"otype": "box", "sides": 1}},
            "scene.ground.sides is 1, expected a list, each item a number",
        ),
        ({"name": "a", "paint": 3}, "scene.paint is 3, expected a section of keys"),
        (
            {"name": "a", "paint": {"color": "gren"}},
            "scene.paint.color is 'gren', expected one of 'red', 'green' (did you",
        ),
        ({"name": "a", "paint": {"layers": 1.5}}, "scene.paint.layers is 1.5, expected an integer"),
        ({"name": "a", "paint": {"layers": True}}, "scene.paint.layers is True, expected an integer"),
        ({"name": "a", "varnish": {"layers": "x"}}, "scene.varnish.layers is 'x', expected an integer"),
        ({"name": "a", "width": "outo"}, "scene.width is 'outo', expected a number or 'auto' (did you mean 'auto'?)"),
        (
            {"name": "a", "weight": [1, 2]},
            "scene.weight is [1, 2]; expected a number, [start_step, start, end, end_step]",
        ),
        ({"name": "a", "extras": {"b": "x"}}, "scene.extras.b is 'x'; expected a number"),
    ],
)
def test_mistakes_are_told_in_one_line_with_their_full_key(node: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(Scene, node, "scene")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("hint", "value"),
    [(float, True), (float, float("nan")), (float, None), (int, float("inf")), (int, "3"), (bool, 1), (bool, "yes")],
)
def test_values_of_another_kind_are_refused(hint: Any, value: Any) -> None:
    with pytest.raises(ConfigError, match="^key is "):
        convert(hint, value, "key")
