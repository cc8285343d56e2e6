#!/usr/bin/env python
"""Put a toybox-flow that was built into the package.

    python -m training.package_toybox_flow --folder build/flow/toybox-flow

Of the whole folder the package holds what toybox-diffusion, from whose package the model was
trained, does not have; `understudy.models.shared_parts` puts the whole folder together again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from understudy.errors import UnderstudyError
from understudy.files.builtin import builtin_folder
from understudy.models.shared_parts import take_out


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, default=Path("build/flow/toybox-flow"))
    parser.add_argument("--package", type=Path, default=builtin_folder("toybox"),
        help="the toybox-diffusion that it was trained with")  # fmt: skip
    parser.add_argument("--out", type=Path, default=builtin_folder("toybox-flow"))
    options = parser.parse_args(arguments)
    try:
        take_out(options.folder, options.package, options.out)
    except UnderstudyError as error:
        raise SystemExit(f"package_toybox_flow: {error}") from error
    size = sum(file.stat().st_size for file in options.out.rglob("*") if file.is_file())
    print(f"{size:,} bytes in {options.out}")


if __name__ == "__main__":
    main()
