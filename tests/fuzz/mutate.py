"""A deterministic mutator: the same seed makes the same inputs on every machine. Pure Python, no coverage."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from random import Random

__all__ = ["fuzz", "mutations"]

#: Bytes at which something changes: ends of ranges, continuation bits, lengths, UTF-8 lead bytes, wildcards.
_INTERESTING = bytes.fromhex(
    "00 01 02 04 05 10 20 23 26 2b 2f 30 3f 40 7e 7f 80 81 c0 c2 e0 ed ef f0 f4 fe ff"
)
_LONGEST = 600


def mutations(seeds: Sequence[bytes], count: int, seed: int) -> Iterator[bytes]:
    """Yield ``count`` inputs: a seed input with one to four changes."""
    random = Random(seed).getrandbits
    for _ in range(count):
        data = bytearray(seeds[random(24) % len(seeds)])
        for _ in range(1 + (random(2) & random(2))):
            size = len(data)
            at = random(16) % (size + 1)
            _CHANGES[random(24) % len(_CHANGES)](data, at, size, random, seeds)
        yield bytes(data[:_LONGEST])


# The changes: data, a place in it, its size, random bits, all seeds

_Bits = Callable[[int], int]


def _set(data: bytearray, at: int, size: int, random: _Bits, seeds: Sequence[bytes]) -> None:
    if at < size:
        data[at] = random(8)


def _set_interesting(data: bytearray, at: int, size: int, random: _Bits, seeds: Sequence[bytes]) -> None:
    if at < size:
        data[at] = _INTERESTING[random(16) % len(_INTERESTING)]


def _flip(data: bytearray, at: int, size: int, random: _Bits, seeds: Sequence[bytes]) -> None:
    if at < size:
        data[at] ^= 1 << random(3)


def _add(data: bytearray, at: int, size: int, random: _Bits, seeds: Sequence[bytes]) -> None:
    """Off by a little: the classic mistake in a length."""
    if at < size:
        data[at] = (data[at] + random(3) - 4) & 255


def _insert(data: bytearray, at: int, size: int, random: _Bits, seeds: Sequence[bytes]) -> None:
    data[at:at] = random(16).to_bytes(2, "big")


def _delete(data: bytearray, at: int, size: int, random: _Bits, seeds: Sequence[bytes]) -> None:
    del data[at : at + 1 + random(2)]


def _cut(data: bytearray, at: int, size: int, random: _Bits, seeds: Sequence[bytes]) -> None:
    del data[at:]


def _repeat(data: bytearray, at: int, size: int, random: _Bits, seeds: Sequence[bytes]) -> None:
    data[at:at] = data[at : at + 1 + random(5)]


def _splice(data: bytearray, at: int, size: int, random: _Bits, seeds: Sequence[bytes]) -> None:
    """Go on with the end of another seed."""
    other = seeds[random(24) % len(seeds)]
    data[at:] = other[random(16) % (len(other) + 1) :]


_CHANGES = (_set, _set_interesting, _set_interesting, _flip, _add, _insert, _delete, _cut, _repeat, _splice)


def fuzz(target: Callable[[bytes], None], seeds: Sequence[bytes], count: int, seed: int) -> None:
    """Give ``count`` mutated inputs to a target.

    Raises: AssertionError: what the target raised, with the seed and the input that shows it.
    """
    for number, data in enumerate(mutations(seeds, count, seed)):
        try:
            target(data)
        except Exception as error:
            raise AssertionError(
                f"seed {seed}, input {number}: {type(error).__name__}: {error}\n  bytes: {data.hex()}"
            ) from error
