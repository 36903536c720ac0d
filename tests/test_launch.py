"""Laws of the command line, on a plug-in whose training costs nothing."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

import launch

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.usefixtures("few_points")
PLUGIN = ROOT / "tests" / "tiny.py"
CONFIG = """
name: tiny
tag: ""
seed: 42
dataset:
  name: tiny-data
model:
  name: tiny-model
system:
  name: tiny-system
  optimizer:
    name: AdamW
    args: {lr: 0.01}
    params: {line: {lr: 0.1}}
  scheduler:
    name: ExponentialLR
    interval: step
    args: {gamma: "${calc_exp_lr_decay_rate:0.1,${trainer.max_steps}}"}
checkpoint:
  save_top_k: -1
  every_n_train_steps: ${trainer.max_steps}
trainer:
  max_steps: 8
  log_every_n_steps: 2
  num_sanity_val_steps: 0
  val_check_interval: 4
  precision: 16
"""


@pytest.fixture
def flags(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    # A process writes these for the processes of other devices; here every run is a new one.
    for name in ("INSTANT_SURFACES_TRIAL", "INSTANT_SURFACES_SEED", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    folders = ["--exp_dir", str(tmp_path / "exp"), "--runs_dir", str(tmp_path / "runs")]
    return ["--config", str(tmp_path / "tiny.yaml"), "--import", str(PLUGIN), "--gpu", "none", *folders]


def start(words: list[str]) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(ROOT / "launch.py"), *words]
    # Where tests run in the background, Ctrl-C is ignored, and children would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=300, env=os.environ)
    finally:
        signal.signal(signal.SIGINT, before)


def trials(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "exp" / "tiny").iterdir())


def test_training_is_followed_by_a_test_and_leaves_the_known_files(flags: list[str], tmp_path: Path) -> None:
    assert launch.main([*flags, "--train", "tag=first"]) == 0
    (trial,) = trials(tmp_path)
    assert trial.name.startswith("first@20")
    for name in (
        "config/parsed.yaml",
        "config/raw.yaml",
        "ckpt/last.ckpt",
        "ckpt/epoch=0-step=8.ckpt",
        "csv_logs/metrics.csv",
    ):
        assert (trial / name).is_file(), name
    assert {path.name for path in (trial / "save").iterdir()} == {
        f"{kind}-{row}-0" for kind in ("val", "test") for row in range(3)
    }
    assert (trial / "code" / "launch.py").read_text() == (ROOT / "launch.py").read_text()
    assert list((tmp_path / "runs" / "tiny" / trial.name).glob("events.out.tfevents.*"))
    assert OmegaConf.load(trial / "config" / "parsed.yaml").cmd_args.train
    # Nothing but plain values and tensors: it loads without running anything.
    checkpoint = torch.load(trial / "ckpt" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 8
    assert checkpoint["lr_schedulers"] == [{"last_epoch": 8}]


def test_a_checkpoint_serves_every_action(flags: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert launch.main([*flags, "--train"]) == 0
    checkpoint = str(next(tmp_path.rglob("last.ckpt")))
    for action, kind in {"validate": "val", "test": "test", "predict": "predict", "export": "mesh"}.items():
        monkeypatch.setenv("INSTANT_SURFACES_TRIAL", f"@{action}")
        assert launch.main([*flags, f"--{action}", "--resume", checkpoint]) == 0
        saved = {path.name for path in (tmp_path / "exp" / "tiny" / f"@{action}" / "save").iterdir()}
        assert saved == ({"mesh-0"} if kind == "mesh" else {f"{kind}-{row}-0" for row in range(3)})

    monkeypatch.setenv("INSTANT_SURFACES_TRIAL", "@longer")
    assert launch.main([*flags, "--train", "--resume", checkpoint, "trainer.max_steps=10"]) == 0
    assert list((tmp_path / "exp/tiny/@longer/ckpt").glob("*step=10.ckpt"))
    monkeypatch.setenv("INSTANT_SURFACES_TRIAL", "@anew")
    assert launch.main([*flags, "--train", "--resume", checkpoint, "--resume_weights_only", "trainer.max_steps=3"]) == 0
    assert list((tmp_path / "exp/tiny/@anew/ckpt").glob("*step=3.ckpt"))


def test_a_checkpoint_of_another_configuration_names_the_first_difference(
    flags: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch.main([*flags, "--train"]) == 0
    checkpoint = str(next(tmp_path.rglob("last.ckpt")))
    capsys.readouterr()
    assert launch.main([*flags, "--test", "--resume", checkpoint, "model.width=3"]) == 2
    message = capsys.readouterr().err
    assert "comes from another configuration: model.line.weight is [1, 4] there and [1, 3] here" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trian"], "unknown flag --trian (did you mean '--train'?)"),
        (["--conf", "a"], "unknown flag --conf (did you mean '--config'?)"),
        ([], "nothing to do: add one of --inspect, --train, --validate, --test, --predict, --export"),
        (["--train", "--test"], "argument --test: not allowed with argument --train"),
        (["--test"], "--test needs a checkpoint: add --resume exp/NAME/TRIAL/ckpt/last.ckpt"),
        (["--train", "--resume_weights_only"], "--resume_weights_only needs a checkpoint"),
        (["--test", "--resume", "nowhere.ckpt"], "--resume nowhere.ckpt: no such file"),
        (["--test", "--resume", __file__], "is not a checkpoint of this program"),
        (["--train", "--gpu", "first"], "--gpu first: expected CUDA ids such as 0 or 0,1, or none, or mps"),
        (["--train", "--import", "no.such.module"], "--import no.such.module: No module named 'no'"),
        (["--train", "--import", "no/such.py"], "--import no/such.py: no such file"),
        (["--train", "trainer"], "override 'trainer' is not of the form key=value"),
        (["--train", "--config", "no.yaml"], "no.yaml: no such configuration file"),
        (["--train", "modle.width=3"], "modle: unknown key (did you mean 'model'?)"),
        (["--train", "model.name=tiny-modle"], "model.name: unknown model 'tiny-modle' (did you mean 'tiny-model'?)"),
        (["--train", "trainer.max_stepps=3"], "trainer.max_stepps: unknown argument (did you mean 'max_steps'?)"),
        (["--train", "trainer.max_steps=many"], "system.scheduler.args.gamma: ValueError raised while resolving"),
        (["--train", "trainer.log_every_n_steps=x"], "trainer.log_every_n_steps is 'x', expected an integer"),
        (["--train", "trainer.accelerator=cpu"], "trainer.accelerator: unknown argument"),
        (["--train", "trainer.precision=17"], "trainer.precision is 17, expected"),
        (["--train", "checkpoint.save_topk=1"], "checkpoint.save_topk: unknown argument (did you mean 'save_top_k'?)"),
        (["--train", "--exp_dir", __file__], "cannot be written"),
    ],
)
def test_mistakes_take_one_line_and_exit_code_2(
    flags: list[str], capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert launch.main([*flags, *words]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert [line.startswith("error: ") for line in said.splitlines()].count(True) == 1
    assert "Traceback" not in said


def test_a_mistake_on_the_command_line_does_not_wait_for_torch() -> None:
    code = "import sys, launch; assert launch.main(['--trian']) == 2; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)


def test_ctrl_c_saves_a_checkpoint_and_says_how_to_go_on(flags: list[str], tmp_path: Path) -> None:
    stopped = start([*flags, "--train", "system.interrupt_at=5"])
    assert stopped.returncode == 130, stopped.stderr
    (hint,) = [line for line in stopped.stderr.splitlines() if line.startswith("to go on: python launch.py ")]
    words = hint.removeprefix("to go on: python launch.py ").split()
    resumed = start([*words, "system.interrupt_at=-1"])
    assert resumed.returncode == 0, resumed.stderr
    (trial,) = trials(tmp_path)
    assert (trial / "ckpt" / "epoch=0-step=8.ckpt").is_file()
    # The numbers of the first part are not overwritten.
    assert (trial / "csv_logs" / "metrics.csv").is_file() and (trial / "csv_logs-2" / "metrics.csv").is_file()


@pytest.mark.skipif(sys.platform == "win32", reason="processes of one run are started with gloo on POSIX only")
def test_two_processes_share_one_folder_and_the_views(flags: list[str], tmp_path: Path) -> None:
    finished = start([*flags, "--train", "trainer.devices=2"])
    assert finished.returncode == 0, finished.stderr
    (trial,) = trials(tmp_path)
    saved = sorted(path.name for path in (trial / "save").iterdir() if path.name.startswith("test"))
    assert {name.split("-")[1] for name in saved} == {"0", "1", "2"}
    assert {name.split("-")[2] for name in saved} == {"0", "1"}
