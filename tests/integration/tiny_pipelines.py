# SPDX-License-Identifier: Apache-2.0
"""Whole diffusers pipelines with random weights, small enough for a test and made without the network.

A recipe makes the same pipeline, but for its VAE, each time; its VAE is one of `VAES`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    DDIMScheduler,
    DDPMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionControlNetPipeline,
    StableDiffusionImageVariationPipeline,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionInstructPix2PixPipeline,
    StableDiffusionPipeline,
    StableDiffusionUpscalePipeline,
    StableDiffusionXLImg2ImgPipeline,
    StableDiffusionXLInpaintPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

SIDE = 64
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WIDTH = 8
DOWN_BLOCKS = ("DownBlock2D", "CrossAttnDownBlock2D")


def kl(levels: int = 4, quant_convs: bool = True, **config: Any) -> AutoencoderKL:
    """An AutoencoderKL with C = 4 and f = 2^(levels - 1)."""
    torch.manual_seed(0)
    vae = AutoencoderKL(
        block_out_channels=[4, 8, 8, 8][:levels],
        down_block_types=["DownEncoderBlock2D"] * levels,
        up_block_types=["UpDecoderBlock2D"] * levels,
        latent_channels=4,
        norm_num_groups=2,
        sample_size=SIDE,
        use_quant_conv=quant_convs,
        use_post_quant_conv=quant_convs,
        **config,
    )
    # Weights that float16 holds: pipelines cast a VAE to it and back.
    return vae.half().float().eval()


VAES: Mapping[str, Callable[[], AutoencoderKL]] = {
    "sd": kl,
    "sdxl": partial(kl, scaling_factor=0.13025),
    "sd3": partial(kl, quant_convs=False, scaling_factor=1.5305, shift_factor=0.0609),
    "flux": partial(kl, quant_convs=False, scaling_factor=0.3611, shift_factor=0.1159),
    "x4": partial(kl, levels=3, scaling_factor=0.08333),
}


@dataclass(frozen=True)
class Recipe:
    """A pipeline and one call of it.

    Attributes:
        vae: the name of its VAE.
        make: VAE -> pipeline.
        arguments: of the call.
        encodes: how often the call encodes.
        dtype: what the VAE is cast to beforehand.
    """

    vae: str
    make: Callable[[Any], Any]
    arguments: Mapping[str, Any]
    encodes: int = 0
    dtype: torch.dtype = torch.float32

    def pipeline(self, vae: Any) -> Any:
        """The pipeline, silent."""
        torch.manual_seed(1)
        pipeline = self.make(vae if self.dtype == torch.float32 else vae.to(self.dtype))
        pipeline.set_progress_bar_config(disable=True)
        return pipeline

    def run(self, pipeline: Any, **changes: Any) -> torch.Tensor:
        """Images (B,3,H,W) in [0,1]; each call draws the same noise."""
        arguments = {"num_inference_steps": 2, "output_type": "pt", "generator": torch.Generator().manual_seed(2)}
        images: torch.Tensor = pipeline(**(arguments | dict(self.arguments) | changes)).images
        return images


def noise(*shape: int) -> torch.Tensor:
    """The same numbers in [0,1] for the same shape."""
    return torch.rand(shape, generator=torch.Generator().manual_seed(3))


def tokenizer() -> CLIPTokenizer:
    words = [*LETTERS, *(f"{letter}</w>" for letter in LETTERS), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: index for index, word in enumerate(words)}, merges=[], model_max_length=77)


def text_config() -> CLIPTextConfig:
    words = 2 * len(LETTERS) + 2
    return CLIPTextConfig(
        hidden_size=WIDTH,
        intermediate_size=16,
        num_attention_heads=2,
        num_hidden_layers=2,
        projection_dim=WIDTH,
        vocab_size=words,
        bos_token_id=words - 2,
        eos_token_id=words - 1,
        pad_token_id=words - 1,
    )


def unet(in_channels: int = 4, **config: Any) -> UNet2DConditionModel:
    defaults = {
        "sample_size": WIDTH,
        "in_channels": in_channels,
        "out_channels": 4,
        "block_out_channels": (4, 8),
        "layers_per_block": 1,
        "down_block_types": DOWN_BLOCKS,
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "cross_attention_dim": WIDTH,
        "norm_num_groups": 2,
    }
    return UNet2DConditionModel(**(defaults | config))


def stable_diffusion(cls: Any, vae: Any, in_channels: int = 4, **more: Any) -> Any:
    return cls(
        vae=vae,
        text_encoder=CLIPTextModel(text_config()),
        tokenizer=tokenizer(),
        unet=unet(in_channels),
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **more,
    )


def controlled(vae: Any) -> Any:
    network = ControlNetModel(
        block_out_channels=(4, 8),
        layers_per_block=1,
        down_block_types=DOWN_BLOCKS,
        cross_attention_dim=WIDTH,
        norm_num_groups=2,
        conditioning_embedding_out_channels=(2, 2, 2, 2),
    )
    return stable_diffusion(StableDiffusionControlNetPipeline, vae, controlnet=network)


def image_variation(vae: Any) -> Any:
    vision = CLIPVisionConfig(
        hidden_size=WIDTH,
        intermediate_size=16,
        num_attention_heads=2,
        num_hidden_layers=1,
        image_size=32,
        patch_size=16,
        projection_dim=WIDTH,
    )
    return StableDiffusionImageVariationPipeline(
        vae=vae,
        image_encoder=CLIPVisionModelWithProjection(vision),
        unet=unet(),
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def upscaler(vae: Any) -> Any:
    return StableDiffusionUpscalePipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text_config()),
        tokenizer=tokenizer(),
        unet=unet(7, num_class_embeds=1000),
        low_res_scheduler=DDPMScheduler(),
        scheduler=DDIMScheduler(steps_offset=1, clip_sample=False),
    )


def sdxl(cls: Any, vae: Any) -> Any:
    return cls(
        vae=vae,
        text_encoder=CLIPTextModel(text_config()),
        text_encoder_2=CLIPTextModelWithProjection(text_config()),
        tokenizer=tokenizer(),
        tokenizer_2=tokenizer(),
        unet=unet(
            cross_attention_dim=2 * WIDTH,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + WIDTH,
            attention_head_dim=(2, 4),
            use_linear_projection=True,
        ),
        scheduler=EulerDiscreteScheduler(),
        add_watermarker=False,
    )


def sd3(vae: Any) -> Any:
    transformer = SD3Transformer2DModel(
        sample_size=WIDTH,
        patch_size=1,
        in_channels=4,
        out_channels=4,
        num_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=16,
        caption_projection_dim=16,
        pooled_projection_dim=16,
    )
    texts = dict.fromkeys(
        ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "text_encoder_3", "tokenizer_3")
    )
    return StableDiffusion3Pipeline(
        transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae, **texts
    )


def flux(vae: Any) -> Any:
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        axes_dims_rope=(4, 4, 8),
    )
    texts = dict.fromkeys(("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2"))
    return FluxPipeline(transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae, **texts)


PROMPT = {"prompt": "abc"}
IMAGE = {**PROMPT, "image": noise(1, 3, SIDE, SIDE)}
MASKED = {**IMAGE, "mask_image": (noise(1, 1, SIDE, SIDE) > 0.5).float()}
EMBEDDED = {"prompt_embeds": noise(1, 4, 16), "pooled_prompt_embeds": noise(1, 16), "height": SIDE, "width": SIDE}
HALF = torch.float16

RECIPES: Mapping[str, Recipe] = {
    "text to image": Recipe("sd", partial(stable_diffusion, StableDiffusionPipeline), PROMPT),
    "image to image": Recipe(
        "sd", partial(stable_diffusion, StableDiffusionImg2ImgPipeline), {**IMAGE, "strength": 0.8}, encodes=1
    ),
    "inpainting": Recipe(
        "sd", partial(stable_diffusion, StableDiffusionInpaintPipeline), {**MASKED, "strength": 0.8}, encodes=2
    ),
    "inpainting with 9 channels": Recipe(
        "sd", partial(stable_diffusion, StableDiffusionInpaintPipeline, in_channels=9), MASKED, encodes=1
    ),
    "ControlNet": Recipe("sd", controlled, IMAGE),
    "InstructPix2Pix": Recipe(
        "sd", partial(stable_diffusion, StableDiffusionInstructPix2PixPipeline, in_channels=8), IMAGE, encodes=1
    ),
    "image variation": Recipe("sd", image_variation, {"image": noise(1, 3, 32, 32)}),
    "x4 upscaling": Recipe("x4", upscaler, {**PROMPT, "image": noise(1, 3, 16, 16)}),
    "SDXL": Recipe("sdxl", partial(sdxl, StableDiffusionXLPipeline), PROMPT),
    "SDXL, upcast from float16": Recipe("sdxl", partial(sdxl, StableDiffusionXLPipeline), PROMPT, dtype=HALF),
    "SDXL image to image": Recipe(
        "sdxl", partial(sdxl, StableDiffusionXLImg2ImgPipeline), {**IMAGE, "strength": 0.8}, encodes=1
    ),
    "SDXL image to image, upcast from float16": Recipe(
        "sdxl", partial(sdxl, StableDiffusionXLImg2ImgPipeline), {**IMAGE, "strength": 0.8}, encodes=1, dtype=HALF
    ),
    "SDXL inpainting": Recipe(
        "sdxl", partial(sdxl, StableDiffusionXLInpaintPipeline), {**MASKED, "strength": 0.8}, encodes=2
    ),
    "SD3": Recipe("sd3", sd3, {**EMBEDDED, "guidance_scale": 1.0}),
    "FLUX": Recipe("flux", flux, EMBEDDED),
}
