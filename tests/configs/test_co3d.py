"""The configurations for CO3D, on files of both of its versions."""

from pathlib import Path

import pytest

from tests.datasets.captures import cube_capture
from tests.datasets.captures_co3d import CATEGORY, write_co3d
from tests.fitting import fit

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("version", "set_list"), [(1, "train"), (2, "manyview_dev_0")])
@pytest.mark.parametrize("name", ["nerf-co3d", "idr-co3d", "srn-co3d", "srn-noharm-co3d"])
def test_both_versions_are_trained_on(name: str, version: int, set_list: str, tmp_path: Path) -> None:
    write_co3d(tmp_path, cube_capture(), version)
    words = [f"dataset.{key}" for key in (f"root_dir={tmp_path}", f"category={CATEGORY}", f"set_list={set_list}")]
    # The object is of size 1 here, and cameras stand 3 to 4 away.
    words += ["model.radius=2.0", "model.train_num_rays=16", "trainer.max_steps=1"]
    system = fit(ROOT / f"configs/{name}.yaml", tmp_path, *words)
    assert system.global_step == 1
    assert system.trainer.datamodule.views("train").names == ["frame000001", "frame000002", "frame000005"]
    assert all(parameter.isfinite().all() for parameter in system.model.parameters())
