"""`python -m mis.doctor`: whether everything is there that trainings and searches need, and what to do where not."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from mis import cli
from mis.machine.diagnosis import Diagnosis
from mis.settings import Settings, load_settings
from mis.words import counted

ABOUT_WIDTH = len("temporary files")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, also with warnings; 1 with errors; 2 after bad input."""
    parser = argparse.ArgumentParser(
        "python -m mis.doctor",
        description="Look at this machine, the Ray cluster of RAY_ADDRESS, MLflow's store and the folders in use.",
        allow_abbrev=False,
    )
    parser.add_argument("--json", action="store_true", help="print what is found as JSON")
    parser.add_argument("--params", type=Path, metavar="FILE", help="instead of the project's params.yaml")
    cli.add_overrides(parser)
    options = parser.parse_args(argv)
    return cli.exit_code(lambda: _run(_settings(options.params, options.overrides), as_json=options.json))


def _run(settings: Settings, *, as_json: bool) -> int:
    from mis.doctor.session import diagnose

    found: list[Diagnosis] = []
    for diagnosis in diagnose(settings):
        found.append(diagnosis)
        if not as_json:
            _show(diagnosis)
    errors = sum(diagnosis.mark == "error" for diagnosis in found)
    warnings = sum(diagnosis.mark == "warning" for diagnosis in found)
    if as_json:
        diagnoses = [asdict(diagnosis) for diagnosis in found]
        print(json.dumps({"errors": errors, "warnings": warnings, "diagnoses": diagnoses}, indent=2))
    else:
        print(f"{counted(errors, 'error')}, {counted(warnings, 'warning')}")
    return 1 if errors else 0


def _settings(params: Path | None, overrides: Sequence[str]) -> Settings:
    """Return the settings; outside of a project there is no params.yaml that names a storage."""
    settings = load_settings()
    if params is None and not overrides and not (settings.workspace / "params.yaml").is_file():
        return settings
    return cli.load(params, overrides)[1]


def _show(diagnosis: Diagnosis) -> None:
    print(f"{diagnosis.mark:<8} {diagnosis.about:<{ABOUT_WIDTH}}  {diagnosis.found}", flush=True)
    if diagnosis.do:
        print(f"{'':<8} {'':<{ABOUT_WIDTH}}  -> {diagnosis.do}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
