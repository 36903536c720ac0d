"""The command line: parse -> build -> inspect | train | validate | test | predict | export.

    python launch.py --config configs/neus-blender.yaml --inspect dataset.scene=lego
    python launch.py --config configs/neus-blender.yaml --train dataset.scene=lego
    python launch.py --config exp/.../config/parsed.yaml --test --resume exp/.../ckpt/last.ckpt

Everything after the flags is `key=value` and overrides the configuration. torch is imported late, because the
environment variables that the flags set must be there before.
"""

import argparse
import importlib
import importlib.util
import logging
import os
import shlex
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from utils.registry import ConfigError, nearest

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from omegaconf import DictConfig

    from datasets.module import SceneData
    from systems.experiment import Experiment

ACTIONS = ("inspect", "train", "validate", "test", "predict", "export")


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; --help lists the flags")


def make_parser() -> Parser:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("--config", type=Path, metavar="YAML", help="configuration file")
    action = parser.add_mutually_exclusive_group()
    action.add_argument(
        "--inspect", action="store_true", help="tell and draw what the data set holds, and what is wrong"
    )
    action.add_argument("--train", action="store_true", help="fit the model, then test it and export the mesh")
    action.add_argument("--validate", action="store_true", help="score a checkpoint on the validation views")
    action.add_argument("--test", action="store_true", help="score a checkpoint on the test views, export the mesh")
    action.add_argument("--predict", action="store_true", help="render the training views from a checkpoint")
    action.add_argument("--export", action="store_true", help="mesh and texture a checkpoint")
    parser.add_argument("--resume", type=Path, metavar="CKPT", help="checkpoint to go on from, or to evaluate")
    parser.add_argument("--resume_weights_only", action="store_true", help="new run from the weights of --resume")
    parser.add_argument("--gpu", metavar="IDS", help="CUDA devices such as 0 or 0,1; none for the CPU; mps")
    parser.add_argument("--exp_dir", metavar="DIR", help="root of all runs (default ./exp)")
    parser.add_argument("--runs_dir", default="./runs", metavar="DIR", help="root of TensorBoard logs (default ./runs)")
    plugin = "plug-in that registers parts: dotted name, or path of a Python file; may be repeated"
    parser.add_argument("--import", dest="imports", action="append", default=[], metavar="MODULE", help=plugin)
    parser.add_argument("--verbose", action="store_true", help="more messages, tracebacks of errors")
    return parser


def parse_arguments(words: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Flags and `key=value` overrides.

    Raises:
        ConfigError: an unknown flag, no or several actions, or an action without the checkpoint it needs.
    """
    parser = make_parser()
    arguments, rest = parser.parse_known_args(words)
    for word in rest:
        if word.startswith("-"):
            known = list(parser._option_string_actions)
            raise ConfigError(f"unknown flag {word}{nearest(word, known)}; --help lists the flags")
    if arguments.config is None:
        raise ConfigError("no configuration: add --config configs/NAME.yaml")
    action_name = next((name for name in ACTIONS if getattr(arguments, name)), None)
    if action_name is None:
        raise ConfigError(f"nothing to do: add one of --{', --'.join(ACTIONS)}")
    if arguments.resume is None and action_name not in ("inspect", "train"):
        raise ConfigError(f"--{action_name} needs a checkpoint: add --resume exp/NAME/TRIAL/ckpt/last.ckpt")
    if arguments.resume is None and arguments.resume_weights_only:
        raise ConfigError("--resume_weights_only needs a checkpoint: add --resume exp/NAME/TRIAL/ckpt/last.ckpt")
    if arguments.resume is not None and not arguments.resume.is_file():
        beside = [path.name for path in arguments.resume.parent.glob("*.ckpt")]
        found = f"; checkpoints there: {', '.join(sorted(beside))}" if beside else ""
        raise ConfigError(f"--resume {arguments.resume}: no such file{found}")
    return arguments, rest


def set_environment(gpu: str | None) -> None:
    """Shows torch the devices that --gpu names, and lets its idle threads sleep; must run before torch is imported."""
    os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"
    # Waiting threads that spin starve the others as soon as the machine does anything else: on two busy cores a
    # training took four to nine times as long.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    if gpu in ("none", "mps"):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif gpu is not None:
        if not all(part.isdigit() for part in gpu.split(",")):
            raise ConfigError(f"--gpu {gpu}: expected CUDA ids such as 0 or 0,1, or none, or mps")
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu


def import_plugins(modules: list[str]) -> None:
    """Runs modules that register parts, given by dotted name or as paths of Python files."""
    for module in modules:
        if not module.endswith(".py"):
            try:
                importlib.import_module(module)
            except ModuleNotFoundError as error:
                raise ConfigError(
                    f"--import {module}: {error}; give a dotted name or the path of a .py file"
                ) from error
            continue
        path = Path(module)
        if not path.is_file():
            raise ConfigError(f"--import {module}: no such file")
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None and spec.loader is not None
        plugin = importlib.util.module_from_spec(spec)
        # Pickling and dataclasses look modules up by name.
        sys.modules[path.stem] = plugin
        spec.loader.exec_module(plugin)


def run(arguments: argparse.Namespace, overrides: list[str]) -> None:
    """Builds everything and runs the action."""
    from pytorch_lightning import seed_everything
    from pytorch_lightning.utilities import rank_zero_only

    from systems import systems
    from systems.automatic import settle
    from systems.experiment import Experiment
    from systems.trainer import make_trainer
    from utils.config import parse, read, resolve
    from utils.run_directory import add_run_keys, make_run_directory

    def finish(config: "DictConfig") -> Experiment:
        resolve(config)
        add_run_keys(config, {name: _plain(value) for name, value in vars(arguments).items()}, overrides)
        return parse(Experiment, config)

    is_first = rank_zero_only.rank == 0
    set_verbosity(arguments.verbose, is_first)
    import_plugins(arguments.imports)
    config = read(arguments.config, overrides)
    experiment, data = settle(config, finish)
    if arguments.inspect:
        inspect(experiment, data)
        return
    runs_dir = Path(arguments.runs_dir) if arguments.train else None
    trainer = make_trainer(experiment, arguments.gpu, runs_dir)
    if is_first:
        make_run_directory(config, arguments.config, runs_dir)

    seed_everything(experiment.seed)
    system = systems.make(experiment.system, experiment)
    if arguments.train:
        train(arguments, experiment, trainer, system, data, is_first)
    else:
        evaluate(arguments, trainer, system, data)


def inspect(experiment: "Experiment", data: "SceneData") -> None:
    """Tells what the data set holds and what may go wrong with it, and draws it into the experiment's folder."""
    from rich.console import Console

    from datasets.inspection import inspect_scene
    from datasets.inspection_files import write_inspection
    from datasets.inspection_report import table, warnings
    from utils.run_directory import make_folders

    folder = Path(experiment.exp_dir)
    make_folders(folder)
    splits = {split: data.views(split) for split in ("train", "val", "test")}
    model: Any = experiment.model
    scene = inspect_scene(splits, model.radius, model.sees_background)
    Console().print(table(scene))
    for warning in warnings(scene):
        print(f"warning: {warning}")
    for path in write_inspection(scene, folder):
        print(path.resolve())


def train(
    arguments: argparse.Namespace,
    experiment: "Experiment",
    trainer: "pl.Trainer",
    system: Any,
    data: Any,
    is_first: bool,
) -> None:
    """Fits, then tests what was fitted."""
    from systems.trainer import read_checkpoint
    from utils.notice import notice
    from utils.run_directory import snapshot_code
    from utils.schedule import unfinished

    for line in unfinished(experiment, trainer.max_steps):
        notice(line)
    resumed = None
    if arguments.resume_weights_only:
        system.load_model_weights(read_checkpoint(arguments.resume, system, prefix="model."))
    elif arguments.resume is not None:
        read_checkpoint(arguments.resume, system)
        resumed = arguments.resume
    if is_first:
        snapshot_code(Path(__file__).parent, Path(experiment.code_dir))
    try:
        trainer.fit(system, datamodule=data, ckpt_path=resumed, weights_only=True)
    except SystemExit:
        if trainer.interrupted:
            print(_how_to_go_on(arguments, experiment), file=sys.stderr)
            raise KeyboardInterrupt from None
        raise
    trainer.test(system, datamodule=data, verbose=False)


def evaluate(arguments: argparse.Namespace, trainer: "pl.Trainer", system: Any, data: Any) -> None:
    """Runs an action that changes no weights, on those of --resume."""
    from systems.trainer import read_checkpoint

    checkpoint = read_checkpoint(arguments.resume, system)
    if arguments.export:
        system.load_state_dict(checkpoint["state_dict"])
        system.on_load_checkpoint(checkpoint)
        system.to(trainer.strategy.root_device)
        data.trainer = trainer  # tells the device
        for path in system.export(data):
            print(path.resolve())
    elif arguments.predict:
        trainer.predict(system, data, return_predictions=False, ckpt_path=arguments.resume, weights_only=True)
    else:
        action = trainer.validate if arguments.validate else trainer.test
        action(system, data, ckpt_path=arguments.resume, weights_only=True, verbose=False)


def set_verbosity(is_verbose: bool, is_first: bool) -> None:
    """Quiets Lightning, and this program's notices on all devices but the first."""
    from utils.notice import LOGGER

    level = logging.DEBUG if is_verbose else logging.WARNING
    for name in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric"):
        logging.getLogger(name).setLevel(level)
    # Lightning warns about itself.
    warnings.filterwarnings("default" if is_verbose else "ignore", module="pytorch_lightning|lightning_fabric")
    if not is_first:
        LOGGER.setLevel(logging.ERROR)


def _how_to_go_on(arguments: argparse.Namespace, experiment: "Experiment") -> str:
    checkpoint = Path(experiment.ckpt_dir) / "last.ckpt"
    if not checkpoint.is_file():
        return "interrupted before the first step: nothing was saved"
    gpu = ["--gpu", arguments.gpu] if arguments.gpu else []
    plugins = [word for module in arguments.imports for word in ("--import", module)]
    parsed = str(Path(experiment.config_dir) / "parsed.yaml")
    words = ["--config", parsed, "--train", "--resume", str(checkpoint), *gpu, *plugins]
    return f"to go on: python launch.py {shlex.join(words)}"


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def main(words: list[str]) -> int:
    """Exit code: 0, 2 after a mistake of the user's, told in one line, or 130 after Ctrl-C."""
    try:
        arguments, overrides = parse_arguments(words)
        set_environment(arguments.gpu)
        run(arguments, overrides)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except (ConfigError, ValueError, FileNotFoundError) as error:
        # An error of several lines is none that was written for users.
        if "--verbose" in words or "\n" in str(error):
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
