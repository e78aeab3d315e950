"""Text: cleaning, and token numbers from a plain hash or from a tokenizer in a local folder."""

from __future__ import annotations

import hashlib
import re
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_WORD = re.compile(r"\w+|[^\w\s]")
_LINK = re.compile(r"https?://\S+|www\.\S+")


def cleaned(text: str) -> str:
    """Without a leading "RT", links and hash signs, and with single blanks.

    >>> cleaned("RT  Apple pie #baking https://a.b/c")
    'Apple pie baking'
    """
    text = _LINK.sub(" ", re.sub(r"^\s*RT\b", " ", text)).replace("#", " ")
    return " ".join(text.split())


def hashed_tokens(text: str, length: int, vocabulary: int) -> Tensor:
    """Words and signs in lower case as numbers 1 … vocabulary - 1, by a fixed hash; 0 is padding.

    Needs no vocabulary file; different words may share a number.

    :returns: (length,), cut or padded.
    """
    words = _WORD.findall(text.lower())[:length]
    numbers = [zlib.crc32(word.encode()) % (vocabulary - 1) + 1 for word in words]
    return torch.tensor(numbers + [0] * (length - len(numbers)))


def tokens(text: str, length: int, folder: str) -> Tensor:
    """Token numbers by a tokenizer of `transformers`, with its own special and padding tokens.

    :returns: (length,), cut or padded.
    """
    numbers = _tokenizer(folder)(
        text, truncation=True, max_length=length, padding="max_length", return_attention_mask=False
    )
    return torch.tensor(numbers["input_ids"])


@lru_cache(maxsize=4)
def _tokenizer(folder: str) -> Any:
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise ImportError(
            "A tokenizer is read with transformers. Found none. Run `pip install equivox[hf]`, or "
            "leave the tokenizer out: words are then hashed."
        ) from error
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(
            f"`{folder}` should be a folder with a tokenizer, such as `vocab.txt` and "
            f"`tokenizer_config.json`. Found: {error}"
        ) from error


def fingerprint(folder: str) -> str:
    """Eight digits that stand for the files of a tokenizer.

    :raises FileNotFoundError: Where there are none.
    """
    root = Path(folder).expanduser()
    wanted = ("vocab*", "merges*", "tokenizer*", "special_tokens*", "added_tokens*", "*.model")
    files = sorted({path for pattern in wanted for path in root.glob(pattern) if path.is_file()})
    if not files:
        raise FileNotFoundError(
            f"`{folder}` should be a folder with a tokenizer, such as `vocab.txt` and "
            "`tokenizer_config.json`. Found none of its files."
        )
    digest = hashlib.blake2b(digest_size=4)
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
