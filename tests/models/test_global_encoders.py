"""Laws of the codes of sequences and times."""

import io
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from datasets.cameras import Cameras
from datasets.views import Views
from models.conditioning.codes import SequenceAutodecoder
from models.conditioning.time import HarmonicTime
from models.fields.implicit import rays_to
from systems.reconstruction import Reconstruction
from utils.registry import ConfigError
from utils.types import Rays


def encoder(n_instances: int = 4, **options: Any) -> SequenceAutodecoder:
    torch.manual_seed(0)
    return SequenceAutodecoder(SequenceAutodecoder.Config(encoding_dim=3, n_instances=n_instances, **options))


def rays(scenes: list[int], images: list[int]) -> Rays:
    asked = rays_to(torch.zeros(len(scenes), 3), torch.zeros(len(scenes), 3))
    asked.scene, asked.view = torch.tensor(scenes, dtype=torch.int64), torch.tensor(images, dtype=torch.int64)
    return asked


def test_sequences_have_codes_of_their_own_and_learn_from_their_own_rays() -> None:
    codes = encoder()
    seen = codes(rays([0, 2, 0], [0, 1, 2]))
    assert torch.equal(seen[0], seen[2]) and not torch.equal(seen[0], seen[1])
    seen[1].sum().backward()
    assert codes.code.grad.abs().sum(-1).gt(0).tolist() == [False, False, True, False]


def test_gradients_are_means_over_images_and_sums_over_their_rays() -> None:
    codes = encoder()
    weight = torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])
    # Three rays of image 7 and one of image 3 show sequence 1; one of image 5 shows sequence 0.
    (codes(rays([1, 1, 0, 1, 1], [7, 7, 5, 3, 7])).sum(-1) * weight).sum().backward()
    assert codes.code.grad[:, 0].tolist() == [4.0, (1 + 2 + 8 + 16) / 2, 0.0, 0.0]


def saved(module: SequenceAutodecoder) -> dict[str, Any]:
    """What a checkpoint gives back."""
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    return torch.load(io.BytesIO(file.getvalue()), weights_only=True)


def test_a_checkpoint_finds_its_codes_in_another_order_and_among_new_sequences() -> None:
    before, after = encoder(), encoder()
    before.know_scenes(["car", "apple"])
    after.code.data.zero_()
    after.load_state_dict(saved(before))
    after.know_scenes(["bench", "apple", "car"])
    torch.testing.assert_close(after(rays([1, 2], [0, 1])), before(rays([1, 0], [0, 1])))
    assert torch.equal(after(rays([0], [0]))[0], after.code[2])
    assert after.names == ["car", "apple", "bench"]


def test_splits_that_count_their_sequences_differently_take_turns() -> None:
    codes, train, test = encoder(), ["car", "apple"], ["apple"]
    for _ in range(2):
        codes.know_scenes(train)
        assert codes.row.tolist() == [0, 1]
        codes.know_scenes(test)
        assert codes.row.tolist() == [1]


def test_more_sequences_than_rows_are_refused() -> None:
    with pytest.raises(ConfigError, match="n_instances is 1, but there are 2 sequences; set it to 2 or more"):
        encoder(n_instances=1).know_scenes(["car", "apple"])


def test_one_code_for_all_takes_any_sequence() -> None:
    codes = encoder(n_instances=1, ignore_input=True)
    codes.know_scenes(["car", "apple"])
    assert torch.equal(codes(rays([0, 1], [0, 1])), codes.code[[0, 0]])


def test_a_data_set_of_one_sequence_need_not_say_so() -> None:
    codes, asked = encoder(n_instances=1), rays([0, 0], [0, 1])
    asked.scene = None
    assert torch.equal(codes(asked), codes.code[[0, 0]])


def test_codes_begin_as_wide_as_asked_for() -> None:
    wide = SequenceAutodecoder(SequenceAutodecoder.Config(encoding_dim=64, n_instances=64, init_scale=3.0))
    assert wide.code.std().item() == pytest.approx(3.0, rel=0.05)
    assert wide.norm().item() == pytest.approx(9.0, rel=0.1)


def test_no_rays_have_no_codes() -> None:
    assert encoder()(rays([], [])).shape == (0, 3)


def test_the_system_tells_the_model_what_scenes_are_called() -> None:
    told: list[Any] = []
    one = torch.ones(1, 2)
    cameras = Cameras(torch.eye(3, 4)[None], one, one, one.long())
    views = Views(cameras, ["photograph"], torch.arange(2), None, scene_names=["car", "apple"])
    data = SimpleNamespace(views=lambda split: views)
    system: Any = SimpleNamespace(
        trainer=SimpleNamespace(datamodule=data), model=SimpleNamespace(know_scenes=told.append)
    )
    assert Reconstruction._views(system, "val") is views
    assert told == [["car", "apple"]]


def time_code(times: Tensor | None, **options: Any) -> Tensor:
    asked = rays([0, 0], [0, 1])
    asked.time = times
    return HarmonicTime(HarmonicTime.Config(**options))(asked)


def test_times_of_several_photographs_are_encoded_at_once() -> None:
    code = time_code(torch.tensor([0.0, 3.0]), n_harmonic_functions=2, time_divisor=6.0)
    t = torch.tensor([0.0, 0.5])
    expected = torch.stack([t.sin(), (2 * t).sin(), t.cos(), (2 * t).cos(), t], dim=-1)
    torch.testing.assert_close(code, expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs times of photographs, which the data set does not have"),
        ({"time_divisor": 0.0}, "time_divisor is 0"),
        ({"n_harmonic_functions": 0, "append_input": False}, "leaves no code"),
    ],
)
def test_a_time_that_says_nothing_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        time_code(None, **options)
