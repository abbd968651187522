"""Where the bytes of a new file were in the old one, though some of them changed and others moved.

Source: patience diff's idea (what occurs once in both files says how they lie to each other), on words of 8 bytes
instead of lines; and bsdiff's, that a range that lies right need not be equal. No format is parsed: a tensor whose
weights all moved a little still holds words that did not, and they are alike in no other place.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge_models.delta.form import PIECE_BYTES, Bytes

MAX_RUNS = 4_096
"""Those with the fewest words are given up: their bytes go to their neighbours or become literals."""

_WORD = 8
_MOST_WORDS = 1 << 19
"""Of one file, about; larger files are sampled more thinly, so that memory and time stay bounded."""

_DENSEST = 3
"""Log2: at most every eighth word is taken. Source: measured, models/DELTA.md."""

_MIX = np.uint64(0x9E3779B97F4A7C15)
"""Spreads a word's bits (2^64 divided by the golden ratio), so that the same words are sampled in both files."""

_Places = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Match:
    """Bytes `first` to `end` of the new file lie as those `shift` further on in the old."""

    first: int
    end: int
    shift: int


def align(old: Bytes, new: Bytes) -> list[Match]:
    """Matches in the order of the new file, disjoint; they promise nothing about how much is equal."""
    if not len(old) or not len(new):
        return []
    matches: list[Match] = []
    at = 0
    runs = _runs(old, new)
    for number, run in enumerate(runs):
        end = len(new)
        if number + 1 < len(runs):
            after = runs[number + 1]
            end = _cut(old, new, Match(run.end, after.first, run.shift), after.shift)
        # Outside of the old file is nothing to copy.
        first, last = max(at, -run.shift), min(end, len(old) - run.shift)
        if first < last:
            matches.append(Match(first, last, run.shift))
        at = end
    return matches


def _runs(old: Bytes, new: Bytes) -> list[Match]:
    """Words in a row that moved equally far, in order; they leave gaps, or overlap by less than a word.

    Both ends of the files count as words.
    """
    thin = max(_DENSEST, (max(len(old), len(new)) // _MOST_WORDS).bit_length())
    old_words, old_places = _words(old, thin)
    new_words, new_places = _words(new, thin)
    _, in_old, in_new = np.intersect1d(old_words, new_words, assume_unique=True, return_indices=True)
    order = np.argsort(new_places[in_new])
    places = np.concatenate([[0], new_places[in_new][order], [len(new)]])
    shifts = np.concatenate([[0], old_places[in_old][order], [len(old)]]) - places
    ends = np.minimum(places + _WORD, len(new))
    ends[0] = 0
    counts = np.ones(len(places), np.int64)
    counts[[0, -1]] = 0
    runs = _joined(places, ends, shifts, counts)
    if len(runs[0]) > MAX_RUNS:
        most = np.sort(np.argsort(-runs[3], kind="stable")[:MAX_RUNS])
        runs = _joined(*(column[most] for column in runs))
    return [Match(*run) for run in zip(*(column.tolist() for column in runs[:3]), strict=True)]


def _joined(first: _Places, end: _Places, shift: _Places, count: _Places) -> tuple[_Places, ...]:
    """Neighbours of the same shift as one."""
    starts = np.flatnonzero(np.concatenate([[True], shift[1:] != shift[:-1]]))
    lasts = np.concatenate([starts[1:], [len(shift)]]) - 1
    return first[starts], end[lasts], shift[starts], np.add.reduceat(count, starts)


def _words(data: Bytes, thin: int) -> tuple[NDArray[np.uint64], _Places]:
    """The words that are sampled and occur once among them, sorted, and where they are."""
    words, places = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for offset in range(_WORD):
        aligned = data[offset : offset + max(0, len(data) - offset) // _WORD * _WORD].view("<u8")
        for at in range(0, len(aligned), PIECE_BYTES):
            piece = aligned[at : at + PIECE_BYTES]
            taken = np.flatnonzero((piece * _MIX) >> np.uint64(64 - thin) == 0)
            if len(taken) > (most := 4 * PIECE_BYTES >> thin):
                # One word is repeated, as zeros are. Twice says that; what is still too much is no tensor.
                order = np.argsort(piece[taken], kind="stable")
                third = np.flatnonzero(piece[taken[order[2:]]] == piece[taken[order[:-2]]]) + 2
                taken = np.delete(taken[order], third)[:most]
            words.append(piece[taken])
            places.append((taken + at) * _WORD + offset)
    every, where = np.concatenate(words), np.concatenate(places)
    order = np.argsort(every, kind="stable")
    every, where = every[order], where[order]
    differs = np.concatenate([[True], every[1:] != every[:-1], [True]])
    once = differs[1:] & differs[:-1] if len(every) else np.zeros(0, np.bool_)
    return every[once], where[once]


def _cut(old: Bytes, new: Bytes, between: Match, after: int) -> int:
    """Where in a range to go over from its shift to that of what comes after, so that most bytes are equal."""
    best, cut, lead = 0, between.first, 0
    for at in range(between.first, between.end, PIECE_BYTES):
        end = min(at + PIECE_BYTES, between.end)
        leads = lead + np.cumsum(_equal(old, new, at, end, between.shift) - _equal(old, new, at, end, after))
        top = int(leads.argmax())
        if leads[top] > best:
            best, cut = int(leads[top]), at + top + 1
        lead = int(leads[-1])
    return cut


def _equal(old: Bytes, new: Bytes, first: int, end: int, shift: int) -> _Places:
    """1 for each byte that is the same in the old file, which it is not outside of it."""
    equal = np.zeros(end - first, np.int64)
    low, high = max(first, -shift), min(end, len(old) - shift)
    if low < high:
        equal[low - first : high - first] = new[low:high] == old[low + shift : high + shift]
    return equal
