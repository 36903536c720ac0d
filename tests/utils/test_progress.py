"""What long work says of itself."""

from types import SimpleNamespace

import pytest

from utils import progress as module
from utils.progress import progress


def test_a_file_gets_lines_with_share_rate_and_time_left(capsys, monkeypatch):
    clock = iter([0.0, 5.0, 20.0, 25.0, 60.0])
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with progress("surface at 100³", 100**3, "nodes") as tell:
        for share in (0.1, 0.25, 0.5, 1.0):
            tell(share)
    assert capsys.readouterr().out.splitlines() == [
        "surface at 100³ ...",
        "surface at 100³: 25%  12.5 k nodes/s  1:00 left",
        "surface at 100³: 100%  16.7 k nodes/s  0:00 left",
    ]


def test_work_that_fails_leaves_no_bar_behind(capsys):
    with pytest.raises(RuntimeError), progress("texture", 10, "texels") as tell:
        tell(0.0)
        raise RuntimeError
    assert capsys.readouterr().out == "texture ...\n"
