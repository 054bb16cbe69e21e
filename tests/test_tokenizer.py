import pytest
import torch

from zsar.errors import VocabularyError
from zsar.paths import data_path
from zsar.tokenizer import PAD, START, WordTokenizer


@pytest.fixture
def tokenizer():
    return WordTokenizer("this is a photo of cat dog".split(), context_length=8)


def test_a_text_is_framed_and_padded(tokenizer):
    row, = tokenizer("A photo of CAT.").tolist()
    ids = [tokenizer.ids[word] for word in ("a", "photo", "of", "cat")]
    assert row == [START, *ids, tokenizer.end, PAD, PAD]


def test_the_end_token_is_where_open_clip_looks_for_it(tokenizer):
    tokens = tokenizer(["cat", "this is a photo of a"])
    assert tokens.dtype == torch.int64 and tokens.shape == (2, 8)
    assert tokens.argmax(-1).tolist() == [2, 7] and tokens.max() == tokenizer.end == tokenizer.vocab_size - 1


def test_unknown_words_are_named_with_their_neighbours(tokenizer):
    with pytest.raises(VocabularyError, match=r"'cap' \(nearest: .*cat.*'zebra'"):
        tokenizer("this is a cap of zebra")


def test_a_long_text_is_refused(tokenizer):
    assert tokenizer("a " * 6).shape == (1, 8)
    with pytest.raises(VocabularyError, match="7 words.*at most 6"):
        tokenizer("a " * 7)


def test_the_shipped_vocabulary_reads_the_default_template():
    tokenizer = WordTokenizer.from_file(data_path("drawn", "vocabulary.txt"))
    assert len(set(tokenizer.words)) == len(tokenizer.words)
    assert tokenizer("This is a photo of a cat.").argmax() == 8
