"""Cameras of images, found with pycolmap on the CPU (Schonberger and Frahm 2016, Structure-from-Motion Revisited).

The steps share a project folder: they read `images` and `masks`, keep COLMAP's database under `work`, and leave the
model in `sparse/0`. The same images give the same numbers in every run: steps whose result depends on which of their
threads is ready first have only one.

pycolmap is optional and imported late, inside functions: in a process where its libraries came before those of PIL
and OpenCV, writing PNG files has failed.
"""

import itertools
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from PIL import Image

from datasets.progress import with_progress
from scripts.image_folder import StoredImage
from utils.registry import ConfigError

if TYPE_CHECKING:
    import pycolmap

FEATURE_SIZE = 1600
"""Longer side, in pixels, at which features are sought: finer ones take time and are matched less reliably."""
PEAK_THRESHOLD = 0.004
"""Contrast of the weakest feature; COLMAP's 0.0067 leaves too few on plain objects in small images."""
OVERLAP, STRIDE = 10, 10
"""In a sequence every image is compared with so many followers, and every so-manyth image with the others of these."""
BLOCK_SIZE = 100
"""Pairs that are matched before Ctrl-C is obeyed."""
FEW_IMAGES = 10
"""Of one camera: fewer do not determine the numbers of OPENCV's lens."""
LEAST_SHARE = 0.5
"""Share of the images that must register: less is as likely a wrong scene as a part of the right one."""


def reconstruct(
    folder: Path, images: list[StoredImage], match: str, camera_model: str | None, is_masked: bool
) -> "pycolmap.Reconstruction":
    """The cameras of a project's images, also written to its `sparse/0`.

    Args:
        folder: the project.
        images: of its folder `images`, in the order in which they were taken.
        match: "exhaustive" or "sequential", see `pairs`.
        camera_model: COLMAP's name of the lens. With None the lens is SIMPLE_RADIAL while images register, because the
            few of the beginning make nonsense of more numbers, and becomes OPENCV when all tell together.
        is_masked: whether features outside the masks are left out.

    Raises:
        ConfigError: too few images register.
    """
    import pycolmap

    pycolmap.logging.minloglevel = pycolmap.logging.ERROR.value
    names = [image.name for image in images]
    find_features(folder, images, camera_model or "SIMPLE_RADIAL", is_masked)
    match_features(folder, names, match)
    model = map_cameras(folder, names)
    missing = unregistered(model, names)
    n_registered = len(names) - len(missing)
    if n_registered < max(3, LEAST_SHARE * len(names)):
        raise ConfigError(
            f"only {n_registered} of {len(names)} images register, not {some(missing)}; neighbouring images must be "
            "sharp, textured and mostly the same: add images (of a video: --frames), or compare other pairs (--match)"
        )
    if camera_model is None:
        refine_lenses(model)
    (folder / "sparse" / "0").mkdir(parents=True)
    model.write(folder / "sparse" / "0")
    return model


def unregistered(model: "pycolmap.Reconstruction", names: list[str]) -> list[str]:
    """The images without a camera."""
    registered = {model.images[row].name for row in model.reg_image_ids()}
    return [name for name in names if name not in registered]


def some(names: list[str]) -> str:
    """The first names and the number of the others."""
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def find_features(folder: Path, images: list[StoredImage], camera_model: str, is_masked: bool) -> None:
    """Fills COLMAP's database with images, cameras and SIFT features."""
    import pycolmap

    database = folder / "work" / "database.db"
    database.parent.mkdir(exist_ok=True)
    reader = pycolmap.ImageReaderOptions(camera_model=camera_model)
    if is_masked:
        reader.mask_path = folder / "masks"
    options = pycolmap.FeatureExtractionOptions(max_image_size=FEATURE_SIZE)
    options.sift.peak_threshold = PEAK_THRESHOLD
    with pycolmap.Database.open(database) as counter:
        # Images get their numbers here: those that extraction would give depend on its threads.
        for camera in dict.fromkeys(image.camera for image in images):
            names = [image.name for image in images if image.camera == camera]
            pycolmap.import_images(database, folder / "images", pycolmap.CameraMode.SINGLE, names, reader)
        _watch(
            lambda token: pycolmap.extract_features(
                database,
                folder / "images",
                reader_options=reader,
                extraction_options=options,
                device=pycolmap.Device.cpu,
                cancellation_token=token,
            ),
            lambda: sum(counter.exists_keypoints(image.image_id) for image in counter.read_all_images()),
            len(images),
            "features",
        )


def match_features(folder: Path, names: list[str], kind: str) -> None:
    """Adds the matches of image pairs to COLMAP's database."""
    import pycolmap

    database, pair_list = folder / "work" / "database.db", folder / "work" / "pairs.txt"
    chosen = pairs(len(names), kind)
    pair_list.write_text("".join(f"{names[i]} {names[j]}\n" for i, j in chosen))
    # A second thread gains 20% and finds other matches in every run.
    options = pycolmap.FeatureMatchingOptions(num_threads=1)
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = 0
    with pycolmap.Database.open(database) as counter:
        _watch(
            lambda token: pycolmap.match_image_pairs(
                database,
                options,
                pycolmap.ImportedPairingOptions(match_list_path=pair_list, block_size=BLOCK_SIZE),
                verification,
                device=pycolmap.Device.cpu,
                cancellation_token=token,
            ),
            counter.num_matched_image_pairs,
            len(chosen),
            "pairs",
        )


def pairs(n_images: int, kind: str) -> list[tuple[int, int]]:
    """Which images to compare: all with all ("exhaustive"), or those near to each other in a sequence ("sequential").

    A sequence also compares every `STRIDE`th image with all others of these: neighbours alone would not notice that a
    path has come back to its beginning, and its ends would drift apart.
    """
    every = itertools.combinations(range(n_images), 2)
    if kind == "exhaustive":
        return list(every)
    return [(i, j) for i, j in every if j - i <= OVERLAP or i % STRIDE == j % STRIDE == 0]


def map_cameras(folder: Path, names: list[str]) -> "pycolmap.Reconstruction":
    """The largest model that incremental mapping finds, an empty one if it finds none."""
    import pycolmap

    n_registered = 0

    def count(n_more: int) -> None:
        nonlocal n_registered
        n_registered += n_more

    options = pycolmap.IncrementalPipelineOptions(num_threads=1, random_seed=0, min_model_size=3)
    found: dict[int, pycolmap.Reconstruction] = {}
    _watch(
        lambda token: found.update(
            pycolmap.incremental_mapping(
                folder / "work" / "database.db",
                folder / "images",
                folder / "work" / "models",
                options,
                initial_image_pair_callback=lambda: count(2),
                next_image_callback=lambda: count(1),
                cancellation_token=token,
            )
        ),
        lambda: n_registered,
        len(names),
        "cameras",
    )
    return max(found.values(), key=lambda model: model.num_reg_images(), default=pycolmap.Reconstruction())


def refine_lenses(model: "pycolmap.Reconstruction") -> None:
    """Gives cameras that took enough images the lens OPENCV instead of SIMPLE_RADIAL, and adjusts everything to it."""
    import pycolmap

    for row, camera in model.cameras.items():
        if sum(model.images[image].camera_id == row for image in model.reg_image_ids()) >= FEW_IMAGES:
            focal, x, y, radial = camera.params
            camera.model = pycolmap.CameraModelId.OPENCV
            camera.params = [focal, focal, x, y, radial, 0.0, 0.0, 0.0]
    # `pycolmap.bundle_adjustment` does the same, but turns COLMAP's log on again.
    options = pycolmap.BundleAdjustmentOptions(print_summary=False)
    options.ceres.solver_options.num_threads = 1
    variables = pycolmap.BundleAdjustmentConfig()
    for row in model.reg_image_ids():
        variables.add_image(row)
    variables.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
    pycolmap.create_default_bundle_adjuster(options, variables, model).solve()
    model.update_point_3d_errors()


def undistort(folder: Path) -> "pycolmap.Reconstruction":
    """Replaces a project's images, masks and model by those of cameras without lens distortion; returns the model."""
    import pycolmap

    straight, model_folder = folder / "work" / "straight", folder / "sparse" / "0"
    pycolmap.undistort_images(straight, model_folder, folder / "images", jpeg_quality=95, num_threads=1)
    before, after = pycolmap.Reconstruction(model_folder), pycolmap.Reconstruction(straight / "sparse")
    if (folder / "masks").exists():
        (straight / "masks").mkdir()
        for row in after.reg_image_ids():
            image = after.images[row]
            source = before.cameras[before.images[row].camera_id]
            mask = np.asarray(Image.open(folder / "masks" / f"{image.name}.png"))
            mask = _undistorted(mask, source, after.cameras[image.camera_id])
            Image.fromarray(mask).save(straight / "masks" / f"{image.name}.png")
        _replace(folder / "masks", straight / "masks")
    _replace(folder / "images", straight / "images")
    after.write(model_folder)
    return after


def _undistorted(mask: np.ndarray, source: "pycolmap.Camera", target: "pycolmap.Camera") -> np.ndarray:
    """What `target` would see of an image that `source` took."""
    rows, columns = np.mgrid[: target.height, : target.width] + 0.5
    points: Any = target.cam_from_img(np.stack((columns.ravel(), rows.ravel()), axis=1))  # [H * W, 2]
    pixels: Any = source.img_from_cam(np.column_stack((points, np.ones(len(points)))))
    pixels = (pixels - 0.5).reshape(target.height, target.width, 2).astype(np.float32)
    return cv2.remap(mask, pixels[..., 0], pixels[..., 1], cv2.INTER_LINEAR)


def _replace(old: Path, new: Path) -> None:
    shutil.rmtree(old)
    new.rename(old)


def _watch(
    work: Callable[["pycolmap.CancellationToken"], object], count: Callable[[], int], n_items: int, what: str
) -> None:
    """Runs `work` on a thread of its own, so that a bar can show its progress and Ctrl-C can stop it."""
    import pycolmap

    token = pycolmap.CancellationToken()

    def finished() -> Iterator[int]:
        with ThreadPoolExecutor(1) as pool:
            task, n_finished = pool.submit(work, token), 0
            try:
                while not task.done():
                    wait([task], timeout=0.2)
                    n_now = min(count(), n_items)
                    yield from range(n_finished, n_now)
                    n_finished = max(n_finished, n_now)
                task.result()
            finally:
                token.cancel()

    begun = time.monotonic()
    for _ in with_progress(finished(), n_items, what):
        pass
    print(f"{what}: {n_items} in {time.monotonic() - begun:.1f} s", flush=True)
