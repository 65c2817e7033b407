"""Serves Envoy what it last accepted, while the loader does not."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

from google.protobuf.json_format import ParseError

from yett_loader.sidecar import accepted
from yett_loader.sidecar.listeners import RECORD_ALL, RUNTIME
from yett_loader.sidecar.process import control
from yett_loader.sidecar.seat import is_served
from yett_loader.sidecar.xds import Ads

log = logging.getLogger(__name__)

LOOK = 0.5
"""Seconds between two looks at who serves."""


async def stand_in(directory: Path) -> None:
    """Until cancelled.  The loader takes the seat when it comes; then Envoy finds it there."""
    serving: Ads | None = None
    try:
        while True:
            if serving is not None and not serving.seated:
                log.info("the loader is back")
                await serving.stop()
                serving = None
            elif serving is None and not is_served(control(directory)):
                serving = await _serve(directory)
            await asyncio.sleep(LOOK)
    finally:
        if serving is not None:
            await serving.stop()


async def _serve(directory: Path) -> Ads | None:
    found = accepted.read(directory)
    if found is None:
        return None
    ads = Ads(_forget)
    try:
        ads.restore(found)
    except (ParseError, KeyError) as error:
        log.error("cannot read what Envoy accepted last: %s", error)  # noqa: TRY400 - one sentence
        return None
    ads.set(RUNTIME, {RECORD_ALL: 0})
    if not await ads.start(control(directory), only_if_free=True):
        return None
    log.info("no loader: Envoy is given what it last accepted")
    return ads


def _forget(_name: str, _entry: Any) -> None:
    """Records are the loader's."""
