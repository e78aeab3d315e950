"""How the modalities of field data sets are decoded: one frozen dataclass a kind.

The fields of a decoder are all that its result depends on; they are a part of the preprocessing id.
A set that needs another kind subclasses `FileDecoder`, as a frozen dataclass, in its own module.
"""

from equivox.data.decoders.base import FileDecoder
from equivox.data.decoders.sound import FilterBank, LogSTFT
from equivox.data.decoders.values import Array, InMemory, Text
from equivox.data.decoders.visual import Frames, Image, PackedFrames

__all__ = [
    "Array",
    "FileDecoder",
    "FilterBank",
    "Frames",
    "Image",
    "InMemory",
    "LogSTFT",
    "PackedFrames",
    "Text",
]
