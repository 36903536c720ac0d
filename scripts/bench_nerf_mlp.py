"""Times iterations of the two-pass NeRF against the network as it is usually written.

    python scripts/bench_nerf_mlp.py                  the family's defaults: 1024 rays, 64 and 64 + 64 points
    python scripts/bench_nerf_mlp.py --start 0        before anything is learnt
    python scripts/bench_nerf_mlp.py --rays 64 --rounds 3 --width 32

An iteration is forward, backward and a step of Adam, on rays of the object that the program renders. Both ways have the
same parameters and take turns on the same rays, so that a machine that is busy with other things is busy for both;
what counts is the median of their ratios. Points outside of anything cost a pass through the trunk alone here, so the
ratio grows while space empties: the share of the others is printed, too.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

# The repository is no installed package.
import torch  # noqa: E402
from torch import nn  # noqa: E402

from datasets.pixels import draw_pixels  # noqa: E402
from datasets.synthetic import Synthetic  # noqa: E402
from datasets.views import Views  # noqa: E402
from models.fields.implicit import FieldOutput  # noqa: E402
from models.fields.nerf_mlp import NerfMLP  # noqa: E402
from models.generic import Generic  # noqa: E402
from scripts.bench.plain_nerf import PlainNerf  # noqa: E402
from utils.types import RayBatch  # noqa: E402

_START_RAYS = 128


class Iteration:
    """Iterations of one model, by either way."""

    def __init__(self, views: Views, n_rays: int, width: int):
        torch.manual_seed(0)
        function = NerfMLP.Config(n_hidden_neurons_xyz=width, n_hidden_neurons_dir=width // 2)
        self.model = Generic(Generic.Config(num_passes=2, radius=1.25, implicit_function=function)).train()
        self.ways = {
            "ours": self.model.functions,
            "plain": nn.ModuleList(PlainNerf(one) for one in self.model.functions if isinstance(one, NerfMLP)),
        }
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=5e-4, fused=True)
        self.views, self.n_rays = views, n_rays

    def draw(self, seed: int, n_rays: int | None = None) -> RayBatch:
        torch.manual_seed(seed)
        n_rays = n_rays or self.n_rays
        return self.views.draw(*draw_pixels(self.views, n_rays, one_image=False), torch.ones(n_rays, 3))

    def colors(self, way: str, batch: RayBatch, seed: int) -> torch.Tensor:
        """What is rendered; the gradients stay with the parameters."""
        self.model.functions = self.ways[way]
        torch.manual_seed(seed)
        self.optimizer.zero_grad()
        rendered = self.model(batch.rays)
        assert rendered.coarse is not None
        stages = (rendered.color, rendered.coarse.color)
        sum((color - batch.target.color).square().mean() for color in stages).backward()  # type: ignore[union-attr]
        self.model.functions = self.ways["ours"]
        return rendered.color.detach()

    def seconds(self, way: str, batch: RayBatch, seed: int) -> float:
        began = time.perf_counter()
        self.colors(way, batch, seed)
        self.optimizer.step()
        return time.perf_counter() - began


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rays", type=int, default=1024, help="rays of an iteration")
    parser.add_argument("--width", type=int, default=256, help="width of the networks")
    parser.add_argument("--rounds", type=int, default=7, help="iterations of each way, after one to warm up")
    parser.add_argument("--start", type=int, default=150, help=f"training steps of {_START_RAYS} rays before that")
    options = parser.parse_args(arguments)
    views = Synthetic(Synthetic.Config(n_train_views=16, n_test_views=1, size=64, samples_per_pixel=1)).views("train")
    iteration = Iteration(views, options.rays, options.width)
    for step in range(options.start):
        iteration.seconds("ours", iteration.draw(step, _START_RAYS), step)
    print(_difference(iteration, options.start))
    ratios, times = [], {"ours": [], "plain": []}
    for number in range(options.rounds + 1):
        seed = options.start + number
        batch = iteration.draw(seed)
        # Whoever goes second finds caches warm; they take turns in that, too.
        order = ("ours", "plain") if number % 2 else ("plain", "ours")
        taken = {way: iteration.seconds(way, batch, seed) for way in order}
        if number > 0:
            ratios.append(taken["plain"] / taken["ours"])
            for way, seconds in taken.items():
                times[way].append(seconds)
    ours, plain = (statistics.median(times[way]) for way in ("ours", "plain"))
    print(
        f"{options.rays} rays, step {options.start}: {ours:.3f} s here, {plain:.3f} s plain; "
        f"median ratio {statistics.median(ratios):.2f} of {len(ratios)} ({min(ratios):.2f} to {max(ratios):.2f})"
    )
    return 0


def _difference(iteration: Iteration, seed: int) -> str:
    """How far both ways are apart on the same rays, and the share of points that are in anything."""
    shares = []

    def note(module: nn.Module, inputs: object, output: FieldOutput) -> None:
        shares.append((output.density > 0).float().mean().item())

    hooks = [function.register_forward_hook(note) for function in iteration.model.functions]
    batch = iteration.draw(seed)
    ours = iteration.colors("ours", batch, seed)
    for hook in hooks:
        hook.remove()
    apart = (ours - iteration.colors("plain", batch, seed)).abs().max().item()
    return f"colours are at most {apart:.1e} apart; {100 * statistics.mean(shares):.0f} % of the points are in anything"


if __name__ == "__main__":
    sys.exit(main())
