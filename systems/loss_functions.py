"""Losses: pure functions of what was rendered and what was photographed, chosen and weighted by `lambda_<name>`.

A loss is one registered function; `needs` names the quantities of `Rendered` and of the data (`systems.supervision`)
without which it has no meaning, and keyword arguments are its options, set by keys of the same name.
`lambda_prev_stage_<name>` weighs it on what the pass before the last one saw, `prev_stage_prev_stage_` on the pass
before that.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from models import ops
from systems import losses
from utils.geometry import length, unit
from utils.notice import notice
from utils.registry import ConfigError, nearest
from utils.schedule import Schedule
from utils.types import Rendered, Target

Loss = Callable[..., Float[Tensor, ""]]


def loss(name: str, *needs: str) -> Callable[[Loss], Loss]:
    """Registers a loss as `lambda_<name>`; `needs` are quantities of `Rendered` without which it has no meaning."""

    def file(function: Loss) -> Loss:
        function.needs = frozenset(needs)  # type: ignore[attr-defined]
        return losses.register(name)(function)

    return file


def mean_over_hits(per_ray: Float[Tensor, "R C"], rendered: Rendered) -> Float[Tensor, ""]:
    """Mean over whole rays that met anything; rays through empty cells only have no gradient to give."""
    hit = rendered.is_hit.to(per_ray.dtype)
    return (per_ray.mean(-1) * hit).sum() / hit.sum().clamp_min(1)


def color_error(rendered: Rendered, target: Target) -> Float[Tensor, "R 3"]:
    """Difference of colours.

    Raises:
        ValueError: what was rendered is not a colour.
    """
    if rendered.color.shape != target.color.shape:
        raise ValueError(
            f"the model renders {rendered.color.shape[1]} channels, but photographs have 3; set "
            "model.render_features_dimensions=3, or the weights of losses of colours to 0"
        )
    return rendered.color - target.color


def _mean(values: Float[Tensor, "M"]) -> Float[Tensor, ""]:
    """Mean that is zero, not NaN, where there are none."""
    return values.sum() / max(values.shape[0], 1)


@loss("rgb")
def rgb(rendered: Rendered, target: Target) -> Float[Tensor, ""]:
    """Smooth L1 of colours with beta 1; as colours differ by at most 1, half the mean squared error."""
    error = color_error(rendered, target)
    return mean_over_hits(F.smooth_l1_loss(error, torch.zeros_like(error), reduction="none"), rendered)


@loss("rgb_mse")
def rgb_mse(rendered: Rendered, target: Target) -> Float[Tensor, ""]:
    """Mean squared error of colours."""
    return mean_over_hits(color_error(rendered, target).square(), rendered)


@loss("rgb_l1")
def rgb_l1(rendered: Rendered, target: Target) -> Float[Tensor, ""]:
    """Mean absolute error of colours."""
    return mean_over_hits(color_error(rendered, target).abs(), rendered)


@loss("eikonal", "gradient")
def eikonal(rendered: Rendered, target: Target) -> Float[Tensor, ""]:
    """Mean of (|grad f| - 1)^2 over samples, and over probes where there are any (Gropp et al. 2020, IGR)."""
    assert rendered.gradient is not None
    at_samples, probes = _unevenness(rendered.gradient), rendered.probes
    if rendered.samples is None:  # a renderer that chooses points of its own
        return _mean(at_samples)
    return rendered.samples.mean(at_samples, None if probes is None else _unevenness(probes.gradient))


def _unevenness(gradient: Float[Tensor, "M 3"]) -> Float[Tensor, "M"]:
    return (length(gradient) - 1).square()


@loss("mask", "mask")
def mask(rendered: Rendered, target: Target) -> Float[Tensor, ""]:
    """Binary cross-entropy of the foreground's opacity and the mask, over all rays."""
    assert target.mask is not None
    opacity = rendered.opacity.clamp(1e-3, 1 - 1e-3)
    return F.binary_cross_entropy(opacity, target.mask, rendered.ray_weights)


@loss("opaque")
def opaque(rendered: Rendered, target: Target) -> Float[Tensor, ""]:
    """Entropy of the opacity: every ray should hit or miss."""
    opacity = rendered.opacity.clamp(1e-3, 1 - 1e-3)
    return F.binary_cross_entropy(opacity, opacity, rendered.ray_weights)


@loss("sparsity", "sdf")
def sparsity(rendered: Rendered, target: Target, sparsity_scale: float = 1.0) -> Float[Tensor, ""]:
    """Mean of exp(-scale |f|): surfaces that nothing asks for go away (Long et al. 2022, SparseNeuS, eq. 11)."""
    assert rendered.sdf is not None and rendered.samples is not None
    return rendered.samples.mean(torch.exp(-sparsity_scale * rendered.sdf.abs()))


@loss("curvature", "laplacian")
def curvature(rendered: Rendered, target: Target, curvature_decay: float = 0.0) -> Float[Tensor, ""]:
    """Mean absolute Laplacian (Li et al. 2023, Neuralangelo, eq. 9).

    With `curvature_decay: 1` the term shrinks in proportion to the step of progressive finite differences, as the
    paper's weight does; a schedule of the weight warms it up.

    Raises:
        ValueError: it shall shrink with a step that does not.
    """
    assert rendered.laplacian is not None and rendered.samples is not None
    term = rendered.samples.mean(rendered.laplacian.abs())
    if curvature_decay == 0:
        return term
    if rendered.tap_share is None:
        raise ValueError(
            f"system.loss.curvature_decay is {curvature_decay:g}, but finite differences keep their step; set "
            "model.geometry.finite_difference_eps=progressive, or curvature_decay to 0"
        )
    return term * rendered.tap_share**curvature_decay


@loss("tangent_curvature", "gradient", "neighbors")
def tangent_curvature(rendered: Rendered, target: Target) -> Float[Tensor, ""]:
    """Mean of (1 - cos)^2 of the angle between the normals at a sample and beside it in its tangent plane.

    The curvature loss of PermutoSDF (Rosu and Behnke 2023): one more normal instead of six taps.
    """
    assert rendered.gradient is not None and rendered.neighbors is not None
    neighbors = rendered.neighbors
    cosine = (unit(rendered.gradient[neighbors.sample]) * unit(neighbors.gradient)).sum(-1)
    return _mean((1 - cosine).square() * neighbors.is_sample)


@loss("empty", "probes")
def empty(rendered: Rendered, target: Target, empty_margin: float = 0.02) -> Float[Tensor, ""]:
    """Mean of relu(margin - f) over probes in empty cells: no surface may hide where no ray looks."""
    assert rendered.probes is not None
    probes = rendered.probes
    return _mean(torch.relu(empty_margin - probes.sdf) * probes.is_empty)


@loss("distortion", "weights")
def distortion(rendered: Rendered, target: Target) -> Float[Tensor, ""]:
    """Spread of the weights along rays, mean over rays (Barron et al. 2022, mip-NeRF 360, eq. 15)."""
    assert rendered.samples is not None and rendered.weights is not None
    samples = rendered.samples
    spread = ops.distortion(rendered.weights, samples.t, samples.width, samples.offsets)
    return _mean(spread if rendered.ray_weights is None else spread * rendered.ray_weights)


@loss("distortion_bg", "background")
def distortion_bg(rendered: Rendered, target: Target) -> Float[Tensor, ""]:
    """The same for the background."""
    assert rendered.background is not None
    return distortion(rendered.background, target)


@dataclass
class LossReport:
    """The losses of one step.

    Attributes:
        total: weighted sum, to be minimised.
        terms: unweighted value of every term with a weight.
        weights: present weights.
    """

    total: Float[Tensor, ""]
    terms: dict[str, Float[Tensor, ""]]
    weights: dict[str, float]


class LossSet:
    """The weighted losses that a configuration names.

    Args:
        config: `lambda_<loss>` and the losses' own options, as schedules.
        quantities: what the model's `Rendered` can carry, and what the data set gives.

    Raises:
        ConfigError: an unknown key, or a loss whose quantity nobody produces.
    """

    def __init__(self, config: dict[str, Schedule], quantities: frozenset[str]):
        self._options = {}
        self._weights: dict[str, Schedule] = {}
        known = {f"lambda_{name}": losses.get(name) for name in losses.names()}
        options = {option for function in known.values() for option in _options_of(function)}
        for key, schedule in config.items():
            if key in options:
                self._options[key] = schedule
            elif (plain := _plain(key)) in known:
                if schedule.start != 0 or schedule.end != 0:
                    self._add(key.removeprefix("lambda_"), quantities, schedule)
            elif plain in _NEVER:
                raise ConfigError(f"system.loss.{key}: {_NEVER[plain]}; remove the key")
            else:
                words = [*known, *sorted(options)]
                raise ConfigError(f"system.loss.{key}: unknown loss{nearest(key, words)}; known: {', '.join(words)}")
        if not self._weights:
            raise ConfigError(
                "system.loss weighs no loss, so nothing would be learnt; add system.loss.lambda_rgb_mse=1.0"
            )
        if _EARLIER in quantities and not any(name.startswith(_EARLIER) for name in self._weights):
            notice(
                "no loss looks at the first of several passes, so a function that only this pass asks learns nothing; "
                "set system.loss.lambda_prev_stage_rgb_mse to a weight"
            )

    def __call__(self, rendered: Rendered, target: Target, step: int, epoch: int) -> LossReport:
        """Evaluates every loss whose weight is not zero now."""
        weights = {name: schedule.at(step, epoch) for name, schedule in self._weights.items()}
        terms = {}
        for name, weight in weights.items():
            if weight != 0:
                n_earlier, plain = _staged(name)
                function, seen = losses.get(plain), rendered
                for _ in range(n_earlier):
                    assert seen.coarse is not None
                    seen = seen.coarse
                names = [key for key in _options_of(function) if key in self._options]
                options = {key: self._options[key].at(step, epoch) for key in names}
                # In full precision, which on CUDA torch itself demands of cross-entropies.
                with torch.autocast(rendered.color.device.type, enabled=False):
                    terms[name] = function(seen, target, **options)
        total = sum(
            (weights[name] * term for name, term in terms.items()), torch.zeros((), device=rendered.color.device)
        )
        return LossReport(total, terms, weights)

    def needs(self, step: int, epoch: int) -> frozenset[str]:
        """Quantities without which the losses that have a weight now cannot be evaluated."""
        now = [name for name, schedule in self._weights.items() if schedule.at(step, epoch) != 0]
        return frozenset().union(*(losses.get(_staged(name)[1]).needs for name in now))

    def _add(self, name: str, quantities: frozenset[str], schedule: Schedule) -> None:
        n_earlier, plain = _staged(name)
        needs = losses.get(plain).needs | ({_EARLIER * n_earlier} if n_earlier else frozenset())
        missing = needs - quantities
        key = f"system.loss.lambda_{name}"
        if missing == {"mask"}:
            notice(f"{key} has no effect: the data set has no masks")
        elif missing:
            remedies = "; ".join(_remedy(quantity) for quantity in sorted(missing))
            raise ConfigError(f"{key} is not 0, but nothing gives it what it compares: {remedies}")
        else:
            self._weights[name] = schedule


_EARLIER = "prev_stage_"
"""What the name of a loss of an earlier pass has before it."""
_NEVER = {"lambda_kl": "nothing ever produced what this published key weighs"}
"""Losses of published configurations that no code knows."""
_REMEDIES = {
    "laplacian": "set model.geometry.grad_type=finite_difference, or the weight to 0",
    "background": "set model.learned_background=true, or the weight to 0",
    "probes": "set model.num_probes to a number of points, or the weight to 0",
    "neighbors": "set model.num_neighbors to a number of samples, or the weight to 0",
    "sdf": "choose model.name=neus, or set the weight to 0",
    "gradient": "choose model.name=neus or model.renderer.name=sdf, or set the weight to 0",
    "weights": "set model.renderer.return_weights=true, or the weight to 0",
    "true depth": "the data set has no depth maps (or dataset.use_depth is false); set the weight to 0",
    "true normal": "the data set has no normal maps (or dataset.use_normals is false); set the weight to 0",
    "sparse points": "the data set has no sparse points; set the weight to 0",
    "distance": "choose a model of a distance, such as model.name=neus, or set the weight to 0",
    "normal": "choose model.name=neus, or set the weight to 0",
    "density_grid": "set return_density_grid of the implicit function voxel-grid to true, or the weight to 0",
    "code_norm": "set model.global_encoder.name=sequence-autodecoder, or the weight to 0",
}


def _remedy(quantity: str) -> str:
    """What to do about a quantity that is missing."""
    if quantity.startswith(_EARLIER):
        n = quantity.count(_EARLIER) + 1
        return f"that is a loss of models with {n} passes or more; set model.num_passes={n}, or the weight to 0"
    return _REMEDIES.get(quantity, f"no part makes '{quantity}'")


def _plain(key: str) -> str:
    """The key of a loss without the passes that it looks back."""
    return f"lambda_{_staged(key.removeprefix('lambda_'))[1]}" if key.startswith("lambda_") else key


def _staged(name: str) -> tuple[int, str]:
    """How many passes before the last one a loss looks, and its plain name."""
    plain = name
    while plain.startswith(_EARLIER):
        plain = plain.removeprefix(_EARLIER)
    return (len(name) - len(plain)) // len(_EARLIER), plain


def _options_of(function: Loss) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in ("rendered", "target")]
