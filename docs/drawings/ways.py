# SPDX-License-Identifier: Apache-2.0
"""The ways of an image and of latents through the server -> two drawings, with a lane for each kind of worker."""

from docs.drawings.canvas import Canvas

LANES = (("client", 44), ("event loop", 142), ("threads and processes", 272), ("device thread", 402))
HEIGHT = 520


def _lanes(title: str) -> Canvas:
    c = Canvas(1080, HEIGHT, title)
    for name, top in LANES:
        c.text(20, top + 36, name, 12.5, kind="soft", bold=True, anchor="start")
    for y in (124, 254, 384):
        c.arrow((20, y), (1060, y), dashed=True, head=False)
    return c


def _way(title: str, words: tuple[tuple[str, str], ...]) -> Canvas:
    """Draw one way: words for each of its ten stations, in their order."""
    c = _lanes(title)
    (ask, door, shares, read, lane, device, finish, answer, got, strips) = words
    # Stations from the left to the right: x, y, width, height, colour.
    c.card(130, 34, 140, 66, "violet", *ask)
    c.card(130, 152, 140, 78, "amber", *door)
    c.card(296, 152, 150, 78, "amber", *shares)
    c.card(296, 284, 150, 78, "blue", *read)
    c.card(472, 152, 160, 78, "amber", *lane)
    c.card(472, 412, 160, 84, "teal", *device)
    c.card(658, 412, 190, 84, "teal", *strips)
    c.card(668, 284, 170, 78, "blue", *finish)
    c.card(888, 152, 160, 78, "amber", *answer)
    c.card(888, 34, 160, 66, "violet", *got)
    c.arrow((200, 100), (200, 150))
    c.arrow((270, 191), (294, 191))
    c.arrow((371, 230), (371, 282))
    c.arrow((446, 323), (459, 323), (459, 191), (470, 191))
    c.arrow((552, 230), (552, 410))
    c.arrow((632, 454), (656, 454))
    c.arrow((753, 412), (753, 364))
    c.arrow((838, 323), (968, 323), (968, 232))
    c.arrow((968, 152), (968, 102))
    return c


def encode() -> Canvas:
    """Draw the way of an image."""
    return _way(
        "The way of an image through Encode: client, event loop, threads and processes, device thread, and back",
        (
            ("Client.encode", "path, bytes, PIL\nimage or array"),
            ("door, corridor", "who asks, which\nmodel, until when"),
            ("shares", "a place in the queue,\na hold on the model"),
            ("read", "header checked first;\npixels to sRGB; pad to f"),
            ("lanes", "by cost; equal padded\nshapes make a batch"),
            ("encode", "[-1, 1], the model's\ndtype, on its device"),
            ("finish", "mode, sample, moments\nor .lat; to a message"),
            ("corridor, door", "result or status,\ntimes in nanoseconds"),
            ("Latents", "raw, with space, digest\nand image size"),
            ("strips", "mean and logvar; not finite:\nonce more in float32"),
        ),
    )


def decode() -> Canvas:
    """Draw the way of latents."""
    return _way(
        "The way of latents through Decode: client, event loop, threads and processes, device thread, and back",
        (
            ("Client.decode", "Latents, or the\nbytes of a .lat"),
            ("door, corridor", "who asks, which\nmodel, until when"),
            ("shares", "a place in the queue,\na hold on the model"),
            ("prepare", ".lat to latents; space,\nshape; scaled to raw"),
            ("lanes", "by cost; equal\nshapes make a batch"),
            ("decode", "raw latents, in the\nmodel's dtype"),
            ("finish", "crop to the image's size;\nPNG ... AVIF, or an array"),
            ("corridor, door", "result or status,\ntimes in nanoseconds"),
            ("image", "of the size that\nwas encoded"),
            ("strips", "pixels in [-1, 1]; not finite:\nonce more in float32"),
        ),
    )
