"""One process of a campaign that is guided by coverage: python -m tests.fuzz.guided RUNS SEED DIRECTORY LIBRARIES.

atheris instruments dlwhy's code as it is imported, and libFuzzer keeps each file that reaches something new; the
changes themselves are `mutators`'. libFuzzer ends the process, so the result goes into DIRECTORY, as `result.json`.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import random
import sys
import time
from typing import TYPE_CHECKING

import atheris

with atheris.instrument_imports(include=["dlwhy"]):
    import dlwhy

    for module in pkgutil.walk_packages(dlwhy.__path__, "dlwhy."):
        if module.name != "dlwhy.__main__":
            importlib.import_module(module.name)

from . import mutators
from .campaign import FAMILIES, Tally, pools
from .stage import SECONDS, WAYS, Stage, limit_memory

if TYPE_CHECKING:
    from typing import NoReturn

_SLOWER = 2.0
"""Times as long as it takes otherwise: instrumented code. The campaign asks again without it."""
_MUTATED_BY_LIBRARY = 0.1
_OTHER_WAY = 0.3
_ANEW = 0.3
"""How often a sound file is changed instead of one from the corpus: most of those no longer get far."""
_SAVED_EVERY = 1000


def main(runs: int, seed: int, directory: str, with_libraries: bool) -> NoReturn:
    """Run until so many files were put to dlwhy, then end the process."""
    pool = pools(with_libraries)
    corpus = os.path.join(directory, "corpus")
    os.makedirs(corpus)
    for family, files in pool.items():
        for number, data in enumerate(files):
            way = FAMILIES[family][number % len(FAMILIES[family])]
            with open(os.path.join(corpus, f"{family}-{number:03}"), "wb") as file:
                file.write(bytes([way]) + data)
    stage = Stage(os.path.join(directory, "stage"))
    tally = Tally()
    limit_memory()
    began = time.process_time()

    def one(data: bytes) -> None:
        if data:
            tally.ask(stage, WAYS[data[0] % len(WAYS)], data[1:], _SLOWER * SECONDS)
        if tally.runs % _SAVED_EVERY == 0 or tally.runs >= runs:
            tally.seconds = time.process_time() - began
            tally.save(os.path.join(directory, "result.json"), stage)
        if tally.runs >= runs:
            os._exit(0)

    def another(data: bytes, most: int, number: int) -> bytes:
        rng = random.Random(number)
        way, body = data[0] % len(WAYS) if data else 0, data[1:]
        if rng.random() < _OTHER_WAY:
            way = rng.choice(FAMILIES[WAYS[way].seeds])
        if rng.random() < _ANEW:
            body = rng.choice(pool[WAYS[way].seeds])
        if rng.random() < _MUTATED_BY_LIBRARY:
            body = atheris.Mutate(body, most - 1)
        else:
            body = mutators.mutate(body, rng, pool[WAYS[way].seeds])
        return (bytes([way]) + body)[:most]

    options = [
        f"-seed={seed}", f"-max_len={mutators.LARGEST}", "-len_control=0", "-timeout=60", "-rss_limit_mb=0",
        f"-artifact_prefix={directory}/",
    ]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, corpus], one, custom_mutator=another)
    atheris.Fuzz()
    raise AssertionError("libFuzzer came back")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4] == "1")
