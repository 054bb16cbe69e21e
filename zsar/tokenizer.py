"""A closed-vocabulary word tokenizer for the drawn CLIP, called as open_clip calls its own."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path

import torch

from zsar.errors import VocabularyError

PAD, START = 0, 1


class WordTokenizer:
    """Whole words to ids, one id a line of a vocabulary file.

    Id 0 pads, 1 starts a text, words follow in file order, and the end token has the highest id of all, because
    open_clip reads a text's embedding at the position of its largest id (``text.argmax(-1)``).
    """

    def __init__(self, words: Sequence[str], context_length: int = 20):
        self.words = list(words)
        self.context_length = context_length
        self.ids = {word: i for i, word in enumerate(self.words, start=2)}
        self.end = len(self.words) + 2
        self.vocab_size = self.end + 1

    @classmethod
    def from_file(cls, path: Path, context_length: int = 20) -> "WordTokenizer":
        return cls(path.read_text(encoding="utf-8").split(), context_length)

    def encode(self, text: str) -> list[int]:
        """Ids of the words of ``text``, lower-cased and without punctuation.

        Raises VocabularyError for unknown words (with the nearest known ones), for no word and for too many.
        """
        words = re.findall(r"\w+", text.lower())
        if not words:
            raise VocabularyError(f"{text!r} holds no word; use words of the drawn CLIP's vocabulary")
        unknown = sorted({word for word in words if word not in self.ids})
        if unknown:
            raise VocabularyError(f"{text!r}: the drawn CLIP does not know {self._describe(unknown)}; "
                                  "use words of its vocabulary, or a CLIP trained on the web")
        room = self.context_length - 2
        if len(words) > room:
            raise VocabularyError(f"{text!r}: {len(words)} words, but this model reads at most {room}; shorten it")
        return [self.ids[word] for word in words]

    def _describe(self, unknown: list[str]) -> str:
        near = {word: difflib.get_close_matches(word, self.words, n=3, cutoff=0.5) for word in unknown}
        return ", ".join(f"{word!r}" + (f" (nearest: {', '.join(known)})" if known else "")
                         for word, known in near.items())

    def __call__(self, texts: str | Sequence[str]) -> torch.Tensor:
        """int64 [N, context_length] for N texts."""
        texts = [texts] if isinstance(texts, str) else list(texts)
        tokens = torch.full((len(texts), self.context_length), PAD, dtype=torch.int64)
        for row, text in zip(tokens, texts, strict=True):
            ids = [START, *self.encode(text), self.end]
            row[:len(ids)] = torch.tensor(ids)
        return tokens
