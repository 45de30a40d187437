# SPDX-License-Identifier: Apache-2.0
"""The packages and their arrows -> a drawing: who imports whom, downward only."""

from docs.drawings.canvas import Canvas


def house() -> Canvas:
    """Draw the house."""
    c = Canvas(960, 640, "The packages of latentwire from top to bottom; every arrow is an import and points down")
    c.card(
        40,
        28,
        880,
        66,
        "grey",
        "latentwire_cli",
        "the command: one module a command; imports what a command needs when it runs",
        True,
    )
    c.card(
        40,
        138,
        490,
        66,
        "rose",
        "latentwire_lab",
        "looking into a latent space: samples, morphs, attributes, reports",
        True,
    )
    c.card(560, 138, 360, 66, "rose", "latentwire_cache", "a dataset becomes latents that trainers read", True)
    c.card(40, 262, 270, 92, "violet", "latentwire_client", "Client, AsyncClient,\nRemoteAutoencoderKL, no torch", True)
    c.card(
        345,
        262,
        270,
        92,
        "amber",
        "latentwire_server",
        "doors, one corridor, an engine:\ngRPC, Open Inference, HTTP",
        True,
    )
    c.card(650, 262, 270, 92, "teal", "latentwire_train", "a folder of images\nbecomes a VAE", True)
    c.card(130, 412, 190, 84, "grey", "latentwire_proto", "the wire: messages\nand stubs (protobuf, grpc)", True)
    c.card(
        345,
        412,
        350,
        84,
        "blue",
        "latentwire_codec",
        "pixels, latents and bytes in one process:\nimages, networks, strips, .lat (torch, diffusers)",
        True,
    )
    c.card(720, 412, 200, 84, "blue", "latentwire_data", "folders, lists, shards,\nURLs to images", True)
    c.card(
        40,
        554,
        880,
        62,
        "blue",
        "latentwire_core",
        "what every side means by latents: kinds, noise, identity, scaling, the .lat container, errors (numpy)",
        True,
    )
    c.arrow((285, 94), (285, 136))
    c.arrow((740, 94), (740, 136))
    c.arrow((175, 204), (175, 260))
    c.arrow((500, 204), (690, 260))
    c.arrow((600, 204), (295, 260))
    c.arrow((220, 354), (220, 410))
    c.arrow((368, 354), (300, 410))
    c.arrow((480, 354), (480, 410))
    c.arrow((670, 354), (670, 410))
    c.arrow((820, 354), (820, 410))
    c.arrow((85, 354), (85, 552))
    c.arrow((520, 496), (520, 552))
    c.arrow((820, 496), (820, 552))
    c.text(295, 121, "and everything below it", 11.5, kind="soft", anchor="start")
    c.text(97, 530, "client to core", 11.5, kind="soft", anchor="start")
    return c
