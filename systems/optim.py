"""Optimisers and learning rates, from YAML to torch.

A resumed run takes its counters and moments from the checkpoint and everything else from the present configuration:
changed rates, decay factors and milestones count from the first resumed step on, as if they had always been there.
For that a checkpoint holds no option of the schedule, only how many steps it has taken.
"""

import inspect
import warnings
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from utils.notice import notice
from utils.registry import ConfigError, nearest
from utils.signature import check_arguments


@dataclass
class OptimizerConfig:
    """How parameters follow their gradients."""

    name: str = "AdamW"
    """Class of torch.optim."""
    args: dict[str, Any] = field(default_factory=lambda: {"lr": 0.01})
    """Its arguments."""
    params: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Other arguments for parts of the model, by dotted path; when given, it must list every part."""


@dataclass
class SchedulerConfig:
    """How the learning rate changes."""

    name: str
    """Class of torch.optim.lr_scheduler, SequentialLR (one child after another) or Chained (all at once)."""
    interval: Literal["step", "epoch"] = "epoch"
    """What moves the schedule on; only that of the outermost schedule counts."""
    args: dict[str, Any] = field(default_factory=dict)
    """Its arguments."""
    schedulers: "list[SchedulerConfig]" = field(default_factory=list)
    """Children of SequentialLR and Chained."""
    milestones: list[int] = field(default_factory=list)
    """Steps at which SequentialLR moves on to the next child, which begins at its own step 0 from the base rate."""

    def __post_init__(self) -> None:
        has_children = self.name in ("SequentialLR", "Chained")
        if has_children != bool(self.schedulers):
            raise ConfigError(f"{self.name} {'needs a list of' if has_children else 'takes no'} schedulers")
        expected = len(self.schedulers) - 1 if self.name == "SequentialLR" else 0
        if len(self.milestones) != expected:
            raise ConfigError(
                f"milestones is {self.milestones}, but {self.name} of {len(self.schedulers)} schedulers has {expected}"
            )
        if self.milestones != sorted(self.milestones):
            raise ConfigError(f"milestones is {self.milestones}, which does not ascend")


def make_optimizers(
    optimizer_config: OptimizerConfig,
    scheduler_config: SchedulerConfig | None,
    model: nn.Module,
    others: Sequence[dict[str, Any]] = (),
    is_fused: bool = True,
) -> tuple[list[Optimizer], list[dict[str, Any]]]:
    """What `LightningModule.configure_optimizers` returns.

    Args:
        optimizer_config: how parameters follow their gradients.
        scheduler_config: how the rate changes; None keeps it.
        model: its trainable parameters are optimised; paths in `params` begin below it.
        others: groups of parameters beside it, with options of their own.
        is_fused: whether steps may be taken in one kernel, as Adam's are unless the configuration says otherwise.

    Raises:
        ConfigError: an unknown name or argument, a path without a part of the model, a parameter that no path covers,
            or fused steps where they may not be.
    """
    optimizer = make_optimizer(optimizer_config, model, others, is_fused)
    if scheduler_config is None:
        return [optimizer], []
    interval = scheduler_config.interval
    if interval == "epoch":
        notice("system.scheduler.interval is 'epoch', and training is a single epoch: the rate will not change")
    return [optimizer], [{"scheduler": LearningRate(scheduler_config, optimizer), "interval": interval}]


def make_optimizer(
    config: OptimizerConfig, model: nn.Module, others: Sequence[dict[str, Any]] = (), is_fused: bool = True
) -> Optimizer:
    """The optimiser of a model's trainable parameters, with a group per path of `config.params`, and of others."""
    where = "system.optimizer"
    kind = _choose(_subclasses(torch.optim, Optimizer), config.name, f"{where}.name", "optimizer")
    options = check_arguments(kind, config.args, f"{where}.args", reserved=("params",))
    groups = []
    for path, own in config.params.items():
        key = f"{where}.params.{path}"
        parameters = [parameter for _, parameter in _trainable(_part(model, path, key))]
        if parameters:
            own = check_arguments(kind, own, key, reserved=("params",))
            groups.append({"params": parameters, "name": path, **own})
    if config.params:
        _check_cover(model, groups, where)
    else:
        groups = [{"params": [parameter for _, parameter in _trainable(model)], "name": "model"}]
    groups += others
    if options.get("fused") and not is_fused:
        raise ConfigError(
            f"{where}.args.fused is true, but gradients of 16-bit training cannot be clipped in fused steps; "
            "remove it, or set trainer.gradient_clip_val to null or trainer.precision to 32"
        )
    if is_fused and not {"fused", "foreach", "differentiable"} & options.keys() and config.name in ("Adam", "AdamW"):
        # One kernel instead of a dozen: several times faster on the large tables of hash grids.
        options["fused"] = all(parameter.is_floating_point() for group in groups for parameter in group["params"])
    try:
        optimizer = kind(groups, **options)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where}.args: {error}") from error
    _forget_saved_options(optimizer)
    return optimizer


def forget(optimizer: Optimizer, parameters: Iterable[nn.Parameter]) -> None:
    """Makes an optimiser treat parameters as if it had never moved them."""
    for parameter in parameters:
        state = optimizer.state.pop(parameter, {})
        if isinstance(optimizer, torch.optim.Adagrad):  # the only one whose state is there before the first step
            state["step"].zero_()
            state["sum"].fill_(optimizer.defaults["initial_accumulator_value"])
            optimizer.state[parameter] = state


class LearningRate(lr_scheduler.LRScheduler):
    """A schedule of which a checkpoint keeps only the number of steps.

    Loading builds the configured schedule anew and takes that many steps, so that the rate is what it would be had
    the run used the present configuration from the start (20,000 steps take about 0.2 s).
    """

    def __init__(self, config: SchedulerConfig, optimizer: Optimizer):
        self.optimizer = optimizer
        self._config = config
        self._base = _options(optimizer)
        self._start()

    def step(self, epoch: Any = None) -> None:
        self.last_epoch += 1
        self._schedule.step()

    def get_last_lr(self) -> list[float | torch.Tensor]:
        return [group["lr"] for group in self.optimizer.param_groups]

    def state_dict(self) -> dict[str, int]:
        return {"last_epoch": self.last_epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._start()
        with warnings.catch_warnings():
            # torch warns of steps before the optimiser's first; these were taken before.
            warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
            for _ in range(state_dict["last_epoch"]):
                self.step()

    def _start(self) -> None:
        _set_options(self.optimizer, self._base)
        self.last_epoch = 0
        self._schedule = _make_schedule(self._config, self.optimizer, "system.scheduler")


@runtime_checkable
class _Steps(Protocol):
    def step(self) -> None: ...


class _Sequence:
    """One schedule after another; each begins at its own step 0 from the base rate."""

    def __init__(self, config: SchedulerConfig, optimizer: Optimizer, where: str):
        self._config, self._optimizer, self._where = config, optimizer, where
        self._base = _options(optimizer)
        # All are built once up front so that a mistake in a late one stops the run now.
        for row in range(len(config.schedulers)):
            self._enter(row)
        self._n_steps = 0
        self._enter(bisect_right(config.milestones, 0))

    def step(self) -> None:
        self._n_steps += 1
        row = bisect_right(self._config.milestones, self._n_steps)
        if row == self._row:
            self._child.step()
        else:
            self._enter(row)

    def _enter(self, row: int) -> None:
        _set_options(self._optimizer, self._base)
        self._row = row
        self._child = _make_schedule(self._config.schedulers[row], self._optimizer, f"{self._where}.schedulers[{row}]")


class _Chain:
    """Several schedules that all step at once; their factors multiply."""

    def __init__(self, config: SchedulerConfig, optimizer: Optimizer, where: str):
        self._children = [
            _make_schedule(child, optimizer, f"{where}.schedulers[{row}]")
            for row, child in enumerate(config.schedulers)
        ]

    def step(self) -> None:
        for child in self._children:
            child.step()


def _make_schedule(config: SchedulerConfig, optimizer: Optimizer, where: str) -> _Steps:
    composed = {"SequentialLR": _Sequence, "Chained": _Chain}
    if config.name in composed:
        if config.args:
            raise ConfigError(f"{where}.args is {config.args}, but {config.name} takes none")
        return composed[config.name](config, optimizer, where)
    known = _subclasses(lr_scheduler, lr_scheduler.LRScheduler)
    kind = _choose(known | composed, config.name, f"{where}.name", "scheduler")
    options = check_arguments(kind, config.args, f"{where}.args", reserved=("optimizer", "last_epoch"))
    try:
        return kind(optimizer, **options)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{where}.args: {error}") from error


def _choose(known: dict[str, Any], name: str, where: str, what: str) -> Any:
    if name not in known:
        words = sorted(known)
        raise ConfigError(f"{where}: unknown {what} '{name}'{nearest(name, words)}; known: {', '.join(words)}")
    return known[name]


def _subclasses(module: Any, base: type) -> dict[str, Any]:
    """Classes of `module` that YAML can name: those whose arguments are plain values."""
    composites = (
        "SequentialLR",
        "ChainedScheduler",
        "ReduceLROnPlateau",
        "LambdaLR",
        "MultiplicativeLR",
        base.__name__,
    )
    found = inspect.getmembers(module, lambda one: inspect.isclass(one) and issubclass(one, base))
    return {name: one for name, one in found if name not in composites and not name.startswith("_")}


def _part(model: nn.Module, path: str, key: str) -> Any:
    """The module or parameter at a dotted path below the model."""
    part: Any = model
    for name in path.split("."):
        known = (
            dict(part.named_children()) | dict(part.named_parameters(recurse=False))
            if isinstance(part, nn.Module)
            else {}
        )
        if name not in known:
            words = list(known)
            raise ConfigError(
                f"{key}: the model has no '{name}' there{nearest(name, words)}; known: {', '.join(words)}"
            )
        part = known[name]
    return part


def _trainable(part: nn.Module | nn.Parameter) -> Iterator[tuple[str, nn.Parameter]]:
    named: Iterable = [("", part)] if isinstance(part, nn.Parameter) else part.named_parameters()
    return ((name, parameter) for name, parameter in named if parameter.requires_grad)


def _check_cover(model: nn.Module, groups: list[dict[str, Any]], where: str) -> None:
    owner: dict[int, str] = {}
    for group in groups:
        for parameter in group["params"]:
            other = owner.setdefault(id(parameter), group["name"])
            if other != group["name"]:
                raise ConfigError(
                    f"{where}.params.{group['name']} shares parameters with '{other}'; list each part once"
                )
    missing = [name for name, parameter in _trainable(model) if id(parameter) not in owner]
    if missing:
        parts = ", ".join(dict.fromkeys(name.split(".")[0] for name in missing))
        raise ConfigError(
            f"{where}.params does not list {parts} ({len(missing)} parameters, first {missing[0]}), which would never "
            f"be trained: add {where}.params.{missing[0].split('.')[0]}.lr=VALUE"
        )


def _options(optimizer: Optimizer) -> list[dict[str, Any]]:
    return [{key: value for key, value in group.items() if key != "params"} for group in optimizer.param_groups]


def _set_options(optimizer: Optimizer, options: list[dict[str, Any]]) -> None:
    for group, values in zip(optimizer.param_groups, options, strict=True):
        for key in group.keys() - values.keys() - {"params"}:
            del group[key]
        group.update(values)


def _forget_saved_options(optimizer: Optimizer) -> None:
    options = _options(optimizer)
    optimizer.register_load_state_dict_post_hook(lambda loaded: _set_options(loaded, options))
