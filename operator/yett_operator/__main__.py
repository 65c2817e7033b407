"""`python -m yett_operator`: one replica, until SIGTERM."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from typing import Any

import uvloop

from yett_operator import memory
from yett_operator.logs import configure
from yett_operator.settings import Settings, SettingsError, from_environment

log = logging.getLogger(__name__)


async def run(settings: Settings) -> None:
    """Until SIGTERM or SIGINT; an exception if the replica cannot go on."""
    # Not at the top: the compiling process imports this file, and needs none of it.
    import aiohttp.web  # noqa: PLC0415

    from yett_operator import kopfed  # noqa: PLC0415
    from yett_operator.app import Operator  # noqa: PLC0415
    from yett_operator.kube.client import Kube  # noqa: PLC0415
    from yett_operator.relay import PATH as RELAY  # noqa: PLC0415
    from yett_operator.webhook.server import AdmissionServer  # noqa: PLC0415

    async with await Kube.connect(settings.kubeconfig) as kube:
        operator = Operator(settings, kube)
        relay = aiohttp.web.get(RELAY, operator.relay_server.handle)
        admission = AdmissionServer(operator.keeper, settings.host, settings.webhook_port, [relay])
        work = asyncio.ensure_future(operator.run())
        await _first(operator.keeper.ready.wait(), work)
        started = asyncio.Event()
        life = asyncio.ensure_future(
            kopfed.run(kube, admission, operator.world.policies, settings.identity, started)
        )
        await _first(started.wait(), work, life)
        stopped = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):  # Kopf's own way takes five seconds
            asyncio.get_running_loop().add_signal_handler(number, stopped.set)
        try:
            await _first(stopped.wait(), work, life)
        finally:
            for each in (work, life):
                each.cancel()
                await asyncio.gather(each, return_exceptions=True)


async def _first(wanted: Coroutine[Any, Any, Any], *work: asyncio.Future[None]) -> None:
    """Wait for something; whatever must not end meanwhile raises what ended it."""
    waiting = asyncio.ensure_future(wanted)
    try:
        await asyncio.wait([waiting, *work], return_when=asyncio.FIRST_COMPLETED)
        for each in work:
            if each.done():
                each.result()
                raise RuntimeError("a part of the operator ended by itself")
    finally:
        waiting.cancel()


def main() -> int:
    """Exit status: 0 ended by a signal, 1 it could not go on, 2 a setting is wrong."""
    try:
        settings = from_environment(os.environ)
    except SettingsError as error:
        print(f"yett-operator: {error}", file=sys.stderr)
        return 2
    memory.set_up()
    configure(settings.log_level, settings.log_format)
    from yett_operator.kube.client import ApiError  # noqa: PLC0415 - as above

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run(settings))
    except ApiError as error:
        print(f"yett-operator: {error}", file=sys.stderr)
        return 1
    except Exception:
        log.exception("the operator cannot go on")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
