"""The child process that reads an untrusted checkpoint: limited in time, memory and output.

``python -m understudy.generators.quarantine FILE FOLDER`` reads a generator from FILE and writes
weights.safetensors and found.json to FOLDER. It ends with 0, or with 3 and one line of JSON on
stdout that says why not. `stylegan2_convert` starts it; torch is never imported here.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path

from safetensors import SafetensorError
from safetensors.numpy import save_file

from understudy.generators.files import Found, find_generator
from understudy.generators.stylegan2.layout import stylegan2_config
from understudy.generators.stylegan2.names import FILTERS, check_filters
from understudy.generators.stylegan3.layout import is_stylegan3, stylegan3_config
from understudy.untrusted.unpickling import Foreign, Unsafe

REFUSED = 3
WEIGHTS, FOUND = "weights.safetensors", "found.json"
MEBI = 2**20


def limit(size: int) -> None:
    """Bound processor time, memory, and what may be written, by the file's size in bytes.

    Where the system has no such limits (Windows), the parent's clock is the only one.
    """
    with suppress(ImportError):
        import resource

        seconds = processor_seconds(size)
        wanted = {
            resource.RLIMIT_CPU: seconds,
            resource.RLIMIT_AS: 6 * size + 1024 * MEBI,
            resource.RLIMIT_FSIZE: 2 * size + 16 * MEBI,
            resource.RLIMIT_NOFILE: 64,
            resource.RLIMIT_CORE: 0,
        }
        for what, most in wanted.items():
            with suppress(ValueError, OSError):  # a system that knows the limit by name only
                resource.setrlimit(what, (most, most))


def processor_seconds(size: int) -> int:
    """How long reading a file of this many bytes may take: a minute, and a second for 10 MB."""
    return 60 + size // (10 * MEBI)


def read(file: Path, folder: Path) -> None:
    """Find the generator and write it out. Raises Unsafe."""
    found = find_generator(file)
    described = describe(found)
    tensors = found.tensors
    if described["kind"] == "stylegan2":
        check_filters(tensors)
        tensors = {n: v for n, v in tensors.items() if n.rpartition(".")[2] not in FILTERS}
    save_file(dict(tensors), folder / WEIGHTS)
    (folder / FOUND).write_text(json.dumps(described, allow_nan=False))


def describe(found: Found) -> dict[str, object]:
    """What was found, as JSON: kind of network, configuration, what wrote the file."""
    if is_stylegan3(found.tensors):
        kind, config = "stylegan3", stylegan3_config(found.tensors, found.arguments).to_dict()
    else:
        kind, config = "stylegan2", stylegan2_config(found.tensors, found.arguments).to_dict()
    return {"kind": kind, "config": config, "written_by": found.written_by}


def main(file: str, folder: str) -> int:
    """Read within the limits; every way to fail is one line."""
    limit(Path(file).stat().st_size)
    foreign = False
    try:
        read(Path(file), Path(folder))
    except Unsafe as error:
        reason, foreign = str(error), isinstance(error, Foreign)
    except MemoryError:
        reason = "reading it takes more memory than its size explains"
    except RecursionError:
        reason = "it is nested deeper than any known file"
    except (OSError, SafetensorError) as error:
        reason = f"it could not be read or written out ({error})"
    except Exception as error:  # a hole in our own checks: still a line, still nothing run
        reason = f"it is damaged in an unexpected way ({type(error).__name__})"
    else:
        return 0
    print(json.dumps({"refused": reason, "foreign": foreign}))
    return REFUSED


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
