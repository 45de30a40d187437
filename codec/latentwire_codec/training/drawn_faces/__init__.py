# SPDX-License-Identifier: Apache-2.0
"""A seed -> thousands of drawn faces with CelebA's attributes, all of them true: no person was photographed."""

from latentwire_codec.training.drawn_faces.attributes import ATTRIBUTES, NAMES, Attribute
from latentwire_codec.training.drawn_faces.drawing import draw
from latentwire_codec.training.drawn_faces.face import Face, random_face
from latentwire_codec.training.drawn_faces.folder import write_folder

__all__ = ["ATTRIBUTES", "NAMES", "Attribute", "Face", "draw", "random_face", "write_folder"]
