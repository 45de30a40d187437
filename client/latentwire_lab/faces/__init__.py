# SPDX-License-Identifier: Apache-2.0
"""A seed -> thousands of drawn faces with CelebA's attributes, all of them true: no person was photographed."""

from latentwire_lab.faces.drawing import draw
from latentwire_lab.faces.face import ATTRIBUTES, NAMES, Attribute, Face, random_face
from latentwire_lab.faces.folder import write_folder

__all__ = ["ATTRIBUTES", "NAMES", "Attribute", "Face", "draw", "random_face", "write_folder"]
