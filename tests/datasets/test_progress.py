import pytest

from datasets import progress
from datasets.progress import with_progress


def test_items_pass_unchanged_and_short_work_shows_no_bar(capfd: pytest.CaptureFixture):
    assert list(with_progress(iter("abc"), 3, "Reading")) == ["a", "b", "c"]
    assert capfd.readouterr() == ("", "")


def test_long_work_says_what_it_does(capfd: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(progress, "PATIENCE", -1.0)
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert list(with_progress(range(3), 3, "Reading train views")) == [0, 1, 2]
    out, err = capfd.readouterr()
    assert out == "" and "Reading train views" in err


def test_an_error_passes_through():
    def broken():
        yield 1
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(with_progress(broken(), 2, "Reading"))
