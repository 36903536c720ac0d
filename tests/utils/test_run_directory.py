"""Laws of a run's folder."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from utils.registry import ConfigError
from utils.run_directory import add_run_keys, make_run_directory, snapshot_code, write_metrics

COMMAND = {"train": True, "resume": None, "resume_weights_only": False}


@pytest.fixture(autouse=True)
def _no_run_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    # The first call of a process writes both for the processes of other devices.
    for name in ("INSTANT_SURFACES_TRIAL", "INSTANT_SURFACES_SEED"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def run_keys(tree: dict[str, Any], root: Path) -> DictConfig:
    config = OmegaConf.create(tree)
    add_run_keys(config, COMMAND | {"exp_dir": str(root)})
    return config


def test_folders_lie_below_the_name_and_the_trial(tmp_path: Path) -> None:
    config = run_keys({"name": "neus-lego", "tag": "first", "seed": 3}, tmp_path)
    assert config.trial_name.startswith("first@20")
    assert config.exp_dir == str(tmp_path / "neus-lego")
    assert config.ckpt_dir == str(tmp_path / "neus-lego" / config.trial_name / "ckpt")
    assert config.seed == 3
    assert config.cmd_args.train


def test_a_process_of_another_device_uses_the_same_folder_and_seed(tmp_path: Path) -> None:
    first, second = (run_keys({"name": "a"}, tmp_path) for _ in range(2))
    assert first == second
    assert 0 <= first.seed < 1000


def test_keys_of_a_parsed_configuration_stay(tmp_path: Path) -> None:
    given = {"name": "a", "trial_name": "old@1", "exp_dir": "elsewhere", "save_dir": "pictures"}
    config = OmegaConf.create(given)
    add_run_keys(config, COMMAND | {"exp_dir": None})
    assert (config.save_dir, config.ckpt_dir) == ("pictures", str(Path("elsewhere/old@1/ckpt")))
    # A root that would not be obeyed is refused; that of the run is not.
    with pytest.raises(ConfigError, match=f"--exp_dir {tmp_path} has no effect: .* goes on in elsewhere; remove it"):
        run_keys(given, tmp_path)
    assert run_keys(given | {"exp_dir": str(tmp_path / "a")}, tmp_path).exp_dir == str(tmp_path / "a")


def test_a_new_training_of_a_parsed_configuration_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    old = run_keys({"name": "a"}, tmp_path)
    old.update(trial_name="old", save_dir="old/save")
    command = COMMAND | {"exp_dir": str(tmp_path)}

    resumed, new, named = old.copy(), old.copy(), old.copy()
    add_run_keys(resumed, command | {"resume": "last.ckpt"})
    add_run_keys(new, command)
    add_run_keys(named, command, ["trial_name=old"])
    assert (resumed.trial_name, resumed.save_dir) == ("old", "old/save")
    assert new.trial_name.startswith("@") and new.save_dir == str(tmp_path / "a" / new.trial_name / "save")
    assert named.save_dir == str(tmp_path / "a" / "old" / "save")


def test_evaluation_leaves_the_configurations_of_the_training(tmp_path: Path) -> None:
    raw = tmp_path / "file.yaml"
    raw.write_text("name: a")
    config = run_keys({"name": "a", "seed": 1}, tmp_path)
    make_run_directory(config, raw, tmp_path / "runs")
    config.seed = 2
    parsed = Path(config.config_dir) / "parsed.yaml"
    make_run_directory(config, parsed)
    assert OmegaConf.load(parsed).seed == 1
    assert (parsed.parent / "raw.yaml").read_text() == "name: a"


def test_both_configurations_are_kept(tmp_path: Path) -> None:
    raw = tmp_path / "file.yaml"
    raw.write_text("name: a  # comment\n")
    config = run_keys({"name": "a"}, tmp_path)
    make_run_directory(config, raw, tmp_path / "runs")
    folder = Path(config.config_dir)
    assert (folder / "raw.yaml").read_text() == raw.read_text()
    assert OmegaConf.load(folder / "parsed.yaml") == config


def test_a_folder_that_cannot_be_written_is_told_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file where the folder should be")
    config = run_keys({"name": "a"}, tmp_path)
    with pytest.raises(ConfigError, match="cannot be written .*; choose another folder with --exp_dir and --runs_dir"):
        make_run_directory(config, tmp_path / "a")


def test_a_nameless_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="name is required"):
        run_keys({"tag": "a"}, tmp_path)


def test_the_snapshot_holds_sources_but_neither_ignored_nor_large_files(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "a.py").write_text("a")
    (source / "new.py").write_text("b")
    (source / "ignored.log").write_text("c")
    (source / "data.bin").write_bytes(bytes(2 << 20))
    (source / ".gitignore").write_text("*.log\n")
    subprocess.run(["git", "init", "-q"], cwd=source, check=True)
    subprocess.run(["git", "add", "deep/a.py"], cwd=source, check=True)
    snapshot_code(source, target)
    files = {str(path.relative_to(target)) for path in target.rglob("*") if path.is_file()}
    assert files == {str(Path("deep/a.py")), "new.py", ".gitignore"}
    assert "1 large files are not in the code snapshot, first data.bin" in caplog.text


def test_a_snapshot_outside_git_is_only_a_notice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    (tmp_path / "plain").mkdir()
    snapshot_code(tmp_path / "plain", tmp_path / "target")
    assert "no code snapshot" in caplog.text


def test_sections_of_metrics_are_added_and_replaced(tmp_path: Path) -> None:
    write_metrics(tmp_path, {"step": 3, "test": {"psnr": torch.tensor(20.5), "ssim": float("nan")}})
    path = write_metrics(tmp_path, {"mesh": {"faces": [1, 2]}, "test": {"psnr": 21.0}})
    assert json.loads(path.read_text()) == {"step": 3, "test": {"psnr": 21.0}, "mesh": {"faces": [1, 2]}}
    assert list(tmp_path.iterdir()) == [path]


def test_numbers_that_json_cannot_write_become_null(tmp_path: Path) -> None:
    path = write_metrics(tmp_path, {"a": [float("inf"), 1.0], "b": None})
    assert json.loads(path.read_text()) == {"a": [None, 1.0], "b": None}
