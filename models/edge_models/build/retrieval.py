"""The Lee corpus as a test of retrieval: does the beginning of a news story find the rest of it, among all others?

Source: M. Lee, B. Pincombe and M. Welsh, "An empirical evaluation of models of text document similarity", 2005;
ABC news mail of 2001 and 2002, in the wheel of gensim: 300 background stories, and 50 that people compared in pairs.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from edge_models.build.recipe import wheel_file
from edge_models.build.samples import Samples
from edge_models.build.texts import tokenized
from edge_models.digests import Digest, digest_of
from edge_models.steps import Before

FIRST_SENTENCE = re.compile(r"(.+?[.?!][\"')]*)\s+(?=\S)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Corpus:
    """Stories, and the digest of the files they were read from."""

    background: tuple[str, ...]
    """300, which are measured on."""
    compared: tuple[str, ...]
    """50 others."""
    digest: Digest


def lee_corpus() -> Corpus:
    """The stories in gensim's wheel. Raises `ConfigError` where it is not installed."""
    raw = [wheel_file("gensim", f"test/test_data/{name}.cor").read_bytes() for name in ("lee_background", "lee")]
    # One is ASCII, the other Latin-1: a story a line.
    background, compared = (tuple(map(str.strip, part.decode("latin-1").splitlines())) for part in raw)
    return Corpus(background, compared, digest_of(b"".join(raw)))


def halves(story: str) -> tuple[str, str] | None:
    """The first sentence, and the rest; None where there is no rest."""
    first = FIRST_SENTENCE.match(story)
    return (first.group(1), story[first.end() :]) if first else None


def retrieval(stories: Sequence[str], before: Before) -> Samples:
    """Two rows a story: first all queries, then all rests, in the same order. Stories of one sentence are left out.

    A query is a story's first sentence; relevant to it is the rest of the same story, and nothing else.
    """
    pairs = [pair for pair in map(halves, stories) if pair is not None]
    texts = [query for query, _ in pairs] + [rest for _, rest in pairs]
    truth = [{"relevant": [len(pairs) + row]} for row in range(len(pairs))] + [{"relevant": []} for _ in pairs]
    return Samples(tokenized(texts, before), tuple(truth), tuple(texts))
