# SPDX-License-Identifier: Apache-2.0
"""Unmodified diffusers pipelines with a remote VAE: they give what they give with the VAE itself.

The server computes in float32 on the CPU, one image at a time; without rewrites it is diffusers' own arithmetic, and
images are bitwise the same. With several images in a batch the local VAE itself adds up in another order.
"""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, AutoPipelineForImage2Image, DiffusionPipeline, StableDiffusionPipeline

from latentwire_client import Execution, Retry, WeightsChanged
from latentwire_client.diffusers import RemoteAutoencoderKL
from latentwire_codec.runtime.tiling import convolution
from latentwire_server.app import background
from latentwire_server.config import ModelSource, ServerConfig
from tests.integration.tiny_pipelines import RECIPES, VAES, Recipe

# What diffusers says of its own code: the Euler scheduler's use of numpy, and how SDXL casts its VAE.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:`upcast_vae` is deprecated:FutureWarning"),
]

TEXT, IMAGE = RECIPES["text to image"], RECIPES["image to image"]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The folders of the VAEs, as diffusers saves them."""
    whole = tmp_path_factory.mktemp("vaes")
    for name, make in VAES.items():
        make().save_pretrained(whole / name)
    return {name: whole / name for name in VAES}


@pytest.fixture(scope="module")
def vaes(folders: Mapping[str, Path]) -> Iterator[str]:
    """The address of a server that holds them all."""
    models = tuple(ModelSource(name, str(folder)) for name, folder in folders.items())
    with background(ServerConfig(models=models, port=0, device="cpu", dtype="float32", rewrites=False)) as server:
        yield f"127.0.0.1:{server.port}"


@pytest.fixture(scope="module")
def rewritten_vaes(folders: Mapping[str, Path]) -> Iterator[str]:
    """The address of a server that computes with less arithmetic, as it does by default."""
    models = tuple(ModelSource(name, str(folder)) for name, folder in folders.items())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convolution, "WINOGRAD_CHANNELS", 1)  # these VAEs are too small for it otherwise
        with background(ServerConfig(models=models, port=0, device="cpu", dtype="float32")) as server:
            yield f"127.0.0.1:{server.port}"


@pytest.fixture
def calls() -> list[Execution]:
    """What the server answered."""
    return []


@pytest.fixture
def connect(vaes: str, calls: list[Execution]) -> Callable[[str], RemoteAutoencoderKL]:
    """Name -> remote VAE."""
    return lambda name: RemoteAutoencoderKL.connect(
        vaes, model=name, like=VAES[name](), on_execution=calls.append
    )  # fmt: skip


def counted(vae: AutoencoderKL) -> Counter[str]:
    """Count the calls of a VAE from now on."""
    counts: Counter[str] = Counter()

    def counting(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            counts[name] += 1
            return method(*arguments, **options)

        return call

    for name in ("encode", "decode"):
        setattr(vae, name, counting(name, getattr(vae, name)))
    return counts


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_the_same_seed_gives_bitwise_the_image_of_the_local_vae_with_as_many_calls(
    recipe: Recipe, connect: Callable[[str], RemoteAutoencoderKL], calls: list[Execution]
) -> None:
    local = VAES[recipe.vae]()
    counts = counted(local)
    wanted = recipe.run(recipe.pipeline(local))
    remote = connect(recipe.vae)
    found = recipe.run(recipe.pipeline(remote))
    assert torch.equal(found, wanted)
    assert found.std() > 0
    assert counts == Counter(encode=recipe.encodes, decode=1)
    assert len(calls) == recipe.encodes + 1
    assert (remote.dtype, dict(remote.config)["scaling_factor"]) == (local.dtype, local.config.scaling_factor)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_with_rewrites_the_same_seed_gives_the_image_of_the_local_vae_within_rounding(
    recipe: Recipe, rewritten_vaes: str
) -> None:
    local = VAES[recipe.vae]()
    wanted = recipe.run(recipe.pipeline(local))
    remote = RemoteAutoencoderKL.connect(rewritten_vaes, model=recipe.vae, like=VAES[recipe.vae]())
    found = recipe.run(recipe.pipeline(remote))
    if recipe.dtype == torch.float32:
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
        assert not torch.equal(found, wanted)
    else:  # what falls to the other side of a rounding is one step of float16 off
        torch.testing.assert_close(found, wanted, atol=2**-10, rtol=0)


def test_a_small_queue_makes_batches_smaller_and_threads_wait(folders: Mapping[str, Path]) -> None:
    models = (ModelSource("sd", str(folders["sd"])),)
    latents = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    wanted = VAES["sd"]().decode(latents).sample.detach()
    with background(ServerConfig(models=models, port=0, device="cpu", dtype="float32", max_queue=4)) as server:
        vae = RemoteAutoencoderKL.connect(f"127.0.0.1:{server.port}", like=VAES["sd"]())
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda _: vae.decode(latents, return_dict=False)[0], range(4)))
    for images in found:
        torch.testing.assert_close(images, wanted, atol=1e-4, rtol=0)


@pytest.mark.filterwarnings("ignore:.*has no named latent space:UserWarning")
@pytest.mark.parametrize("name", ["image to image", "inpainting", "InstructPix2Pix", "SDXL image to image", "FLUX"])
def test_a_pipeline_in_half_precision_takes_the_vae_that_is_like_its_own(vaes: str, name: str) -> None:
    recipe = RECIPES[name]
    local = recipe.pipeline(VAES[recipe.vae]()).to(torch.float16)
    arguments = {key: value.half() for key, value in recipe.arguments.items() if key.endswith("prompt_embeds")}
    wanted = recipe.run(local, **arguments)
    local.vae = RemoteAutoencoderKL.connect(vaes, model=recipe.vae, like=local.vae)
    found = recipe.run(local, **arguments)
    assert found.dtype == wanted.dtype
    torch.testing.assert_close(found, wanted, atol=0.02, rtol=0)


def test_a_batch_gives_the_images_of_the_local_vae(connect: Callable[[str], RemoteAutoencoderKL]) -> None:
    changes = {"prompt": ["abc", "xyz"], "image": IMAGE.arguments["image"].expand(2, -1, -1, -1)}
    wanted = IMAGE.run(IMAGE.pipeline(VAES["sd"]()), **changes)
    found = IMAGE.run(IMAGE.pipeline(connect("sd")), **changes)
    torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def test_a_generator_for_each_image_draws_as_it_does_locally(connect: Callable[[str], RemoteAutoencoderKL]) -> None:
    def run(vae: Any) -> torch.Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
        return IMAGE.run(IMAGE.pipeline(vae), prompt=["abc", "abc"], generator=generators)

    found = run(connect("sd"))
    torch.testing.assert_close(found, run(VAES["sd"]()), atol=1e-4, rtol=0)
    assert not torch.allclose(found[0], found[1], atol=1e-3)


def test_a_pipeline_with_offloaded_models_gives_the_same_image(connect: Callable[[str], RemoteAutoencoderKL]) -> None:
    def run(vae: Any) -> torch.Tensor:
        pipeline = IMAGE.pipeline(vae)
        pipeline.enable_model_cpu_offload(device="cpu")  # accelerate's hooks are the same for every device
        return IMAGE.run(pipeline)

    assert torch.equal(run(connect("sd")), run(VAES["sd"]()))


def test_a_pipeline_loads_with_a_remote_vae_in_the_place_of_its_own(
    connect: Callable[[str], RemoteAutoencoderKL], tmp_path: Path
) -> None:
    local = TEXT.pipeline(VAES["sd"]())
    local.save_pretrained(tmp_path)
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path, vae=connect("sd"), local_files_only=True)
    pipeline.set_progress_bar_config(disable=True)
    assert isinstance(pipeline.vae, RemoteAutoencoderKL)
    assert torch.equal(TEXT.run(pipeline), TEXT.run(local))


def test_another_pipeline_is_made_of_one_with_a_remote_vae(connect: Callable[[str], RemoteAutoencoderKL]) -> None:
    pipeline = TEXT.pipeline(connect("sd"))
    for other in (
        AutoPipelineForImage2Image.from_pipe(pipeline),
        # from_pipe itself takes nothing but exactly the class that it was written for.
        type(IMAGE.pipeline(pipeline.vae)).from_pipe(pipeline, vae=pipeline.vae),
    ):
        other.set_progress_bar_config(disable=True)
        assert other.vae is pipeline.vae
        assert torch.equal(IMAGE.run(other), IMAGE.run(IMAGE.pipeline(VAES["sd"]())))


def test_a_saved_pipeline_connects_again(connect: Callable[[str], RemoteAutoencoderKL], tmp_path: Path) -> None:
    pipeline = TEXT.pipeline(connect("sd"))
    pipeline.save_pretrained(tmp_path)
    assert [path.name for path in (tmp_path / "vae").iterdir()] == ["config.json"]
    again = DiffusionPipeline.from_pretrained(tmp_path, local_files_only=True)
    again.set_progress_bar_config(disable=True)
    assert isinstance(again.vae, RemoteAutoencoderKL)
    assert again.vae.info == pipeline.vae.info
    assert torch.equal(TEXT.run(again), TEXT.run(pipeline))


def test_pipelines_in_threads_share_a_remote_vae(
    connect: Callable[[str], RemoteAutoencoderKL], calls: list[Execution]
) -> None:
    remote = connect("sd")
    wanted = IMAGE.run(IMAGE.pipeline(VAES["sd"]()))
    pipelines = [IMAGE.pipeline(remote) for _ in range(4)]
    with ThreadPoolExecutor(4) as threads:
        assert all(torch.equal(found, wanted) for found in threads.map(IMAGE.run, pipelines))
    assert len(calls) == 8


@pytest.fixture
def restart(folders: Mapping[str, Path]) -> Iterator[Callable[[str], int]]:
    """Name -> the port of a server with that VAE as `vae`: it takes the place, and the port, of the one before."""
    with ExitStack() as running:
        port = 0

        def start(name: str) -> int:
            nonlocal port
            running.close()
            models = (ModelSource("vae", str(folders[name])),)
            config = ServerConfig(models=models, port=port, device="cpu", dtype="float32", rewrites=False)
            port = running.enter_context(background(config)).port
            return port

        yield start


def test_a_restart_of_the_server_in_the_middle_of_a_generation_costs_nothing(restart: Callable[[str], int]) -> None:
    remote = RemoteAutoencoderKL.connect(
        f"127.0.0.1:{restart('sd')}",
        like=VAES["sd"](),
        retry=Retry(attempts=2, initial_backoff_s=0.05, reconnect_s=240),
    )
    restarting = threading.Event()
    restarts: list[threading.Thread] = []

    def start_again() -> None:
        restarting.set()
        restart("sd")

    def at_each_step(pipeline: Any, step: int, timestep: int, state: dict[str, Any]) -> dict[str, Any]:
        if step == 0:
            restarts.append(threading.Thread(target=start_again))
            restarts[0].start()
            restarting.wait()
        return state

    found = IMAGE.run(IMAGE.pipeline(remote), callback_on_step_end=at_each_step)
    restarts[0].join()
    assert torch.equal(found, IMAGE.run(IMAGE.pipeline(VAES["sd"]())))


def test_weights_that_change_under_a_generation_are_an_error_unless_allowed(restart: Callable[[str], int]) -> None:
    target = f"127.0.0.1:{restart('sd')}"
    strict = RemoteAutoencoderKL.connect(target, like=VAES["sd"]())
    lenient = RemoteAutoencoderKL.connect(target, like=VAES["sd"](), allow_changed_weights=True)
    restart("sd3")
    for recipe in (TEXT, IMAGE):
        pipeline = recipe.pipeline(strict)
        with pytest.raises(WeightsChanged, match="allow_changed_weights=True"):
            recipe.run(pipeline)
    assert TEXT.run(TEXT.pipeline(lenient)).isfinite().all()
