# SPDX-License-Identifier: Apache-2.0
"""`latentwire latents-report`: images -> a page of plots and a verdict: how far their latents are from N(0, I)."""

import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

from latentwire_cli.connection import Connection, connected
from latentwire_cli.conversion import encoded
from latentwire_cli.files import Images, Json, Overwrite, Picture, check_new, found
from latentwire_cli.lab.plots import nats, report_page
from latentwire_cli.local import require
from latentwire_cli.options import check_seed_option, option
from latentwire_cli.report import Batch, print_json, print_line
from latentwire_client.info import ModelInfo
from latentwire_core.files import write_whole
from latentwire_core.formats import IMAGE_SUFFIXES
from latentwire_lab.statistics import ACTIVE_VARIANCE, LatentStatistics, posterior_statistics

PAGE_LETTERS = 180


@connected()
def latents_report(
    images: Images,
    output: Picture,
    seed: Annotated[int, option(text="Of the posteriors' samples, 0..2^64-1.", default="0", metavar="N")] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    *,
    connection: Connection,
) -> None:
    """Plot the latents of images against N(0, I), and say whether they are close to it.

    For each dimension: mean, standard deviation, histogram and Kolmogorov-Smirnov distance of samples of the
    posteriors, KL divergence, and whether it is active (the posterior mean varies by more than 0.01 over the images);
    and their correlations. In spatial latents a dimension is a channel, its positions pooled.
    An image that cannot be encoded is reported, and the others are used.
    """
    require("lab")
    check_seed_option(seed)
    check_new(output, ".png", overwrite)
    paths = found(images, IMAGE_SUFFIXES)
    with connection.open() as client, Batch("encoding", len(paths)) as batch:
        source = connection.chosen_model(client)
        posteriors = encoded(client, paths, batch, kind="moments", dtype="float32")
        try:
            statistics = posterior_statistics((latents for _, latents in posteriors), seed=seed)
        except ValueError:
            if not batch.failures:
                raise
            batch.end()  # the failures are the reason for too few images
    lines = [part for line in _lines(statistics, source) for part in textwrap.wrap(line, PAGE_LETTERS)]
    write_whole(output, report_page(statistics, f"{source.name}: the latents of {statistics.images} images", lines))
    if as_json:
        print_json({**_as_json(statistics, source), "picture": str(output), "failures": batch.failures})
    else:
        print_line(f"{source.name}: {statistics.verdict}")
        print_line(f"picture: {output}")
    batch.end()


def _lines(statistics: LatentStatistics, source: ModelInfo) -> Sequence[str]:
    kl = statistics.total_kl
    information = "the model has no log-variance" if kl is None else f"total KL {nats(kl)} nats per image"
    lines = [
        f"Verdict: {statistics.verdict}.",
        f"{int(statistics.active.sum())} of {len(statistics.mean)} dimensions are active (the variance of the "
        f"posterior mean is over {ACTIVE_VARIANCE:g}); {information}; {statistics.observations:,} samples of each.",
    ]
    if not source.is_vector:
        neighbours = statistics.neighbour_correlation
        values = "" if neighbours is None else ": " + ", ".join(f"{value:z.2f}" for value in neighbours)
        lines.append(
            f"Spatial latents: a dimension is a channel, its positions pooled. Correlation of neighbours{values}; "
            "in N(0, I) it is 0, and samples of N(0, I) decode to texture."
        )
    return lines


def _as_json(statistics: LatentStatistics, source: ModelInfo) -> dict[str, Any]:
    arrays = ("mean", "std", "ks", "kl", "mean_variance", "active", "correlation", "neighbour_correlation")
    return {
        "model": source.name,
        "latent_space": source.latent_space,
        "weights_digest": source.weights_digest,
        "spatial": not source.is_vector,
        "images": statistics.images,
        "observations": statistics.observations,
        "is_close": statistics.is_close,
        "verdict": statistics.verdict,
        "departures": [asdict(each) for each in statistics.departures()],
        "active_dimensions": int(statistics.active.sum()),
        "total_kl_nats": statistics.total_kl,
        **{
            "kl_nats" if name == "kl" else name: None if values is None else values.tolist()
            for name in arrays
            for values in [getattr(statistics, name)]
        },
    }
