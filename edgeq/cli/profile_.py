"""`edgeq profile`: measure this machine and say what the numbers mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from edgeq.device.spec import Device


def command(
    as_json: bool = typer.Option(False, "--json", help="Print the profile as JSON; --device FILE.json reads it back."),
    refresh: bool = typer.Option(False, "--refresh", help="Measure again."),
    device: str = typer.Option("auto", "--device", help="Show a NAME of the catalog or a FILE.json instead."),
    adb: bool = typer.Option(False, "--adb", help="Describe the Android phone connected over adb."),
    show_list: bool = typer.Option(False, "--list", help="List the catalog of known devices."),
) -> None:
    """Measure this machine: memory bandwidth, cores, accelerators."""
    from edgeq.cli import profile_report

    if show_list:
        profile_report.print_catalog(as_json=as_json)
        return
    shown = _device(device, adb=adb, refresh=refresh, quiet=as_json)
    if as_json:
        import json

        from edgeq.jsonable import to_json

        print(json.dumps(to_json(shown), indent=2))
        return
    profile_report.print_device(shown)


def _device(ref: str, *, adb: bool, refresh: bool, quiet: bool) -> Device:
    if adb:
        from edgeq.device.android import profile_android

        return profile_android()
    if ref != "auto":
        from edgeq.device import load_device

        return load_device(ref)
    from rich.console import Console

    from edgeq.device import profile_device

    with Console(stderr=True, quiet=quiet).status("Measuring this machine ...") as shown:
        return profile_device(
            refresh=refresh, quick=False, say=lambda what: shown.update(f"Measuring {what}, up to a minute in all ...")
        )
